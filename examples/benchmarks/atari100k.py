"""Trains and evaluates an agent in many Atari games, side by side, and writes a CSV row for each.

    python examples/benchmarks/atari100k.py --games Pong,Boxing --seeds 0,1 --jobs 2 --out runs/100k

For each game and seed a job of an engine (`--engine`, `--jobs`) runs `sextet train` for `--steps`
steps and then `sextet eval` for `--episodes` episodes on held-out seeds. `--out` holds a run folder
each, their output in `logs/`, and `scores.csv`. The same command continues the work: finished runs
are skipped, stopped or killed ones are resumed from their last checkpoint, and more `--steps`
prolong each training. After `--minutes` no run begins, and those under way write a checkpoint and
end. `sextet report OUT` draws curves and tables of all runs.

Other arguments are passed to `sextet train`, as `--learner.batch=64`. Exit codes: 0 all done; 3 the
time is up, the same command continues; 1 a run failed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.assembly.resolve import presets
from agent.bench.support.programs import add_engine_options, engine_of, results_of, sextet
from agent.engines.engine import Job, Report
from agent.recording.atomic import write_json, write_text
from agent.recording.run_folder import RunFolder
from agent.reporting.runs_index import EVALUATION
from modules.messages import ConfigError
from modules.suggest import suggestion
from worlds.make import list_games
from worlds.protocols import PROTOCOLS
from worlds.scores import published

COLUMNS = (
    "game", "seed", "preset", "protocol", "steps", "episodes", "mean_return", "low", "high",
    "std_return", "human_normalised", "train_minutes", "commit", "run",
)  # fmt: skip
HELD_SEED = 3_000_000
"""Added to a run's seed for its final episodes, which neither trained the agent nor chose its
checkpoint.
"""


class UsageError(Exception):
    """Wrong usage of the command, in one line."""


class FailedError(Exception):
    """A run that failed: its exit code and its last line of output."""

    def __init__(self, code: int, line: str) -> None:
        self.code = code
        super().__init__(line)


@dataclass(frozen=True)
class Task:
    """What is done for each game and seed."""

    preset: str
    protocol: str
    steps: int
    episodes: int
    worlds: int
    out: Path
    more: tuple[str, ...]


@dataclass(frozen=True)
class Deadline:
    """When to stop, in seconds of `time.time()`; None: never."""

    end: float | None

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.end is not None and time.time() >= self.end

    def run(self, words: list[str], log: Path) -> list[str]:
        """The output lines of `sextet WORDS`, also in `log`. Raises FailedError where it fails.

        When the time is up, it writes a checkpoint and ends.
        """
        if self.over:
            return []
        ended = sextet(words, log, self.end)
        if ended.code != 0 and not ended.stopped:
            line = ended.lines[-1] if ended.lines else "no output"
            raise FailedError(ended.code, f"{line} (see {log})")
        return ended.lines


def one(game: str, seed: int, task: Task, deadline: Deadline) -> bool:
    """Trains and evaluates one game and seed while there is time; whether it is done."""
    folder = task.out / f"{game}-{seed}"
    log = task.out / "logs" / f"{folder.name}.log"
    if (already := _trained(folder)) > task.steps:
        raise FailedError(
            2,
            f"'{folder}': expected at most {task.steps} steps of training, got {already}; try "
            "another --out",
        )
    if not _evaluated(folder, task):
        if already < task.steps:
            _train(folder, game, seed, task, deadline, log)
        if _trained(folder) < task.steps or deadline.over:
            return False
        _evaluate(folder, game, seed, task, deadline, log)
    return _evaluated(folder, task)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _trained(folder: Path) -> int:
    """Steps for which a run was to train and did, 0 where it did not."""
    result = _read(folder / "result.json")
    if result.get("stopped", True):
        return 0
    # The steps done may be more: several environments take their last step together.
    return int(RunFolder.open(folder).read_config()["training"]["steps"])


def _evaluated(folder: Path, task: Task) -> bool:
    stored = _read(folder / EVALUATION)
    done = stored.get("trained_steps", 0), stored.get("episodes", 0)
    return done == (task.steps, task.episodes)


def _train(folder: Path, game: str, seed: int, task: Task, deadline: Deadline, log: Path) -> None:
    checkpoints = folder / "checkpoints"
    if folder.is_dir() and not any(checkpoints.glob("[0-9]*")):
        shutil.rmtree(folder)  # killed before its first checkpoint: nothing is lost
    if folder.is_dir():
        words = ["train", "--resume", str(folder), "--steps", str(task.steps)]
    else:
        words = [
            "train", f"ALE/{game}-v5", "--protocol", task.protocol, "--preset", task.preset,
            "--seed", str(seed), "--steps", str(task.steps), "--run", str(folder), *task.more,
        ]  # fmt: skip
    deadline.run([*words, "--no-live", "--json"], log)


def _evaluate(
    folder: Path, game: str, seed: int, task: Task, deadline: Deadline, log: Path
) -> None:
    lines = deadline.run(
        ["eval", str(folder), "--protocol", task.protocol, "--episodes", str(task.episodes),
         "--num-envs", str(min(task.worlds, task.episodes)), "--seed", str(HELD_SEED + seed),
         "--json"],
        log,
    )  # fmt: skip
    if not lines or deadline.over:
        return
    evaluation = json.loads(lines[-1])
    evaluation |= {
        "game": game,
        "run_seed": seed,
        "preset": task.preset,
        "trained_steps": task.steps,
        "commit": _commit(),
    }
    write_json(folder / EVALUATION, evaluation)


def _commit() -> str:
    """The commit of the program, empty outside a repository."""
    try:
        described = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()


def write_scores(out: Path) -> int:
    """Writes `scores.csv` of all evaluations below `out`; returns its number of rows."""
    rows = []
    for path in sorted(out.glob(f"*/{EVALUATION}")):
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        low, high = evaluation["interval"] or (None, None)
        seconds = _read(path.parent / "result.json").get("seconds")
        rows.append(
            {
                **{name: evaluation[name] for name in COLUMNS if name in evaluation},
                "seed": evaluation["run_seed"],
                "steps": evaluation["trained_steps"],
                "low": low,
                "high": high,
                "train_minutes": None if seconds is None else round(seconds / 60, 2),
                "run": path.parent.name,
            }
        )
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "scores.csv", table.getvalue())
    return len(rows)


def games_named(text: str) -> list[str]:
    """The games of `Pong,Boxing`, `26` or `57`. Raises UsageError where there is no such game."""
    table = published()
    if text == "26":
        return [game for game, scores in table.items() if "SPR" in scores]
    if text == "57":
        return list(table)
    known = [name.removeprefix("ALE/").removesuffix("-v5") for name in list_games()]
    games = [name.strip() for name in text.split(",") if name.strip()]
    for name in games:
        if name not in known:
            raise UsageError(
                f"--games: {name!r} is no Atari game, nor 26 or 57{suggestion(name, known)}"
            )
    if not games:
        raise UsageError("--games: expected at least one, got none")
    return games


def numbers(option: str, text: str) -> list[int]:
    """`0,1,2` as numbers. Raises UsageError."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option}: expected numbers as 0,1,2, got {text!r}") from None
    if min(values) < 0:
        raise UsageError(f"{option}: expected numbers of 0 or more, got {min(values)}")
    return values


