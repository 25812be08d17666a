"""`sextet config`: the complete configuration a command would run with."""

from __future__ import annotations

import sys

from agent.assembly.load import RunRequest, resolved


def show(request: RunRequest) -> None:
    """Prints it as YAML, fit for `--config`."""
    sys.stdout.write(resolved(request).yaml())
