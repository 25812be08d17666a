"""JSON without NaN or infinity, which the standard does not have and browsers refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """As `json.dumps`, with null in place of floats that are not finite."""
    try:
        return json.dumps(value, **options, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), **options, allow_nan=False)


def _finite(value: Any) -> Any:
    """A copy of nested values with None in place of floats that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {_finite(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
