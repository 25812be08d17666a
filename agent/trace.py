"""The trace: everything said in one run, a SQLite row for each moment (docs: one run = one folder).

Written in batches in WAL mode, so another process may read while it grows and a killed run loses
at most the last batch. Tables:

`meta`       one JSON value a key: format version, config, world, drives and what they do
             (probe hashes), heads, rows, and a CRC-32 of each of these
`layouts`    which tensors a moment's numbers hold, with dtype and shape; each layout stored once
`moments`    step, layout, `timeline` (small exact numbers), `dense` (latents and the like, zlib
             level 1), `plans` (actions and candidates, zlib level 1), `reasons` (JSON). Behind
             the numbers of `timeline` stands a CRC-32 of layout, step, numbers and reasons; zlib
             has its own
`frames`     step, the rows' frames: B uint32 lengths, then each row's pixels, zlib level 1
`keyframes`  step, a snapshot of the world and what acting needs of the agent's memory
             (`agent/keyframe.py`), zlib level 1

Moments are for looking: they are lossy where `Message.to_bytes` is not. Latents, recollections,
critic values of actions, tokens and candidates are float16; `carry` of states is left out and
comes back as [B 0]; keys and values of a recollection larger than `RECOLLECTED` numbers a row are
left out and come back with no width. Keyframes are for going on, and lose nothing.

Of a damaged trace `Trace.readable` gives what is left.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from modules.messages import (
    Directive,
    Energy,
    Message,
    MessageError,
    Moment,
    Observation,
    Plan,
    Recollection,
    State,
    TraceError,
    WorldSpec,
)

FORMAT_VERSION = 2
"""Raised when an older reader could no longer understand what is written. 1: `dense` as it is."""

RECOLLECTED = 256
"""Keys or values of a recollection of more numbers than this a row are left out."""

KEYFRAME_EVERY = 100
"""Steps between keyframes where nothing was said; docs/LOG.md has what they cost."""

_BATCH_MOMENTS, _BATCH_SECONDS = 64, 0.5
_CRC_BYTES = 4

_PARTS: dict[str, type[Message]] = {
    "observation": Observation,
    "state": State,
    "recollection": Recollection,
    "energies": Energy,
    "directive": Directive,
    "plan": Plan,
    "expected": State,
}
_DENSE = {
    "observation.vector",
    "observation.goal",
    "state.latent",
    "state.goal",
    "recollection.keys",
    "recollection.values",
    "recollection.value",
    "energies.critic_actions",
    "directive.tokens",
    "directive.carry",
    "expected.latent",
    "expected.goal",
}
_EXACT = {"observation.vector", "observation.goal", "plan.actions"}
_PLANS = {"plan.actions", "plan.candidates"}
_ABSENT = {"observation.pixels", "state.carry", "expected.carry"}
_DIGESTED = (
    ("observation", ("pixels", "vector", "signals", "goal", "first", "terminated", "truncated")),
    ("energies", ("intrinsic", "critic")),
    ("plan", ("mode", "steps", "committed", "model_calls", "energy")),
)
_SERIES = {
    "mode": "plan.mode",
    "energy": "plan.energy",
    "model_calls": "plan.model_calls",
    "signals": "observation.signals",
    "novelty": "recollection.novelty",
}

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE layouts (id INTEGER PRIMARY KEY, layout TEXT NOT NULL UNIQUE);
CREATE TABLE moments (
    step INTEGER PRIMARY KEY, layout INTEGER NOT NULL REFERENCES layouts (id),
    timeline BLOB NOT NULL, reasons TEXT NOT NULL, plans BLOB NOT NULL, dense BLOB NOT NULL);
CREATE TABLE frames (step INTEGER PRIMARY KEY, frames BLOB NOT NULL);
CREATE TABLE keyframes (
    step INTEGER PRIMARY KEY, snapshot BLOB NOT NULL, agent BLOB NOT NULL);
"""

_DAMAGE = (
    AttributeError, LookupError, MemoryError, MessageError, OverflowError, RecursionError,
    TypeError, ValueError, sqlite3.Error, struct.error, zlib.error,
)  # fmt: skip
"""What reading altered bytes may raise."""

