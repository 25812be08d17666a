"""A SQLite file of unknown origin, opened for reading.

What its schema computes is not trusted: a table must be a plain table, as the writer makes them.
Every query is bounded in time and in bytes by the size of the file, as is every value.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modules.messages import ConfigError, TraceError
from modules.strange_files import require_regular

TABLES = ("meta", "layouts", "moments", "frames", "keyframes")

MOST_VALUE = 1 << 26
"""The largest text or blob that is read, bytes."""

_SECONDS, _BYTES_PER_S = 5.0, 1e7
"""A query may take so long, and longer where the file is larger."""

_ROOM = 1 << 24
"""A query may give so many bytes more than the file has."""

_INSTRUCTIONS = 20_000
"""Instructions of SQLite's machine between two looks at the clock, some milliseconds."""


class Database(sqlite3.Connection):
    """A connection whose queries end: `rows` raises sqlite3.Error where one takes too long or gives
    more than the file can hold.
    """

    files: tuple[Path, ...] = ()
    _end = float("inf")

    def bound(self, file: Path) -> None:
        """Sets the bounds of a connection to `file`."""
        self.files = (file, file.with_name(f"{file.name}-wal"))
        self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE)
        self.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
        self.set_progress_handler(lambda: time.monotonic() > self._end, _INSTRUCTIONS)

    @property
    def size(self) -> int:
        """Bytes of the file and of what was written since its last checkpoint."""
        return sum(file.stat().st_size for file in self.files if file.exists())

    def rows(self, query: str, values: Sequence[object] = ()) -> Iterator[Any]:
        """The rows of a query."""
        size = self.size
        self._end = time.monotonic() + _SECONDS + size / _BYTES_PER_S
        left = size + _ROOM
        for row in self._decoded(query, values):
            left -= 16 + sum(len(value) for value in row if isinstance(value, bytes | str))
            if left < 0:
                raise sqlite3.DatabaseError("gives more than the file can hold")
            yield row

    def _decoded(self, query: str, values: Sequence[object]) -> Iterator[Any]:
        """The rows of a query, as SQLite gives them."""
        try:
            yield from self.execute(query, values)
        except UnicodeDecodeError as error:  # of an error that quotes what the file says
            raise sqlite3.DatabaseError(f"names that are no text: {error.reason}") from None


def open_database(file: Path) -> tuple[Database, list[str]]:
    """A connection to a file, and what is damaged of it as a whole, in lines.

    Raises TraceError for what is no regular file, sqlite3.Error for what is no database.
    """
    try:
        require_regular(file)
        for suffix in ("-wal", "-shm", "-journal"):
            beside = file.with_name(f"{file.name}{suffix}")
            if beside.exists() or beside.is_symlink():
                require_regular(beside)
    except (ConfigError, OSError) as error:
        raise TraceError(f"trace {file}: could not be read: {error}") from None
    # A writer that was killed while it closed leaves a journal of the first page, to be rolled back
    # by a writer; what it had recorded was complete before.
    closed = file.with_name(f"{file.name}-journal").exists()
    mode = "mode=ro&immutable=1" if closed else "mode=ro"
    database = sqlite3.connect(
        f"file:{quote(str(file.resolve()))}?{mode}",
        uri=True, check_same_thread=False, factory=Database,
    )  # fmt: skip
    try:
        database.bound(file)
        return database, _prepare(database)
    except BaseException:
        database.close()
        raise


def _prepare(database: Database) -> list[str]:
    database.text_factory = lambda data: data.decode("utf-8", "replace")
    for pragma in ("query_only=1", "trusted_schema=0", "cell_size_check=1"):
        database.execute(f"PRAGMA {pragma}")
    try:
        _require_tables(database)
    except sqlite3.DatabaseError:
        # SQLite refuses a file that was cut short unless its schema is writable.
        database.execute("PRAGMA writable_schema=1")
        _require_tables(database)
        return ["the file is shorter than it says, or its first page is damaged"]
    return []


def _require_tables(database: Database) -> None:
    """Raises ValueError where what is read is no plain table: a view, a virtual table, or one with
    computed columns would run what its author wrote.
    """
    for kind, name, sql in database.rows("SELECT type, name, sql FROM sqlite_master LIMIT 1000"):
        if str(name).lower() not in TABLES:
            continue
        statement = re.split(r"\W+", str(sql).upper())
        # A computed column is written `name type AS (expression)`.
        if kind != "table" or statement[:2] != ["CREATE", "TABLE"] or "AS" in statement:
            raise ValueError(f"expected a plain table {name}, got {kind} {str(sql)!r:.60}")
