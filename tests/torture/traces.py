"""3,000 traces with faults: each gives an error line or the readable part, and never hangs.

Bytes of the file, single cells of its tables, its schema, and layouts and columns with their
checksums made anew are changed. A share of them is also shown as a page and forked.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.torture.command import MOST_BYTES, inside, measured, sextet
from tests.torture.harness import Outcome

CASES = 3000

SECONDS = 10.0
"""Processor time that reading a small trace may take."""

BASES = (
    ("CartPole-v1", "--steps", "60", "--num-envs", "2"),
    ("sextet/Orchard-v0", "--steps", "40"),
)

CELLS: tuple[Any, ...] = (
    None, 0, -1, 1, 7, 2**31, 2**62, -(2**62), 1.5, "", "x", "[]", "{}", "null", "[[]]", "NaN",
    '["a"]', b"", b"\0", b"\xff" * 40, b"x" * 100_000, "9" * 5000, "[" * 5000,
)  # fmt: skip

_Change = Callable[[Path, random.Random], None]


@lru_cache
def _base(number: int) -> Path:
    """A recorded run, made once in each process."""
    place = Path(tempfile.mkdtemp(prefix="traces-"))
    with inside(place):
        done = sextet("play", *BASES[number], "--preset", "reactive", "--no-live", "--run", "run")
        assert done.code == 0, done.err
        with closing(sqlite3.connect("run/trace.sqlite")) as database:
            database.execute("PRAGMA journal_mode=DELETE")
    return place / "run"


# -- bytes ------------------------------------------------------------------------------------


def _flipped(file: Path, chosen: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(chosen.choice((1, 4, 32, 300))):
        data[chosen.randrange(len(data))] = chosen.randrange(256)
    file.write_bytes(data)


def _header(file: Path, chosen: random.Random) -> None:
    """The 100 bytes that describe the database: page size, versions, roots, encoding."""
    data = bytearray(file.read_bytes())
    for _ in range(chosen.choice((1, 2, 6))):
        data[chosen.randrange(100)] = chosen.choice((0, 1, 2, 255, chosen.randrange(256)))
    file.write_bytes(data)


def _pages(file: Path, chosen: random.Random) -> None:
    """Pages that are cleared, or are copies of others: trees that lead astray."""
    data = bytearray(file.read_bytes())
    size, count = 16384, len(data) // 16384
    for _ in range(chosen.choice((1, 1, 3))):
        one, other = chosen.randrange(count), chosen.randrange(count)
        page = bytes(size) if chosen.random() < 0.3 else data[other * size : (other + 1) * size]
        data[one * size : (one + 1) * size] = page
    file.write_bytes(data)


def _pointers(file: Path, chosen: random.Random) -> None:
    """The first bytes of a page, where its kind, its cells and its children stand."""
    data = bytearray(file.read_bytes())
    page = 16384 * chosen.randrange(len(data) // 16384)
    for _ in range(chosen.choice((1, 4, 12))):
        data[page + chosen.randrange(64)] = chosen.randrange(256)
    file.write_bytes(data)


def _cut(file: Path, chosen: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: chosen.randrange(len(data))])


def _other(file: Path, chosen: random.Random) -> None:
    """No database at all, or something beside it that SQLite reads, too."""
    match chosen.randrange(4):
        case 0:
            file.write_bytes(chosen.randbytes(5000))
        case 1:
            file.write_bytes(b"")
        case 2:
            file.with_name("trace.sqlite-wal").write_bytes(chosen.randbytes(40_000))
        case 3:
            file.with_name("trace.sqlite-journal").write_bytes(chosen.randbytes(4000))


# -- tables -----------------------------------------------------------------------------------


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]


def _cells(file: Path, chosen: random.Random) -> None:
    """Values of another type or size in some cell."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        for _ in range(chosen.choice((1, 1, 3))):
            table = chosen.choice(("meta", "layouts", "moments", "frames", "keyframes"))
            column = chosen.choice(_columns(database, table))
            rows = [row for (row,) in database.execute(f"SELECT rowid FROM {table}")]
            if not rows:
                continue
            try:
                database.execute(
                    f"UPDATE {table} SET {column} = ? WHERE rowid = ?",
                    (chosen.choice(CELLS), chosen.choice(rows)),
                )
            except sqlite3.Error:
                continue  # what the table does not accept


