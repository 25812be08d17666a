"""`sextet fork`: what would have happened from a recorded moment on, had something been else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.counterfactual.fork import Fork, Replay


def fork(
    run: Path,
    at: int,
    changes: Sequence[str],
    steps: int,
    hold: int,
    row: int | None,
    plugins: Sequence[str],
    as_json: bool,
) -> None:
    """Forks a run and prints what came of it; as one JSON object where asked."""
    with Replay(run, plugins) as replay:
        found = replay.fork(at, changes, steps, row, hold)
    if as_json:
        print(json.dumps(found.as_dict()))
        return
    _say(found)


def _say(found: Fork) -> None:
    """The comparison for a person."""
    changed = ", ".join(found.changes) or "nothing: the control"
    held = "" if not found.changes else f", held for {found.hold or 'all'} of {found.steps} steps"
    print(f"changed   {changed}{held}")
    ends = "" if found.compared == found.steps else "; the record ends there"
    print(f"compared  steps {found.at} to {found.at + found.compared - 1}{ends}")
    if found.identical:
        print("future    identical, bit for bit")
    else:
        parts = "never" if found.diverged is None else f"from step {found.diverged}"
        print(
            f"future    said otherwise from step {found.first_difference}, lived otherwise {parts}"
        )
    was, now = found.original, found.fork
    print(f"{'':<12}{'as it was':>12}{'the fork':>12}")
    print(f"{'score':<12}{was.score:>12g}{now.score:>12g}")
    print(f"{'Mode-2':<12}{was.mode2_share:>12.0%}{now.mode2_share:>12.0%}")
    print(f"{'model calls':<12}{was.model_calls:>12}{now.model_calls:>12}")
    for name, value in was.energy.items():
        print(f"{'energy ' + name:<16}{value:>8.4g}{now.energy[name]:>12.4g}")
    print(f"{'digest':<12}{was.digest[:10]:>12}{now.digest[:10]:>12}")
