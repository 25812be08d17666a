"""`sextet check-module`: one line a promise."""

from __future__ import annotations

import json

from agent.api.failure import RunFailedError
from agent.assembly.build import known_kinds
from agent.contracts.check_module import check as contract


def check(kind: str, plugins: tuple[str, ...], as_json: bool) -> None:
    """Prints whether each promise holds. Raises RunFailedError, exit 1, where one does not."""
    promises = contract(kind, known_kinds(plugins))
    for one in promises:
        print(one)
    broken = [one for one in promises if not one.kept]
    if as_json:
        print(json.dumps({"kind": kind, "promises": len(promises), "broken": len(broken)}))
    if broken:
        raise RunFailedError(
            f"check-module {kind}: {len(broken)} of {len(promises)} promises broken"
        )
