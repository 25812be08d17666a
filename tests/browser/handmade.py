"""Traces of moments put together by hand, the same that the tests of `agent` use."""

import zlib
from pathlib import Path
from typing import Any

from programs import ROOT, loaded

from agent.recording.trace import TraceWriter
from agent.recording.trace.layout import line_sum

by_hand = loaded(ROOT / "tests" / "agent" / "by_hand.py")


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
