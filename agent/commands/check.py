"""`sextet check-module`: one line a promise."""

from __future__ import annotations

import json

from agent.assembly.build import known_kinds
from agent.commands.failure import RunFailedError
from agent.contracts.check_module import check as contract


def check(kind: str, plugins: tuple[str, ...], as_json: bool) -> None:
    """Prints whether each promise was kept. Raises RunFailedError, exit 1, where one was not."""
    found = contract(kind, known_kinds(plugins))
    for one in found:
        print(one)
    broken = [one for one in found if not one.kept]
    if as_json:
        print(json.dumps({"kind": kind, "promises": len(found), "broken": len(broken)}))
    if broken:
        raise RunFailedError(f"check-module {kind}: {len(broken)} of {len(found)} promises broken")
