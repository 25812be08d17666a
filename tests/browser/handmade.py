"""Traces of moments put together by hand, the same that the tests of `agent` use."""

import importlib.util
import zlib
from pathlib import Path
from typing import Any

from agent.trace import TraceWriter
from agent.trace.form import line_sum

_SPEC = importlib.util.spec_from_file_location(
    "by_hand", Path(__file__).parent.parent / "agent" / "by_hand.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
by_hand = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(by_hand)


def write(path: Path, moments: list[Any], world: Any = by_hand.PONG, config: Any = None) -> Path:
    """A trace of moments put together by hand."""
    heads = drives = by_hand.DRIVES
    with TraceWriter(path, world, 2, drives, heads, config or {}, keyframe_every=0) as writer:
        for moment in moments:
            writer.write(moment)
    return path


def resealed(step: int, layout: str, line: tuple[Any, ...]) -> tuple[Any, ...]:
    """A moment's row for another step: its checksum is over the step, too."""
    number, timeline, *rest = line
    reasons = rest[0]
    data = timeline[:-4]
    total = line_sum(zlib.crc32(layout.encode()), step, reasons)(data)
    return (number, data + total.to_bytes(4, "little"), *rest)
