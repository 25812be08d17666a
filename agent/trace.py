"""The trace: everything said in one run, a SQLite row for each moment (docs: one run = one folder).

Written in batches in WAL mode, so another process may read while it grows and a killed run loses
at most the last batch. Tables:

`meta`       one JSON value a key: format version, config, world, drives, heads, rows
`layouts`    which tensors a moment's numbers hold, with dtype and shape; each layout stored once
`moments`    step, layout, `timeline` (small exact numbers), `dense` (latents and the like),
             `plans` (actions and candidates, zlib level 1), `reasons` (JSON)
`frames`     step, the rows' frames: B uint32 lengths, then each row's pixels, zlib level 1
`keyframes`  step, a snapshot of the world, zlib level 1

The trace is for looking, not for continuing: it is lossy where `Message.to_bytes` is not. Latents,
recollections, critic values of actions, tokens and candidates are float16; `carry` of states is
left out and comes back as [B 0]; keys and values of a recollection larger than `RECOLLECTED`
numbers a row are left out and come back with no width.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
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

FORMAT_VERSION = 1
"""Raised when an older reader could no longer understand what is written."""

RECOLLECTED = 256
"""Keys or values of a recollection of more numbers than this a row are left out."""

_BATCH_MOMENTS, _BATCH_SECONDS = 64, 0.5

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
CREATE TABLE keyframes (step INTEGER PRIMARY KEY, snapshot BLOB NOT NULL);
"""


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

    `config` is the resolved configuration, kept for whoever reads. Raises TraceError, one line,
    where `path` exists or cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        world: WorldSpec,
        rows: int,
        drives: Sequence[str],
        heads: Sequence[str],
        config: Mapping[str, Any] | None = None,
        keyframe_every: int = 500,
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
                "heads": list(heads),
            }
            self._db.executemany(
                "INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()]
            )
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise TraceError(f"trace {self.path}: wanted a writable file, got {error}") from None
        self._layouts: dict[tuple[object, ...], int] = {}
        self._moments: list[tuple[int, int, bytes, str, bytes, bytes]] = []
        self._frames: list[tuple[int, bytes]] = []
        self._last = time.monotonic()

    def write(self, moment: Moment) -> None:
        """Adds one moment; on disk within 64 moments or half a second."""
        columns: dict[str, list[bytes]] = {"timeline": [], "dense": [], "plans": []}
        key: list[_Form | None] = []
        values = moment.__dict__
        timeline = columns["timeline"]
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
        pixels = moment.observation.pixels
        if pixels is not None:
            frames = np.ascontiguousarray(_numbers(pixels))
            key.append((frames.dtype, frames.shape))
            packed = [zlib.compress(frame, 1) for frame in frames]
            sizes = struct.pack(f"<{len(packed)}I", *map(len, packed))
            self._frames.append((moment.step, sizes + b"".join(packed)))
        wanted = tuple(key)
        layout = self._layouts.get(wanted)
        if layout is None:
            layout = self._layouts[wanted] = self._intern(key, pixels is not None)
        self._moments.append(
            (
                moment.step,
                layout,
                b"".join(timeline),
                json.dumps(moment.directive.reason, ensure_ascii=False),
                zlib.compress(b"".join(columns["plans"]), 1),
                b"".join(columns["dense"]),
            )
        )
        if len(self._moments) >= _BATCH_MOMENTS or time.monotonic() - self._last > _BATCH_SECONDS:
            self.flush()

    def _intern(self, key: list[_Form | None], framed: bool) -> int:
        paths = [(name, "timeline") for name in _OWN_FIELDS]
        paths += [(f"{p}.{n}", column) for p, names in _TAKEN for n, column, _ in names]
        paths += [("observation.pixels", "frames")] if framed else []
        entries = [
            None if found is None else [path, column, found[0].name, list(found[1])]
            for (path, column), found in zip(paths, key, strict=True)
        ]
        text = json.dumps([entry for entry in entries if entry is not None])
        try:
            self._db.execute("INSERT OR IGNORE INTO layouts (layout) VALUES (?)", (text,))
            found = self._db.execute("SELECT id FROM layouts WHERE layout = ?", (text,)).fetchone()
        except sqlite3.Error as error:
            raise TraceError(f"trace {self.path}: could not be written: {error}") from None
        return int(found[0])

    def keyframe(self, step: int, snapshot: bytes) -> None:
        """Keeps a snapshot of the world as it was observed at `step`."""
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO keyframes VALUES (?, ?)", (step, zlib.compress(snapshot, 1))
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


