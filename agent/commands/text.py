"""Numbers as the commands print them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from modules.messages import ConfigError


def number(value: float | None) -> str:
    """Four digits, or a dash for None."""
    return "–" if value is None else f"{value:.4g}"


def bounds(interval: Sequence[float] | None) -> str:
    """An interval as [low, high], or a dash for None."""
    return "–" if interval is None else f"[{', '.join(map(number, interval))}]"


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """`0,1,2` or `0-11` as numbers. Raises ConfigError."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(f"{option}: expected numbers like 0,1,2 or 0-11, got {text!r}")
        numbers += range(int(first), int(last if dash else first) + 1)
    return tuple(numbers)


def note(line: str) -> None:
    """Prints a remark that is no error on stderr."""
    print(f"note      {line}", file=sys.stderr)
