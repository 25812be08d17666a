"""Environments of other packages: each is played and trained by default settings.

    pip install -e .[worlds]
    python examples/benchmarks/foreign_worlds.py --out runs/foreign_worlds.jsonl

For each environment, `sextet play` for 200 steps and `sextet train` for 500 with an evaluation of
one episode, each in a process with a time limit; an environment is a job of an engine (`--engine`,
`--jobs`).
A line of JSON an environment goes to `--out`; those that are there are not run again. Printed is a
table: what the spaces were taken for, and that it ran, or the line of its refusal. Unknown options
are passed to both, as `--world.episode_steps=100`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.bench.support.programs import add_engine_options, engine_of, results_of, sextet
from agent.engines.engine import Job, Report

CLASSIC = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
TOY_TEXT = ["Blackjack-v1", "CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4"]
BOX2D = ["BipedalWalker-v3", "CarRacing-v3", "LunarLander-v3", "LunarLanderContinuous-v3"]
MUJOCO = [
    f"{name}-v5"
    for name in (
        "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum",
        "InvertedPendulum", "Pusher", "Reacher", "Swimmer", "Walker2d",
    )
]  # fmt: skip
MINIGRID = [
    f"minigrid:{name}-v0"
    for name in (
        "BabyAI-GoToRedBall", "BabyAI-GoToLocal", "BabyAI-OpenDoor", "MiniGrid-BlockedUnlockPickup",
        "MiniGrid-DistShift1", "MiniGrid-DoorKey-5x5", "MiniGrid-DoorKey-8x8",
        "MiniGrid-Dynamic-Obstacles-6x6", "MiniGrid-Empty-5x5", "MiniGrid-Empty-16x16",
        "MiniGrid-Fetch-5x5-N2", "MiniGrid-FourRooms", "MiniGrid-GoToDoor-5x5",
        "MiniGrid-KeyCorridorS3R1", "MiniGrid-LavaGapS5", "MiniGrid-MemoryS7",
        "MiniGrid-MultiRoom-N2-S4", "MiniGrid-PutNear-6x6-N2", "MiniGrid-RedBlueDoors-6x6",
        "MiniGrid-Unlock",
    )
]  # fmt: skip
MINATAR = [
    f"MinAtar/{name}-v{version}"
    for version in (0, 1)
    for name in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
]
HIGHWAY = [
    f"highway_env:{name}"
    for name in (
        "exit-v0", "highway-fast-v0", "highway-v0", "intersection-v0", "lane-keeping-v0",
        "merge-v0", "parking-v0", "racetrack-v0", "roundabout-v0", "two-way-v0", "u-turn-v0",
    )
]  # fmt: skip
OTHERS = [
    "flappy_bird_gymnasium:FlappyBird-v0",
    "mo_gymnasium:deep-sea-treasure-v0",
    "mo_gymnasium:four-room-v0",
    "mo_gymnasium:resource-gathering-v0",
]
WORLDS = CLASSIC + TOY_TEXT + BOX2D + MUJOCO + MINIGRID + MINATAR + HIGHWAY + OTHERS


def run(command: list[str], folder: Path, seconds: float) -> dict[str, Any]:
    """Outcome of a `sextet` command that records into `folder`."""
    began = time.monotonic()
    with tempfile.NamedTemporaryFile() as log:
        whole = [*command, "--no-live", "--run", str(folder)]
        ended = sextet(whole, Path(log.name), time.time() + seconds)
    # Notes are no errors, and a refusal is one line: more of them are a traceback.
    lines = [line for line in ended.lines if not line.startswith("note ")]
    code = None if ended.stopped else ended.code
    if code is None:
        lines = [f"not done within {seconds:g} s"]
    error = "" if code == 0 else (lines or [""])[-1]
    wall = round(time.monotonic() - began, 1)
    return {"exit": code, "error": error, "lines": len(lines), "seconds": wall}


def measure(
    world: str,
    play: int,
    train: int,
    seconds: float,
    others: list[str],
    folder: None,
    report: Report,
) -> dict[str, Any]:
    """A job: one line of the log."""
    with tempfile.TemporaryDirectory() as place:
        played, trained = Path(place) / "play", Path(place) / "train"
        line: dict[str, Any] = {"world": world, "play_steps": play, "train_steps": train}
        line["play"] = run(["play", world, "--steps", str(play), *others], played, seconds)
        if line["play"]["exit"] != 2:
            order = ["train", world, "--steps", str(train), "--training.evaluate_episodes=1"]
            line["train"] = run([*order, *others], trained, seconds)
        for recorded in (played, trained):
            if (recorded / "world.json").exists():
                spec = json.loads((recorded / "world.json").read_text(encoding="utf-8"))
                line["readings"], line["replay"] = spec["readings"], spec["replay"]
    return line


def row(line: dict[str, Any]) -> str:
    """A row of the table."""
    observed, acted = line.get("readings") or ("", "")
    outcomes = [line[name] for name in ("play", "train") if name in line]
    faults = [outcome["error"] for outcome in outcomes if outcome["exit"] != 0]
    verdict = faults[0].removeprefix("sextet: ").partition(" (kept: ")[0] if faults else "runs"
    cells = (f"`{line['world']}`", observed.partition(";")[0], acted, verdict)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Runs what is not in the log yet, and prints the table of all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worlds", default="", help="ids, separated by commas; all if left out")
    parser.add_argument("--play", type=int, default=200, help="steps to play")
    parser.add_argument("--train", type=int, default=500, help="steps to train")
    parser.add_argument("--seconds", type=float, default=600, help="time limit of each command")
    parser.add_argument("--out", type=Path, default=Path("runs/foreign_worlds.jsonl"))
    add_engine_options(parser)
    options, others = parser.parse_known_args()
    worlds = [world for world in options.worlds.split(",") if world] or WORLDS
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
    lines = {line["world"]: line for line in map(json.loads, text.splitlines())}
    missing = [world for world in worlds if world not in lines]
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    how = (options.play, options.train, options.seconds, others)
    jobs = [Job(world, functools.partial(measure, world, *how)) for world in missing]
    with options.out.open("a", encoding="utf-8") as log:
        for result in results_of(engine_of(options), jobs):
            line = result.value
            log.write(json.dumps(line) + "\n")
            log.flush()
            lines[line["world"]] = line
            print(row(line), file=sys.stderr)
    print("| environment | observations | actions | |\n|---|---|---|---|")
    print("\n".join(row(lines[world]) for world in worlds if world in lines))


if __name__ == "__main__":
    main()
