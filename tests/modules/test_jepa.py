"""The JEPA: imagining, masks, and learning a real world."""

from __future__ import annotations

import copy

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from agent.bench.memory import moment
from modules.messages import (
    SIGNALS,
    ActionSpec,
    Directive,
    Experience,
    State,
    WorldSpec,
)
from modules.objectives.none import Unregularised
from modules.objectives.sigreg import SIGReg
from modules.objectives.vicreg import VICReg
from modules.perception.vectors import Vectors
from modules.ports import Batch, Learnable, WorldModel
from modules.world_model.jepa import JEPA

LEARNING_KEY = torch.tensor([7])

TOKENS, LATENT, ACTION = (2, 3), 12, 3
WORLD = WorldSpec(
    id="test/World-v0",
    pixels=None,
    vector=4,
    signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=ACTION),
)


def jepa(ensemble_size: int = 1, fresh: bool = False, **settings: float) -> JEPA:
    """A model; unless `fresh`, its weights and statistics are random."""
    torch.manual_seed(0)
    model = JEPA(
        config=JEPA.Config(width=32, ensemble_size=ensemble_size, **settings),
        world=WORLD,
        latent_size=LATENT,
        token_shape=TOKENS,
        objective=Unregularised(),
    )
    if not fresh:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.latent_stats.update(torch.randn(50, LATENT) * 2 + 1)
        model.delta_stats.update(torch.randn(50, LATENT) * 0.3)
        model.signal_stats.update(torch.randn(50, len(SIGNALS)))
    return model


def state(rows: int, hidden: Tensor | None = None) -> State:
    return State(
        latent=torch.randn(rows, LATENT),
        hidden=torch.zeros(rows, TOKENS[0] * TOKENS[1]) if hidden is None else hidden,
        signals=torch.zeros(rows, len(SIGNALS)),
        ended=torch.zeros(rows),
        uncertainty=torch.zeros(rows),
    )


def states_of(latents: Tensor) -> list[State]:
    """`latents` [B W D] as W states."""
    rows = len(latents)
    return [
        State(
            latent=latents[:, t],
            hidden=torch.zeros(rows, 0),
            signals=torch.zeros(rows, len(SIGNALS)),
            ended=torch.zeros(rows),
            uncertainty=torch.zeros(rows),
        )
        for t in range(latents.shape[1])
    ]


def windows(rows: int, steps: int) -> Experience:
    none = torch.zeros(rows, steps, dtype=torch.bool)
    return Experience(
        frames=None,
        vectors=torch.randn(rows, steps, 4),
        actions=torch.randn(rows, steps, ACTION),
        signals=torch.randn(rows, steps, len(SIGNALS)),
        terminated=none.clone(),
        truncated=none.clone(),
        mask=~none,
        importance_weights=torch.ones(rows),
        indices=torch.arange(rows),
    )


def test_it_is_a_world_model_that_learns() -> None:
    model = jepa()
    assert isinstance(model, WorldModel)
    assert isinstance(model, Learnable)


@pytest.mark.parametrize("ensemble", [1, 3])
def test_a_fresh_model_expects_no_change_and_no_end(ensemble: int) -> None:
    before = state(5)
    after = jepa(ensemble, fresh=True).step(before, torch.randn(5, ACTION))
    torch.testing.assert_close(after.latent, before.latent, rtol=0, atol=1e-6)
    assert torch.equal(after.signals, torch.zeros(5, len(SIGNALS)))
    assert after.ended.max() < 0.01
    assert (after.uncertainty > 0).all() == (ensemble > 1)


@pytest.mark.parametrize("ensemble", [1, 3])
def test_gradients_reach_every_action_of_five_imagined_steps(ensemble: int) -> None:
    model = jepa(ensemble)
    actions = torch.randn(5, 4, ACTION).softmax(-1).requires_grad_(True)
    now = state(4)
    for action in actions:
        now = model.step(now, action)
    energy = now.latent.sum() + now.signals.sum() + now.ended.sum() + now.uncertainty.sum()
    energy.backward()
    assert actions.grad is not None
    assert torch.isfinite(actions.grad).all()
    assert (actions.grad.abs().amax(-1) > 0).all()


