"""Trains and evaluates an agent in many Atari games, side by side, and keeps one CSV row for each.

    python examples/benchmarks/atari100k.py --games Pong,Boxing --seeds 0,1 --jobs 2 --out runs/100k

Every game and seed is `sextet train` for `--steps` steps and then `sextet eval` for `--episodes`
episodes on held seeds, in a process of its own. `--out` holds a run folder each, their output in
`logs/`, and `scores.csv`. The same command again goes on: what is done is not done again, what was
stopped or killed is resumed from its last checkpoint; with more `--steps` trainings are gone on
with. After `--minutes` no more is begun and what runs is asked to keep a checkpoint. `sextet report
OUT` draws curves and tables of it all.

Words this program does not know are passed to `sextet train`, as `--learner.batch=64`.
Exit codes: 0 all done; 3 time was up, go on with the same command; 1 a run failed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.assembly.resolve import presets
from agent.recording.atomic import write_json, write_text
from agent.recording.run_folder import RunFolder
from agent.reporting.runs_index import EVALUATION
from modules.suggest import suggestion
from worlds.make import list_games
from worlds.protocols import PROTOCOLS
from worlds.scores import published

COLUMNS = (
    "game", "seed", "preset", "protocol", "steps", "episodes", "mean_return", "low", "high",
    "std_return", "human_normalised", "train_minutes", "commit", "run",
)  # fmt: skip
HELD_SEED = 3_000_000
"""Added to a run's seed for its final episodes: neither lived nor used to choose a checkpoint."""


class UsageError(Exception):
    """A wrong request, said in one line."""


class FailedError(Exception):
    """A run that failed: its exit code, and the line it said."""

    def __init__(self, code: int, line: str) -> None:
        self.code = code
        super().__init__(line)


@dataclass(frozen=True)
class Asked:
    """What is to be done for every game and seed."""

    preset: str
    protocol: str
    steps: int
    episodes: int
    worlds: int
    out: Path
    more: tuple[str, ...]


