"""The form of what is recorded: which numbers of a moment go where, and how they are packed."""

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
"""Raised when an older reader could no longer understand what is written. 1: `dense` as it is."""


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

_TAKEN: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...] = tuple(
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
    taken = take(moment)
    frames = () if taken.frames is None else tuple(frame.tobytes() for frame in taken.frames)
    return Record(
        layout_text(taken.key, taken.frames is not None),
        taken.timeline,
        taken.plans,
        taken.dense,
        reasons_text(moment),
        frames,
    )


class Taken(NamedTuple):
    """A moment's numbers, column by column; `key` tells the form of each tensor."""

    key: tuple[_Form | None, ...]
    timeline: bytes
    plans: bytes
    dense: bytes
    frames: np.ndarray[Any, Any] | None


def take(moment: Moment) -> Taken:
    """What is recorded of a moment, packed column by column."""
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
    for part, names in _TAKEN:
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
    return Taken(tuple(key), b"".join(timeline), b"".join(plans), b"".join(dense), frames)


def layout_text(key: Sequence[_Form | None], framed: bool) -> str:
    """The layout of a moment, as JSON: path, column, dtype and shape of each tensor there is."""
    paths = [(name, "timeline") for name in _OWN_FIELDS]
    paths += [(f"{p}.{n}", column) for p, names in _TAKEN for n, column, _ in names]
    paths += [("observation.pixels", "frames")] if framed else []
    entries = [
        None if found is None else [path, column, found[0].name, list(found[1])]
        for (path, column), found in zip(paths, key, strict=True)
    ]
    return json.dumps([entry for entry in entries if entry is not None])


def reasons_text(moment: Moment) -> str:
    """The configurator's line for each row, as JSON."""
    return json.dumps(moment.directive.reason, ensure_ascii=False)


def opened_blob(blob: bytes, size: int, sums: Callable[[bytes], int]) -> bytes:
    """The `size` bytes of a column that was sealed. Raises ValueError where they have changed."""
    data = blob[:size]
    if len(blob) == size:
        return data  # of a trace written before there were checksums
    if len(blob) != size + _CRC_BYTES:
        raise ValueError(f"expected {size + _CRC_BYTES} bytes, got {len(blob)}")
    if struct.pack("<I", sums(data)) != blob[size:]:
        raise ValueError("its checksum differs")
    return data


def line_sum(layout_sum: int, step: int, reasons: str) -> Callable[[bytes], int]:
    """The checksum of a moment's `timeline`."""
    start = zlib.crc32(struct.pack("<q", step), layout_sum)
    return lambda data: zlib.crc32(reasons.encode(), zlib.crc32(data, start))


def _too_wide(fields: Mapping[str, Tensor]) -> bool:
    rows = max(len(fields["keys"]), 1)
    return max(fields["keys"].numel(), fields["values"].numel()) > RECOLLECTED * rows


def inflated(blob: bytes, size: int) -> bytes:
    """`size` bytes out of a compressed blob. Raises ValueError where there are others."""
    opened = zlib.decompressobj()
    data = opened.decompress(blob, size + 1)
    if len(data) != size or not opened.eof:
        raise ValueError(f"expected {size} compressed bytes, got others")
    return data


def restored(entry: Entry, blob: bytes) -> np.ndarray[Any, Any]:
    """The numbers of an entry out of its column, in its shape; halved ones as float32."""
    data = blob[entry.at : entry.at + entry.size]
    values = np.frombuffer(bytearray(data), dtype=entry.dtype).reshape(entry.shape)
    return values.astype(np.float32) if entry.dtype == "float16" else values