def _rows(file: Path, chosen: random.Random) -> None:
    """Rows that are gone, moved to another step, or repeated."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        table = chosen.choice(("meta", "layouts", "moments", "frames", "keyframes"))
        key = {"meta": "key", "layouts": "id"}.get(table, "step")
        rows = [row for (row,) in database.execute(f"SELECT rowid FROM {table}")]
        if not rows:
            return
        row = chosen.choice(rows)
        if chosen.random() < 0.4 or key == "key":
            database.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
        else:
            to = chosen.choice((-5, 10**6, 2**40, 2**62))
            database.execute(f"UPDATE {table} SET {key} = ? WHERE rowid = ?", (to, row))


def _schema(file: Path, chosen: random.Random) -> None:
    """Tables that are gone, renamed, views, computed, or have triggers."""
    table = chosen.choice(("meta", "layouts", "moments", "frames", "keyframes"))
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        columns = _columns(database, table)
        match chosen.randrange(6):
            case 0:
                database.execute(f"DROP TABLE {table}")
            case 1:
                database.execute(f"ALTER TABLE {table} RENAME TO other")
            case 2:
                database.execute(f"ALTER TABLE {table} RENAME TO other")
                database.execute(f"CREATE VIEW {table} AS SELECT * FROM other")
            case 3:
                database.execute(f"DROP TABLE {table}")
                endless = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)"
                values = ", ".join(["i"] * len(columns))
                names = ", ".join(columns)
                database.execute(
                    f"CREATE VIEW {table}({names}) AS {endless} SELECT {values} FROM n"
                )
            case 4:
                database.execute(f"ALTER TABLE {table} RENAME COLUMN {columns[-1]} TO other")
            case 5:
                last = columns[-1]
                database.execute(f"ALTER TABLE {table} RENAME COLUMN {last} TO other")
                database.execute(f"ALTER TABLE {table} ADD COLUMN {last} AS (zeroblob(1000000000))")


def _meta(file: Path, chosen: random.Random) -> None:
    """The description of the run, with its checksums made anew."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        meta = dict(database.execute("SELECT key, value FROM meta"))
        key = chosen.choice(sorted(meta))
        value = json.loads(meta[key])
        if isinstance(value, dict) and value and chosen.random() < 0.8:
            value[chosen.choice(sorted(value))] = chosen.choice(
                (-1, 2**60, None, "x", [], {}, [1] * 50_000, 1e300, True)
            )
        else:
            value = chosen.choice((-1, 0, 99, 65_536, 2**60, None, "x", [], {}, ["a"] * 50_000))
        meta[key] = json.dumps(value)
        sums = {k: zlib.crc32(v.encode()) for k, v in meta.items() if k != "checksums"}
        if key != "checksums":
            meta["checksums"] = json.dumps(sums)
        database.executemany(
            "UPDATE meta SET value = ? WHERE key = ?", [(v, k) for k, v in meta.items()]
        )


def _layout(file: Path, chosen: random.Random) -> None:
    """Paths, columns, types and shapes of the layout."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        number, text = database.execute("SELECT id, layout FROM layouts").fetchone()
        layout = json.loads(text)
        entry = chosen.choice(layout)
        entry[chosen.randrange(4)] = chosen.choice(
            ("x", "float64", "O", "f8,(9999)f8", "dense", "frames", "plan.mode", "step", [], [0],
             [2**40], [2**32, 2**32], [-1], [1] * 40, None, 3, "observation.pixels")
        )  # fmt: skip
        if chosen.random() < 0.2:
            layout = layout * 50 if chosen.random() < 0.5 else layout[::-1]
        database.execute("UPDATE layouts SET layout = ? WHERE id = ?", (json.dumps(layout), number))


def _column(file: Path, chosen: random.Random) -> None:
    """Compressed columns that open to far more than they should, or to nothing."""
    table, column = chosen.choice(
        (("moments", "dense"), ("moments", "plans"), ("frames", "frames"),
         ("keyframes", "snapshot"), ("keyframes", "agent"))
    )  # fmt: skip
    bomb = zlib.compress(bytes(chosen.choice((0, 100, 10**6, 150 * 2**20))), 9)
    if table == "frames":
        bomb = struct.pack("<I", chosen.choice((len(bomb), 2**32 - 1))) + bomb
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute(f"UPDATE {table} SET {column} = ?", (bomb,))


CHANGES: tuple[_Change, ...] = (
    _flipped, _header, _pages, _pointers, _cut, _other, _cells, _cells, _rows, _schema, _meta,
    _layout, _column,
)  # fmt: skip


def _read(file: Path) -> int:
    """Reads all that a trace has; the number of readable moments. Raises TraceError."""
    from agent.recording.trace import SalvagedTrace, Trace
    from modules.messages import TraceError

    with Trace.open(file) as trace:
        readable = SalvagedTrace(trace)
        for name in ("energy", "mode", "signals", "state.latent", "plan.actions", "surprise"):
            try:
                readable.series(name)
            except TraceError:
                continue
        count = sum(1 for _ in readable)
        sum(1 for _ in trace.keyframes_until(2**40))
        for step in readable.steps[:3].tolist():
            try:
                trace.frame(step)
            except TraceError:
                continue
        return count


def case(number: int, seed: int) -> Outcome:
    """One changed trace, read."""
    from modules.messages import TraceError

    chosen = random.Random(f"traces {seed} {number}")
    change = CHANGES[number % len(CHANGES)]
    kind = change.__name__.strip("_")
    with tempfile.TemporaryDirectory() as room, inside(Path(room)):
        shutil.copytree(_base(chosen.randrange(len(BASES))), "run")
        file = Path("run/trace.sqlite")
        change(file, chosen)
        fault, verdict, count = "", "read", 0
        with measured() as figures:
            try:
                count = _read(file)
            except TraceError as error:
                verdict = "refused"
                if "\n" in str(error):
                    fault = f"expected one line, got {error}"
        if figures["bytes"] > MOST_BYTES:
            fault = f"{verdict} with {figures['bytes'] / 2**20:.0f} MB"
        if figures["seconds"] > SECONDS:
            fault = f"{verdict} after {figures['seconds']:.1f} s"
        if number % 5 == 0:
            shown = sextet("view", "run", "--export", "page.html")
            fault = fault or shown.fault(1, 2)
        elif number % 5 == 1:
            forked = sextet("fork", "run", "--at", "20", "--steps", "3")
            fault = fault or forked.fault(1, 2)
        return Outcome(kind, verdict, fault, {"moments": count, "seconds": figures["seconds"]})
