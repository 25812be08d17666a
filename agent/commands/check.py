"""`sextet check-module`: one line a promise."""

from __future__ import annotations

from collections.abc import Sequence

from agent.api.failure import RunFailedError
from agent.contracts.check import check as results_of
from agent.recording.plain_json import dumps


def check(kind: str, as_json: bool, plugins: Sequence[str] = ()) -> None:
    """Prints whether each promise holds. Raises RunFailedError, exit 1, where one does not."""
    results = results_of(kind, tuple(plugins))
    for result in results:
        print(result)
    broken = [result for result in results if not result.holds]
    if as_json:
        print(dumps({"kind": kind, "promises": len(results), "broken": len(broken)}))
    if broken:
        raise RunFailedError(
            f"check-module {kind}: {len(broken)} of {len(results)} promises broken"
        )