class Trace:
    """Reads a trace, also one that is being written.

    `config`, `world`, `drives`, `heads`, `rows` and `format_version` say what was run. Raises
    TraceError, one line, where the file is no trace, is damaged or of a newer format.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, meta: Mapping[str, Any]) -> None:
        self.path, self._db = path, database
        self.format_version: int = meta["format_version"]
        self.config: dict[str, Any] = meta["config"]
        self.world = WorldSpec.model_validate(meta["world"])
        self.rows: int = meta["rows"]
        self.drives: tuple[str, ...] = tuple(meta["drives"])
        self.heads: tuple[str, ...] = tuple(meta["heads"])
        self._layouts: dict[int, dict[str, Entry]] = {}

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
            database.execute("PRAGMA query_only=1")
            database.execute("PRAGMA trusted_schema=0")
            meta = {k: json.loads(v) for k, v in database.execute("SELECT key, value FROM meta")}
            version = meta["format_version"]
            if version > FORMAT_VERSION:
                raise TraceError(
                    f"trace {file}: wanted format {FORMAT_VERSION} or older, got {version};"
                    " read it with a newer Sextet"
                )
            return cls(file, database, meta)
        except TraceError:
            database.close()
            raise
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            database.close()
            raise TraceError(f"trace {file}: wanted a Sextet trace, got {error!r}") from None

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
        except sqlite3.Error as error:
            raise TraceError(f"trace {self.path}: could not be read: {error}") from None

    @property
    def steps(self) -> int:
        """Moments recorded so far."""
        (found,) = self._ask("SELECT MIN(step), MAX(step) FROM moments")
        return 0 if found[0] is None else found[1] - found[0] + 1

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Moment]:
        at = -1
        while found := self._ask("SELECT MIN(step) FROM moments WHERE step > ?", (at,)):
            if found[0][0] is None:
                return
            at = found[0][0]
            yield self.moment(at)

    def _layout(self, number: int) -> dict[str, Entry]:
        if number not in self._layouts:
            found = self._ask("SELECT layout FROM layouts WHERE id = ?", (number,))
            try:
                ends, entries = dict[str, int](), dict[str, Entry]()
                for path, column, dtype, shape in json.loads(found[0][0]):
                    size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
                    at = ends.get(column, 0)
                    entries[path] = Entry(path, column, dtype, tuple(shape), at, size)
                    ends[column] = at + size
            except (ValueError, TypeError, IndexError) as error:
                raise TraceError(
                    f"trace {self.path}: layout {number} is damaged: {error}"
                ) from None
            self._layouts[number] = entries
        return self._layouts[number]

    def moment(self, step: int) -> Moment:
        """The moment of a step, as far as it was kept (see the head of this file)."""
        found = self._ask(
            "SELECT layout, timeline, dense, plans, reasons FROM moments WHERE step = ?", (step,)
        )
        if not found:
            raise TraceError(f"trace {self.path}: wanted step {step}, got {self.steps} steps")
        number, timeline, dense, plans, reasons = found[0]
        try:
            columns = {"timeline": timeline, "dense": dense, "plans": zlib.decompress(plans)}
            parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
            own: dict[str, Any] = {}
            for entry in self._layout(number).values():
                if entry.column == "frames":
                    value = self._frames(step, entry, None)
                else:
                    value = _restore(entry, columns[entry.column])
                part, _, name = entry.path.rpartition(".")
                (parts[part] if part else own)[name] = torch.from_numpy(value)
            rows = len(own["surprise"])
            for state in ("state", "expected"):
                parts[state]["carry"] = torch.zeros(rows, 0)
            for name in ("pixels", "vector", "goal"):
                parts["observation"].setdefault(name, None)
            parts["directive"]["reason"] = tuple(json.loads(reasons))
            messages: dict[str, Any] = {part: kind(**parts[part]) for part, kind in _PARTS.items()}
            return Moment(step=step, **own, **messages)
        except (zlib.error, ValueError, KeyError, MessageError) as error:
            raise TraceError(f"trace {self.path}: step {step} is damaged: {error}") from None

    def series(self, name: str) -> np.ndarray[Any, Any]:
        """One field over all steps, [steps B ...].

        `name` is a path as in `Moment` ("surprise", "energies.intrinsic", "plan.model_calls"), a
        signal ("score", "life_lost", …), or one of mode, energy, model_calls, signals, novelty.
        """
        column: int | None = None
        path = _SERIES.get(name, name)
        if name in self.world.signals and name not in _SERIES:
            path, column = "observation.signals", self.world.signals.index(name)
        if not (used := self._ask("SELECT DISTINCT layout FROM moments")):
            return np.zeros((0, self.rows))
        entries = {number: self._layout(number).get(path) for (number,) in used}
        entry = next(iter(entries.values()))
        if entry is None or entry.column == "frames":
            raise TraceError(f"trace {self.path}: wanted a recorded field, got '{name}'")
        if any(e is None or (e.dtype, e.shape) != entry[2:4] for e in entries.values()):
            raise TraceError(f"trace {self.path}: '{name}' changes its form during the run")
        stored = self._ask(f"SELECT layout, {entry.column} FROM moments ORDER BY step")
        pieces = []
        for number, blob in stored:
            part = entries[number]
            assert part is not None
            data = zlib.decompress(blob) if entry.column == "plans" else blob
            pieces.append(data[part.at : part.at + part.size])
        whole = _restore(
            entry._replace(at=0, size=entry.size * len(pieces), shape=(len(pieces), *entry.shape)),
            b"".join(pieces),
        )
        return whole if column is None else whole[..., column]

    def reasons(self) -> list[tuple[str, ...]]:
        """Why each step went as it did: the configurator's line for each row."""
        stored = self._ask("SELECT reasons FROM moments ORDER BY step")
        return [tuple(json.loads(text)) for (text,) in stored]

    def _frames(self, step: int, entry: Entry, row: int | None) -> np.ndarray[Any, Any]:
        found = self._ask("SELECT frames FROM frames WHERE step = ?", (step,))
        if not found:
            raise TraceError(f"trace {self.path}: step {step} has no frames")
        (blob,) = found[0]
        rows = entry.shape[0]
        sizes = struct.unpack_from(f"<{rows}I", blob)
        starts = np.cumsum([4 * rows, *sizes])
        wanted = range(rows) if row is None else (row,)
        try:
            raw = b"".join(zlib.decompress(blob[starts[r] : starts[r + 1]]) for r in wanted)
        except (zlib.error, struct.error) as error:
            raise TraceError(f"trace {self.path}: frame {step} is damaged: {error}") from None
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
        entry = self._layout(found[0][0]).get("observation.pixels")
        if entry is None:
            raise TraceError(f"trace {self.path}: this world shows no pixels")
        shown: np.ndarray[Any, Any] = self._frames(step, entry, row)[0]
        return shown

    def keyframe_before(self, step: int) -> tuple[int, bytes] | None:
        """The last keyframe at or before a step, (its step, snapshot), or None."""
        found = self._ask(
            "SELECT step, snapshot FROM keyframes WHERE step <= ? ORDER BY step DESC LIMIT 1",
            (step,),
        )
        return (found[0][0], zlib.decompress(found[0][1])) if found else None

    def digest(self) -> str:
        """The digest of what the trace holds: that of the run, unless it was cut or altered."""
        digest = TraceDigest()
        for moment in self:
            digest.add(moment)
        return digest.hexdigest()


def _restore(entry: Entry, blob: bytes) -> np.ndarray[Any, Any]:
    data = blob[entry.at : entry.at + entry.size]
    values = np.frombuffer(bytearray(data), dtype=entry.dtype).reshape(entry.shape)
    return values.astype(np.float32) if entry.dtype == "float16" else values
