"""Writes the trace of a run, moment by moment."""

from __future__ import annotations

import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, Self

from agent.recording.atomic import sync_folder, writing
from agent.recording.plain_json import dumps
from agent.recording.trace.layout import (
    FORMAT_VERSION,
    record_of,
    timeline_checksum,
)
from modules.messages import Moment, TraceError, WorldSpec

KEYFRAME_EVERY = 100
"""Steps between keyframes by default; docs/LOG.md has their cost."""

_BATCH_MOMENTS, _BATCH_SECONDS = 64, 0.5

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


class TraceWriter:
    """Writes the trace of one run; use it as a context manager.

    `config` is the resolved configuration, stored for readers; `drive_hashes` are the probe hashes
    of the drives. A killed writer leaves a trace that can be read, or none. Raises TraceError, one
    line, where `path` exists, and WriteError where it cannot be written.
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
            raise TraceError(f"trace {self.path}: expected a new file, got one that exists")
        meta = {
            "format_version": FORMAT_VERSION,
            "config": dict(config or {}),
            "world": world.model_dump(mode="json"),
            "rows": rows,
            "drives": list(drives),
            "drive_hashes": dict(drive_hashes or {}),
            "heads": list(heads),
        }
        texts = {key: dumps(value) for key, value in meta.items()}
        texts["checksums"] = dumps({k: zlib.crc32(v.encode()) for k, v in texts.items()})
        with self._writing():
            _create(self.path, texts)
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
        self._layouts: dict[str, tuple[int, int]] = {}
        self._moments: list[tuple[int, int, bytes, str, bytes, bytes]] = []
        self._frames: list[tuple[int, bytes]] = []
        self._last = time.monotonic()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises WriteError, one line, where the block cannot write."""
        with writing(f"trace {self.path}"):
            yield

    def write(self, moment: Moment) -> None:
        """Adds one moment; on disk within 64 moments or half a second."""
        record, step = record_of(moment), moment.step
        if record.frames:
            packed = [zlib.compress(frame, 1) for frame in record.frames]
            sizes = struct.pack(f"<{len(packed)}I", *map(len, packed))
            self._frames.append((step, sizes + b"".join(packed)))
        if record.layout not in self._layouts:
            self._layouts[record.layout] = self._intern(record.layout)
        number, layout_checksum = self._layouts[record.layout]
        check = timeline_checksum(record.timeline, layout_checksum, step, record.reasons)
        self._moments.append(
            (
                step,
                number,
                record.timeline + struct.pack("<I", check),
                record.reasons,
                zlib.compress(record.plans, 1),
                zlib.compress(record.dense, 1),
            )
        )
        if len(self._moments) >= _BATCH_MOMENTS or time.monotonic() - self._last > _BATCH_SECONDS:
            self.flush()

    def _intern(self, layout: str) -> tuple[int, int]:
        """The number of a layout, and its checksum."""
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO layouts (layout) VALUES (?)", (layout,))
            query = "SELECT id FROM layouts WHERE layout = ?"
            (number,) = self._db.execute(query, (layout,)).fetchone()
        return int(number), zlib.crc32(layout.encode())

    def keyframe(self, step: int, snapshot: bytes, agent: bytes = b"") -> None:
        """Stores a snapshot of the world as observed at `step`, and the agent's part of a keyframe
        (`agent.recording.keyframe.agent_bytes`) after that step's moment was written.
        """
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO keyframes VALUES (?, ?, ?)",
                (step, zlib.compress(snapshot, 1), zlib.compress(agent, 1)),
            )

    def due(self, step: int) -> bool:
        """Whether a keyframe is due at `step`."""
        return self.keyframe_every > 0 and step % self.keyframe_every == 0

    def flush(self) -> None:
        """Commits the pending moments, so that readers see them."""
        moments, frames, self._moments, self._frames = self._moments, self._frames, [], []
        if moments:
            with self._writing(), self._db:
                self._db.execute("BEGIN")
                self._db.executemany("INSERT INTO moments VALUES (?, ?, ?, ?, ?, ?)", moments)
                self._db.executemany("INSERT INTO frames VALUES (?, ?)", frames)
        self._last = time.monotonic()

    def close(self) -> None:
        """Commits, and leaves a single file, readable also in a read-only folder."""
        try:
            self.flush()
            with self._writing():
                self._db.execute("PRAGMA busy_timeout=100")
                try:
                    self._db.execute("PRAGMA journal_mode=DELETE")
                except sqlite3.OperationalError:
                    # Another process is reading. The file stays in WAL mode, which is as complete.
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _create(place: Path, meta: Mapping[str, str]) -> None:
    """A trace without moments at `place`, made under a hidden name."""
    partial = place.with_name(f".{place.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(partial, isolation_level=None)) as database:
            # A row is some 3 KB: larger pages waste less of their end.
            database.execute("PRAGMA page_size=16384")
            # Without a log that is copied as the connection closes, where errors are not raised. A
            # file that is not whole is removed.
            database.execute("PRAGMA journal_mode=OFF")
            database.execute("BEGIN")
            for statement in _SCHEMA.split(";")[:-1]:
                database.execute(statement)
            database.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
            database.execute("COMMIT")
        partial.rename(place)
        sync_folder(place.parent)
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            left = partial.with_name(f"{partial.name}{end}")
            with suppress(OSError):
                left.unlink(missing_ok=True)
