"""`sextet config`: the complete configuration that a command would run with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from agent.assembly.load import request_for, resolved


def show(agent: str | None = None, overrides: Sequence[str] = (), **options: Any) -> None:
    """Prints it as YAML, fit for `--config`."""
    sys.stdout.write(resolved(request_for(agent, overrides, **options)).yaml())