def bench(arguments: list[str]) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="atari100k.py", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--games", default="26", help="names, or 26 or 57 (26)")
    parser.add_argument("--seeds", default="0", help="as 0,1,2 (0)")
    parser.add_argument("--steps", type=int, default=100_000, help="of each training (100000)")
    parser.add_argument("--preset", default="atari-small", help="settings by name (atari-small)")
    parser.add_argument("--protocol", default="100k", help="v5 or 100k (100k)")
    parser.add_argument("--episodes", type=int, default=30, help="of the final evaluation (30)")
    parser.add_argument("--worlds", type=int, default=10, help="side by side in evaluation (10)")
    add_engine_options(parser)
    parser.add_argument("--minutes", type=float, help="wall time after which to stop")
    parser.add_argument("--out", type=Path, default=Path("runs/atari100k"), help="folder")
    options, more = parser.parse_known_args(arguments)
    games, seeds = games_named(options.games), numbers("--seeds", options.seeds)
    for name in ("steps", "episodes", "worlds"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name}: expected at least 1, got {getattr(options, name)}")
    for option, value, allowed in (
        ("--preset", options.preset, presets()),
        ("--protocol", options.protocol, tuple(PROTOCOLS)),
    ):
        if value not in allowed:
            raise UsageError(f"{option}: {value!r} is not one of {', '.join(allowed)}")
    engine_of(options)  # a wrong one is refused before anything is written
    task = Task(
        preset=options.preset, protocol=options.protocol, steps=options.steps,
        episodes=options.episodes, worlds=options.worlds, out=options.out, more=tuple(more),
    )  # fmt: skip
    try:
        (task.out / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: expected a writable folder, got '{task.out}': {error}") from None
    open_folder(task)
    return carry_out([(game, seed) for seed in seeds for game in games], task, options)


def open_folder(task: Task) -> None:
    """Writes the settings of the runs of a folder. Raises UsageError where it holds runs with other
    settings: a training continues as it began.
    """
    path = task.out / "settings.json"
    now = {"preset": task.preset, "protocol": task.protocol, "more": list(task.more)}
    begun = any(task.out.glob("*/config.yaml"))
    for name, before in _read(path).items() if begun else ():
        if before != now.get(name):
            raise UsageError(
                f"--out: '{task.out}' holds runs with {name} {before!r}, got {now.get(name)!r}; "
                "try another folder"
            )
    write_json(path, now)


def carry_out(work: list[tuple[str, int]], task: Task, options: argparse.Namespace) -> int:
    """Does the work there is time for; the exit code."""
    end = None if options.minutes is None else time.time() + options.minutes * 60
    jobs = [
        Job(f"{game}, seed {seed}", functools.partial(attempt, game, seed, task, Deadline(end)))
        for game, seed in work
    ]
    done, codes = 0, list[int]()
    results = results_of(engine_of(options), jobs)
    try:
        for result in results:
            finished, code, line = result.value
            if code:
                codes.append(code)
                print(f"{result.job.name}: failed: {line}", file=sys.stderr, flush=True)
                if code == 2:  # a wrong setting is wrong for every game
                    break
                continue
            rows = write_scores(task.out)
            done += finished
            status = "done" if finished else "stopped, to be continued"
            print(f"{result.job.name}: {status} ({rows} rows)", flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        results.close()  # those under way write a checkpoint and end
    print(f"{done} of {len(work)} done, {task.out / 'scores.csv'}")
    if codes:
        return 2 if 2 in codes else 1
    return 0 if done == len(work) else 3


def attempt(
    game: str, seed: int, task: Task, deadline: Deadline, folder: None, report: Report
) -> tuple[bool, int, str]:
    """A job: whether one game and seed is done, and where it failed the exit code and a line."""
    try:
        return not deadline.over and one(game, seed, task, deadline), 0, ""
    except FailedError as error:
        return False, error.code, str(error)


def main() -> int:
    """Runs the command; a wrong usage is one line and exit code 2."""
    # A batch system that ends this program ends it as Ctrl-C does: what runs keeps a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return bench(sys.argv[1:])
    except (UsageError, ConfigError) as error:
        print(f"atari100k: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
