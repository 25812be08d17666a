"""The assembly that a process holds on to from one job of an engine to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agent.assembly.build import Assembly
from agent.assembly.load import RunRequest, prepared

_cache: dict[str, Assembly] = {}
_pinned: set[str] = set()
"""Keys whose assembly is not closed to make room."""


def cached(key: str, request: RunRequest) -> Assembly:
    """The assembly of a request, made by the first job of this process that has the `key`.

    Another one, made for a job before, is closed.
    """
    if key not in _cache:
        _make_room()
        _cache[key] = prepared(request)
    return _cache[key]


@contextmanager
def pinned(key: str, assembly: Assembly) -> Iterator[None]:
    """Within, jobs with the `key` that run in this process have this assembly."""
    _cache[key] = assembly
    _pinned.add(key)
    try:
        yield
    finally:
        _pinned.discard(key)
        del _cache[key]
        _make_room()


def _make_room() -> None:
    for key in _cache.keys() - _pinned:
        _cache.pop(key).world.close()
