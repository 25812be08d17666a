"""Numbers of runs of any version, for `compare_versions.py`: traces, safetensors files and JSON.

The readers import nothing of the project and know files by their form, so that names may change.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

UNCOMPARED = re.compile(r"second|per_s|wall|cpu|digest|^run$|path|report|warnings")
"""Keys of JSON whose values are times, places, hashes of names or prose."""

DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
          "U8": "u1", "U16": "u2", "U32": "u4", "U64": "u8", "BOOL": "?"}  # fmt: skip
"""Number formats of safetensors files; BF16 is widened to F32."""


# -- numbers and their differences ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Series:
    """One recorded quantity: its name in its own version, and arrays by step."""

    name: str
    arrays: list[tuple[int, np.ndarray[Any, Any]]]
    digest: str


def series_of(name: str, arrays: list[tuple[int, np.ndarray[Any, Any]]]) -> Series:
    """A series whose digest depends on steps, shapes and values, not on the number format."""
    digest = hashlib.sha256()
    for step, values in arrays:
        digest.update(repr((step, values.shape)).encode())
        real = values.dtype.kind == "f"  # + 0.0: −0 is 0
        digest.update((values.astype(np.float64) + 0.0 if real else values.astype("i8")).tobytes())
    return Series(name, arrays, digest.hexdigest())


def gap(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """max |a − b|, NaN equal to NaN; infinity where one of them alone is NaN."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):  # ∞ − ∞, where they are equal
        gaps = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0))


def unmatched(old: list[Series], new: list[Series]) -> tuple[list[Series], list[Series]]:
    """The series of each version that have no equal in the other, counted with multiplicity."""
    extra_old = Counter(s.digest for s in old) - Counter(s.digest for s in new)
    extra_new = Counter(s.digest for s in new) - Counter(s.digest for s in old)
    lists: tuple[list[Series], list[Series]] = ([], [])
    for series, extra, rest in ((old, extra_old, lists[0]), (new, extra_new, lists[1])):
        for one in series:
            if extra[one.digest] > 0:
                extra[one.digest] -= 1
                rest.append(one)
    return lists


def nearest(one: Series, others: Sequence[Series]) -> tuple[str, Series | None]:
    """Where a series first differs from the most similar of `others`, by how much, and which."""
    best: tuple[float, float, str, Series] | None = None
    for other in others:
        if [(s, a.shape) for s, a in one.arrays[:1]] != [(s, a.shape) for s, a in other.arrays[:1]]:
            continue
        first, largest = float("inf"), 0.0
        for (step, a), (there, b) in zip(one.arrays, other.arrays, strict=False):
            distance = gap(a, b) if (step, a.shape) == (there, b.shape) else np.inf
            first = min(first, step) if distance else first
            largest = max(largest, distance)
        text = f"{one.name}: by up to {largest:.3g}"
        if len(one.arrays) > 1:
            text += f", first at step {first:g}"
        if len(one.arrays) != len(other.arrays):
            text += f", {len(one.arrays)} and {len(other.arrays)} steps"
        if best is None or (-first, largest) < best[:2]:
            best = (-first, largest, text, other)
    return (f"{one.name}: none of its shape", None) if best is None else best[2:]


def difference(old: list[Series], new: list[Series]) -> str | None:
    """What the first of `old` without an equal is, or how many only `new` has; None: all equal."""
    rest_old, rest_new = unmatched(old, new)
    if not rest_old and not rest_new:
        return None
    counts = f"{len(rest_old)} of {len(old)} only in old, {len(rest_new)} of {len(new)} only in new"
    first = nearest(rest_old[0], rest_new)[0] if rest_old else f"new: {rest_new[0].name}"
    return f"{counts}; {first}"


# -- files ------------------------------------------------------------------------------------


