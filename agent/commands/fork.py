"""`sextet fork`: replays a run up to a step, changes a message there, compares the futures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.counterfactual.fork import Fork
from agent.counterfactual.fork import fork as call
from agent.recording.plain_json import dumps


def fork(run: Path, at: int, as_json: bool, **options: Any) -> None:
    """Forks a run and prints the comparison; as one JSON object with `as_json`.

    `options` are those of `agent.fork`.
    """
    result = call(run, at, **options)
    if as_json:
        print(dumps(result.as_dict()))
        return
    _print(result)


def _print(result: Fork) -> None:
    changed = ", ".join(result.changes) or "nothing: the control"
    length = f", for {result.hold or 'all'} of {result.steps} steps" if result.changes else ""
    print(f"changed   {changed}{length}")
    ends = "" if result.compared == result.steps else "; the record ends there"
    print(f"compared  steps {result.at} to {result.at + result.compared - 1}{ends}")
    if result.identical:
        print("future    identical, bit for bit")
    else:
        parts = "never" if result.diverged is None else f"from step {result.diverged}"
        print(
            f"future    messages differ from step {result.first_difference}, what the agent "
            f"observes and does {parts}"
        )
    was, now = result.original, result.fork
    print(f"{'':<12}{'recorded':>12}{'the fork':>12}")
    print(f"{'score':<12}{was.score:>12g}{now.score:>12g}")
    print(f"{'Mode-2':<12}{was.mode2_share:>12.0%}{now.mode2_share:>12.0%}")
    print(f"{'model calls':<12}{was.model_calls:>12}{now.model_calls:>12}")
    for name, value in was.energy.items():
        print(f"{'energy ' + name:<16}{value:>8.4g}{now.energy[name]:>12.4g}")
    print(f"{'digest':<12}{was.digest[:10]:>12}{now.digest[:10]:>12}")
