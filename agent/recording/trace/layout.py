"""The layout of a recorded moment: which numbers go into which column, and how they are packed."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agent.recording.plain_json import dumps
from agent.recording.renames import FIELDS
from agent.recording.trace.sqlite_file import MOST_VALUE
from modules.field_path import MESSAGES
from modules.messages import Message, Moment
from modules.strange_files import plain_json

FORMAT_VERSION = 2
"""Incremented when older readers cannot read the file. In 1, `dense` is not compressed."""

RECOLLECTED = 256
"""Keys or values of a recollection of more numbers than this a row are left out."""

_CRC_BYTES = 4

_MOST_COMPRESSION = 1032
"""The largest ratio that zlib reaches."""

_DTYPES = frozenset(
    ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
)

_DENSE = {
    "observation.vector",
    "observation.goal",
    "state.latent",
    "state.goal",
    "state.levels",
    "state.readout",
    "recollection.keys",
    "recollection.values",
    "recollection.readout",
    "energies.critic_actions",
    "directive.tokens",
    "directive.configurator_state",
    "directive.subgoal",
    "plan.subgoals",
    "expected.latent",
    "expected.goal",
    "expected.levels",
}

_EXACT = {
    "observation.vector",
    "observation.goal",
    "plan.actions",
    # These may be inf.
    "directive.subgoal",
    "plan.subgoals",
}

_PLANS = {"plan.actions", "plan.candidates"}

_ABSENT = {
    "observation.pixels",
    "observation.goal_pixels",
    "state.hidden",
    "expected.hidden",
    "expected.readout",  # that of the state
}

_WIDE = {"recollection.keys", "recollection.values", "recollection.readout"}


def _column(path: str) -> str:
    return "dense" if path in _DENSE else "plans" if path in _PLANS else "timeline"


_KINDS: dict[str, type[Message]] = {"": Moment, **MESSAGES}

_RECORDED = [
    (path, part, name, _column(path))
    for part, kind in _KINDS.items()
    for name, _ in kind._tensors
    if (path := f"{part}.{name}".removeprefix(".")) not in _ABSENT
]
_RECORDED.append(("observation.pixels", "observation", "pixels", "frames"))
"""Path, message, field and column of each recorded tensor, in the order of the layout."""

_HALVED = {path for path, *_, column in _RECORDED if column in ("dense", "plans")} - _EXACT


def as_numbers(value: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's numbers as an array of its shape; bfloat16, which arrays lack, as float32."""
    if value.requires_grad or value.device.type != "cpu":
        value = value.detach().cpu()
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy()