_Form = tuple[np.dtype[Any], tuple[int, ...]]


class Entry(NamedTuple):
    """Where one tensor lies: its dotted path, the column, its dtype, shape and first byte."""

    path: str
    column: str
    dtype: str
    shape: tuple[int, ...]
    at: int
    size: int


def _column(path: str) -> str:
    return "dense" if path in _DENSE else "plans" if path in _PLANS else "timeline"


_OWN_FIELDS = tuple(name for name, _ in Moment._tensors)
_TAKEN: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...] = tuple(
    (
        part,
        tuple(
            (name, _column(f"{part}.{name}"), f"{part}.{name}" not in _EXACT)
            for name, _ in kind._tensors
            if f"{part}.{name}" not in _ABSENT
        ),
    )
    for part, kind in _PARTS.items()
)


def _numbers(value: Tensor) -> np.ndarray[Any, Any]:
    if value.requires_grad or value.device.type != "cpu":
        value = value.detach().cpu()
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy()


def _half(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Float16 without overflow: what is too large becomes the largest there is."""
    halved: np.ndarray[Any, Any] = np.clip(values, -65504.0, 65504.0).astype(np.float16)
    return halved


class Record(NamedTuple):
    """A moment as a trace keeps it: which tensors, and their numbers, by column.

    Two moments have equal records exactly where everything recorded of them is the same, bit for
    bit. `frames` are those of each row.
    """

    layout: str
    timeline: bytes
    plans: bytes
    dense: bytes
    reasons: str
    frames: tuple[bytes, ...]

    def hash_into(self, update: Callable[[bytes], object]) -> None:
        """Gives every column to the `update` of a hash, each after its length."""
        for part in (self.layout.encode(), self.timeline, self.plans, self.dense,
                     self.reasons.encode(), *self.frames):  # fmt: skip
            update(struct.pack("<q", len(part)))
            update(part)


def record_of(moment: Moment) -> Record:
    """The moment as a trace would keep it."""
    taken = _take(moment)
    frames = () if taken.frames is None else tuple(frame.tobytes() for frame in taken.frames)
    return Record(
        _layout_text(taken.key, taken.frames is not None),
        taken.timeline,
        taken.plans,
        taken.dense,
        _reasons_text(moment),
        frames,
    )


class _Taken(NamedTuple):
    """A moment's numbers, column by column; `key` tells the form of each tensor."""

    key: tuple[_Form | None, ...]
    timeline: bytes
    plans: bytes
    dense: bytes
    frames: np.ndarray[Any, Any] | None


def _take(moment: Moment) -> _Taken:
    key: list[_Form | None] = []
    values = moment.__dict__
    timeline: list[bytes] = []
    dense: list[bytes] = []
    plans: list[bytes] = []
    columns = {"timeline": timeline, "dense": dense, "plans": plans}
    for name in _OWN_FIELDS:
        numbers = _numbers(values[name])
        key.append((numbers.dtype, numbers.shape))
        timeline.append(numbers.tobytes())
    for part, names in _TAKEN:
        fields = values[part].__dict__
        wide = part == "recollection" and _too_wide(fields)
        for name, column, halve in names:
            value = fields[name]
            if value is None:
                key.append(None)
                continue
            if wide and name in ("keys", "values", "value"):
                value = value[..., :0]
            numbers = _numbers(value)
            if column != "timeline" and halve and numbers.dtype.kind == "f":
                numbers = _half(numbers)
            key.append((numbers.dtype, numbers.shape))
            columns[column].append(numbers.tobytes())
    pixels, frames = moment.observation.pixels, None
    if pixels is not None:
        frames = np.ascontiguousarray(_numbers(pixels))
        key.append((frames.dtype, frames.shape))
    return _Taken(tuple(key), b"".join(timeline), b"".join(plans), b"".join(dense), frames)


def _layout_text(key: Sequence[_Form | None], framed: bool) -> str:
    paths = [(name, "timeline") for name in _OWN_FIELDS]
    paths += [(f"{p}.{n}", column) for p, names in _TAKEN for n, column, _ in names]
    paths += [("observation.pixels", "frames")] if framed else []
    entries = [
        None if found is None else [path, column, found[0].name, list(found[1])]
        for (path, column), found in zip(paths, key, strict=True)
    ]
    return json.dumps([entry for entry in entries if entry is not None])


def _reasons_text(moment: Moment) -> str:
    return json.dumps(moment.directive.reason, ensure_ascii=False)


def _opened(blob: bytes, size: int, sums: Callable[[bytes], int]) -> bytes:
    """The `size` bytes of a column that was sealed. Raises ValueError where they have changed."""
    data = blob[:size]
    if len(blob) == size:
        return data  # of a trace written before there were checksums
    if len(blob) != size + _CRC_BYTES:
        raise ValueError(f"wanted {size + _CRC_BYTES} bytes, got {len(blob)}")
    if struct.pack("<I", sums(data)) != blob[size:]:
        raise ValueError("its checksum differs")
    return data


def _line_sum(layout_sum: int, step: int, reasons: str) -> Callable[[bytes], int]:
    """The checksum of a moment's `timeline`."""
    start = zlib.crc32(struct.pack("<q", step), layout_sum)
    return lambda data: zlib.crc32(reasons.encode(), zlib.crc32(data, start))


class TraceDigest:
    """A running hash of what was perceived, felt and done.

    It never sees wall time, latents or how the trace is stored: the same run has the same digest
    whether or not, and however, it is written.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, moment: Moment) -> None:
        """Takes one more moment in."""
        update = self._hash.update
        values = moment.__dict__
        update(struct.pack("<q", moment.step))
        for part, names in _DIGESTED:
            fields = values[part].__dict__
            for name in names:
                value = fields[name]
                if value is not None:
                    update(np.ascontiguousarray(_numbers(value)).data)
        update(np.ascontiguousarray(_numbers(moment.plan.action)).data)

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return self._hash.hexdigest()


class TraceWriter:
    """Writes the trace of one run; use it as a context manager.

    `config` is the resolved configuration, kept for whoever reads; `drive_hashes` say what each
    drive does. Raises TraceError, one line, where `path` exists or cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        world: WorldSpec,
        rows: int,
        drives: Sequence[str],
        heads: Sequence[str],
        config: Mapping[str, Any] | None = None,
        keyframe_every: int = KEYFRAME_EVERY,
        drive_hashes: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.keyframe_every = keyframe_every
        if self.path.exists():
            raise TraceError(f"trace {self.path}: wanted a new file, got one that exists")
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            # A row is some 3 KB: larger pages waste less of their end.
            self._db.execute("PRAGMA page_size=16384")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("BEGIN")
            for statement in _SCHEMA.split(";")[:-1]:
                self._db.execute(statement)
            meta = {
                "format_version": FORMAT_VERSION,
                "config": dict(config or {}),
                "world": world.model_dump(mode="json"),
                "rows": rows,
                "drives": list(drives),
                "drive_hashes": dict(drive_hashes or {}),
                "heads": list(heads),
            }
            told = {key: json.dumps(value) for key, value in meta.items()}
            told["checksums"] = json.dumps({k: zlib.crc32(v.encode()) for k, v in told.items()})
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", list(told.items()))
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise TraceError(f"trace {self.path}: wanted a writable file, got {error}") from None
        self._layouts: dict[tuple[object, ...], tuple[int, int]] = {}
        self._moments: list[tuple[int, int, bytes, str, bytes, bytes]] = []
        self._frames: list[tuple[int, bytes]] = []
        self._last = time.monotonic()

    def write(self, moment: Moment) -> None:
        """Adds one moment; on disk within 64 moments or half a second."""
        taken = _take(moment)
        if (frames := taken.frames) is not None:
            packed = [zlib.compress(frame, 1) for frame in frames]
            sizes = struct.pack(f"<{len(packed)}I", *map(len, packed))
            self._frames.append((moment.step, sizes + b"".join(packed)))
        if (layout := self._layouts.get(taken.key)) is None:
            layout = self._layouts[taken.key] = self._intern(taken)
        number, layout_sum = layout
        reasons = _reasons_text(moment)
        line_sum = _line_sum(layout_sum, moment.step, reasons)(taken.timeline)
        self._moments.append(
            (
                moment.step,
                number,
                taken.timeline + struct.pack("<I", line_sum),
                reasons,
                zlib.compress(taken.plans, 1),
                zlib.compress(taken.dense, 1),
            )
        )
        if len(self._moments) >= _BATCH_MOMENTS or time.monotonic() - self._last > _BATCH_SECONDS:
            self.flush()

    def _intern(self, taken: _Taken) -> tuple[int, int]:
        """The number of a layout, and its checksum."""
        text = _layout_text(taken.key, taken.frames is not None)
        try:
            self._db.execute("INSERT OR IGNORE INTO layouts (layout) VALUES (?)", (text,))
            found = self._db.execute("SELECT id FROM layouts WHERE layout = ?", (text,)).fetchone()
        except sqlite3.Error as error:
            raise TraceError(f"trace {self.path}: could not be written: {error}") from None
        return int(found[0]), zlib.crc32(text.encode())

    def keyframe(self, step: int, snapshot: bytes, agent: bytes = b"") -> None:
        """Keeps a snapshot of the world as it was observed at `step`, and what acting needs of the
        `agent` once that step's moment is written (`agent.keyframe`).
        """
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO keyframes VALUES (?, ?, ?)",
                (step, zlib.compress(snapshot, 1), zlib.compress(agent, 1)),
            )
        except sqlite3.Error as error:
            raise TraceError(f"trace {self.path}: could not be written: {error}") from None

    def due(self, step: int) -> bool:
        """Whether a keyframe belongs at `step`."""
        return self.keyframe_every > 0 and step % self.keyframe_every == 0

    def flush(self) -> None:
        """Commits what waits, so that every reader sees it."""
        if self._moments:
            try:
                self._db.execute("BEGIN")
                self._db.executemany("INSERT INTO moments VALUES (?, ?, ?, ?, ?, ?)", self._moments)
                self._db.executemany("INSERT INTO frames VALUES (?, ?)", self._frames)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise TraceError(f"trace {self.path}: could not be written: {error}") from None
            finally:
                self._moments, self._frames = [], []
        self._last = time.monotonic()

    def close(self) -> None:
        """Commits and leaves a single file, which may then be read where nothing is writable."""
        self.flush()
        try:
            self._db.execute("PRAGMA busy_timeout=100")
            self._db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError:
            # Somebody is still reading. The file stays in WAL mode, which is as complete.
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
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


