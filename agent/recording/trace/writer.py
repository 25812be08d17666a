"""Writes the trace of a run, moment by moment."""

from __future__ import annotations

import json
import sqlite3
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.recording.trace.layout import (
    FORMAT_VERSION,
    Columns,
    columns_of,
    layout_text,
    reasons_text,
    timeline_checksum,
)
from modules.messages import (
    Moment,
    TraceError,
    WorldSpec,
)

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
    of the drives. Raises TraceError, one line, where `path` exists or cannot be written.
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
            texts = {key: json.dumps(value) for key, value in meta.items()}
            texts["checksums"] = json.dumps({k: zlib.crc32(v.encode()) for k, v in texts.items()})
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", list(texts.items()))
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise TraceError(f"trace {self.path}: expected a writable file, got {error}") from None
        self._layouts: dict[tuple[object, ...], tuple[int, int]] = {}
        self._moments: list[tuple[int, int, bytes, str, bytes, bytes]] = []
        self._frames: list[tuple[int, bytes]] = []
        self._last = time.monotonic()

    def write(self, moment: Moment) -> None:
        """Adds one moment; on disk within 64 moments or half a second."""
        columns = columns_of(moment)
        if (frames := columns.frames) is not None:
            packed = [zlib.compress(frame, 1) for frame in frames]
            sizes = struct.pack(f"<{len(packed)}I", *map(len, packed))
            self._frames.append((moment.step, sizes + b"".join(packed)))
        if (layout := self._layouts.get(columns.key)) is None:
            layout = self._layouts[columns.key] = self._intern(columns)
        number, layout_checksum = layout
        reasons = reasons_text(moment)
        check = timeline_checksum(layout_checksum, moment.step, reasons)(columns.timeline)
        self._moments.append(
            (
                moment.step,
                number,
                columns.timeline + struct.pack("<I", check),
                reasons,
                zlib.compress(columns.plans, 1),
                zlib.compress(columns.dense, 1),
            )
        )
        if len(self._moments) >= _BATCH_MOMENTS or time.monotonic() - self._last > _BATCH_SECONDS:
            self.flush()

    def _intern(self, columns: Columns) -> tuple[int, int]:
        """The number of a layout, and its checksum."""
        text = layout_text(columns.key, columns.frames is not None)
        try:
            self._db.execute("INSERT OR IGNORE INTO layouts (layout) VALUES (?)", (text,))
            query = "SELECT id FROM layouts WHERE layout = ?"
            (number,) = self._db.execute(query, (text,)).fetchone()
        except sqlite3.Error as error:
            raise TraceError(f"trace {self.path}: could not be written: {error}") from None
        return int(number), zlib.crc32(text.encode())

    def keyframe(self, step: int, snapshot: bytes, agent: bytes = b"") -> None:
        """Stores a snapshot of the world as observed at `step`, and the agent's part of a keyframe
        (`agent.recording.keyframe.agent_bytes`) after that step's moment was written.
        """
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO keyframes VALUES (?, ?, ?)",
                (step, zlib.compress(snapshot, 1), zlib.compress(agent, 1)),
            )
        except sqlite3.Error as error:
            raise TraceError(f"trace {self.path}: could not be written: {error}") from None

    def due(self, step: int) -> bool:
        """Whether a keyframe is due at `step`."""
        return self.keyframe_every > 0 and step % self.keyframe_every == 0

    def flush(self) -> None:
        """Commits the pending moments, so that readers see them."""
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
        """Commits, and leaves a single file, readable also in a read-only folder."""
        self.flush()
        try:
            self._db.execute("PRAGMA busy_timeout=100")
            self._db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError:
            # Another process is reading. The file stays in WAL mode, which is as complete.
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
