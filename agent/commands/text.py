"""Numbers as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float | None) -> str:
    """Four digits, or a dash for None."""
    return "–" if value is None else f"{value:.4g}"


def bounds(interval: Sequence[float] | None) -> str:
    """An interval as [low, high], or a dash for None."""
    return "–" if interval is None else f"[{', '.join(map(number, interval))}]"