def _too_wide(fields: Mapping[str, Tensor]) -> bool:
    rows = max(len(fields["keys"]), 1)
    return max(fields["keys"].numel(), fields["values"].numel()) > RECOLLECTED * rows


class Keyframe(NamedTuple):
    """From where a run can be gone on with: once the moment of `step` is written, before what it
    decided is done. `world` is a snapshot, `agent` as `agent.keyframe` has it.
    """

    step: int
    world: bytes
    agent: bytes


class Missing(NamedTuple):
    """Steps `first` to `last` of a damaged trace, which cannot be read, and why; -1 where it is
    not about steps.
    """

    first: int
    last: int
    why: str

    def __str__(self) -> str:
        if self.first < 0:
            return self.why
        span = f"steps {self.first} to {self.last}"
        return f"{span if self.last > self.first else f'step {self.first}'}: {self.why}"


class _Lines:
    """The timelines of many moments, in order of their steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.layouts: list[int] = []
        self.blobs: list[bytes] = []
        self.reasons: list[str] = []
        self._matrices: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}
        self._joined = 0

    def add(self, step: int, layout: int, blob: bytes, reasons: str) -> None:
        self.steps.append(step)
        self.layouts.append(layout)
        self.blobs.append(blob)
        self.reasons.append(reasons)

    def matrices(self) -> dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """For each layout the places of its moments, and their bytes [moments size]."""
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
    """Reads a trace, also one that is being written.

    `config`, `world`, `drives`, `drive_hashes`, `heads`, `rows` and `format_version` say what was
    run. Raises TraceError, one line, where the file is no trace or of a newer format, and where
    what is asked for is damaged. `damage` says, a line each, what was found wrong on opening;
    `readable` is for a trace that has some.
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
        self.config: dict[str, Any] = dict(meta["config"])
        self.world = WorldSpec.model_validate(meta["world"])
        self.rows: int = meta["rows"]
        self.drives: tuple[str, ...] = tuple(map(str, meta["drives"]))
        self.drive_hashes: dict[str, str] = dict(meta["drive_hashes"])
        self.heads: tuple[str, ...] = tuple(map(str, meta["heads"]))
        if type(self.rows) is not int or not 1 <= self.rows <= _MOST_ROWS:
            raise ValueError(f"rows {self.rows!r}")
        self._layouts: dict[int, tuple[str, int, dict[str, Entry]]] = {}
        self._known = _Lines()

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Trace:
        """Opens a trace file, or the `trace.sqlite` of a run folder, for reading only."""
        file = Path(path)
        if file.is_dir():
            file = file / "trace.sqlite"
        if not file.is_file():
            raise TraceError(f"trace {file}: wanted a recorded run, got no such file")
        database = sqlite3.connect(
            f"file:{quote(str(file.resolve()))}?mode=ro", uri=True, check_same_thread=False
        )
        try:
            damage = _settle(database)
            meta = _meta(database, damage)
            version = meta["format_version"]
            if version > FORMAT_VERSION:
                raise TraceError(
                    f"trace {file}: wanted format {FORMAT_VERSION} or older, got {version};"
                    " read it with a newer Sextet"
                )
            return cls(file, database, meta, damage)
        except TraceError:
            database.close()
            raise
        except _DAMAGE as error:
            database.close()
            line = " ".join(repr(error).split())
            raise TraceError(f"trace {file}: wanted a Sextet trace, got {line:.200}") from None

    def close(self) -> None:
        """Frees the file."""
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
        (found,) = self._ask("SELECT MIN(step), MAX(step) FROM moments")
        return 0 if found[0] is None else int(found[1] - found[0] + 1)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Moment]:
        at = -1
        query = "SELECT step FROM moments WHERE step > ? ORDER BY step LIMIT 256"
        while found := self._ask(query, (at,)):
            for (at,) in found:
                yield self.moment(at)

    def readable(self) -> Readable:
        """What can be read of the trace, whatever has happened to it."""
        return Readable(self)

    # -- moments ----------------------------------------------------------------------------

    def _layout(self, number: int) -> tuple[str, int, dict[str, Entry]]:
        """A layout as written, its checksum, and where each tensor lies."""
        if number not in self._layouts:
            found = self._ask("SELECT layout FROM layouts WHERE id = ?", (number,))
            try:
                text = found[0][0]
                ends, entries = dict[str, int](), dict[str, Entry]()
                for path, column, dtype, shape in json.loads(text):
                    size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
                    at = ends.get(column, 0)
                    entries[path] = Entry(path, column, dtype, tuple(shape), at, size)
                    ends[column] = at + size
                self._layouts[number] = text, zlib.crc32(text.encode()), entries
            except _DAMAGE as error:
                raise TraceError(
                    f"trace {self.path}: layout {number} is damaged: {_said(error)}"
                ) from None
        return self._layouts[number]

    def _size(self, number: int, column: str) -> int:
        """Bytes of a column of a moment with a layout."""
        last = [e for e in self._layout(number)[2].values() if e.column == column][-1:]
        return last[0].at + last[0].size if last else 0

    def _line(self, step: int, number: int, blob: bytes, reasons: str) -> bytes:
        """The timeline of a moment as stored. Raises what altered bytes raise."""
        sums = _line_sum(self._layout(number)[1], step, reasons)
        return _opened(blob, self._size(number, "timeline"), sums)

    def _rest(self, number: int, column: str, blob: bytes) -> bytes:
        """`dense` or `plans` of a moment as stored. Raises what altered bytes raise."""
        size = self._size(number, column)
        if column == "dense" and self.format_version == 1:
            return _opened(blob, size, zlib.crc32)
        return _inflated(blob, size)

    def _stored(self, step: int) -> tuple[int, dict[str, bytes], str]:
        """Layout, columns and reasons of a moment. Raises TraceError."""
        found = self._ask(
            "SELECT layout, timeline, dense, plans, reasons FROM moments WHERE step = ?", (step,)
        )
        if not found:
            raise TraceError(f"trace {self.path}: wanted step {step}, got {self.steps} steps")
        number, timeline, dense, plans, reasons = found[0]
        try:
            columns = {
                "timeline": self._line(step, number, timeline, reasons),
                "dense": self._rest(number, "dense", dense),
                "plans": self._rest(number, "plans", plans),
            }
        except _DAMAGE as error:
            raise self._damaged(step, error) from None
        return number, columns, reasons

    def _damaged(self, step: int, error: BaseException) -> TraceError:
        return TraceError(f"trace {self.path}: step {step} is damaged: {_said(error)}")

    def moment(self, step: int) -> Moment:
        """The moment of a step, as far as it was kept (see the head of this file)."""
        return self._moment(step, self._frames)

    def _moment(
        self, step: int, frames: Callable[[int, Entry, int | None], np.ndarray[Any, Any] | None]
    ) -> Moment:
        number, columns, reasons = self._stored(step)
        try:
            parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
            own: dict[str, Any] = {}
            for entry in self._layout(number)[2].values():
                if entry.column == "frames":
                    value = frames(step, entry, None)
                else:
                    value = _restore(entry, columns[entry.column])
                part, _, name = entry.path.rpartition(".")
                kept = None if value is None else torch.from_numpy(value)
                (parts[part] if part else own)[name] = kept
            rows = len(own["surprise"])
            for state in ("state", "expected"):
                parts[state]["carry"] = torch.zeros(rows, 0)
            for name in ("pixels", "vector", "goal"):
                parts["observation"].setdefault(name, None)
            parts["directive"]["reason"] = tuple(json.loads(reasons))
            messages: dict[str, Any] = {part: kind(**parts[part]) for part, kind in _PARTS.items()}
            return Moment(step=step, **own, **messages)
        except _DAMAGE as error:
            raise self._damaged(step, error) from None

    def record(self, step: int) -> Record:
        """The moment of a step just as it was kept, to be compared bit for bit."""
        number, columns, reasons = self._stored(step)
        text, _, entries = self._layout(number)
        shown = entries.get("observation.pixels")
        frames = () if shown is None else tuple(f.tobytes() for f in self._frames(step, shown))
        return Record(
            text, columns["timeline"], columns["plans"], columns["dense"], reasons, frames
        )

    # -- fields over time -------------------------------------------------------------------

    def _lines(self) -> _Lines:
        """The timelines of all moments: read once, then only what is new."""
        lines = self._known
        query = "SELECT step, layout, timeline, reasons FROM moments WHERE step > ? ORDER BY step"
        for step, number, blob, reasons in self._ask(query, (lines.steps or [-1])[-1:]):
            try:
                lines.add(step, number, self._line(step, number, blob, reasons), reasons)
            except _DAMAGE as error:
                raise self._damaged(step, error) from None
        return lines

    def series(self, name: str) -> np.ndarray[Any, Any]:
        """One field over all steps, [steps B ...].

        `name` is a path as in `Moment` ("surprise", "energies.intrinsic", "plan.model_calls"), a
        signal ("score", "life_lost", …), or one of mode, energy, model_calls, signals, novelty.
        The small fields are read once for all of them.
        """
        return self._series(name, self._lines(), self._bulk)

    def _bulk(self, column: str, lines: _Lines) -> list[bytes | None]:
        """`dense` or `plans` of all moments."""
        query = f"SELECT {column} FROM moments WHERE step <= ? ORDER BY step"
        found: list[bytes | None] = []
        for (blob,), step, number in zip(
            self._ask(query, lines.steps[-1:]), lines.steps, lines.layouts, strict=True
        ):
            try:
                found.append(self._rest(number, column, blob))
            except _DAMAGE as error:
                raise self._damaged(step, error) from None
        return found

    def _series(
        self, name: str, lines: _Lines, read: Callable[[str, _Lines], list[bytes | None]]
    ) -> np.ndarray[Any, Any]:
        """`series` over `lines`; `read` gives the columns that are not theirs."""
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
            raise TraceError(f"trace {self.path}: wanted a recorded field, got '{name}'")
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
        """Why each step went as it did: the configurator's line for each row."""
        return _reasons(self._lines())

    # -- frames and keyframes ---------------------------------------------------------------

    def _frames(self, step: int, entry: Entry, row: int | None = None) -> np.ndarray[Any, Any]:
        found = self._ask("SELECT frames FROM frames WHERE step = ?", (step,))
        if not found:
            raise TraceError(f"trace {self.path}: step {step} has no frames")
        (blob,) = found[0]
        rows = entry.shape[0]
        wanted = range(rows) if row is None else (row,)
        try:
            sizes = struct.unpack_from(f"<{rows}I", blob)
            starts = np.cumsum([4 * rows, *sizes])
            each = entry.size // rows
            raw = b"".join(_inflated(blob[starts[r] : starts[r + 1]], each) for r in wanted)
        except _DAMAGE as error:
            raise TraceError(
                f"trace {self.path}: frame {step} is damaged: {_said(error)}"
            ) from None
        shape = (len(wanted), *entry.shape[1:])
        return np.frombuffer(bytearray(raw), dtype=entry.dtype).reshape(shape)

    def frame(self, step: int, row: int = 0) -> np.ndarray[Any, Any]:
        """The pixels one row observed at a step, [H W C]."""
        found = self._ask("SELECT layout FROM moments WHERE step = ?", (step,))
        if not found or not 0 <= row < self.rows:
            raise TraceError(
                f"trace {self.path}: wanted step {step} row {row},"
                f" got {self.steps} steps of {self.rows} rows"
            )
        entry = self._layout(found[0][0])[2].get("observation.pixels")
        if entry is None:
            raise TraceError(f"trace {self.path}: this world shows no pixels")
        shown: np.ndarray[Any, Any] = self._frames(step, entry, row)[0]
        return shown

    def keyframe_before(self, step: int) -> tuple[int, bytes] | None:
        """The last keyframe at or before a step, (its step, the world's snapshot), or None."""
        found = self._ask(
            "SELECT step, snapshot FROM keyframes WHERE step <= ? ORDER BY step DESC LIMIT 1",
            (step,),
        )
        try:
            return (found[0][0], zlib.decompress(found[0][1])) if found else None
        except _DAMAGE as error:
            raise TraceError(
                f"trace {self.path}: keyframe {found[0][0]} is damaged: {_said(error)}"
            ) from None

    def keyframes_before(self, step: int) -> Iterator[Keyframe]:
        """The whole keyframes before a step, the last one first; damaged ones are passed over."""
        query = (
            "SELECT step, snapshot, agent FROM keyframes WHERE step < ? ORDER BY step DESC LIMIT 1"
        )
        while True:
            try:
                found = self._db.execute(query, (step,)).fetchone()
            except sqlite3.Error:
                return  # damaged, or of a time when keyframes held the world alone
            if found is None:
                return
            step = found[0]
            try:
                kept = Keyframe(step, zlib.decompress(found[1]), zlib.decompress(found[2]))
            except _DAMAGE:
                continue
            if kept.agent:
                yield kept

    def digest(self) -> str:
        """The digest of what the trace holds: that of the run, unless it was cut or altered."""
        digest = TraceDigest()
        for moment in self:
            digest.add(moment)
        return digest.hexdigest()


