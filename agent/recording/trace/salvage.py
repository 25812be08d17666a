"""Reads what is left of a damaged trace."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from agent.recording.trace.reader import DAMAGE, Line, Trace, one_line
from modules.messages import Moment, TraceError

_Row = tuple[int, int, bytes, str]
_QUERY = "SELECT step, layout, timeline, reasons FROM moments"
_UNREADABLE = (OverflowError, sqlite3.Error)

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
        self.missing = tuple(DamagedSpan(-1, -1, line) for line in trace.damage)
        try:
            self._lines = self._whole()
        except TraceError:
            self._lines, lost = self._readable()
            self.missing += self._gaps(lost)
        self.steps = np.array([line.step for line in self._lines], np.int64)

    def _whole(self) -> list[Line]:
        """The lines of a trace without gaps. Raises TraceError where it is damaged."""
        # A keyframe is on disk before its moment, frames are not.
        end = self._end(("moments", "frames"))
        lines = list(self.trace._lines())
        if lines and not end - lines[0].step <= len(lines) == lines[-1].step + 1 - lines[0].step:
            raise TraceError(f"trace {self.trace.path}: expected all steps, got {len(lines)}")
        return lines

    def _readable(self) -> tuple[list[Line], dict[int, str]]:
        """The lines that can be read, and why others cannot, by step."""
        rows, whole = self._run(f"{_QUERY} ORDER BY step")
        if not whole:
            rows += self._behind(rows)
        lines, lost, most = list[Line](), dict[int, str](), self._most
        for row in sorted(rows, key=lambda row: row[0]):
            if not 0 <= row[0] < most or (lines and lines[-1].step == row[0]):
                continue
            try:
                lines.append(self.trace._line(*row))
            except (TraceError, *DAMAGE) as error:
                lost[row[0]] = one_line(error).removeprefix(f"trace {self.trace.path}: ")
        return lines, lost

    def _run(self, query: str, values: Sequence[int] = ()) -> tuple[list[_Row], bool]:
        """The rows up to the first damage, and whether there is no damage."""
        rows: list[_Row] = []
        try:
            rows.extend(self.trace._db.rows(query, values))
        except _UNREADABLE:
            return rows, False
        return rows, True

    def _behind(self, before: list[_Row]) -> list[_Row]:
        """The rows behind the first damage: read from the end, and step by step between."""
        rows, _ = self._run(f"{_QUERY} ORDER BY step DESC")
        low = before[-1][0] + 1 if before else 0
        high = min((row[0] for row in rows), default=self._end())
        for step in range(low, min(high, low + _PROBED)):
            rows += self._run(f"{_QUERY} WHERE step = ?", (step,))[0]
        return rows

    def _end(self, tables: Sequence[str] = ("moments", "frames", "keyframes")) -> int:
        """An upper bound of the steps, by the readable tables or the size of the file."""
        ends = [0]
        for table in tables:
            with suppress(*_UNREADABLE):
                ((last,),) = self.trace._db.rows(f"SELECT MAX(step) FROM {table}")
                ends.append(0 if type(last) is not int else last + 1)
        return min(max(ends) if any(ends) else self._most, self._most)

    @property
    def _most(self) -> int:
        """More moments than the file has room for."""
        return self.trace._db.size // _LEAST_BYTES + 1

    def _gaps(self, lost: Mapping[int, str]) -> tuple[DamagedSpan, ...]:
        """The unreadable steps up to the last, adjacent ones with the same reason as one gap."""
        gaps: list[DamagedSpan] = []
        there = {line.step for line in self._lines}
        end = self._end()
        last = max([-1, *there, *(step for step in lost if step < end)])
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
        for step in self.steps.tolist():
            with suppress(TraceError):
                yield self.moment(step)

    def moment(self, step: int) -> Moment:
        """The moment of a step, without pixels where its frames are damaged.

        Raises TraceError where the rest is damaged.
        """
        try:
            return self.trace.moment(step)
        except TraceError:
            return self.trace.moment(step, pixels=False)

    def series(self, name: str) -> np.ndarray[Any, Any]:
        """One field over `steps`, as `Trace.series`; NaN where latents or plans are damaged.

        Raises TraceError for a field that is not recorded.
        """
        return self.trace._series(name, self._lines, partial=True)

    def reasons(self) -> list[tuple[str, ...]]:
        """The configurator's lines over `steps`."""
        return [line.reasons for line in self._lines]
