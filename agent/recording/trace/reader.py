"""Reads a trace, also while it is being written."""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import numpy as np
import torch

from agent.recording.renames import FIELDS, current_settings, current_world
from agent.recording.trace.digest import TraceDigest
from agent.recording.trace.layout import (
    FORMAT_VERSION,
    PARTS,
    Entry,
    Record,
    decompressed,
    timeline_checksum,
    unpacked,
    verified,
)
from modules.messages import (
    MessageError,
    Moment,
    TraceError,
    WorldSpec,
)

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
    out: a snapshot of the `world`, and `agent` as in `agent.recording.keyframe`.
    """

    step: int
    world: bytes
    agent: bytes


class Timelines:
    """The timelines of moments, in order of their steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.layouts: list[int] = []
        self.blobs: list[bytes] = []
        self.reasons: list[str] = []
        self._matrices: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}
        self._joined = 0

    def add(self, step: int, layout: int, blob: bytes, reasons: str) -> None:
        """Adds the timeline of a moment."""
        self.steps.append(step)
        self.layouts.append(layout)
        self.blobs.append(blob)
        self.reasons.append(reasons)

    def matrices(self) -> dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """For each layout the indices of its moments, and their bytes [moments size]."""
        if self._joined != len(self.blobs):
            of, self._matrices = np.array(self.layouts), {}
            for layout in Counter(self.layouts):
                place = np.flatnonzero(of == layout)
                whole = b"".join([self.blobs[i] for i in place])
                shape = len(place), len(self.blobs[place[0]])
                self._matrices[layout] = place, np.frombuffer(whole, np.uint8).reshape(shape)
            self._joined = len(self.blobs)
        return self._matrices


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
        database: sqlite3.Connection,
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
        self._layouts: dict[int, tuple[str, int, dict[str, Entry]]] = {}
        self._known = Timelines()

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Trace:
        """Opens a trace file, or the `trace.sqlite` of a run folder, for reading only."""
        file = Path(path)
        if file.is_dir():
            file = file / "trace.sqlite"
        if not file.is_file():
            raise TraceError(f"trace {file}: expected a recorded run, got no such file")
        database = sqlite3.connect(
            f"file:{quote(str(file.resolve()))}?mode=ro", uri=True, check_same_thread=False
        )
        try:
            damage = _prepare(database)
            meta = _meta(database, damage)
            version = meta["format_version"]
            if version > FORMAT_VERSION:
                raise TraceError(
                    f"trace {file}: expected format {FORMAT_VERSION} or older, got {version};"
                    " read it with a newer Sextet"
                )
            return cls(file, database, meta, damage)
        except TraceError:
            database.close()
            raise
        except DAMAGE as error:
            database.close()
            line = " ".join(repr(error).split())
            raise TraceError(f"trace {file}: expected a Sextet trace, got {line:.200}") from None

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise TraceError(f"trace {self.path}: could not be read: {error}") from None

    @property
    def steps(self) -> int:
        """Moments recorded so far."""
        ((first, last),) = self._ask("SELECT MIN(step), MAX(step) FROM moments")
        return 0 if first is None else int(last - first + 1)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Moment]:
        at = -1
        query = "SELECT step FROM moments WHERE step > ? ORDER BY step LIMIT 256"
        while steps := self._ask(query, (at,)):
            for (at,) in steps:
                yield self.moment(at)

    # -- moments ----------------------------------------------------------------------------

    def _layout(self, number: int) -> tuple[str, int, dict[str, Entry]]:
        """A layout under present names, its checksum as written, and the place of each tensor."""
        if number not in self._layouts:
            rows = self._ask("SELECT layout FROM layouts WHERE id = ?", (number,))
            try:
                text = rows[0][0]
                ends, entries = dict[str, int](), dict[str, Entry]()
                stored = json.loads(text)
                for line in stored:
                    path, column, dtype, shape = line
                    path = line[0] = FIELDS.get(path, path)
                    size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
                    at = ends.get(column, 0)
                    entries[path] = Entry(path, column, dtype, tuple(shape), at, size)
                    ends[column] = at + size
                current = json.dumps(stored)
                self._layouts[number] = current, zlib.crc32(text.encode()), entries
            except DAMAGE as error:
                raise TraceError(
                    f"trace {self.path}: layout {number} is damaged: {one_line(error)}"
                ) from None
        return self._layouts[number]

    def _size(self, number: int, column: str) -> int:
        """The size in bytes of a column in a layout."""
        last = [e for e in self._layout(number)[2].values() if e.column == column][-1:]
        return last[0].at + last[0].size if last else 0

    def _line(self, step: int, number: int, blob: bytes, reasons: str) -> bytes:
        """The verified timeline of a moment. Raises one of DAMAGE."""
        sums = timeline_checksum(self._layout(number)[1], step, reasons)
        return verified(blob, self._size(number, "timeline"), sums)

    def _rest(self, number: int, column: str, blob: bytes) -> bytes:
        """The verified `dense` or `plans` of a moment. Raises one of DAMAGE."""
        size = self._size(number, column)
        if column == "dense" and self.format_version == 1:
            return verified(blob, size, zlib.crc32)
        return decompressed(blob, size)

    def _stored(self, step: int) -> tuple[int, dict[str, bytes], str]:
        """The layout, columns and reasons of a moment. Raises TraceError."""
        rows = self._ask(
            "SELECT layout, timeline, dense, plans, reasons FROM moments WHERE step = ?", (step,)
        )
        if not rows:
            raise TraceError(f"trace {self.path}: expected step {step}, got {self.steps} steps")
        number, timeline, dense, plans, reasons = rows[0]
        try:
            columns = {
                "timeline": self._line(step, number, timeline, reasons),
                "dense": self._rest(number, "dense", dense),
                "plans": self._rest(number, "plans", plans),
            }
        except DAMAGE as error:
            raise self._damaged(step, error) from None
        return number, columns, reasons

    def _damaged(self, step: int, error: BaseException) -> TraceError:
        return TraceError(f"trace {self.path}: step {step} is damaged: {one_line(error)}")

    def moment(self, step: int) -> Moment:
        """The moment of a step, as far as it is recorded (see `agent.recording.trace`)."""
        return self._moment(step, self._frames)

    def _moment(
        self, step: int, frames: Callable[[int, Entry, int | None], np.ndarray[Any, Any] | None]
    ) -> Moment:
        number, columns, reasons = self._stored(step)
        try:
            parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
            own: dict[str, Any] = {}
            for entry in self._layout(number)[2].values():
                if entry.column == "frames":
                    value = frames(step, entry, None)
                else:
                    value = unpacked(entry, columns[entry.column])
                part, _, name = entry.path.rpartition(".")
                tensor = None if value is None else torch.from_numpy(value)
                (parts[part] if part else own)[name] = tensor
            rows = len(own["surprise"])
            for state in ("state", "expected"):
                parts[state]["hidden"] = torch.zeros(rows, 0)
            for name in ("pixels", "vector", "goal"):
                parts["observation"].setdefault(name, None)
            parts["directive"]["reason"] = tuple(json.loads(reasons))
            messages: dict[str, Any] = {part: kind(**parts[part]) for part, kind in PARTS.items()}
            return Moment(step=step, **own, **messages)
        except DAMAGE as error:
            raise self._damaged(step, error) from None

    def record(self, step: int) -> Record:
        """The moment of a step as stored, for comparison bit for bit."""
        number, columns, reasons = self._stored(step)
        text, _, entries = self._layout(number)
        pixels = entries.get("observation.pixels")
        frames = () if pixels is None else tuple(f.tobytes() for f in self._frames(step, pixels))
        return Record(
            text, columns["timeline"], columns["plans"], columns["dense"], reasons, frames
        )

    # -- fields over time -------------------------------------------------------------------

    def _lines(self) -> Timelines:
        """The timelines of all moments; those read before are not read again."""
        lines = self._known
        query = "SELECT step, layout, timeline, reasons FROM moments WHERE step > ? ORDER BY step"
        for step, number, blob, reasons in self._ask(query, (lines.steps or [-1])[-1:]):
            try:
                lines.add(step, number, self._line(step, number, blob, reasons), reasons)
            except DAMAGE as error:
                raise self._damaged(step, error) from None
        return lines

    def series(self, name: str) -> np.ndarray[Any, Any]:
        """One field over all steps, [steps B ...].

        `name` is a path as in `Moment` ("surprise", "energies.intrinsic", "plan.model_calls"), a
        signal ("reward", "life_lost", …), or one of mode, energy, model_calls, signals, novelty.
        The columns of small fields are read once for all series.
        """
        return self._series(name, self._lines(), self._bulk)

    def _bulk(self, column: str, lines: Timelines) -> list[bytes | None]:
        """`dense` or `plans` of all moments."""
        query = f"SELECT {column} FROM moments WHERE step <= ? ORDER BY step"
        blobs: list[bytes | None] = []
        for (blob,), step, number in zip(
            self._ask(query, lines.steps[-1:]), lines.steps, lines.layouts, strict=True
        ):
            try:
                blobs.append(self._rest(number, column, blob))
            except DAMAGE as error:
                raise self._damaged(step, error) from None
        return blobs

    def _series(
        self, name: str, lines: Timelines, read: Callable[[str, Timelines], list[bytes | None]]
    ) -> np.ndarray[Any, Any]:
        """`series` over `lines`; `read` reads the columns other than `timeline`."""
        signal: int | None = None
        path = _SERIES.get(name, name)
        if name in self.world.signals and name not in _SERIES:
            path, signal = "observation.signals", self.world.signals.index(name)
        if not lines.steps:
            return np.zeros((0, self.rows))
        matrices = lines.matrices()
        entries = {number: self._layout(number)[2].get(path) for number in matrices}
        entry = next(iter(entries.values()))
        if entry is None or entry.column == "frames":
            raise TraceError(f"trace {self.path}: expected a recorded field, got '{name}'")
        if any(e is None or (e.dtype, e.shape) != entry[2:4] for e in entries.values()):
            raise TraceError(f"trace {self.path}: '{name}' changes its form during the run")
        whole = np.zeros((len(lines.steps), entry.size), np.uint8)
        if entry.column == "timeline":
            for number, (place, stored) in matrices.items():
                at = entries[number].at  # type: ignore[union-attr]
                whole[place] = stored[:, at : at + entry.size]
            lost: list[int] = []
        else:
            blobs = read(entry.column, lines)
            for i, (blob, number) in enumerate(zip(blobs, lines.layouts, strict=True)):
                if blob is not None:
                    at = entries[number].at  # type: ignore[union-attr]
                    whole[i] = np.frombuffer(blob, np.uint8, entry.size, at)
            lost = [i for i, blob in enumerate(blobs) if blob is None]
        values = whole.reshape(-1).view(entry.dtype).reshape(len(lines.steps), *entry.shape)
        if entry.dtype == "float16":
            values = values.astype(np.float32)
        if lost:
            values[lost] = np.nan
        return values if signal is None else values[..., signal]

    def reasons(self) -> list[tuple[str, ...]]:
        """The configurator's reason for each row, step by step."""
        return reasons_in(self._lines())

    # -- frames and keyframes ---------------------------------------------------------------

    def _frames(self, step: int, entry: Entry, row: int | None = None) -> np.ndarray[Any, Any]:
        stored = self._ask("SELECT frames FROM frames WHERE step = ?", (step,))
        if not stored:
            raise TraceError(f"trace {self.path}: step {step} has no frames")
        (blob,) = stored[0]
        rows = entry.shape[0]
        chosen = range(rows) if row is None else (row,)
        try:
            sizes = struct.unpack_from(f"<{rows}I", blob)
            starts = np.cumsum([4 * rows, *sizes])
            each = entry.size // rows
            raw = b"".join(decompressed(blob[starts[r] : starts[r + 1]], each) for r in chosen)
        except DAMAGE as error:
            raise TraceError(
                f"trace {self.path}: frame {step} is damaged: {one_line(error)}"
            ) from None
        shape = (len(chosen), *entry.shape[1:])
        return np.frombuffer(bytearray(raw), dtype=entry.dtype).reshape(shape)

    def frame(self, step: int, row: int = 0) -> np.ndarray[Any, Any]:
        """The pixels one row observed at a step, [H W C]."""
        layouts = self._ask("SELECT layout FROM moments WHERE step = ?", (step,))
        if not layouts or not 0 <= row < self.rows:
            raise TraceError(
                f"trace {self.path}: expected step {step} row {row},"
                f" got {self.steps} steps of {self.rows} rows"
            )
        entry = self._layout(layouts[0][0])[2].get("observation.pixels")
        if entry is None:
            raise TraceError(f"trace {self.path}: this world shows no pixels")
        frame: np.ndarray[Any, Any] = self._frames(step, entry, row)[0]
        return frame

    def keyframe_before(self, step: int) -> tuple[int, bytes] | None:
        """The step and the world's snapshot of the last keyframe at or before a step, or None."""
        rows = self._ask(
            "SELECT step, snapshot FROM keyframes WHERE step <= ? ORDER BY step DESC LIMIT 1",
            (step,),
        )
        try:
            return (rows[0][0], zlib.decompress(rows[0][1])) if rows else None
        except DAMAGE as error:
            raise TraceError(
                f"trace {self.path}: keyframe {rows[0][0]} is damaged: {one_line(error)}"
            ) from None

    def keyframes_before(self, step: int) -> Iterator[Keyframe]:
        """The undamaged keyframes before a step, the last one first."""
        query = (
            "SELECT step, snapshot, agent FROM keyframes WHERE step < ? ORDER BY step DESC LIMIT 1"
        )
        while True:
            try:
                row = self._db.execute(query, (step,)).fetchone()
            except sqlite3.Error:
                return  # damaged, or of a time when keyframes held the world alone
            if row is None:
                return
            step = row[0]
            try:
                keyframe = Keyframe(step, zlib.decompress(row[1]), zlib.decompress(row[2]))
            except DAMAGE:
                continue
            if keyframe.agent:
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


def _prepare(database: sqlite3.Connection) -> list[str]:
    """Prepares a connection to an untrusted file; returns its damage as a whole, in lines."""
    database.text_factory = lambda data: data.decode("utf-8", "replace")
    for pragma in ("query_only=1", "trusted_schema=0", "cell_size_check=1"):
        database.execute(f"PRAGMA {pragma}")
    try:
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        # SQLite refuses a file that was cut short unless its schema is writable.
        database.execute("PRAGMA writable_schema=1")
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        return ["the file is shorter than it says, or its first page is damaged"]
    return []


def _meta(database: sqlite3.Connection, damage: list[str]) -> dict[str, Any]:
    """The description of the run; damage to optional entries is added to `damage`."""
    stored = dict(database.execute("SELECT key, value FROM meta").fetchall())
    meta: dict[str, Any] = {"config": {}, "drive_hashes": {}, "checksums": {}}
    for key, text in stored.items():
        try:
            value = json.loads(text)
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


def reasons_in(lines: Timelines) -> list[tuple[str, ...]]:
    """The configurator's reason for each row of each moment."""
    return [tuple(json.loads(text)) for text in lines.reasons]
