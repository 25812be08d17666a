"""A disk that is full, read-only or faulty, at every call that writes.

Each command is run once to count its calls (`fault.c`), and then with one call after the other
failing: ENOSPC and EROFS from that call on, as on a disk that stays so, EIO at that call alone. A
command must end with one line and exit 1, or go on where the call does not matter; nothing
half-made may be left, all checkpoints that there were must be whole, and what was begun must go on
once the disk can be written again.
"""

from __future__ import annotations

import errno
import functools
import json
import shutil
import sqlite3
from pathlib import Path

import yaml

from agent.recording import checkpoint
from agent.recording.trace import Trace
from modules.messages import SextetError
from tests.torture.harness import Outcome
from tests.torture.kill import SMALL, folder
from tests.torture.launcher import Ended, Moment, launcher

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)

SHORT = (*SMALL, "--training.checkpoint_every=10", "--training.evaluate_every=0")

FIXED = ("--configurator.kind=fixed", "--configurator.mode=1", "--no-live")

STUDY = {
    "name": "tiny", "question": "Does thinking pay?",
    "worlds": [{"id": "CartPole-v1", "steps": 6}], "seeds": [0],
    "base": {"directive": {"model_calls": 4, "horizon_steps": 2}, "memory.capacity": 100},
    "arms": {
        "acts": {"settings": {"configurator": {"kind": "fixed", "mode": 1}}},
    },
    "measures": ["return", "model_calls"], "trace": True,
}  # fmt: skip

BEFORE = ("train", "CartPole-v1", "--steps", "12", "--seed", "3", "--run", "r", *SHORT)
"""What is there before a training is resumed, and before a report."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "train": ("train", "CartPole-v1", "--steps", "14", "--seed", "3", "--run", "r", *SHORT),
    "resume": ("train", "--resume", "r", "--steps", "16", "--no-live"),
    "play": ("play", "CartPole-v1", "--steps", "120", "--run", "r", *FIXED),
    "study": ("study", "study.yaml", "--run", "r", "--jobs", "1"),
    "report": ("report", "r", "--out", "o"),
}
CALLS = {"train": 310, "resume": 60, "play": 150, "study": 200, "report": 20}
"""At how many calls each command is tried; evenly spaced, where it makes more."""

CASES = len(ERRORS) * sum(CALLS.values())


@functools.cache
def prepared(command: str) -> Path:
    """A folder with what the command finds."""
    place = launcher().place / f"before-{command}"
    place.mkdir()
    (place / "study.yaml").write_text(yaml.safe_dump(STUDY))
    if command in ("resume", "report"):
        made = launcher().run(BEFORE, place)
        assert made.code == 0, made.err
    return place


@functools.cache
def calls_of(command: str) -> int:
    """The calls that write, in a run of the command that does not fail."""
    with folder() as at:
        shutil.copytree(prepared(command), at, dirs_exist_ok=True)
        ended = launcher().run(COMMANDS[command], at)
        assert ended.code == 0, ended.err
        return ended.counts["call"]


def case(number: int, seed: int) -> Outcome:
    """One command with one call that fails."""
    tried = [(name, i) for name, count in CALLS.items() for i in range(count)]
    (command, index), error = tried[number // len(ERRORS)], ERRORS[number % len(ERRORS)]
    count = calls_of(command)
    # Of more calls than are tried, others for another seed.
    nth = 1 + (index * count // CALLS[command] + (seed if count > CALLS[command] else 0)) % count
    moment = Moment("call", nth, error, sticky=error != errno.EIO)
    kind = f"{command} {errno.errorcode[error]}"
    with folder() as at:
        shutil.copytree(prepared(command), at, dirs_exist_ok=True)
        before = checkpoint.numbers(at / "r" / "checkpoints")
        ended = launcher().run(COMMANDS[command], at, moment)
        verdict, fault = judged(command, at, before, ended)
        return Outcome(kind, verdict, fault and f"call {nth} of {count}: {fault}")


def judged(command: str, at: Path, before: list[int], ended: Ended) -> tuple[str, str]:
    """A word for how the command ended, and what is wrong with what it left."""
    run = at / ("o" if command == "report" else "r")
    if ended.code not in (0, 1):
        return "ended otherwise", f"exit {ended.code}: {' '.join(ended.err.split())[-300:]}"
    if len(ended.lines) != ended.code or "Traceback" in ended.err:
        return "not one line", f"exit {ended.code}: {' '.join(ended.err.split())[-300:]}"
    if fault := broken(at, before if command == "resume" else []):
        return "broken", fault
    verdict = "went on" if ended.code == 0 else "one line"
    if ended.code == 1 and command in ("train", "resume", "study"):
        again = COMMANDS[command]
        if run.exists() and command != "resume":
            verb = "train" if command == "train" else "study"
            again = (verb, "--resume", "r", *(("--no-live",) if verb == "train" else ()))
        after = launcher().run(again, at)
        if after.code != 0:
            return "lost", f"{ended.lines[0]}; then exit {after.code}: {' '.join(after.lines)}"
        if fault := broken(at, []):
            return "broken", f"after it went on: {fault}"
    return verdict, ""


def broken(at: Path, before: list[int]) -> str:
    """What is half-made or damaged below a folder; empty where nothing is."""
    for place in sorted(at.rglob("*")):
        name = place.relative_to(at)
        try:
            if place.name.endswith(".partial"):
                return f"{name} is left"
            if place.parent.name == "checkpoints" and place.is_dir():
                checkpoint.load(place)
            elif place.suffix == ".json" and place.parent.parent.name != "checkpoints":
                json.loads(place.read_text())
            elif place.name == "config.yaml":
                assert isinstance(yaml.safe_load(place.read_text()), dict)
            elif place.suffix == ".png":
                assert place.read_bytes()[-8:-4] == b"IEND"
            elif place.suffix == ".html":
                assert place.read_text().rstrip().endswith("</html>")
            elif place.name == "trace.sqlite":
                with Trace.open(place) as trace:
                    list(trace)
        except (SextetError, OSError, ValueError, AssertionError, sqlite3.Error) as error:
            return f"{name}: {error!r}"
    numbers = checkpoint.numbers(at / "r" / "checkpoints")
    if not {*before} <= {*numbers}:
        return f"checkpoints {before} became {numbers}"
    if (at / "r").is_dir() and not any((at / "r").iterdir()):
        return "an empty folder is left"
    return ""
