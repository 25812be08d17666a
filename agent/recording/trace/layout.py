"""The layout of a recorded moment: which numbers go into which column, and how they are packed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modules.messages import (
    Directive,
    Energy,
    Message,
    Moment,
    Observation,
    Plan,
    Recollection,
    State,
)

FORMAT_VERSION = 2
"""Incremented when older readers cannot read the file. In 1, `dense` is not compressed."""


RECOLLECTED = 256
"""Keys or values of a recollection of more numbers than this a row are left out."""

_CRC_BYTES = 4


PARTS: dict[str, type[Message]] = {
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
    "recollection.readout",
    "energies.critic_actions",
    "directive.tokens",
    "directive.configurator_state",
    "expected.latent",
    "expected.goal",
}

_EXACT = {"observation.vector", "observation.goal", "plan.actions"}

_PLANS = {"plan.actions", "plan.candidates"}

_ABSENT = {"observation.pixels", "state.hidden", "expected.hidden"}


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

_RECORDED: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...] = tuple(
    (
        part,
        tuple(
            (name, _column(f"{part}.{name}"), f"{part}.{name}" not in _EXACT)
            for name, _ in kind._tensors
            if f"{part}.{name}" not in _ABSENT
        ),
    )
    for part, kind in PARTS.items()
)


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
    columns = columns_of(moment)
    frames = () if columns.frames is None else tuple(frame.tobytes() for frame in columns.frames)
    return Record(
        layout_text(columns.key, columns.frames is not None),
        columns.timeline,
        columns.plans,
        columns.dense,
        reasons_text(moment),
        frames,
    )


class Columns(NamedTuple):
    """The bytes of a moment by column; `key` has the dtype and shape of each tensor."""

    key: tuple[_Form | None, ...]
    timeline: bytes
    plans: bytes
    dense: bytes
    frames: np.ndarray[Any, Any] | None


def columns_of(moment: Moment) -> Columns:
    """The recorded numbers of a moment, packed column by column."""
    key: list[_Form | None] = []
    values = moment.__dict__
    timeline: list[bytes] = []
    dense: list[bytes] = []
    plans: list[bytes] = []
    columns = {"timeline": timeline, "dense": dense, "plans": plans}
    for name in _OWN_FIELDS:
        numbers = as_numbers(values[name])
        key.append((numbers.dtype, numbers.shape))
        timeline.append(numbers.tobytes())
    for part, names in _RECORDED:
        fields = values[part].__dict__
        wide = part == "recollection" and _too_wide(fields)
        for name, column, halve in names:
            value = fields[name]
            if value is None:
                key.append(None)
                continue
            if wide and name in ("keys", "values", "readout"):
                value = value[..., :0]
            numbers = as_numbers(value)
            if column != "timeline" and halve and numbers.dtype.kind == "f":
                numbers = _half(numbers)
            key.append((numbers.dtype, numbers.shape))
            columns[column].append(numbers.tobytes())
    pixels, frames = moment.observation.pixels, None
    if pixels is not None:
        frames = np.ascontiguousarray(as_numbers(pixels))
        key.append((frames.dtype, frames.shape))
    return Columns(tuple(key), b"".join(timeline), b"".join(plans), b"".join(dense), frames)


def layout_text(key: Sequence[_Form | None], framed: bool) -> str:
    """The layout of a moment as JSON: path, column, dtype and shape of each tensor."""
    paths = [(name, "timeline") for name in _OWN_FIELDS]
    paths += [(f"{p}.{n}", column) for p, names in _RECORDED for n, column, _ in names]
    paths += [("observation.pixels", "frames")] if framed else []
    entries = [
        None if form is None else [path, column, form[0].name, list(form[1])]
        for (path, column), form in zip(paths, key, strict=True)
    ]
    return json.dumps([entry for entry in entries if entry is not None])


def reasons_text(moment: Moment) -> str:
    """The configurator's line for each row, as JSON."""
    return json.dumps(moment.directive.reason, ensure_ascii=False)


def verified(blob: bytes, size: int, sums: Callable[[bytes], int]) -> bytes:
    """The `size` bytes before a column's checksum. Raises ValueError where they do not match it."""
    data = blob[:size]
    if len(blob) == size:
        return data  # a trace written before there were checksums
    if len(blob) != size + _CRC_BYTES:
        raise ValueError(f"expected {size + _CRC_BYTES} bytes, got {len(blob)}")
    if struct.pack("<I", sums(data)) != blob[size:]:
        raise ValueError("its checksum differs")
    return data


def timeline_checksum(layout_checksum: int, step: int, reasons: str) -> Callable[[bytes], int]:
    """The checksum of a moment's `timeline`."""
    start = zlib.crc32(struct.pack("<q", step), layout_checksum)
    return lambda data: zlib.crc32(reasons.encode(), zlib.crc32(data, start))


def _too_wide(fields: Mapping[str, Tensor]) -> bool:
    rows = max(len(fields["keys"]), 1)
    return max(fields["keys"].numel(), fields["values"].numel()) > RECOLLECTED * rows


def decompressed(blob: bytes, size: int) -> bytes:
    """The `size` bytes of a compressed blob. Raises ValueError where it holds more or fewer."""
    opened = zlib.decompressobj()
    data = opened.decompress(blob, size + 1)
    if len(data) != size or not opened.eof:
        raise ValueError(f"expected {size} bytes compressed, got more or fewer")
    return data


def unpacked(entry: Entry, blob: bytes) -> np.ndarray[Any, Any]:
    """The array of an entry, from its column; float16 as float32."""
    data = blob[entry.at : entry.at + entry.size]
    values = np.frombuffer(bytearray(data), dtype=entry.dtype).reshape(entry.shape)
    return values.astype(np.float32) if entry.dtype == "float16" else values
