"""The end of an error about an unknown name: the nearest allowed one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.6
"""Similarity, 0 to 1, below which no name is suggested."""


def suggestion(name: object, allowed: Iterable[str], cutoff: float = CUTOFF) -> str:
    """`. Did you mean 'NAME'?` for the most similar of `allowed`, ignoring case; empty if none."""
    choices = {choice.lower(): choice for choice in reversed(list(allowed))}
    close = difflib.get_close_matches(str(name).lower(), choices, n=1, cutoff=cutoff)
    return f". Did you mean {choices[close[0]]!r}?" if close else ""


def not_one_of(name: object, allowed: Iterable[str]) -> str:
    """`'NAME' is not one of A, B`, and the most similar of `allowed`."""
    names = list(allowed)
    return f"{name!r} is not one of {', '.join(names)}{suggestion(name, names)}"
