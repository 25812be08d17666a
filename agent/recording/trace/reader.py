"""Reads a trace, also while it is being written."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from agent.recording.renames import current_settings, current_world
from agent.recording.trace.digest import TraceDigest
from agent.recording.trace.layout import (
    FORMAT_VERSION,
    Entry,
    Layout,
    Record,
    decompressed,
    inflated,
    timeline_checksum,
    verified,
)
from agent.recording.trace.sqlite_file import Database, open_database
from modules.field_path import MESSAGES
from modules.messages import MessageError, Moment, TraceError, WorldSpec
from modules.strange_files import plain_json

_MOST_ROWS = 65_536
"""A trace with more rows is considered damaged."""

_SERIES = {
    "mode": "plan.mode",
    "energy": "plan.energy",
    "model_calls": "plan.model_calls",
    "signals": "observation.signals",
    "novelty": "recollection.novelty",
}

DAMAGE = (
    AttributeError, LookupError, MemoryError, MessageError, OverflowError, RecursionError,
    TypeError, ValueError, sqlite3.Error, struct.error, zlib.error,
)  # fmt: skip
"""Exceptions that reading altered bytes may raise."""


class Keyframe(NamedTuple):
    """The state of a run after the moment of `step` was written and before its action was carried
    out: a snapshot of the `world`, and `agent` as in `agent.recording.keyframe`, empty in a trace
    of a time when keyframes held the world alone.
    """

    step: int
    world: bytes
    agent: bytes = b""


class Line(NamedTuple):
    """What every series reads of a moment: its layout, its `timeline` and its reasons."""

    step: int
    layout: int
    numbers: bytes
    reasons: tuple[str, ...]


class Trace:
    """Reads a trace, also while it is being written.

    `config`, `world`, `drives`, `drive_hashes`, `heads`, `rows` and `format_version` describe the
    run. Raises TraceError, one line, where the file is not a trace, of a newer format, or damaged
    where it is read. `damage` lists, a line each, the damage seen on opening; `SalvagedTrace` reads
    the rest of such a file.
    """

    def __init__(
        self,
        path: Path,
        database: Database,
        meta: Mapping[str, Any],
        damage: Sequence[str] = (),
    ) -> None:
        self.path, self._db, self.damage = path, database, tuple(damage)
        self.format_version: int = meta["format_version"]
        self.config = current_settings(meta["config"])
        self.world = WorldSpec.model_validate(current_world(meta["world"]))
        self.rows: int = meta["rows"]
        self.drives: tuple[str, ...] = tuple(map(str, meta["drives"]))
        self.drive_hashes: dict[str, str] = dict(meta["drive_hashes"])
        self.heads: tuple[str, ...] = tuple(map(str, meta["heads"]))
        if type(self.rows) is not int or not 1 <= self.rows <= _MOST_ROWS:
            raise ValueError(f"rows {self.rows!r}")
        self._layouts: dict[int, Layout] = {}
        self._known: list[Line] = []

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Trace:
        """Opens a trace file, or the `trace.sqlite` of a run folder, for reading only."""
        file = Path(path)
        if file.is_dir():
            file = file / "trace.sqlite"
        if not file.is_file():
            raise TraceError(f"trace {file}: expected a recorded run, got no such file")
        database: Database | None = None
        try:
            database, damage = open_database(file)
            meta = _meta(database, damage)
            version = meta["format_version"]
            if version > FORMAT_VERSION:
                raise TraceError(
                    f"trace {file}: expected format {FORMAT_VERSION} or older, got {version};"
                    " read it with a newer Sextet"
                )
            return cls(file, database, meta, damage)
        except (TraceError, *DAMAGE) as error:
            if database is not None:
                database.close()
            if isinstance(error, TraceError):
                raise
            line = " ".join(repr(error).split())
            raise TraceError(f"trace {file}: expected a Sextet trace, got {line:.200}") from None

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            return list(self._db.rows(query, values))
        except (sqlite3.Error, OverflowError) as error:
            raise TraceError(f"trace {self.path}: could not be read: {error}") from None

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Raises TraceError, one line that names `what`, where the block reads damaged bytes."""
        try:
            yield
        except DAMAGE as error:
            raise TraceError(f"trace {self.path}: {what} is damaged: {one_line(error)}") from None

    @property
    def steps(self) -> int:
        """Moments recorded so far."""
        ((first, last),) = self._ask("SELECT MIN(step), MAX(step) FROM moments")
        return 0 if first is None else int(last - first + 1)

    @property
    def axis_names(self) -> dict[str, tuple[str, ...]]:
        """The names of the places on an axis, by its letter in messages."""
        return {
            "K": self.drives,
            "L": self.heads,
            "S": self.world.signals,
            "A": self.world.actions.names,
        }

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Moment]:
        at = -1
        query = "SELECT step FROM moments WHERE step > ? ORDER BY step LIMIT 256"
        while steps := self._ask(query, (at,)):
            for (step,) in steps:
                # A damaged tree may lead back to earlier steps, without end.
                if step <= at:
                    raise TraceError(f"trace {self.path}: step {step} follows step {at}: damaged")
                at = step
                yield self.moment(at)

    # -- moments ----------------------------------------------------------------------------

    def _layout(self, number: int) -> Layout:
        if number not in self._layouts:
            rows = self._ask("SELECT layout FROM layouts WHERE id = ?", (number,))
            with self._reading(f"layout {number}"):
                self._layouts[number] = Layout.parse(rows[0][0])
        return self._layouts[number]

    def _line(self, step: int, number: int, blob: bytes, reasons: str) -> Line:
        """The verified line of a moment. Raises one of DAMAGE."""
        layout = self._layout(number)
        numbers = verified(
            blob,
            layout.sizes.get("timeline", 0),
            lambda data: timeline_checksum(data, layout.checksum, step, reasons),
        )
        return Line(step, number, numbers, tuple(map(str, plain_json(reasons))))

    def _rest(self, number: int, column: str, blob: bytes) -> bytes:
        """The verified `dense` or `plans` of a moment. Raises one of DAMAGE."""
        size = self._layout(number).sizes.get(column, 0)
        if column == "dense" and self.format_version == 1:
            return verified(blob, size, zlib.crc32)
        return decompressed(blob, size)

    def _stored(self, step: int) -> tuple[Layout, Line, dict[str, bytes], str]:
        """The layout, line, columns and reasons, as written, of a moment. Raises TraceError."""
        rows = self._ask(
            "SELECT layout, timeline, dense, plans, reasons FROM moments WHERE step = ?", (step,)
        )
        if not rows:
            raise TraceError(f"trace {self.path}: expected step {step}, got {self.steps} steps")
        number, timeline, dense, plans, reasons = rows[0]
        with self._reading(f"step {step}"):
            line = self._line(step, number, timeline, reasons)
            columns = {
                "timeline": line.numbers,
                "dense": self._rest(number, "dense", dense),
                "plans": self._rest(number, "plans", plans),
            }
        return self._layout(number), line, columns, reasons

    def moment(self, step: int, pixels: bool = True) -> Moment:
        """The moment of a step, as far as it is recorded (see `agent.recording.trace`), with or
        without its pixels.
        """
        layout, line, columns, _ = self._stored(step)
        with self._reading(f"step {step}"):
            fields: dict[str, dict[str, Any]] = {part: {} for part in ("", *MESSAGES)}
            for entry in layout.entries.values():
                if entry.column == "frames":
                    value = self._frames(step, entry) if pixels else None
                else:
                    value = entry.array(columns[entry.column][entry.at : entry.at + entry.size])
                part, _, name = entry.path.rpartition(".")
                fields[part][name] = None if value is None else torch.from_numpy(value)
            own = fields.pop("")
            for state in ("state", "expected"):
                fields[state]["hidden"] = torch.zeros(len(own["surprise"]), 0)
            for name in ("pixels", "vector", "goal"):
                fields["observation"].setdefault(name, None)
            fields["directive"]["reason"] = line.reasons
            parts: dict[str, Any] = {
                part: kind(**kind.with_added(fields[part])) for part, kind in MESSAGES.items()
            }
            return Moment(step=step, **own, **parts)

    def record(self, step: int) -> Record:
        """The moment of a step as stored, for comparison bit for bit."""
        layout, _, columns, reasons = self._stored(step)
        pixels = layout.entries.get("observation.pixels")
        frames = () if pixels is None else tuple(f.tobytes() for f in self._frames(step, pixels))
        return Record(layout.text, reasons=reasons, frames=frames, **columns)

    # -- fields over time -------------------------------------------------------------------

    def _lines(self) -> list[Line]:
        """The lines of all moments; those read before are not read again."""
        query = "SELECT step, layout, timeline, reasons FROM moments WHERE step > ? ORDER BY step"
        for row in self._ask(query, (self._known[-1].step if self._known else -1,)):
            with self._reading(f"step {row[0]}"):
                if self._known and row[0] <= self._known[-1].step:
                    raise ValueError(f"it follows step {self._known[-1].step}")
                self._known.append(self._line(*row))
        return self._known

    def series(self, name: str) -> np.ndarray[Any, Any]:
        """One field over all steps, [steps B ...].

        `name` is a path as in `Moment` ("surprise", "energies.intrinsic", "plan.model_calls"), a
        signal ("reward", "life_lost", …), or one of mode, energy, model_calls, signals, novelty.
        The columns of small fields are read once for all series.
        """
        return self._series(name, self._lines())

    def _series(
        self, name: str, lines: Sequence[Line], partial: bool = False
    ) -> np.ndarray[Any, Any]:
        """`series` over `lines`; with `partial`, NaN where latents or plans are damaged."""
        if name in self.world.signals and name not in _SERIES:
            return self._series("signals", lines, partial)[..., self.world.signals.index(name)]
        if not lines:
            return np.zeros((0, self.rows))
        path = _SERIES.get(name, name)
        entries = {
            number: self._layout(number).entries.get(path)
            for number in dict.fromkeys(line.layout for line in lines)
        }
        entry = entries[lines[0].layout]
        if entry is None or entry.column == "frames":
            raise TraceError(f"trace {self.path}: expected a recorded field, got '{name}'")
        if any(e is None or e[2:4] != entry[2:4] for e in entries.values()):
            raise TraceError(f"trace {self.path}: '{name}' changes its form during the run")
        places = {number: slice(e.at, e.at + e.size) for number, e in entries.items() if e}
        blobs: Sequence[bytes | None] = [line.numbers for line in lines]
        if entry.column != "timeline":
            blobs = [self._blob(entry.column, line, partial) for line in lines]
        parts = [
            bytes(entry.size) if blob is None else blob[places[line.layout]]
            for line, blob in zip(lines, blobs, strict=True)
        ]
        values = entry._replace(shape=(len(lines), *entry.shape)).array(b"".join(parts))
        if lost := [i for i, blob in enumerate(blobs) if blob is None]:
            values[lost] = np.nan
        return values

    def _blob(self, column: str, line: Line, partial: bool) -> bytes | None:
        """`dense` or `plans` of a moment; with `partial`, None where it is damaged."""
        try:
            with self._reading(f"step {line.step}"):
                stored = self._ask(f"SELECT {column} FROM moments WHERE step = ?", (line.step,))
                return self._rest(line.layout, column, stored[0][0])
        except TraceError:
            if partial:
                return None
            raise

    def reasons(self) -> list[tuple[str, ...]]:
        """The configurator's reason for each row, step by step."""
        return [line.reasons for line in self._lines()]

    # -- frames and keyframes ---------------------------------------------------------------

    def _frames(self, step: int, entry: Entry, row: int | None = None) -> np.ndarray[Any, Any]:
        """The frames of all rows, or of one, [rows H W C]."""
        stored = self._ask("SELECT frames FROM frames WHERE step = ?", (step,))
        if not stored:
            raise TraceError(f"trace {self.path}: step {step} has no frames")
        (blob,) = stored[0]
        rows = entry.shape[0]
        chosen = range(rows) if row is None else (row,)
        with self._reading(f"frame {step}"):
            starts = np.cumsum([4 * rows, *struct.unpack_from(f"<{rows}I", blob)])
            each = entry.size // rows
            raw = b"".join(decompressed(blob[starts[r] : starts[r + 1]], each) for r in chosen)
        return entry._replace(shape=(len(chosen), *entry.shape[1:])).array(raw)

    def frame(self, step: int, row: int = 0) -> np.ndarray[Any, Any]:
        """The pixels one row observed at a step, [H W C]."""
        layouts = self._ask("SELECT layout FROM moments WHERE step = ?", (step,))
        if not layouts or not 0 <= row < self.rows:
            raise TraceError(
                f"trace {self.path}: expected step {step} row {row},"
                f" got {self.steps} steps of {self.rows} rows"
            )
        entry = self._layout(layouts[0][0]).entries.get("observation.pixels")
        if entry is None:
            raise TraceError(f"trace {self.path}: this world shows no pixels")
        frame: np.ndarray[Any, Any] = self._frames(step, entry, row)[0]
        return frame

    def keyframes_until(self, step: int) -> Iterator[Keyframe]:
        """The undamaged keyframes at or before a step, the last one first."""
        query = "SELECT * FROM keyframes WHERE step <= ? ORDER BY step DESC LIMIT 1"
        while True:
            try:
                rows = self._ask(query, (step,))
            except TraceError:
                return
            if not rows:
                return
            ((at, *parts),) = rows
            step = at - 1
            try:
                keyframe = Keyframe(at, *map(inflated, parts))
            except DAMAGE:
                continue
            yield keyframe

    def digest(self) -> str:
        """The digest of the recorded moments: that of the run, unless the file was altered."""
        digest = TraceDigest()
        for moment in self:
            digest.add(moment)
        return digest.hexdigest()


def one_line(error: BaseException) -> str:
    """The text of an error, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _meta(database: Database, damage: list[str]) -> dict[str, Any]:
    """The description of the run; damage to optional entries is added to `damage`."""
    stored = dict(database.rows("SELECT key, value FROM meta LIMIT 1000"))
    meta: dict[str, Any] = {"config": {}, "drive_hashes": {}, "checksums": {}}
    for key, text in stored.items():
        try:
            value = plain_json(text)
            if key in meta and not isinstance(value, dict):
                raise ValueError(f"{key} is no mapping")
            meta[key] = value
        except (ValueError, RecursionError):
            if key not in meta:
                raise
            damage.append(f"its {key} cannot be read")
    for key, expected in meta["checksums"].items():
        if zlib.crc32(str(stored.get(key, "")).encode()) != expected:
            damage.append(f"its {key} has been altered")
    if type(meta["format_version"]) is not int:
        raise ValueError(f"format_version {meta['format_version']!r}")
    return meta
