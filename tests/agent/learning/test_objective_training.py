"""Objectives of views and trajectories in real updates and trainings of CartPole."""

from __future__ import annotations

import pytest
import torch
from small_training import SMALL
from torch import Tensor

from agent.api.train import train
from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.merge import dotted, merge
from agent.learning.learner import Learner
from agent.live import live
from agent.recording import checkpoint
from modules import chance
from modules.messages import ConfigError, latents_of
from modules.objectives.objective import encodings_of

OBJECTIVE = "world_model.objective"
TARGET_GRADIENT = (
    "!world_model.target_grad_scale=1",
    "!world_model.unroll_steps=2",
    "!learner.online_steps=3",
)


def assembled(*overrides: str) -> Assembly:
    return assemble(merge(SMALL, dotted(overrides)), known_kinds(), training=True)


def learner_after(steps: int, *overrides: str) -> Learner:
    assembly = assembled(*overrides)
    for _ in live(assembly.agent, assembly.world, steps, 0):
        pass
    assembly.world.close()
    return Learner(assembly.agent, config=assembly.config.settings.learner, seed=3)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("kind=smoothness",), "learner.online_steps: expected at least 2 with the objective"),
        (("kind=inverse-dynamics",), "got 1; try learner.online_steps=2"),
        (("kind=straightening", "!learner.online_steps=2"), "expected at least 3"),
        (("kind=sum", "parts=[vicreg, straightening]"), "expected at least 3 with the objective"),
        (
            ("kind=infonce", "!world_model.encoder_grad_scale=0"),
            "encoder_grad_scale: expected abov",
        ),
        (("kind=barlow", "!learner.train_modules=[world_model]"), "expected perception among them"),
        (
            ("kind=vicreg", "!world_model.target_grad_scale=1", "!world_model.unroll_steps=2"),
            "online_steps: expected at least 3 with world_model.target_grad_scale and unroll",
        ),
        (
            ("kind=vicreg", *TARGET_GRADIENT, "!world_model.encoder_grad_scale=0"),
            "config world_model.target_grad_scale: expected a perception that learns",
        ),
        (
            ("kind=vicreg", *TARGET_GRADIENT, "!learner.train_modules=[world_model]"),
            "config world_model.target_grad_scale: expected a perception that learns",
        ),
        (
            (*TARGET_GRADIENT, "!world_model.kind=generative"),
            "config world_model.target_grad_scale: expected 0 with 'generative'",
        ),
        (("kind=vicreg", *TARGET_GRADIENT), None),
        (("kind=smoothness", "!learner.train_modules=[cost]"), None),
        (("kind=vicreg", "!world_model.encoder_grad_scale=0"), None),
        (("kind=straightening", "!learner.online_steps=3"), None),
        (("kind=sum", "parts=[barlow, infonce]"), None),
    ],
)
def test_an_objective_that_a_training_would_leave_without_effect_is_refused(overrides, expected):
    words = [o[1:] if o[0] == "!" else f"{OBJECTIVE}.{o}" for o in overrides]
    if expected is None:
        assembled(*words).world.close()
        return
    with pytest.raises(ConfigError) as caught:
        assembled(*words)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    # Nothing learns where an agent only acts, so there the same settings are no mistake.
    assemble(merge(SMALL, dotted(words)), known_kinds()).world.close()


def test_the_other_view_of_every_window_is_encoded_where_an_objective_reads_it():
    for kind, read in (("infonce", True), ("barlow", True), ("vicreg", False)):
        learner = learner_after(60, f"{OBJECTIVE}.kind={kind}", "world_model.batch_fraction=0.5")
        experience = learner.memory.sample(8, learner.window_steps(), chance.keys(0, 1, 0))
        mask = learner.modules.world_model.target_mask(experience, 1)
        assert mask[:, 0].tolist() == (experience.mask[:, 0] & read).tolist()
        assert 0 < mask[:, 1].sum() <= 4


def test_windows_are_as_long_as_an_objective_needs():
    short = ("world_model.unroll_steps=1", "learner.online_steps=3")
    for kind, steps in (("straightening", 3), ("smoothness", 2), ("none", 2)):
        learner = learner_after(40, f"{OBJECTIVE}.kind={kind}", *short)
        assert learner.modules.world_model.window_steps() == steps
        assert f"world_model/{kind}" in learner.update() or kind == "none"


SUM = (
    f"{OBJECTIVE}.kind=sum",
    f"{OBJECTIVE}.parts=[{{kind: vicreg, std_coeff: 16}}, {{kind: inverse-dynamics, width: 32}}, "
    "{kind: smoothness, weight: 4}, {kind: straightening, weight: .2}, barlow, "
    "{kind: infonce, weight: .2}]",
    "learner.online_steps=3",
    "learner.batch=32",
    "world_model.batch_fraction=0.5",
)


def test_gradients_of_each_part_reach_the_perception_and_its_own_network():
    learner = learner_after(80, *SUM)
    experience = learner.memory.sample(32, learner.window_steps(), chance.keys(0, 1, 0))
    batch = learner.encode(experience, chance.keys(0, 1, 0))
    model, perception = learner.modules.world_model, learner.modules.perception
    losses, _ = model.losses(batch, chance.keys(0, 1, 0))
    own = ["variance", "covariance", "inverse dynamics", "smoothness", "straightening"]
    weights = [*perception.parameters()]
    for name in (*own, "barlow", "infonce"):
        gradients = torch.autograd.grad(losses[name], weights, retain_graph=True, allow_unused=True)
        assert max(float(g.abs().max()) for g in gradients if g is not None) > 0, name
    network = [*model.objective.parameters()]
    assert network
    assert all(g.any() for g in torch.autograd.grad(losses["inverse dynamics"], network))


