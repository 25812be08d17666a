"""Kills real trainings with SIGKILL at random moments, resumes them, and compares them bit for bit.

    python examples/benchmarks/resume.py --points 20 --json

For each world a training runs undisturbed once. Then, for each point, the same training is started
anew in a process of its own, killed as soon as it has passed a step drawn at random (and some
random milliseconds), and resumed here. The final states must be identical to those of the
undisturbed one: weights, target networks, optimiser, all that memory holds (so every action since),
and the state of the world. At least 200 actions lie between the last checkpoint and the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agent.api.train import train
from agent.api.training import TrainingRun
from agent.recording import checkpoint

ACTIONS = 200
EVERY = 50


@dataclass(frozen=True)
class Case:
    """A training small enough to be run many times; `steps` in all."""

    world: str
    steps: int
    settings: tuple[str, ...]


CASES = {
    "cartpole": Case(
        "CartPole-v1",
        450,
        (
            "learner.warmup_steps=60", "learner.batch=16", "learner.replay_ratio=0.25",
            "learner.reset_every=30", "learner.imagination_horizon=2", "memory.capacity=1000",
            "memory.priority_exponent=0.5",
        ),
    ),
    "pixels": Case(
        "ALE/Breakout-v5",
        480,
        (
            "world.protocol=100k", "world.num_envs=4", "perception.kind=pixels-small",
            "perception.latent_size=64", "learner.warmup_steps=100", "learner.batch=8",
            "learner.replay_ratio=0.1", "memory.capacity=1000",
            # An untrained greedy policy may never serve a ball, and a game lasts half an hour.
            "training.evaluation.actor.policy.epsilon=1.0",
        ),
    ),
}  # fmt: skip


def overrides(case: Case) -> tuple[str, ...]:
    """All settings of the training."""
    return (
        *case.settings, f"training.steps={case.steps}", "training.report_every=20",
        f"training.checkpoint_every={EVERY}", "training.evaluate_every=300",
        "training.evaluate_episodes=1",
    )  # fmt: skip


def undisturbed(case: Case, folder: Path, seed: int) -> None:
    """Trains to the end."""
    train(case.world, *overrides(case), seed=seed, run=folder)


def killed_at(case: Case, folder: Path, seed: int, step: int, wait_s: float) -> int:
    """Trains, and is killed once it has reported to be past `step`; the last step it reported."""
    settings = [f"--{setting}" for setting in overrides(case)]
    # One thread, since floating-point sums depend on their order.
    child = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "train", case.world, "--run", str(folder), "--seed",
         str(seed), *settings, "--no-live"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    reported = 0
    assert child.stdout is not None
    for line in child.stdout:
        if match := re.match(r"(\d+)/\d+ steps", line):
            reported = int(match[1])
        if reported >= step:
            time.sleep(wait_s)
            break
    child.kill()
    child.stdout.close()
    child.wait()
    return reported


def different(one: Path, other: Path, steps: int) -> list[str]:
    """The names of tensors and blobs that differ between the last checkpoints of two runs."""
    mine, theirs = (checkpoint.load(folder / "checkpoints" / str(steps)) for folder in (one, other))
    names = {
        f"{group}/{name}"
        for stored in (mine, theirs)
        for group, named in stored.tensors.items()
        for name in named
    }
    wrong = []
    for name in sorted(names):
        group, _, tensor = name.partition("/")
        a, b = mine.tensors[group].get(tensor), theirs.tensors[group].get(tensor)
        if a is None or b is None or a.dtype != b.dtype or not a.equal(b):
            wrong.append(name)
    return wrong + [name for name in mine.blobs if mine.blobs[name] != theirs.blobs.get(name)]


def measure(name: str, points: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Kills one case at `points` steps; of each the step, and whether the result is identical."""
    case, draw = CASES[name], random.Random(f"{seed} {name}")
    undisturbed(case, folder / "whole", seed)
    kills: list[dict[str, Any]] = []
    for point in range(points):
        place = folder / f"point{point}"
        step = draw.randint(EVERY + 20, case.steps - ACTIONS - 20)
        reported = killed_at(case, place, seed, step, draw.random() * 0.1)
        newest = checkpoint.newest(place / "checkpoints", only=("memory",))
        assert newest is not None
        middle = not bool(newest[1].tensors["memory"]["now.over"].all())
        result = train(resume=place)
        assert isinstance(result, TrainingRun)
        assert result.resumed_at is not None
        wrong = different(folder / "whole", place, case.steps)
        kills.append(
            {
                "killed_after": reported,
                "resumed_at": result.resumed_at,
                "mid_episode": middle,
                "actions_compared": case.steps - result.resumed_at,
                "identical": not wrong,
                "different": wrong,
            }
        )
        shutil.rmtree(place)
    return {
        "world": case.world,
        "points": points,
        "identical": sum(p["identical"] for p in kills),
        "mid_episode": sum(p["mid_episode"] for p in kills),
        "actions_least": min(p["actions_compared"] for p in kills),
        "each": kills,
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--case", choices=[*CASES], action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in options.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measure(name, options.points, Path(folder), options.seed)
        if not options.json:
            one = figures[name]
            print(
                f"{one['world']:<18} {one['identical']} of {one['points']} identical, "
                f"{one['mid_episode']} resumed mid-episode, at least {one['actions_least']} "
                "actions compared"
            )
            for point in one["each"]:
                print(f"  {point}")
    if options.json:
        print(json.dumps(figures))
    sys.exit(any(one["identical"] < one["points"] for one in figures.values()))


if __name__ == "__main__":
    main()
