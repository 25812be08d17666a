"""A small agent that learns CartPole, for the tests of learning."""

from __future__ import annotations

from pathlib import Path

import torch

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.learning.learner import Learner
from agent.learning.training import Training
from agent.recording import checkpoint

LEARNING_KEY = torch.tensor([7])


SMALL = {
    "world": {"id": "CartPole-v1"},
    "perception": {"kind": "vectors", "width": 32},
    "world_model": {
        "kind": "jepa",
        "width": 32,
        "blocks": 1,
        "ensemble_size": 2,
        "unroll_steps": 3,
    },
    "cost": {"critic": {"kind": "actions", "width": 32}},
    "memory": {"capacity": 500, "priority_exponent": 0.5},
    "actor": {"policy": {"kind": "greedy", "epsilon": 0.2}},
    "configurator": {"kind": "fixed", "mode": 1},
    "learner": {"batch": 8, "warmup_steps": 20, "replay_ratio": 0.5},
}


def made(**learner: object) -> Assembly:
    tree = {**SMALL, "learner": {**SMALL["learner"], **learner}}
    return assemble(tree, known_kinds(), training=True)


def learner_of(assembly: Assembly, device: torch.device | None = None, **settings) -> Learner:
    config = assembly.config.settings.learner.model_copy(update=settings)
    return Learner(assembly.agent, config=config, seed=3, device=device)


def trained(folder: Path, steps: int, resume: checkpoint.Checkpoint | None = None) -> Training:
    folder.mkdir(exist_ok=True)
    assembly = made(reset_every=17, imagination_horizon=2, average_share=0.5)
    training = Training(
        assembly.agent,
        assembly.world,
        learner_of(assembly),
        folder,
        Training.Config(steps=steps, report_every=20, evaluate_every=0, checkpoint_every=50),
        evaluate=lambda: [1.0, 2.0, 3.0],
        seed=3,
    )
    for _ in training.run(resume):
        pass
    return training


def weights_now(learner):
    """The weights that learn, not their averages."""
    return {
        f"{port}/{name}": value
        for port, module in learner.online_modules.items()
        for name, value in module.state_dict().items()
    }
