"""Reads what is left of a damaged trace."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from agent.recording.trace.layout import Entry
from agent.recording.trace.reader import DAMAGE, Timelines, Trace, one_line, reasons_in
from modules.messages import (
    Moment,
    TraceError,
)

_LEAST_BYTES = 128
"""A lower bound of the bytes of a moment in the file."""

_PROBED = 200_000
"""At most so many steps are queried one by one behind the first damage."""


class DamagedSpan(NamedTuple):
    """Steps `first` to `last` of a damaged trace that cannot be read, and why; -1 for damage that
    does not concern single steps.
    """

    first: int
    last: int
    why: str

    def __str__(self) -> str:
        if self.first < 0:
            return self.why
        span = f"steps {self.first} to {self.last}"
        return f"{span if self.last > self.first else f'step {self.first}'}: {self.why}"


class SalvagedTrace:
    """The readable moments of a trace, damaged or not, at the time of construction.

    `steps` are the steps of the readable moments, `missing` the gaps between them. `series` and
    `reasons` are aligned with `steps`. An undamaged trace is read whole, at the same speed.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._lines, whole, lost = Timelines(), True, dict[int, str]()
        rows, whole = self._run("ORDER BY step")
        if not whole:
            rows += self._behind(rows)
        for step, number, blob, reasons in sorted(rows, key=lambda row: row[0]):
            try:
                if self._lines.steps[-1:] == [step]:
                    continue
                line = trace._line(step, number, blob, reasons)
                tuple(map(str, json.loads(reasons)))
                self._lines.add(step, number, line, reasons)
            except (TraceError, *DAMAGE) as error:
                lost[step] = one_line(error).removeprefix(f"trace {trace.path}: ")
        self.steps = np.array(self._lines.steps, np.int64)
        self.missing = self._gaps(lost)

    def _run(self, order: str) -> tuple[list[tuple[int, int, bytes, str]], bool]:
        """The rows up to the first damage in this order, and whether there is no damage."""
        rows: list[tuple[int, int, bytes, str]] = []
        query = f"SELECT step, layout, timeline, reasons FROM moments {order}"
        try:
            cursor = self.trace._db.execute(query)
            while batch := cursor.fetchmany(64):
                rows += batch
        except (OverflowError, sqlite3.Error):
            # One by one up to the damage: `fetchmany` loses the rows of its batch.
            after = rows[-1][0] if rows else None
            return rows + self._one_by_one(order, after), False
        return rows, True

    def _one_by_one(self, order: str, after: int | None) -> list[tuple[int, int, bytes, str]]:
        rows: list[tuple[int, int, bytes, str]] = []
        sign = "<" if order.endswith("DESC") else ">"
        where = "" if after is None else f"WHERE step {sign} {after}"
        query = f"SELECT step, layout, timeline, reasons FROM moments {where} {order}"
        with suppress(OverflowError, sqlite3.Error):
            rows.extend(self.trace._db.execute(query))
        return rows

    def _behind(
        self, before: list[tuple[int, int, bytes, str]]
    ) -> list[tuple[int, int, bytes, str]]:
        """The rows behind the first damage: read from the end, and step by step between."""
        rows, _ = self._run("ORDER BY step DESC")
        low = before[-1][0] + 1 if before else 0
        high = min((row[0] for row in rows), default=self._end())
        query = "SELECT step, layout, timeline, reasons FROM moments WHERE step = ?"
        for step in range(low, min(high, low + _PROBED)):
            with suppress(OverflowError, sqlite3.Error):
                rows += self.trace._db.execute(query, (step,)).fetchall()
        return rows

    def _end(self) -> int:
        """An upper bound of the steps, by the readable tables or the size of the file."""
        ends = [0]
        for table in ("moments", "frames", "keyframes"):
            with suppress(OverflowError, sqlite3.Error):
                last = self.trace._db.execute(f"SELECT MAX(step) FROM {table}").fetchone()[0]
                ends.append(0 if type(last) is not int else last + 1)
        most = self.trace.path.stat().st_size // _LEAST_BYTES
        return min(max(ends) if any(ends) else most, most)

    def _gaps(self, lost: Mapping[int, str]) -> tuple[DamagedSpan, ...]:
        """The unreadable steps up to the last, adjacent ones with the same reason as one gap."""
        gaps = [DamagedSpan(-1, -1, line) for line in self.trace.damage]
        there = set(self._lines.steps)
        end = self._end()
        last = max([-1, *there, *(step for step in lost if step < end)])
        if not gaps and not lost and len(there) == last + 1 >= end:
            return ()
        for step in range(max(last + 1, end)):
            if step in there:
                continue
            why = lost.get(step, "its page of the file cannot be read")
            if gaps and gaps[-1].last == step - 1 and gaps[-1].why == why:
                gaps[-1] = gaps[-1]._replace(last=step)
            else:
                gaps.append(DamagedSpan(step, step, why))
        return tuple(gaps)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Moment]:
        for step in self._lines.steps:
            try:
                yield self.moment(step)
            except TraceError:
                continue

    def moment(self, step: int) -> Moment:
        """The moment of a step, without pixels where its frames are damaged.

        Raises TraceError where the rest is damaged.
        """

        def frames(step: int, entry: Entry, row: int | None) -> np.ndarray[Any, Any] | None:
            try:
                return self.trace._frames(step, entry, row)
            except TraceError:
                return None

        return self.trace._moment(step, frames)

    def series(self, name: str) -> np.ndarray[Any, Any]:
        """One field over `steps`, as `Trace.series`; NaN where latents or plans are damaged.

        Raises TraceError for a field that is not recorded.
        """
        return self.trace._series(name, self._lines, self._singly)

    def reasons(self) -> list[tuple[str, ...]]:
        """The configurator's lines over `steps`."""
        return reasons_in(self._lines)

    def _singly(self, column: str, lines: Timelines) -> list[bytes | None]:
        """`dense` or `plans` at all `steps`, None where damaged."""
        with suppress(TraceError, ValueError):
            return self.trace._bulk(column, lines)
        blobs: list[bytes | None] = []
        query = f"SELECT {column} FROM moments WHERE step = ?"
        for step, number in zip(lines.steps, lines.layouts, strict=True):
            blob: bytes | None = None
            with suppress(TraceError, *DAMAGE):
                (stored,) = self.trace._db.execute(query, (step,)).fetchone()
                blob = self.trace._rest(number, column, stored)
            blobs.append(blob)
        return blobs
