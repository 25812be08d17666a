"""Faults of worlds, at a random call, row and step of a training, isolated or not.

Each must end the training with exit code 1 and one line that names the world, the row, the step and
the field, keep the last checkpoint, and leave no transition in it that the world did not make. The
training is then resumed without the fault.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import train
from agent.recording import checkpoint
from modules.messages import SextetError
from tests.torture import faulty_world
from tests.torture.faulty_world import LENGTH, Faulty
from tests.torture.harness import Outcome

CASES = 1_000

PACKAGE = "tests.torture.faulty_world"
STEPS = 160
SETTINGS = (
    "perception.width=16", "world_model.width=16", "world_model.blocks=1", "cost.critic.width=16",
    "memory.capacity=1000", "learner.batch=4", "learner.warmup_steps=24",
    "learner.replay_ratio=0.05", "training.checkpoint_every=20", "training.evaluate_every=0",
    "training.evaluate_episodes=1", "training.report_every=0",
)  # fmt: skip

STEP_FAULTS = (
    *faulty_world.RAISED, *faulty_world.REWARDS, *faulty_world.OBSERVATIONS,
    *(f"{name} {odd}" for name in ("terminated", "truncated") for odd in faulty_world.FLAGS),
    *faulty_world.TUPLES, "hang",
)  # fmt: skip
RESET_FAULTS = tuple(
    f"reset {kind}" for kind in (*faulty_world.RAISED, *faulty_world.OBSERVATIONS, "no tuple")
)
ISOLATED_SHARE = 0.1


def case(number: int, seed: int) -> Outcome:
    """One fault in one training."""
    chosen = random.Random(f"{seed} {number}")
    isolated = chosen.random() < ISOLATED_SHARE
    kinds = [*STEP_FAULTS, *RESET_FAULTS, "close", "construction"]
    if isolated:
        kinds = [*STEP_FAULTS, *faulty_world.ENDS, *faulty_world.ENDS, *faulty_world.ENDS]
    kind = chosen.choice(kinds)
    rows = chosen.randint(1, 4)
    row, at = chosen.randrange(rows), chosen.randint(1, LENGTH)
    arms_at = chosen.randrange(40, 100)
    levels = chosen.random() < 0.5
    id = f"{PACKAGE}:Faulty{'Levels' * levels}-v0"
    name = f"{'isolated ' * isolated}{kind.split()[0]}"
    with tempfile.TemporaryDirectory() as place, _disarmed():
        folder, notes = Path(place) / "run", list[str]()

        def arm(progress: Any) -> None:
            """Arms the fault in the row of the training's own world."""
            if Faulty.armed is None and not isolated and progress.steps >= arms_at:
                live = [env for env in Faulty.made if env.total and not env.closed]
                Faulty.armed = (kind, live[row], at)

        total = 20 + chosen.randrange(15)
        if isolated:
            os.environ[faulty_world.PLAN] = json.dumps([kind, row, total])
        elif kind == "construction":
            Faulty.armed = (kind, None, 0)  # type: ignore[assignment]
        settings = (*SETTINGS, f"world.isolate={isolated}".lower(), "world.step_seconds=1")
        error = None
        try:
            train(id, *settings, num_envs=rows, steps=STEPS, seed=number, run=folder,
                  on_progress=arm, on_note=notes.append)  # fmt: skip
        except SextetError as raised:
            error = raised
        os.environ.pop(faulty_world.PLAN, None)
        step = (total - 1) % LENGTH + 1 if isolated else at
        fault = _line_fault(error, kind, id, row, step) or _kept_fault(folder, kind, rows, error)
        if not fault and kind not in ("close", "construction"):
            Faulty.armed = None
            run = train(resume=folder, on_note=notes.append)
            fault = "" if run.steps >= STEPS else f"resumed to step {run.steps} alone"
            fault = fault or _replay_fault(folder, rows)
            renewed = sum("new episodes begin" in note for note in notes)
            if renewed != levels:
                fault = fault or f"{renewed} notes of new episodes, levels: {levels}"
    verdict = "taken" if error is None else type(error).__name__
    return Outcome(name, verdict, fault, {"faults": 1.0})


@contextmanager
def _disarmed() -> Iterator[None]:
    """No fault is armed before and after."""
    Faulty.made.clear()
    Faulty.armed = Faulty.fired = None
    try:
        yield
    finally:
        Faulty.armed = None
        os.environ.pop(faulty_world.PLAN, None)


def _line_fault(error: SextetError | None, kind: str, id: str, row: int, step: int) -> str:
    """What is wrong with the error of a kind of fault."""
    if kind == "close":
        return "" if error is None else f"close: {error}"
    if error is None:
        return f"{kind}: no error"
    line, code = str(error), 2 if kind == "construction" else 1
    call, _, field = kind.rpartition("reset ")
    where = f"row {row}: " if call or kind.startswith("reset ") else f"row {row}, step {step}: "
    if kind == "construction":
        where = "row 0: construction failed"
    first = field.split()[0]
    if first not in ("reward", "observation", "terminated", "truncated"):
        first = "reset" if kind.startswith("reset ") else "step"
        first = "construction" if kind == "construction" else first
    for wanted in (f"world {id}: ", where, first):
        if wanted not in line:
            return f"{kind}: expected {wanted!r} in {line!r}"
    if "\n" in line or error.exit_code != code:
        return f"{kind}: expected one line and exit code {code}, got {error.exit_code}, {line!r}"
    return ""


def _kept_fault(folder: Path, kind: str, rows: int, error: SextetError | None) -> str:
    """What is wrong with what is kept of the run."""
    if kind == "construction":
        return "the folder exists" if folder.exists() else ""
    if kind == "close" and not (folder / "result.json").is_file():
        return "close: no result"
    return _replay_fault(folder, rows)


def _replay_fault(folder: Path, rows: int) -> str:
    """What is wrong with the replay in the newest checkpoint: transitions that never were."""
    newest = checkpoint.newest(folder / "checkpoints")
    if newest is None:
        return "no checkpoint"
    memory = newest[1].tensors["memory"]
    for name, values in memory.items():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            return f"{name} is not finite in the checkpoint"
    vectors, actions, signals, began, terminated, truncated = (
        memory[name].view(-1, rows, *memory[name].shape[1:])
        for name in ("vectors", "actions", "signals", "began", "terminated", "truncated")
    )
    for row in range(rows):
        for time in range(1, len(vectors)):
            (t, episode), (t_before, episode_before) = (
                vectors[when, row].tolist() for when in (time, time - 1)
            )
            over = bool(terminated[time - 1, row] | truncated[time - 1, row])
            if over:
                right = t == 0 and int(began[time, row]) == time
            else:
                reward = float(signals[time, row, 0])
                right = t == t_before + 1 and episode == episode_before
                right = right and began[time, row] == began[time - 1, row]
                right = right and reward == float(actions[time - 1, row])
            if not right:
                return f"row {row}: {t_before, episode_before} is followed by {t, episode}"
    return ""