def _half(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Float16; numbers beyond its range become ±65504."""
    halved: np.ndarray[Any, Any] = np.clip(values, -65504.0, 65504.0).astype(np.float16)
    return halved


class Record(NamedTuple):
    """A moment as a trace stores it: the layout, and the bytes of each column.

    Two moments have equal records exactly where all that is recorded of them is equal bit for bit.
    `frames` has one entry a row.
    """

    layout: str
    timeline: bytes
    plans: bytes
    dense: bytes
    reasons: str
    frames: tuple[bytes, ...]

    def hash_into(self, update: Callable[[bytes], object]) -> None:
        """Passes every column to the `update` of a hash, each after its length."""
        for part in (self.layout.encode(), self.timeline, self.plans, self.dense,
                     self.reasons.encode(), *self.frames):  # fmt: skip
            update(struct.pack("<q", len(part)))
            update(part)


def record_of(moment: Moment) -> Record:
    """The moment as a trace stores it."""
    messages = {"": moment.__dict__, **{part: moment.__dict__[part].__dict__ for part in MESSAGES}}
    wide = _too_wide(messages["recollection"])
    form: list[tuple[np.dtype[Any], tuple[int, ...]] | None] = []
    columns: dict[str, list[bytes]] = {"timeline": [], "plans": [], "dense": [], "frames": []}
    for path, part, name, column in _RECORDED:
        value = messages[part][name]
        if value is None:
            form.append(None)
            continue
        if wide and path in _WIDE:
            value = value[..., :0]
        numbers = as_numbers(value)
        if path in _HALVED and numbers.dtype.kind == "f":
            numbers = _half(numbers)
        form.append((numbers.dtype, numbers.shape))
        rows = numbers if column == "frames" else (numbers,)
        columns[column] += [row.tobytes() for row in rows]
    return Record(
        layout=_layout_text(tuple(form)),
        timeline=b"".join(columns["timeline"]),
        plans=b"".join(columns["plans"]),
        dense=b"".join(columns["dense"]),
        reasons=dumps(moment.directive.reason, ensure_ascii=False),
        frames=tuple(columns["frames"]),
    )


@lru_cache(maxsize=1024)
def _layout_text(form: tuple[tuple[np.dtype[Any], tuple[int, ...]] | None, ...]) -> str:
    """The layout as JSON: path, column, dtype and shape of each tensor."""
    return dumps(
        [
            [path, column, entry[0].name, list(entry[1])]
            for (path, *_, column), entry in zip(_RECORDED, form, strict=True)
            if entry is not None
        ]
    )


def _too_wide(fields: Mapping[str, Tensor]) -> bool:
    rows = max(len(fields["keys"]), 1)
    return max(fields["keys"].numel(), fields["values"].numel()) > RECOLLECTED * rows


class Entry(NamedTuple):
    """Where one tensor lies: its dotted path, the column, its dtype, shape and first byte."""

    path: str
    column: str
    dtype: str
    shape: tuple[int, ...]
    at: int
    size: int

    def array(self, data: bytes) -> np.ndarray[Any, Any]:
        """The array with these bytes; what was halved to float16 as float32."""
        values = np.frombuffer(bytearray(data), dtype=self.dtype).reshape(self.shape)
        halved = self.dtype == "float16" and self.column != "frames"
        return values.astype(np.float32) if halved else values


class Layout(NamedTuple):
    """A stored layout under present names, its checksum as written, the place of each tensor, and
    the size of each column in bytes.
    """

    text: str
    checksum: int
    entries: dict[str, Entry]
    sizes: dict[str, int]

    @classmethod
    def parse(cls, text: str) -> Layout:
        """The layout that `record_of` wrote as `text`."""
        stored, entries, sizes = plain_json(text), dict[str, Entry](), dict[str, int]()
        for line in stored:
            line[0] = FIELDS.get(line[0], line[0])
            path, column, dtype, shape = line
            if dtype not in _DTYPES or not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError(f"{path}: expected a dtype and a shape, got {dtype} {shape}")
            size = np.dtype(dtype).itemsize * math.prod(shape)
            at = sizes.get(column, 0)
            if at + size > MOST_VALUE:
                raise ValueError(f"{column}: expected at most {MOST_VALUE} bytes a moment")
            entries[path] = Entry(path, column, dtype, tuple(shape), at, size)
            sizes[column] = at + size
        return cls(dumps(stored), zlib.crc32(text.encode()), entries, sizes)


def timeline_checksum(numbers: bytes, layout_checksum: int, step: int, reasons: str) -> int:
    """The checksum of a moment's `timeline`."""
    start = zlib.crc32(struct.pack("<q", step), layout_checksum)
    return zlib.crc32(reasons.encode(), zlib.crc32(numbers, start))


def verified(blob: bytes, size: int, checksum: Callable[[bytes], int]) -> bytes:
    """The `size` bytes before a column's checksum. Raises ValueError where they do not match it."""
    data = blob[:size]
    if len(blob) == size:
        return data  # a trace written before there were checksums
    if len(blob) != size + _CRC_BYTES:
        raise ValueError(f"expected {size + _CRC_BYTES} bytes, got {len(blob)}")
    if struct.pack("<I", checksum(data)) != blob[size:]:
        raise ValueError("its checksum differs")
    return data


def decompressed(blob: bytes, size: int) -> bytes:
    """The `size` bytes of a compressed blob. Raises ValueError where it holds more or fewer."""
    if size > len(blob) * _MOST_COMPRESSION + 64:
        raise ValueError(f"expected {size} bytes compressed, got fewer")
    opened = zlib.decompressobj()
    data = opened.decompress(blob, size + 1)
    if len(data) != size or not opened.eof:
        raise ValueError(f"expected {size} bytes compressed, got more or fewer")
    return data


def inflated(blob: bytes) -> bytes:
    """The bytes of a compressed blob of unknown size. Raises ValueError beyond MOST_VALUE bytes."""
    opened = zlib.decompressobj()
    data = opened.decompress(blob, MOST_VALUE)
    if not opened.eof:
        raise ValueError(f"expected at most {MOST_VALUE} bytes compressed, got more, or an end")
    return data