class Readable:
    """What can be read of a trace, damaged or not; it never raises for what is missing.

    `steps` are those of the moments that are there, `missing` what is not, and why. `series` and
    `reasons` are aligned with `steps`. Of an undamaged trace it is all there is, at the same
    speed. What it takes in is what was there when it was made.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._lines, whole, lost = _Lines(), True, dict[int, str]()
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
            except (TraceError, *_DAMAGE) as error:
                lost[step] = _said(error).removeprefix(f"trace {trace.path}: ")
        self.steps = np.array(self._lines.steps, np.int64)
        self.missing = self._gaps(lost)

    def _run(self, order: str) -> tuple[list[tuple[int, int, bytes, str]], bool]:
        """Rows in an order until damage is met, and whether none was."""
        rows: list[tuple[int, int, bytes, str]] = []
        query = f"SELECT step, layout, timeline, reasons FROM moments {order}"
        try:
            cursor = self.trace._db.execute(query)
            while found := cursor.fetchmany(64):
                rows += found
        except (OverflowError, sqlite3.Error):
            # One by one up to the damage: `fetchmany` loses what it had.
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
        """What there is behind the first damage: read from the end, and step by step between."""
        rows, _ = self._run("ORDER BY step DESC")
        low = before[-1][0] + 1 if before else 0
        high = min((row[0] for row in rows), default=self._end())
        query = "SELECT step, layout, timeline, reasons FROM moments WHERE step = ?"
        for step in range(low, min(high, low + _PROBED)):
            with suppress(OverflowError, sqlite3.Error):
                rows += self.trace._db.execute(query, (step,)).fetchall()
        return rows

    def _end(self) -> int:
        """A step that no moment reaches, by whatever still knows."""
        found = [0]
        for table in ("moments", "frames", "keyframes"):
            with suppress(OverflowError, sqlite3.Error):
                last = self.trace._db.execute(f"SELECT MAX(step) FROM {table}").fetchone()[0]
                found.append(0 if type(last) is not int else last + 1)
        most = self.trace.path.stat().st_size // _LEAST_BYTES
        return min(max(found) if any(found) else most, most)

    def _gaps(self, lost: Mapping[int, str]) -> tuple[Missing, ...]:
        """What is missing between the first step and the last, as few spans as can be."""
        gaps = [Missing(-1, -1, line) for line in self.trace.damage]
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
                gaps.append(Missing(step, step, why))
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
        """The moment of a step, without pixels where its frames are damaged. Raises TraceError
        where nothing can be made of the rest.
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
        return _reasons(self._lines)

    def _singly(self, column: str, lines: _Lines) -> list[bytes | None]:
        """`dense` or `plans` at all `steps`, None where damaged."""
        with suppress(TraceError, ValueError):
            return self.trace._bulk(column, lines)
        found: list[bytes | None] = []
        query = f"SELECT {column} FROM moments WHERE step = ?"
        for step, number in zip(lines.steps, lines.layouts, strict=True):
            blob: bytes | None = None
            with suppress(TraceError, *_DAMAGE):
                (stored,) = self.trace._db.execute(query, (step,)).fetchone()
                blob = self.trace._rest(number, column, stored)
            found.append(blob)
        return found