def tensors(path: Path) -> list[Series]:
    """The tensors of a safetensors file, in the order of their data."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    series = []
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = (8 + size + at for at in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            wide = np.frombuffer(data[begin:end], "<u2").astype("<u4") << 16
            values = wide.view("<f4")
        else:
            values = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]])
        series.append(series_of(name, [(0, values.reshape(entry["shape"]))]))
    return series


def checkpoint_files(run: Path) -> list[Path]:
    """The safetensors files of the newest numbered checkpoint of a run."""
    numbered = {p.parent for p in run.rglob("*.safetensors") if p.parent.name.isdigit()}
    return sorted(max(numbered, key=lambda folder: int(folder.name)).glob("*.safetensors"))


def read_trace(trace: Path) -> list[Series]:
    """The arrays of a trace in stored order, a series for each path, and the frames.

    Finds the tables by what they hold: a table of layouts (number, JSON list of path, column,
    dtype, shape), and a table that has those columns, with a step and the number of a layout.
    """
    database = sqlite3.connect(f"file:{trace}?mode=ro", uri=True)
    columns = {
        table: [info[1] for info in database.execute(f"PRAGMA table_info({table})")]
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    layouts: dict[int, list[Any]] = {}
    for table in (table for table, names in columns.items() if len(names) == 2):
        for number, text in database.execute(f"SELECT * FROM {table}"):
            if isinstance(number, int) and isinstance(text, str):
                layouts[number] = json.loads(text)
    column_names = {entry[1] for layout in layouts.values() for entry in layout} - {"frames"}
    (moments,) = (
        table for table, names in columns.items() if column_names and column_names <= set(names)
    )
    arrays: dict[str, list[tuple[int, np.ndarray[Any, Any]]]] = {}
    for row in database.execute(f"SELECT * FROM {moments} ORDER BY 1"):
        blobs = dict(zip(columns[moments], row, strict=True))
        layout = layouts[row[1]]
        at = dict.fromkeys(column_names, 0)
        size = {name: sum(_bytes(e) for e in layout if e[1] == name) for name in column_names}
        data = {name: _opened(blobs[name], size[name]) for name in column_names}
        for entry in layout:
            path, column, dtype, shape = entry
            if column not in column_names:
                continue
            part = data[column][at[column] : at[column] + _bytes(entry)]
            at[column] += _bytes(entry)
            values = np.frombuffer(part, dtype).reshape(shape)
            arrays.setdefault(path, []).append((row[0], values))
    if "frames" in columns:
        for step, packed in database.execute("SELECT * FROM frames ORDER BY 1"):
            pixels = np.frombuffer(b"".join(_frames(packed)), np.uint8)
            arrays.setdefault("frames", []).append((step, pixels))
    database.close()
    return [series_of(path, values) for path, values in arrays.items()]


def _bytes(entry: Sequence[Any]) -> int:
    return int(np.dtype(entry[2]).itemsize * np.prod(entry[3], dtype=np.int64))


def _opened(blob: bytes, size: int) -> bytes:
    """`size` bytes of a column: compressed, or as they are with a checksum behind them."""
    try:
        data = zlib.decompress(blob)
    except zlib.error:
        data = b""
    return data if len(data) == size else blob[:size]


def _frames(packed: bytes) -> Iterator[bytes]:
    """The frames of all environments: their compressed sizes as uint32, then the frames."""
    for count in range(1, len(packed) // 4):
        sizes = struct.unpack(f"<{count}I", packed[: 4 * count])
        if 4 * count + sum(sizes) == len(packed):
            at = 4 * count
            for size in sizes:
                yield zlib.decompress(packed[at : at + size])
                at += size
            return
    raise ValueError("frames of another form")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers, truth values and nulls of a JSON value, in order, with their paths."""
    if isinstance(value, dict):
        for name, part in value.items():
            if not UNCOMPARED.search(name):
                yield from leaves(part, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from leaves(part, f"{path}[{number}]")
    elif not isinstance(value, str):
        yield path, value


def json_difference(old: Any, new: Any) -> str | None:
    """The first number of `old` that differs in `new`, by order; None: all equal."""
    a, b = list(leaves(old)), list(leaves(new))
    for (name, x), (_, y) in zip(a, b, strict=False):
        if x != y:
            return f"{name}: {x} and {y}"
    return None if len(a) == len(b) else f"{len(a)} and {len(b)} numbers"
