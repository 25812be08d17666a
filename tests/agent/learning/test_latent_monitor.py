"""A training names a latent variable that leaks or is ignored, and no sound one."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_training import SMALL, learner_of

from agent.assembly.build import assemble, known_kinds
from agent.assembly.merge import merge
from agent.learning.training import Progress, Training

FORK = "sextet/Fork-state-v0"


def progress_of(folder: Path, world: str, latent: dict[str, object]) -> Progress:
    """The last report of a training on random actions with that z."""
    tree = merge(SMALL, {
        "world": {"id": world, "num_envs": 10},
        "perception": {"features": 1},
        "world_model": {
            "kind": "latent-jepa", "latent": latent, "ensemble_size": 1, "unroll_steps": 1,
            "objective": {"kind": "none"},
        },
        "memory": {"capacity": 2000, "priority_exponent": 0},
        "actor": {"policy": {"kind": "categorical"}},
        "learner": {
            "batch": 64, "replay_ratio": 0.4, "warmup_steps": 300, "ema_rate": 0.02,
            "learning_rate": 3e-3, "train_modules": ["world_model"],
        },
    })  # fmt: skip
    assembly = assemble(tree, known_kinds(), training=True)
    training = Training(
        assembly.agent,
        assembly.world,
        learner_of(assembly),
        folder,
        Training.Config(steps=1100, report_every=0, evaluate_every=0),
        evaluate=lambda: [1.0],
        seed=0,
    )
    *_, progress = training.run()
    return progress


CASES = {
    "sound at a fork": (FORK, {"kind": "categorical", "anneal_updates": 150}, None),
    "sound where all is certain": pytest.param(
        "CartPole-v1", {"kind": "categorical"}, None, marks=pytest.mark.slow
    ),
    # Nothing limits what z says.
    "no limit": (
        "CartPole-v1", {"kind": "gaussian", "size": 4, "weight": 0, "noise": 0.01}, "z leaks: "
    ),
    # Every code is as likely after the fact as before it.
    "no difference": (
        FORK, {"kind": "categorical", "noise_start": 100, "noise": 100}, "z is ignored: "
    ),
}  # fmt: skip


@pytest.mark.parametrize(("world", "latent", "named"), CASES.values(), ids=CASES.keys())
def test_a_latent_variable_that_fails_is_named(tmp_path, world, latent, named):
    progress = progress_of(tmp_path, world, latent)
    lines = [line for line in progress.warnings if "LatentJEPA: z " in line]
    assert [named is not None] == [bool(lines)]
    if named:
        (line,) = lines
        assert line.startswith(f"world model LatentJEPA: {named}")
        assert line.endswith("(world_model.latent)")
    assert '"health/latent_explained"' in (tmp_path / "metrics.jsonl").read_text()