_MOST_ROWS = 65_536
_LEAST_BYTES = 128
"""A moment takes more of the file than this."""
_PROBED = 200_000
"""Steps asked for one by one behind damage, at most."""


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _settle(database: sqlite3.Connection) -> list[str]:
    """Readies a connection for a file nobody vouches for; what is wrong with it as a whole."""
    database.text_factory = lambda data: data.decode("utf-8", "replace")
    for pragma in ("query_only=1", "trusted_schema=0", "cell_size_check=1"):
        database.execute(f"PRAGMA {pragma}")
    try:
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        # A file that was cut short is refused whole unless SQLite is told to bear with it.
        database.execute("PRAGMA writable_schema=1")
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        return ["the file is shorter than it says, or its first page is damaged"]
    return []


def _meta(database: sqlite3.Connection, damage: list[str]) -> dict[str, Any]:
    """What a trace says of its run; what is not needed and damaged is said in `damage`."""
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
    for key, wanted in meta["checksums"].items():
        if zlib.crc32(str(stored.get(key, "")).encode()) != wanted:
            damage.append(f"its {key} has been altered")
    if type(meta["format_version"]) is not int:
        raise ValueError(f"format_version {meta['format_version']!r}")
    return meta


def _reasons(lines: _Lines) -> list[tuple[str, ...]]:
    return [tuple(json.loads(text)) for text in lines.reasons]


def _inflated(blob: bytes, size: int) -> bytes:
    """`size` bytes out of a compressed blob. Raises ValueError where there are others."""
    opened = zlib.decompressobj()
    data = opened.decompress(blob, size + 1)
    if len(data) != size or not opened.eof:
        raise ValueError(f"wanted {size} compressed bytes, got others")
    return data


def _restore(entry: Entry, blob: bytes) -> np.ndarray[Any, Any]:
    data = blob[entry.at : entry.at + entry.size]
    values = np.frombuffer(bytearray(data), dtype=entry.dtype).reshape(entry.shape)
    return values.astype(np.float32) if entry.dtype == "float16" else values
