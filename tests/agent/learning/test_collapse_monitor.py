"""Collapse is reported by name, and a healthy agent is not."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from small_training import SMALL, learner_of, made
from torch import nn

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.merge import merge
from agent.learning.collapse_monitor import CollapseMonitor, effective_rank
from agent.learning.training import Training
from agent.live import live


def test_effective_rank_counts_directions():
    directions = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))[0][:, :5]
    flat = torch.randn(2000, 5, dtype=torch.float64) @ directions.T
    assert effective_rank(flat) == pytest.approx(5, abs=0.1)
    assert effective_rank(torch.ones(10, 3)) == 0
    line = torch.arange(10.0)[:, None] * torch.ones(1, 8)
    assert effective_rank(line) == pytest.approx(1)


def monitored(steps: int = 60) -> tuple[Assembly, CollapseMonitor]:
    assembly = made()
    monitor = CollapseMonitor(assembly.agent, 0)
    for moment in live(assembly.agent, assembly.world, steps, 0):
        monitor.add(moment.plan.action, moment.energies.intrinsic)
    return assembly, monitor


def test_a_sound_agent_is_not_warned_of():
    assembly, monitor = monitored(400)
    learner = learner_of(assembly)
    for _ in range(120):
        learner.update()
    before = {name: value.clone() for name, value in learner.weights().items()}
    monitor.examine(120)
    assert monitor.warnings == []
    assert monitor.figures["health/effective_rank"] > 1.5
    assert all(before[name].equal(value) for name, value in learner.weights().items())


@pytest.mark.parametrize(("rank", "warned"), [(4, True), (40, False)])
def test_a_few_directions_of_many_are_a_collapse(rank, warned):
    """What kept Atari from being learned: 4.5 directions of 256."""
    _, monitor = monitored()
    torch.manual_seed(0)
    monitor._perception(torch.randn(256, rank) @ torch.randn(rank, 256))
    assert any("effective rank" in text for text in monitor.warnings) is warned


def test_latents_that_are_no_numbers_are_said_by_name():
    assembly, monitor = monitored()
    perception = assembly.agent.modules.perception
    assert isinstance(perception, nn.Module)
    with torch.no_grad():
        next(perception.parameters()).fill_(torch.nan)
    monitor.examine(100)
    assert "perception Vectors: representation is not finite" in monitor.warnings


def test_collapse_is_said_by_name():
    assembly, monitor = monitored()
    perception, cost = assembly.agent.modules.perception, assembly.agent.modules.cost
    monitor.examine(99)
    assert monitor.warnings == []  # too fresh to be judged
    assert isinstance(perception, nn.Module)
    with torch.no_grad():
        for weight in perception.parameters():
            weight.zero_()
        next(reversed(list(perception.parameters()))).fill_(1.0)
    monitor.examine(100)
    assert any(
        text.startswith("perception Vectors: representation collapsed") for text in monitor.warnings
    )
    assert isinstance(cost, nn.Module)
    with torch.no_grad():
        for name, weight in cost.named_parameters():
            if "members" in name and name.endswith("last.bias"):
                weight.copy_(1e6 * torch.arange(1.0, 1 + len(weight)))
    monitor.examine(100)
    assert not any("dead" in text for text in monitor.warnings)  # it may yet come to something
    for action in range(2):
        for _ in range(300):
            monitor.add(torch.eye(2)[[action]], torch.zeros(1, len(monitor.max_intrinsic)))
        monitor.examine(100)
        dead = [text for text in monitor.warnings if "the critic prefers action" in text]
        if dead:
            break
    assert dead
    text = "\n".join(monitor.warnings)
    assert "critic ActionCritic: collapsed" in text
    assert "critic ActionCritic: saturated" in text


def test_a_policy_that_does_one_thing_is_dead():
    _, monitor = monitored()
    monitor.actions.zero_()
    monitor.steps = 0
    for _ in range(300):
        monitor.add(torch.tensor([[0.0, 1.0]]), torch.zeros(1, len(monitor.max_intrinsic)))
    monitor.examine(100)
    assert "policy Greedy: dead: action 1 in 100% of 300 steps" in monitor.warnings


class Arms(gymnasium.Env):
    """At each of 50 steps one action pays 1.5 of the scale and the other half of it."""

    observation_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None, scale=1.0):
        self.render_mode, self.scale = render_mode, scale

    def _observed(self):
        self.kind = int(self.np_random.integers(3))
        return np.eye(3, dtype=np.float32)[self.kind]

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self._observed(), {}

    def step(self, action):
        reward = self.scale * (1.5 if action == self.kind % 2 else 0.5)
        return self._observed(), reward, False, False, {}


@pytest.fixture
def arms():
    names = {scale: f"TestArms{scale}-v0" for scale in (1, 10)}
    for scale, name in names.items():
        gymnasium.register(name, Arms, kwargs={"scale": scale}, max_episode_steps=50)
    yield names
    for name in names.values():
        del gymnasium.registry[name]


@pytest.mark.parametrize(("scale", "named"), [(10, True), (1, False)])
def test_a_critic_whose_range_the_targets_leave_is_named(arms, tmp_path, scale, named):
    """Rewards of 5 to 15 are energies of -1.8 to -2.8, up to 277 in sum; the bins end at 100."""
    critic = {"kind": "actions-categorical", "num_bins": 101, "v_max": 100}
    tree = merge(
        merge(SMALL, {"cost": {"critic": critic}}),
        {"world": {"id": arms[scale]}, "discount": 0.99, "learner": {"replay_ratio": 1}},
    )
    assembly = assemble(tree, known_kinds(), training=True)
    training = Training(
        assembly.agent,
        assembly.world,
        learner_of(assembly),
        tmp_path,
        Training.Config(steps=124, report_every=0, evaluate_every=0),
        evaluate=lambda: [1.0],
        seed=0,
    )
    *_, progress = training.run()
    lines = [line for line in progress.warnings if "range" in line]
    assert len(lines) == named
    if named:
        assert "targets of 'score'" in lines[0]
        assert "bins end at 100" in lines[0]
        assert lines[0].endswith("--cost.critic.v_max=300")
