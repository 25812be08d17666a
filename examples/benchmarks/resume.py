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
            # A greedy beginner may never serve a ball, and a game would last for half an hour.
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
    """One thread: sums in another order are other sums."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def undisturbed(case: Case, folder: Path, seed: int) -> None:
    """Trains to the end."""
    subprocess.run(command(case, folder, seed), check=True, env=environment(), capture_output=True)


def killed_at(case: Case, folder: Path, seed: int, step: int, wait_s: float) -> int:
    """Trains, and is killed once it has said that it passed `step`; the last step it spoke of."""
    child = subprocess.Popen(
        command(case, folder, seed), env=environment(), stdout=subprocess.PIPE, text=True
    )
    said = 0
    assert child.stdout is not None
    for line in child.stdout:
        if found := re.match(r"(\d+)/\d+ steps", line):
            said = int(found[1])
        if said >= step:
            time.sleep(wait_s)
            break
    child.kill()
    child.stdout.close()
    child.wait()
    return said


def resumed(folder: Path) -> dict[str, Any]:
    """Goes on to the end; what the command said."""
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "train", "--resume", str(folder), "--no-live",
         "--json"],
        check=True, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def different(one: Path, other: Path, steps: int) -> list[str]:
    """Which tensors or blobs of the last checkpoints of two runs are not the same bits."""
    mine, theirs = (checkpoint.load(folder / "checkpoints" / str(steps)) for folder in (one, other))
    names = {
        f"{group}/{name}"
        for made in (mine, theirs)
        for group, named in made.tensors.items()
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
    """`points` kills of one case; each with where, and whether it made no difference."""
    case, draw = CASES[name], random.Random(f"{seed} {name}")
    undisturbed(case, folder / "whole", seed)
    found: list[dict[str, Any]] = []
    for point in range(points):
        place = folder / f"point{point}"
        step = draw.randint(EVERY + 20, case.steps - ACTIONS - 20)
        said = killed_at(case, place, seed, step, draw.random() * 0.1)
        kept = checkpoint.newest(place / "checkpoints", only=("memory",))
        assert kept is not None
        middle = not bool(kept[1].tensors["memory"]["now.over"].all())
        told = resumed(place)
        wrong = different(folder / "whole", place, case.steps)
        found.append(
            {
                "killed_after": said,
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
        "identical": sum(p["identical"] for p in found),
        "mid_episode": sum(p["mid_episode"] for p in found),
        "actions_least": min(p["actions_compared"] for p in found),
        "each": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--case", choices=[*CASES], action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in asked.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measure(name, asked.points, Path(folder), asked.seed)
        if not asked.json:
            one = figures[name]
            print(
                f"{one['world']:<18} {one['identical']} of {one['points']} identical, "
                f"{one['mid_episode']} resumed mid-episode, at least {one['actions_least']} "
                "actions compared"
            )
            for point in one["each"]:
                print(f"  {point}")
    if asked.json:
        print(json.dumps(figures))
    sys.exit(any(one["identical"] < one["points"] for one in figures.values()))


if __name__ == "__main__":
    main()
