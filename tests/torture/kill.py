"""Trainings and plays that SIGKILL ends at seeded moments, and what is left of them.

A training is killed inside a save (at a line of it, or before a call that writes), before its first
checkpoint (while its folder is made, at a step), or anywhere. It must be resumed, or begun again
where no folder is left, and end as one that was not disturbed, bit for bit, with at most one
interval of checkpoints lost. A killed play leaves a trace that is read, or none.
"""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.recording import checkpoint
from agent.recording.trace import Trace
from modules.messages import TraceError
from tests.torture.harness import Outcome
from tests.torture.launcher import Ended, Moment, launcher, shared_memory

INTERVAL, STEPS, WARMUP = 20, 60, 10

SMALL = (
    f"--learner.warmup_steps={WARMUP}", "--learner.batch=4", "--learner.replay_ratio=1",
    "--memory.capacity=100", "--training.report_every=10", "--training.evaluate_every=30",
    f"--training.checkpoint_every={INTERVAL}", "--training.evaluate_episodes=1",
    "--world_model.width=16", "--world_model.ensemble_size=2", "--perception.width=16",
    "--cost.critic.width=16", "--no-live",
)  # fmt: skip
"""An update at each step after the warmup, so that updates count the steps."""

TRAIN = ("train", "CartPole-v1", "--steps", str(STEPS), "--seed", "3", "--run", "r", *SMALL)
SEEDS = ("train", "CartPole-v1", "--steps", str(STEPS), "--seeds", "3,4", "--run", "r", *SMALL)
PLAY = ("play", "CartPole-v1", "--steps", "150", "--seed", "3", "--run", "r", "--no-live",
        "--configurator.kind=fixed", "--configurator.mode=1")  # fmt: skip

KINDS: dict[str, tuple[int, tuple[str, ...], str]] = {
    "inside a save, at a line": (130, TRAIN, "save"),
    "at a call that writes": (40, TRAIN, "call"),
    "while the folder is made": (25, TRAIN, "create"),
    "before the first checkpoint": (35, TRAIN, "step"),
    "at an update": (50, TRAIN, "update"),
    "with two seeds": (20, SEEDS, "call"),
    "while a trace is written": (50, PLAY, "call"),
}
"""Cases, command and what is counted, by kind."""

CASES = sum(cases for cases, _, _ in KINDS.values())


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for one case, in memory where there is such a place."""
    with tempfile.TemporaryDirectory(dir=shared_memory(), prefix="sextet-case-") as place:
        (at := Path(place) / "at").mkdir()
        yield at


@functools.cache
def undisturbed(words: tuple[str, ...]) -> tuple[dict[str, int], dict[str, Any]]:
    """The counts of a command that is left alone, and what its run holds at the end."""
    with folder() as at:
        ended = launcher().run(words, at, Moment("lines"))
        assert ended.code == 0, ended.err
        return ended.counts, held(at / "r")


def held(run: Path) -> dict[str, Any]:
    """All of a training's end that does not depend on the clock."""
    values: dict[str, Any] = {}
    for place in sorted(run.rglob(f"checkpoints/{STEPS}")):
        seed = place.parent.parent
        name, saved = seed.relative_to(run), checkpoint.load(place)
        for group, tensors in saved.tensors.items():
            values |= {f"{name} {group}/{key}": tensor.tolist() for key, tensor in tensors.items()}
        facts = {key: value for key, value in saved.facts.items() if "seconds" not in key}
        values |= {f"{name} facts": facts, f"{name} blobs": saved.blobs}
        lines = (seed / "metrics.jsonl").read_text().splitlines()
        values[f"{name} metrics"] = [
            {key: value for key, value in json.loads(line).items() if key != "steps_per_s"}
            for line in lines
        ]
    return values


def moment_of(number: int, seed: int) -> tuple[str, tuple[str, ...], Moment]:
    """Kind, command and moment of a case."""
    kinds = [kind for kind, (cases, _, _) in KINDS.items() for _ in range(cases)]
    kind = kinds[number]
    _, words, what = KINDS[kind]
    count = undisturbed(words)[0][what]
    if kind == "before the first checkpoint":
        count = INTERVAL
    return kind, words, Moment(what, random.Random(f"{seed} {number}").randint(1, count))


def case(number: int, seed: int) -> Outcome:
    """Kills one command, and goes on with what is left of it."""
    kind, words, moment = moment_of(number, seed)
    with folder() as at:
        killed = launcher().run(words, at, moment)
        where = f"{moment.what} {moment.nth}"
        if killed.code != -9:
            return Outcome(kind, "harness", f"{where}: not killed but {killed.code}: {killed.err}")
        verdict, fault = (played if words is PLAY else resumed)(at, words, killed)
        if not fault and (left := [str(p) for p in at.rglob(".*") if words is not PLAY]):
            fault = f"left behind: {', '.join(left)}"
        counts = {f"at {moment.what}": 1.0}
        return Outcome(kind, verdict, fault and f"{where}: {fault}", counts)


def resumed(at: Path, words: tuple[str, ...], killed: Ended) -> tuple[str, str]:
    """Resumes a killed training; a word for what happened, and what is wrong."""
    verdict, again = "resumed", ("train", "--resume", "r", "--no-live", "--json")
    if not (at / "r").exists():
        verdict, again = "no folder: begun again", (*words, "--json")
    ended = launcher().run(again, at)
    if ended.code != 0:
        return "lost", f"exit {ended.code}: {' '.join(ended.err.split())[-300:]}"
    if ended.lines:
        return verdict, f"unexpected: {ended.lines[0]}"
    figures = json.loads(ended.out.splitlines()[-1])
    if words is TRAIN:
        if figures["resumed_at"] is None:
            verdict = "begun again" if verdict == "resumed" else verdict
        updates = killed.counts["update"]
        reached = updates + WARMUP - 1 if updates else 0
        if (lost := reached - (figures["resumed_at"] or 0)) > INTERVAL:
            return verdict, f"{lost} steps lost"
    now, whole = held(at / "r"), undisturbed(words)[1]
    different = sorted(
        name for name in now.keys() | whole.keys() if now.get(name) != whole.get(name)
    )
    return verdict, f"not identical: {', '.join(different[:3])}" if different else ""


def played(at: Path, words: tuple[str, ...], killed: Ended) -> tuple[str, str]:
    """Reads what a killed play has recorded."""
    trace = at / "r" / "trace.sqlite"
    if not trace.exists():
        again = launcher().run(words, at) if not (at / "r").exists() else None
        return "no trace", f"exit {again.code}: {again.err}" if again and again.code else ""
    steps = killed.counts["step"]
    try:
        with Trace.open(trace) as recorded:
            read = sum(1 for _ in recorded)
    except TraceError as error:
        return "unreadable", str(error)
    # Moments are committed 64 at a time, or within half a second.
    return "trace read", f"{read} of {steps} moments" if steps - read > 65 else ""
