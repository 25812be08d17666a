"""The generative world model: what it draws, what it is trained by, and that it learns frames."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from test_jepa import LATENT, LEARNING_KEY, TOKENS, WORLD, state, states_of, windows
from torch import Tensor

from agent.assembly.build import assemble, known_kinds
from agent.assembly.resolve import inner_slots
from agent.learning.learner import Learner
from agent.live import live
from modules.messages import SIGNALS, Experience, WorldSpec
from modules.nets.frames import Deconvolutions
from modules.ports import Batch, Learnable, WorldModel
from modules.world_model.generative import Generative

FRAME = (36, 40, 2)
PIXELS = WORLD.model_copy(update={"pixels": FRAME, "vector": None})
CONTEXT = 1


def generative(world: WorldSpec = PIXELS, fresh: bool = False, **settings: float) -> Generative:
    """A model; unless `fresh`, its weights and statistics are random."""
    torch.manual_seed(0)
    model = Generative(
        config=Generative.Config(width=32, filters=4, **settings),
        world=world,
        latent_size=LATENT,
        token_shape=TOKENS,
        context_frames=CONTEXT if world.pixels else 0,
    )
    if not fresh:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.latent_stats.update(torch.randn(50, LATENT) * 2 + 1)
        model.delta_stats.update(torch.randn(50, LATENT) * 0.3)
        model.signal_stats.update(torch.randn(50, len(SIGNALS)))
    return model


def pixel_windows(rows: int, steps: int) -> Experience:
    frames = torch.randint(0, 256, (rows, steps + CONTEXT, *FRAME), dtype=torch.uint8)
    return windows(rows, steps).replace(frames=frames, vectors=None)


def test_it_is_a_world_model_that_learns_and_takes_a_predictor_but_no_objective() -> None:
    model = generative()
    assert isinstance(model, WorldModel)
    assert isinstance(model, Learnable)
    slots = {"predictor": "predictor", "signal_head": "signal_head"}
    assert inner_slots("world_model", Generative) == slots


@pytest.mark.parametrize("shape", [(36, 36, 1), (84, 84, 1), (64, 64, 3), (40, 210, 3), (6, 9, 1)])
def test_frames_of_any_size_are_drawn_whole(shape: tuple[int, int, int]) -> None:
    decoder = Deconvolutions(LATENT, *shape, filters=2)
    latents = torch.randn(2, LATENT)
    assert not decoder(latents).any()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    drawn = decoder(latents).view(2, *shape)
    # Every pixel depends on the latent.
    assert (drawn[0] != drawn[1]).all()


def test_a_fresh_decoder_draws_the_mean_frame() -> None:
    model, experience = generative(fresh=True), pixel_windows(3, 6)
    latents = torch.randn(3, 6, LATENT)
    model.losses(Batch(experience, states_of(latents[:, :1]), states_of(latents)), LEARNING_KEY)
    mean = experience.frames[:, CONTEXT:].float().mean((0, 1))
    drawn = model.decode(state(4))
    assert drawn.dtype == torch.uint8
    assert drawn.shape == (4, *FRAME)
    torch.testing.assert_close(drawn.float(), mean.expand(4, *FRAME), rtol=0, atol=0.51)


@pytest.mark.parametrize("heads", [1, 2])
def test_the_losses_are_their_formulas(heads: int) -> None:
    model, experience = generative(ensemble_size=heads), pixel_windows(3, 4)
    latents = torch.randn(3, 4, LATENT)
    mask = experience.mask.clone()
    mask[0, 3:] = False
    weights = torch.tensor([0.5, 1.0, 2.0])
    experience = experience.replace(mask=mask, importance_weights=weights)
    got, priorities = model.losses(
        Batch(experience, states_of(latents[:, :2]), states_of(latents)), LEARNING_KEY
    )
    assert priorities is None
    assert set(got) == {"prediction", "reconstruction", "signals", "ended"}
    bootstrap = model._bootstrap_weights(experience.indices)
    shown = experience.frames[:, CONTEXT:].float().flatten(2) / 255
    variance = shown[mask].var(0, correction=0).mean()

    def error(latent: Tensor, row: int, step: int) -> float:
        standard = (latent - model.latent_stats.centre) / model.latent_stats.deviation()
        drawn = shown[mask].mean(0) + variance.sqrt() * model.decoder(standard[None])[0]
        return ((drawn - shown[row, step]).square().mean() / variance).item()

    encoded = [weights[row] * error(latents[row, t], row, t) for row in range(3) for t in range(2)]
    assert got["reconstruction"].item() == pytest.approx(float(sum(encoded)) / 6, rel=1e-4)
    total, count = 0.0, 0
    for row, steps in enumerate([2, 3, 3]):
        now = states_of(latents)[0].select(torch.tensor([row])).replace(hidden=torch.zeros(1, 6))
        for t in range(steps):
            action = experience.actions[row, t][None]
            step = model._predict_latent(now.latent, action, now.hidden, torch.zeros(1, 0))
            of_heads = [error(latent, row, t + 1) for latent in step.heads[0]]
            total += float(weights[row] * (torch.tensor(of_heads) * bootstrap[row]).mean())
            now, count = model.step(now, action), count + 1
    assert got["prediction"].item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("name", ["reconstruction", "prediction"])
def test_the_gradient_of_the_frames_reaches_the_encoder_and_is_scaled(name: str) -> None:
    experience, latents = pixel_windows(4, 6), torch.randn(4, 6, LATENT)
    gradients = []
    for scale in (1.0, 0.25):
        model = generative(encoder_grad_scale=scale)
        online = latents[:, :1].clone().requires_grad_()
        target = latents.clone().requires_grad_()
        losses, _ = model.losses(
            Batch(experience, states_of(online), states_of(target)), LEARNING_KEY
        )
        losses[name].backward()  # type: ignore[no-untyped-call]
        assert online.grad is not None
        assert target.grad is None
        assert (online.grad.abs().amax(-1) > 0).all()
        gradients.append(online.grad)
    torch.testing.assert_close(gradients[1], 0.25 * gradients[0])


def test_what_lies_behind_an_end_is_not_drawn() -> None:
    experience, latents = pixel_windows(3, 6), torch.randn(3, 6, LATENT)
    mask = experience.mask.clone()
    mask[1, 2:] = False
    experience = experience.replace(mask=mask)
    changed = experience.frames.clone()
    changed[1, 2 + CONTEXT :] = 255
    both = []
    for frames in (experience.frames, changed):
        batch = Batch(experience.replace(frames=frames), states_of(latents), states_of(latents))
        losses, _ = generative().losses(batch, LEARNING_KEY)
        both.append({name: loss.item() for name, loss in losses.items()})
    assert both[0] == both[1]


def test_a_vector_is_decoded_where_there_are_no_frames() -> None:
    model, experience = generative(WORLD), windows(40, 6)
    latents = torch.cat([experience.vectors, torch.randn(40, 6, LATENT - 4)], -1)
    descent = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        losses, _ = model.losses(
            Batch(experience, states_of(latents[:, :1]), states_of(latents)), LEARNING_KEY
        )
        descent.zero_grad()
        losses["reconstruction"].backward()  # type: ignore[no-untyped-call]
        descent.step()
    drawn = model.decode(states_of(latents)[0])
    assert drawn.shape == (40, 4)
    assert (drawn - experience.vectors[:, 0]).square().mean() < 0.2


def test_it_learns_to_draw_the_next_frame_of_a_small_world() -> None:
    """Fork: a marker on a map. Of a held-out run, predicted frames against the mean frame."""
    tree = {
        "world": {"id": "sextet/Fork-v0", "num_envs": 2},
        "perception": {"kind": "pixels-tiny", "latent_size": 32, "frame_size": 36,
                       "frame_stack": 2, "random_shift_pixels": 0, "intensity_jitter_std": 0},
        "world_model": {"kind": "generative", "width": 64, "unroll_steps": 2, "filters": 8},
        "configurator": {"kind": "fixed", "mode": 1},
        "learner": {"batch": 16, "learning_rate": 2e-3,
                    "train_modules": ["perception", "world_model"]},
    }  # fmt: skip
    assembly = assemble(tree, known_kinds(), training=True)
    agent, world = assembly.agent, assembly.world
    for _ in live(agent, world, 400, 0):
        pass
    learner = Learner(agent, config=assembly.config.settings.learner, seed=0)
    losses = [learner.update() for _ in range(700)]
    # A prediction cannot know which branch the fork takes.
    for name, share in (("reconstruction", 0.3), ("prediction", 0.6)):
        values = [one[f"world_model/{name}"] for one in losses]
        assert sum(values[-10:]) < share * sum(values[:10]), (name, values[:3], values[-3:])

    model = agent.modules.world_model
    moments = list(live(agent, world, 100, seed=1))
    shown = torch.stack([one.observation.pixels for one in moments])
    mean = shown.float().mean((0, 1))
    predicted, baseline = [], []
    for now, after in pairwise(moments):
        continues = ~now.observation.ended
        drawn = model.decode(now.expected).float()
        real = after.observation.pixels.float()
        predicted.append((drawn - real)[continues].square().flatten(1).mean(1))
        baseline.append((mean - real)[continues].square().flatten(1).mean(1))
    error, of_mean = torch.cat(predicted), torch.cat(baseline)
    assert error.mean() < 0.75 * of_mean.mean(), (error.mean(), of_mean.mean())
    world.close()
