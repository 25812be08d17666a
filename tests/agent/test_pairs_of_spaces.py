"""A tiny environment for each pair of observation and action space, with a known best policy."""

import numpy as np
import pytest
import torch

from agent import train
from tests.worlds.foreign_spaces import OBSERVATIONS, PAIRS, STEPS, slug
from worlds.make import make_world

PERCEPTS = {name: f"SextetPair/{slug(name)}-discrete-v0" for name in OBSERVATIONS}


def observed(observation):
    """The numbers that an agent gets, [B N]; those of the desired goal aside."""
    numbers = observation.pixels if observation.pixels is not None else observation.vector
    return numbers.flatten(1).float()


def candidates(actions):
    """Encoded actions to choose from, [A A'], spread over the whole space."""
    if actions.discrete:
        return torch.eye(actions.size)
    grid = [torch.linspace(-1, 1, 13)] * actions.size
    return torch.cartesian_prod(*grid).view(-1, actions.size)


def returns_of_the_best(world, steps):
    """Mean reward of a step of the policy that remembers which action paid for which observation,
    of the second half of `steps`.
    """
    paid, rewards = {}, []
    options, draw = candidates(world.spec.actions), np.random.default_rng(0)
    observation = world.reset(0)
    for _ in range(steps):
        # A context is what the observations that have it have in common.
        key = tuple(observed(observation)[0].tolist())
        known = paid.get(key)
        index = known if known is not None else int(draw.integers(len(options)))
        ended = bool(observation.ended[0])
        observation = world.step(options[index][None])
        if ended:
            continue
        reward = float(observation.signals[0, 0])
        rewards.append(reward)
        if reward == 1:
            paid[key] = index
    return float(np.mean(rewards[len(rewards) // 2 :]))


@pytest.mark.parametrize("id", list(PAIRS))
def test_the_best_policy_can_be_followed_through_what_an_agent_sees_and_does(id):
    """Two contexts are never shown alike, and every best action can be chosen."""
    seen, _ = PAIRS[id]
    world = make_world(id)
    try:
        # Twice as many observations where a part of them says nothing.
        assert returns_of_the_best(world, 400 if seen == "MultiDiscrete" else 250) >= 0.9
    finally:
        world.close()


@pytest.mark.parametrize("id", list(PERCEPTS.values()))
def test_a_snapshot_of_every_pair_continues(id):
    world, other = make_world(id), make_world(id)
    world.reset(3)
    for action in torch.eye(3)[[0, 2, 1]]:
        observation = world.step(action[None])
    restored = other.restore(world.snapshot())
    assert torch.equal(observed(restored), observed(observation))
    assert torch.equal(restored.signals, observation.signals)


def learned(id, folder, steps, *settings):
    """Mean reward of a step in the last evaluation of `sextet train` by default settings."""
    run = train(id, *settings, steps=steps, seed=0, run=folder)
    return run.evaluation / STEPS


FEW = ("training.evaluate_episodes=20", "learner.warmup_steps=100", "learner.replay_ratio=1")


def test_a_dict_is_learned_with_a_product_of_actions(tmp_path):
    id = f"SextetPair/{slug('Dict')}-{slug('MultiDiscrete')}-v0"
    assert learned(id, tmp_path / "run", 400, *FEW, "training.evaluate_every=400") >= 0.9


def is_picture(seen):
    return "picture" in seen and seen != "Text and picture"


@pytest.mark.slow
@pytest.mark.parametrize("id", list(PAIRS))
def test_every_pair_is_learned_by_default_settings(id, tmp_path):
    seen, acted = PAIRS[id]
    steps = 1500 if is_picture(seen) else 800 if "Box" in acted else 2000
    settings = ["training.evaluate_episodes=10", f"training.evaluate_every={steps}"]
    if is_picture(seen):
        settings.append("learner.warmup_steps=300")
    assert learned(id, tmp_path / "run", steps, *settings) >= 0.9
