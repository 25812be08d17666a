"""Kills real trainings with SIGKILL at random moments, resumes them, and compares them bit for bit.

    python examples/benchmarks/resume.py --points 20 --json

For each world a training runs undisturbed once. Then, for each point, the same training is started
anew, killed as soon as it has passed a step drawn at random (and some random milliseconds), and
resumed with `sextet train --resume`. What it has become at its end must be what the undisturbed one
became: weights, target networks, optimiser, all that memory holds (so every action since), and the
state of the world. At least 200 actions lie between the checkpoint it went on from and its end.
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
        700,
        (
            "--learner.warmup_steps=60", "--learner.batch=16", "--learner.replay_ratio=0.5",
            "--learner.reset_every=120", "--learner.imagination_horizon=2",
            "--memory.capacity=1000", "--memory.priority_exponent=0.5",
        ),
    ),
    "pixels": Case(
        "ALE/Breakout-v5",
        800,
        (
            "--protocol", "100k", "--num-envs", "4", "--perception.kind=pixels-small",
            "--perception.latent_size=64", "--learner.warmup_steps=100", "--learner.batch=8",
            "--learner.replay_ratio=0.1",
            # An untrained greedy policy may never serve a ball, and a game lasts half an hour.
            "--training.evaluation.actor.policy.epsilon=1.0", "--memory.capacity=1000",
        ),
    ),
}  # fmt: skip


def command(case: Case, folder: Path, seed: int) -> list[str]:
    """The training as typed."""
    return [
        sys.executable, "-m", "agent.cli", "train", case.world, "--run", str(folder), "--seed",
        str(seed), "--steps", str(case.steps), *case.settings, "--training.report_every=20",
        f"--training.checkpoint_every={EVERY}", "--training.evaluate_every=300",
        "--training.evaluate_episodes=1", "--no-live",
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """One thread, since floating-point sums depend on their order."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def undisturbed(case: Case, folder: Path, seed: int) -> None:
    """Trains to the end."""
    subprocess.run(command(case, folder, seed), check=True, env=environment(), capture_output=True)


def killed_at(case: Case, folder: Path, seed: int, step: int, wait_s: float) -> int:
    """Trains, and is killed once it has reported to be past `step`; the last step it reported."""
    child = subprocess.Popen(
        command(case, folder, seed), env=environment(), stdout=subprocess.PIPE, text=True
    )
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


def resumed(folder: Path) -> dict[str, Any]:
    """Resumes to the end; the output of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "train", "--resume", str(folder), "--no-live",
         "--json"],
        check=True, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


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
        told = resumed(place)
        wrong = different(folder / "whole", place, case.steps)
        kills.append(
            {
                "killed_after": reported,
                "resumed_at": told["resumed_at"],
                "mid_episode": middle,
                "actions_compared": case.steps - told["resumed_at"],
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