class Deadline:
    """When to stop, and who must then be told."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + minutes * 60
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    @property
    def over(self) -> bool:
        """Whether the time is up, or was ended."""
        return self._ended or (self._end is not None and time.monotonic() >= self._end)

    def watch(self) -> None:
        """Waits for the end of the time, in a thread of its own, and ends what runs."""
        while not self._ended:
            if self.over:
                self.end()
            time.sleep(0.2)

    def end(self) -> None:
        """No more begins; what runs keeps a checkpoint and ends."""
        with self._lock:
            self._ended = True
            for child in self._running:
                child.send_signal(signal.SIGINT)

    def run(self, words: list[str], log: Path) -> list[str]:
        """Runs `sextet WORDS` with its output in `log`; the lines of it. May raise FailedError."""
        with open(log, "ab") as out:
            begun = out.tell()
            with self._lock:
                if self.over:
                    return []
                child = subprocess.Popen(
                    [sys.executable, "-m", "agent.cli", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
                self._running.add(child)
            code = child.wait()
            with self._lock:
                self._running.discard(child)
        with open(log, "rb") as read:
            read.seek(begun)
            lines = read.read().decode(errors="replace").splitlines()
        if code != 0 and not self.over:
            raise FailedError(code, f"{lines[-1] if lines else 'no output'} (see {log})")
        return lines


def one(game: str, seed: int, asked: Asked, deadline: Deadline) -> bool:
    """Trains and evaluates one game and seed as far as time allows; whether it is done."""
    folder = asked.out / f"{game}-{seed}"
    log = asked.out / "logs" / f"{folder.name}.log"
    if (already := _trained(folder)) > asked.steps:
        raise FailedError(
            2,
            f"'{folder}' was trained for {already} steps, wanted {asked.steps}; try another --out",
        )
    if not _evaluated(folder, asked):
        if already < asked.steps:
            _train(folder, game, seed, asked, deadline, log)
        if _trained(folder) < asked.steps or deadline.over:
            return False
        _evaluate(folder, game, seed, asked, deadline, log)
    return _evaluated(folder, asked)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _trained(folder: Path) -> int:
    """For how many steps a run was asked to train and did, 0 where it did not."""
    said = _read(folder / "result.json")
    if said.get("stopped", True):
        return 0
    # Not those it did, which may be more: several worlds take their last step together.
    return int(RunFolder.open(folder).read_config()["training"]["steps"])


def _evaluated(folder: Path, asked: Asked) -> bool:
    said = _read(folder / EVALUATION)
    return (said.get("trained_steps", 0), said.get("episodes", 0)) == (asked.steps, asked.episodes)


def _train(folder: Path, game: str, seed: int, asked: Asked, deadline: Deadline, log: Path) -> None:
    checkpoints = folder / "checkpoints"
    if folder.is_dir() and not any(checkpoints.glob("[0-9]*")):
        shutil.rmtree(folder)  # killed before its first checkpoint: nothing is lost
    if folder.is_dir():
        words = ["train", "--resume", str(folder), "--steps", str(asked.steps)]
    else:
        words = [
            "train", f"ALE/{game}-v5", "--protocol", asked.protocol, "--preset", asked.preset,
            "--seed", str(seed), "--steps", str(asked.steps), "--run", str(folder), *asked.more,
        ]  # fmt: skip
    deadline.run([*words, "--no-live", "--json"], log)


def _evaluate(
    folder: Path, game: str, seed: int, asked: Asked, deadline: Deadline, log: Path
) -> None:
    lines = deadline.run(
        ["eval", str(folder), "--protocol", asked.protocol, "--episodes", str(asked.episodes),
         "--num-envs", str(min(asked.worlds, asked.episodes)), "--seed", str(HELD_SEED + seed),
         "--json"],
        log,
    )  # fmt: skip
    if not lines or deadline.over:
        return
    said = json.loads(lines[-1])
    said |= {"game": game, "run_seed": seed, "preset": asked.preset, "trained_steps": asked.steps,
             "commit": _commit()}  # fmt: skip
    write_json(folder / EVALUATION, said)


def _commit() -> str:
    """The commit of the program, as far as it can be told."""
    try:
        said = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()


def write_scores(out: Path) -> int:
    """Writes `scores.csv` anew from all that is evaluated below `out`; how many rows it has."""
    rows = []
    for kept in sorted(out.glob(f"*/{EVALUATION}")):
        said = json.loads(kept.read_text(encoding="utf-8"))
        low, high = said["interval"] or (None, None)
        seconds = _read(kept.parent / "result.json").get("seconds")
        rows.append(
            {
                **{name: said[name] for name in COLUMNS if name in said},
                "seed": said["run_seed"],
                "steps": said["trained_steps"],
                "low": low,
                "high": high,
                "train_minutes": None if seconds is None else round(seconds / 60, 2),
                "run": kept.parent.name,
            }
        )
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "scores.csv", table.getvalue())
    return len(rows)


def games_named(text: str) -> list[str]:
    """`Pong,Boxing`, `26` or `57` as games. Raises UsageError where one is none."""
    table = published()
    if text == "26":
        return [game for game, scores in table.items() if "SPR" in scores]
    if text == "57":
        return list(table)
    known = [name.removeprefix("ALE/").removesuffix("-v5") for name in list_games()]
    named = [name.strip() for name in text.split(",") if name.strip()]
    for name in named:
        if name not in known:
            raise UsageError(
                f"--games: {name!r} is no Atari game, nor 26 or 57{suggestion(name, known)}"
            )
    if not named:
        raise UsageError("--games: expected at least one, got none")
    return named


def numbers(option: str, text: str) -> list[int]:
    """`0,1,2` as numbers. Raises UsageError."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option}: expected numbers as 0,1,2, got {text!r}") from None
    if min(found) < 0:
        raise UsageError(f"{option}: expected numbers of 0 or more, got {min(found)}")
    return found


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
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (1)")
    parser.add_argument("--minutes", type=float, help="wall time after which to stop")
    parser.add_argument("--out", type=Path, default=Path("runs/atari100k"), help="folder")
    given, more = parser.parse_known_args(arguments)
    games, seeds = games_named(given.games), numbers("--seeds", given.seeds)
    for name in ("steps", "episodes", "worlds", "jobs"):
        if getattr(given, name) < 1:
            raise UsageError(f"--{name}: expected at least 1, got {getattr(given, name)}")
    for option, value, allowed in (
        ("--preset", given.preset, presets()),
        ("--protocol", given.protocol, tuple(PROTOCOLS)),
    ):
        if value not in allowed:
            raise UsageError(f"{option}: {value!r} is not one of {', '.join(allowed)}")
    asked = Asked(given.preset, given.protocol, given.steps, given.episodes, given.worlds,
                  given.out, tuple(more))  # fmt: skip
    try:
        (asked.out / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: expected a writable folder, got '{asked.out}': {error}") from None
    hold(asked)
    return carry_out([(game, seed) for seed in seeds for game in games], asked, given)


def hold(asked: Asked) -> None:
    """Opens the folder, new or of the same settings. Raises UsageError where they are others: a
    training that was begun goes on as it was begun.
    """
    kept = asked.out / "settings.json"
    now = {"preset": asked.preset, "protocol": asked.protocol, "more": list(asked.more)}
    begun = any(asked.out.glob("*/config.yaml"))
    for name, before in _read(kept).items() if begun else ():
        if before != now.get(name):
            raise UsageError(
                f"--out: '{asked.out}' holds runs with {name} {before!r}, got {now.get(name)!r}; "
                "try another folder"
            )
    write_json(kept, now)


def carry_out(work: list[tuple[str, int]], asked: Asked, given: argparse.Namespace) -> int:
    """Does all the work there is time for; the exit code."""
    deadline, lock, failed = Deadline(given.minutes), threading.Lock(), list[FailedError]()
    done = 0

    def go(item: tuple[str, int]) -> None:
        nonlocal done
        game, seed = item
        try:
            finished = not deadline.over and one(game, seed, asked, deadline)
        except FailedError as error:
            with lock:
                failed.append(error)
            print(f"{game}, seed {seed}: failed: {error}", file=sys.stderr, flush=True)
            if error.code == 2:  # a wrong setting is wrong for every game
                deadline.end()
            return
        with lock:
            rows = write_scores(asked.out)
            done += finished
        said = "done" if finished else "stopped, to go on"
        print(f"{game}, seed {seed}: {said} ({rows} rows)", flush=True)

    watcher = threading.Thread(target=deadline.watch, daemon=True)
    watcher.start()
    with ThreadPoolExecutor(given.jobs) as pool:
        try:
            list(pool.map(go, work))
        except KeyboardInterrupt:
            deadline.end()
    deadline.end()
    print(f"{done} of {len(work)} done, {asked.out / 'scores.csv'}")
    if failed:
        return 2 if any(error.code == 2 for error in failed) else 1
    return 0 if done == len(work) else 3


def main() -> int:
    """Says what is wrong in one line."""
    # A batch system that ends this program ends it as Ctrl-C does: what runs keeps a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return bench(sys.argv[1:])
    except UsageError as error:
        print(f"atari100k: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