def test_every_window_counts_and_encoder_grad_scale_holds_for_the_perception_alone():
    gradients, losses = {}, {}
    for scale in ("1", "0.25"):
        learner = learner_after(80, *SUM, f"world_model.encoder_grad_scale={scale}")
        experience = learner.memory.sample(32, learner.window_steps(), chance.keys(0, 1, 0))
        batch = learner.encode(experience, chance.keys(0, 1, 0))
        model, perception = learner.modules.world_model, learner.modules.perception
        named, _ = model.losses(batch, chance.keys(0, 1, 0))
        losses[scale] = named
        of = [perception.network.last.weight, model.objective.networks["1"].network.last.weight]
        gradients[scale] = torch.autograd.grad(named["inverse dynamics"], of)
    for name, loss in losses["1"].items():
        assert loss.equal(losses["0.25"][name])
    torch.testing.assert_close(gradients["0.25"][0], gradients["1"][0] / 4)
    assert gradients["0.25"][1].equal(gradients["1"][1])
    # All 32 windows, though the predictor learns from half of them.
    latents = latents_of(batch.states)
    over = experience.terminated | experience.truncated
    whole = encodings_of(batch, latents.flatten(0, 1), latents, experience.mask, over)
    for part, name in ((4, "barlow"), (5, "infonce"), (2, "smoothness")):
        expected = model.objective.parts[part].penalties(whole, chance.keys(0, 1, 0))[name]
        torch.testing.assert_close(losses["1"][name], expected)


def trained(parts: str, updates: int) -> tuple[list[dict[str, float]], Tensor, Tensor]:
    """The losses of each update of a recipe, the learned features [B W F] of windows it has
    learned from, and which are of one episode [B W].
    """
    learner = learner_after(
        200, f"{OBJECTIVE}.kind=sum", f"{OBJECTIVE}.parts={parts}", "learner.online_steps=3",
        "learner.batch=32", "learner.learning_rate=2e-3",
    )  # fmt: skip
    losses = [learner.update() for _ in range(updates)]
    experience = learner.memory.sample(200, 4, chance.keys(5, 1, 0))
    with torch.no_grad():
        latents = learner.modules.perception.encode_windows(experience)
    return losses, latents[:, :, 4:], experience.mask


RECIPE = "[vicreg, {kind: inverse-dynamics, width: 32}, {kind: smoothness, weight: WEIGHT}]"


def test_a_recipe_of_three_parts_trains_and_each_does_its_work():
    """Variance, action and smoothness, as in EB-JEPA: what each part asks for comes about."""
    changes = {}
    for weight in ("0", "100"):
        losses, features, mask = trained(RECIPE.replace("WEIGHT", weight), 100)
        for name in ("variance", "inverse dynamics", "prediction"):
            first, last = (
                sum(one[f"world_model/{name}"] for one in of) for of in (losses[:10], losses[-10:])
            )
            assert last < {"variance": 0.97}.get(name, 0.5) * first, (weight, name, first, last)
        changes[weight] = features.diff(dim=1)[mask[:, 1:]].square().mean().sqrt().item()
    assert changes["100"] < 0.7 * changes["0"], changes


@pytest.mark.slow
def test_redundancy_reduction_raises_the_rank_of_the_features():
    ranks = []
    for parts in ("[none]", "[{kind: barlow, weight: 2, redundancy_weight: .1}, smoothness]"):
        features = trained(parts, 150)[1].flatten(0, 1)
        spectrum = torch.linalg.svdvals(features - features.mean(0))
        share = spectrum / spectrum.sum()
        ranks.append((-share * share.log()).sum().exp().item())
    assert ranks[1] > 1.6 * ranks[0], ranks


def test_a_training_with_a_sum_is_saved_loaded_and_resumed_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = (
        *SUM, "learner.warmup_steps=30", "training.evaluate_every=0", "perception.width=16",
        "training.evaluate_episodes=1", "training.checkpoint_every=40", "learner.ema_rate=0.5",
    )  # fmt: skip
    train("CartPole-v1", *small, seed=1, steps=80, run="whole")
    train("CartPole-v1", *small, seed=1, steps=40, run="cut")
    result = train(resume="cut", steps=80)
    assert result.resumed_at == 40
    whole, cut = (
        checkpoint.load(tmp_path / run / "checkpoints" / "80") for run in ("whole", "cut")
    )
    network = "world_model/objective.networks.1.network.last.weight"
    assert network in whole.tensors["weights"]
    for group in ("weights", "learner"):
        mine, theirs = whole.tensors[group], cut.tensors[group]
        assert mine.keys() == theirs.keys()
        assert all(mine[name].equal(theirs[name]) for name in mine)
    begun = checkpoint.load(tmp_path / "cut" / "checkpoints" / "40")
    assert not begun.tensors["weights"][network].equal(cut.tensors["weights"][network])
