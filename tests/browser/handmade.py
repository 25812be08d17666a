"""Traces of moments put together by hand, the same that the tests of `agent` use."""

import sqlite3
import zlib
from pathlib import Path
from typing import Any

from agent.recording.trace import TraceWriter
from agent.recording.trace.layout import timeline_checksum
from tests.agent import by_hand


def write(path: Path, moments: list[Any], world: Any = by_hand.PONG, config: Any = None) -> Path:
    """A trace of moments put together by hand."""
    heads = drives = by_hand.DRIVES
    with TraceWriter(path, world, 2, drives, heads, config or {}, keyframe_every=0) as writer:
        for moment in moments:
            writer.write(moment)
    return path


def write_long(file: Path, turns: int = 40) -> Path:
    """A trace of 500 steps with frames, written by hand and repeated `turns` times."""
    write(file, [by_hand.moment(step, 2, (84, 84, 1), 0) for step in range(500)])
    database = sqlite3.connect(file)
    stored = database.execute("SELECT * FROM moments ORDER BY step").fetchall()
    frames = database.execute("SELECT * FROM frames ORDER BY step").fetchall()
    (layout,) = {line[1] for line in stored}
    ((text,),) = database.execute("SELECT layout FROM layouts WHERE id = ?", (layout,))
    for turn in range(1, turns):
        for line in stored:
            step = line[0] + 500 * turn
            database.execute(
                "INSERT INTO moments VALUES (?, ?, ?, ?, ?, ?)",
                (step, *_resealed(step, text, line[1:])),
            )
        database.executemany(
            "INSERT INTO frames VALUES (?, ?)", [(s + 500 * turn, f) for s, f in frames]
        )
    database.commit()
    database.close()
    return file


def _resealed(step: int, layout: str, line: tuple[Any, ...]) -> tuple[Any, ...]:
    """A moment's row for another step: its checksum is over the step, too."""
    number, timeline, *rest = line
    reasons = rest[0]
    data = timeline[:-4]
    total = timeline_checksum(data, zlib.crc32(layout.encode()), step, reasons)
    return (number, data + total.to_bytes(4, "little"), *rest)