def test_the_gradient_of_an_action_is_the_slope() -> None:
    model = jepa().double()
    before = State.unchecked(
        **{
            name: None if value is None else value.double()
            for name, value in state(2).__dict__.items()
        }
    )

    def score(action: Tensor) -> Tensor:
        return model.step(model.step(before, action), action).signals[:, 0]

    action = torch.randn(2, ACTION, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(score, (action,))


def test_candidates_do_not_disturb_each_other_and_end_is_a_probability() -> None:
    model, before, action = jepa(3), state(6), torch.randn(6, ACTION)
    together = model.step(before, action)
    assert ((together.ended > 0) & (together.ended < 1)).all()
    for row in range(6):
        one = torch.tensor([row])
        alone = model.step(before.select(one), action[one])
        torch.testing.assert_close(alone.latent[0], together.latent[row])
        torch.testing.assert_close(alone.uncertainty[0], together.uncertainty[row])


def test_tokens_of_the_directive_modulate_the_prediction() -> None:
    tokens = torch.randn(3, *TOKENS)
    perceived = state(3, torch.zeros(3, 0))
    blank = moment(3, 0)
    situation = blank.situation(blank, torch.arange(3)).model_copy(update={"state": perceived})
    action = torch.randn(3, ACTION)
    fresh, taught = jepa(fresh=True), jepa()

    def under(tokens: Tensor) -> Directive:
        return blank.directive.model_copy(update={"tokens": tokens})

    def expected(model: JEPA, told: Tensor) -> State:
        return model.predict(situation, action, under(told))

    zeros = torch.zeros_like(tokens)
    assert torch.equal(expected(fresh, tokens).latent, expected(fresh, zeros).latent)
    assert (expected(taught, tokens).latent - expected(taught, zeros).latent).abs().max() > 1e-3
    said = expected(taught, tokens)
    said.check({"B": 3, "D": LATENT, "S": len(SIGNALS), "R": 0})
    begun = taught.start(situation, under(tokens))
    torch.testing.assert_close(taught.step(begun, action).latent, said.latent)


def measured(
    model: JEPA, experience: Experience, latents: Tensor, key: Tensor = LEARNING_KEY
) -> dict[str, float]:
    """The losses of a copy, so that running scales of one measurement do not reach the next."""
    losses, priorities = copy.deepcopy(model).losses(
        Batch(experience, states_of(latents), states_of(latents)), key
    )
    assert priorities is None
    return {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize("how", ["terminated", "truncated", "padded"])
def test_what_lies_behind_an_end_does_not_count(how: str) -> None:
    model, experience, latents = jepa(3), windows(4, 7), torch.randn(4, 7, LATENT)
    changed = {
        name: getattr(experience, name).clone()
        for name in ("actions", "signals", "terminated", "truncated", "mask", "vectors")
    }
    if how == "padded":
        changed["mask"][2, 4:] = False
    else:
        changed[how][2, 3] = True
        changed["mask"][2, 4:] = False
    marked = experience.replace(**changed)
    base = measured(model, marked, latents)
    assert base != measured(model, experience, latents)

    torch.manual_seed(1)
    other = latents.clone()
    other[2, 4:] = float("nan")
    scrambled = {name: changed[name].clone() for name in changed}
    scrambled["actions"][2, 4:] = 50
    # What is done on the last step of an episode leads nowhere.
    scrambled["actions"][2, 3] = -50
    scrambled["signals"][2, 4:] = 1e6
    scrambled["terminated"][2, 4:] = True
    assert measured(model, experience.replace(**scrambled), other) == base

    other[2, 3] += 1
    assert measured(model, marked, torch.where(other.isnan(), latents, other)) != base


def test_an_end_within_valid_steps_is_not_crossed() -> None:
    model, experience, latents = jepa(), windows(3, 6), torch.randn(3, 6, LATENT)
    terminated = experience.terminated.clone()
    terminated[1, 2] = True
    marked = experience.replace(terminated=terminated)
    for scale in (model.latent_stats, model.delta_stats, model.signal_stats, model.error_stats):
        scale.decay = 1.0
        scale.count.fill_(1e9)
    base = measured(model, marked, latents)
    beyond = latents.clone()
    beyond[1, 3:] += 5
    again = measured(model, marked, beyond)
    assert again == pytest.approx(base, rel=1e-4)
    valid = experience.mask.clone()
    valid[1, 3:] = False
    padded = measured(model, marked.replace(mask=valid), latents)
    assert padded == pytest.approx(base, rel=1e-4)


def test_the_losses_are_their_formulas() -> None:
    model, experience, latents = jepa(), windows(3, 4), torch.randn(3, 4, LATENT)
    terminated = experience.terminated.clone()
    terminated[0, 2] = True
    valid = experience.mask.clone()
    valid[0, 3:] = False
    experience = experience.replace(
        terminated=terminated, mask=valid, importance_weights=torch.tensor([0.5, 1.0, 2.0])
    )
    got, _ = model.losses(
        Batch(experience, states_of(latents), states_of(latents + 0.1)), LEARNING_KEY
    )

    scale = model.latent_stats.deviation()
    unit = torch.maximum(
        (scale * model.delta_stats.magnitude()).sqrt(), model.error_stats.magnitude()
    )
    wanted = {"prediction": 0.0, "signals": 0.0, "ended": 0.0}
    count = 0
    for b, steps in enumerate([2, 3, 3]):
        now = states_of(latents)[0].select(torch.tensor([b]))
        now = now.replace(hidden=torch.zeros(1, 6))
        for t in range(steps):
            now = model.step(now, experience.actions[b, t][None])
            weight = experience.importance_weights[b].item()
            error = (now.latent[0] - latents[b, t + 1] - 0.1) / unit
            wanted["prediction"] += weight * error.square().mean().item()
            felt = now.signals[0].sign() * now.signals[0].abs().log1p()
            real = experience.signals[b, t + 1]
            real = real.sign() * real.abs().log1p()
            error = (felt - real) / model.signal_stats.deviation()
            wanted["signals"] += weight * error.square().mean().item()
            chance = now.ended[0] if terminated[b, t + 1] else 1 - now.ended[0]
            wanted["ended"] -= weight * chance.log().item()
            count += 1
    assert count == 8
    for name, total in wanted.items():
        assert got[name].item() == pytest.approx(total / count, rel=1e-4), name


def test_invariance_is_the_error_between_two_views_in_units_of_the_deviation() -> None:
    model, experience = jepa(), windows(3, 4)
    latents, views = torch.randn(3, 4, LATENT), torch.randn(3, 4, LATENT)
    experience = experience.replace(importance_weights=torch.tensor([0.5, 1.0, 2.0]))
    assert (
        "invariance"
        not in model.losses(Batch(experience, states_of(latents), states_of(views)), LEARNING_KEY)[
            0
        ]
    )
    model = jepa(invariance_weight=3.0)
    got, _ = model.losses(Batch(experience, states_of(latents), states_of(views)), LEARNING_KEY)
    scale, total = model.latent_stats.deviation(), 0.0
    for b, weight in enumerate([0.5, 1.0, 2.0]):
        total += weight * ((latents[b, 0] - views[b, 0]) / scale).square().mean().item()
    assert got["invariance"].item() == pytest.approx(3 * total / 3, rel=1e-4)
    assert bool(model.target_mask(experience, 1)[:, 0].all())


def test_targets_get_no_gradient_and_the_first_state_does() -> None:
    model, experience = jepa(), windows(4, 6)
    online = torch.randn(4, 6, LATENT, requires_grad=True)
    target = torch.randn(4, 6, LATENT, requires_grad=True)
    losses, _ = model.losses(Batch(experience, states_of(online), states_of(target)), LEARNING_KEY)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert target.grad is None
    assert online.grad is not None
    assert online.grad[:, 0].abs().max() > 0


def test_with_a_gradient_into_targets_both_ends_of_a_transition_are_online_encodings() -> None:
    model, experience = jepa(unroll_steps=1, target_grad_scale=1), windows(4, 2)
    online = torch.randn(4, 2, LATENT, requires_grad=True)
    target = torch.randn(4, 2, LATENT, requires_grad=True)
    losses, _ = model.losses(Batch(experience, states_of(online), states_of(target)), LEARNING_KEY)
    got = torch.autograd.grad(losses["prediction"], online)[0]
    assert target.grad is None
    start = states_of(online)[0].replace(hidden=torch.zeros(4, 6))
    error = model.step(start, experience.actions[:, 0]).latent - online[:, 1]
    expected = (error / model._error_unit()).square().mean()
    assert losses["prediction"].item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(got, torch.autograd.grad(expected, online)[0])
    assert got[:, 1].abs().min() > 0
    assert not model.target_mask(experience, 2).any()
    views = jepa(unroll_steps=1, target_grad_scale=1, invariance_weight=1)
    assert views.target_mask(experience, 2).tolist() == [[True, False]] * 4


def test_a_share_of_the_gradient_reaches_the_encoding_of_what_is_predicted() -> None:
    experience, latents, slopes = windows(5, 2), torch.randn(5, 2, LATENT), {}
    for share in (0.25, 1.0):
        model = jepa(unroll_steps=1, target_grad_scale=share)
        ours = latents.clone().requires_grad_(True)
        batch = Batch(experience, states_of(ours), states_of(latents))
        losses, _ = model.losses(batch, LEARNING_KEY)
        (slope,) = torch.autograd.grad(losses["prediction"], ours)
        slopes[share] = slope
    torch.testing.assert_close(slopes[0.25][:, 1], 0.25 * slopes[1.0][:, 1])
    torch.testing.assert_close(slopes[0.25][:, 0], slopes[1.0][:, 0])


def test_the_gradient_through_the_target_is_scaled_as_that_through_the_start() -> None:
    experience, latents, gradients = windows(6, 4), torch.randn(6, 4, LATENT), []
    for share in (1.0, 0.25):
        model = jepa(unroll_steps=3, target_grad_scale=1, encoder_grad_scale=share)
        online = latents.clone().requires_grad_(True)
        losses, _ = model.losses(
            Batch(experience, states_of(online), states_of(latents)), LEARNING_KEY
        )
        gradients.append(torch.autograd.grad(losses["prediction"], online)[0])
    torch.testing.assert_close(gradients[1], 0.25 * gradients[0])


def test_shaping_is_the_share_of_the_gradient_that_goes_on_into_the_perception() -> None:
    experience, found = windows(6, 4), {}
    latents = torch.randn(6, 4, LATENT)
    for share in (1.0, 0.25, 0.0):
        model = jepa(invariance_weight=2.0, encoder_grad_scale=share)
        model.objective = VICReg(config=VICReg.Config())
        online = latents.clone().requires_grad_(True)
        losses, _ = model.losses(
            Batch(experience, states_of(online[:, :1]), states_of(latents + 0.1)), LEARNING_KEY
        )
        total = torch.stack(list(losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        grad = torch.zeros_like(online) if online.grad is None else online.grad
        found[share] = total.item(), grad, model.change.weight.grad
    whole = found[1.0]
    for share, (total, shaped, own) in found.items():
        assert total == pytest.approx(whole[0])
        torch.testing.assert_close(shaped, share * whole[1])
        torch.testing.assert_close(own, whole[2])


def test_it_learns_from_its_share_of_the_windows_and_asks_for_no_others() -> None:
    experience, latents = windows(8, 4), torch.randn(8, 4, LATENT)
    few, whole = jepa(batch_fraction=0.3), jepa()
    chosen = torch.tensor([0, 2, 5])
    read = few.target_mask(experience, 1)
    assert read[chosen].equal(whole.target_mask(experience, 1)[chosen])
    assert read.any(1).nonzero().flatten().equal(chosen)
    mine, _ = few.losses(
        Batch(experience, states_of(latents[:, :1]), states_of(latents)), LEARNING_KEY
    )
    part = experience.select(chosen), states_of(latents[chosen, :1]), states_of(latents[chosen])
    theirs, _ = whole.losses(Batch(*part), LEARNING_KEY)
    for name, loss in theirs.items():
        torch.testing.assert_close(mine[name], loss)


OBJECTIVES = [VICReg(config=VICReg.Config()), SIGReg(config=SIGReg.Config(num_slices=8))]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objective_is_part_of_the_losses(objective: VICReg | SIGReg) -> None:
    model, experience, latents = jepa(), windows(4, 6), torch.randn(4, 6, LATENT)
    model.objective = objective
    valid = experience.mask.clone()
    valid[1, 3:] = False
    first = measured(model, experience.replace(mask=valid), latents)
    assert len(first) > 3
    changed = torch.where(valid[..., None], latents, 99.0)
    assert measured(model, experience.replace(mask=valid), changed) == first
    second = measured(model, experience.replace(mask=valid), latents, LEARNING_KEY + 1)
    assert (second == first) == isinstance(objective, VICReg)


def test_heads_learn_from_windows_that_follow_from_the_seed_and_never_change() -> None:
    """A bootstrap (Osband et al. 2016): each head has its own half of the windows."""

    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        model = JEPA(
            config=JEPA.Config(width=32, ensemble_size=3),
            world=WORLD,
            latent_size=LATENT,
            token_shape=TOKENS,
            objective=Unregularised(),
        )
        drawn = model._bootstrap_weights(torch.arange(400))
        model.on_update()
        assert drawn.equal(model._bootstrap_weights(torch.arange(400)))
        return drawn

    first, second = weights(1), weights(2)
    assert first.equal(weights(1))
    assert 0.4 < (first != second).float().mean() < 0.6
    assert first.unique().tolist() == [0, 2]
    assert ((first.mean(0) - 1).abs() < 0.15).all()


def test_no_transition_at_all_is_no_loss() -> None:
    model, experience, latents = jepa(3), windows(2, 4), torch.randn(2, 4, LATENT)
    none = experience.replace(mask=torch.zeros(2, 4, dtype=torch.bool))
    assert measured(model, none, latents) == {"prediction": 0, "signals": 0, "ended": 0}


# -- a real world ---------------------------------------------------------------------------


def cart_pole(episodes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of 6 steps of random CartPole: vectors, encoded actions, terminated."""
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(seed)
    vectors, actions, ends = [], [], []
    for episode in range(episodes):
        seen, over = [env.reset(seed=seed + episode)[0]], [False]
        done: list[int] = []
        while not over[-1]:
            action = int(env.action_space.sample())
            observed, _, terminated, _, _ = env.step(action)
            done.append(action)
            seen.append(observed)
            over.append(bool(terminated))
        done.append(0)
        for start in range(len(seen) - 5):
            vectors.append(torch.from_numpy(np.stack(seen[start : start + 6])))
            actions.append(torch.tensor(done[start : start + 6]))
            ends.append(torch.tensor(over[start : start + 6]))
    env.close()
    hot = torch.nn.functional.one_hot(torch.stack(actions), 2).float()
    return torch.stack(vectors), hot, torch.stack(ends)


def test_it_learns_cart_pole_from_experience() -> None:
    torch.manual_seed(0)
    world = WORLD.model_copy(update={"actions": ActionSpec(discrete=True, size=2)})
    perception = Vectors(config=Vectors.Config(width=32), world=world, token_shape=TOKENS)
    model = JEPA(
        world=world,
        latent_size=perception.latent_size,
        token_shape=TOKENS,
        objective=Unregularised(),
        config=JEPA.Config(width=128, ensemble_size=1),
    )
    vectors, actions, ends = cart_pole(episodes=120, seed=0)

    def batch(rows: Tensor) -> Experience:
        signals = torch.zeros(len(rows), 6, len(SIGNALS))
        signals[:, :, 0] = 1.0
        signals[:, :, SIGNALS.index("end")] = ends[rows].float()
        return Experience(
            frames=None,
            vectors=vectors[rows],
            actions=actions[rows],
            signals=signals,
            terminated=ends[rows],
            truncated=torch.zeros_like(ends[rows]),
            mask=torch.ones_like(ends[rows]),
            importance_weights=torch.ones(len(rows)),
            indices=rows,
        )

    descent = torch.optim.Adam([*perception.parameters(), *model.parameters()], lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(descent, 1.0, 0.02, 350)
    for _ in range(350):
        experience = batch(torch.randint(len(vectors), (64,)))
        latents = perception.encode_windows(experience)
        states = states_of(latents)
        descent.zero_grad()
        losses, _ = model.losses(
            Batch(experience, states, states_of(latents.detach())), LEARNING_KEY
        )
        sum(losses.values()).backward()  # type: ignore[union-attr]
        descent.step()
        schedule.step()
        model.on_update()

    vectors, actions, ends = cart_pole(episodes=40, seed=10_000)
    everything = batch(torch.arange(len(vectors)))
    with torch.no_grad():
        latents = perception.encode_windows(everything)
        now = states_of(latents)[0]
        for t in range(5):
            now = State.unchecked(**{**now.__dict__, "hidden": torch.zeros(len(vectors), 6)})
            now = model.step(now, actions[:, t])
    # Judged on the observation's own numbers, in units of their spread.
    spread = latents[:, 5, :4].std(0)
    error = ((now.latent - latents[:, 5])[:, :4] / spread).square().mean().sqrt()
    persistence = ((latents[:, 0] - latents[:, 5])[:, :4] / spread).square().mean().sqrt()
    assert error < 0.15 * persistence, (error, persistence)

    score, over = now.signals[:, 0], ends[:, 5]
    torch.testing.assert_close(score, torch.ones_like(score), rtol=0, atol=0.05)
    assert now.ended[over].median() > 0.3
    assert now.ended[~over].median() < 0.05
