"""Files of safetensors of unknown origin: their form is checked before their data is read.

The header gives name, type, shape and place of every tensor. It is checked against the size of the
file, and read as tensors on torch's device `meta`, which have a form and no memory, so that a form
can be compared with a module's own before anything is allocated.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from modules.strange_files import TEXT_BYTES, plain_json, require_regular

MOST_AXES, LONGEST_AXIS = 8, 1 << 40

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def forms_in(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, as `meta` tensors; only its header is read.

    Raises ConfigError for what is no regular file, ValueError for a header that does not fit the
    file, OSError where it cannot be read.
    """
    require_regular(path)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return _forms(file.read(_header_bytes(length, size)), size - 8 - length)


def unpacked(data: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of a file, by name. Raises ValueError where they are damaged."""
    length = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else 0
    _header_bytes(length, len(data))
    _forms(data[8 : 8 + length], len(data) - 8 - length)
    try:
        return load(data)
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{' '.join(str(error).split()):.200}") from None


def difference(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> str | None:
    """The first name whose form differs, what is expected and what there is; None where all fit.

    Shapes must be equal, and types must be, or both be floating.
    """
    for name in sorted(expected.keys() | got.keys()):
        mine, theirs = expected.get(name), got.get(name)
        if mine is None or theirs is None or not _fits(mine, theirs):
            return f"{name}: expected {_form(mine)}, got {_form(theirs)}"
    return None


def _fits(mine: Tensor, theirs: Tensor) -> bool:
    floating = mine.is_floating_point() and theirs.is_floating_point()
    return mine.shape == theirs.shape and (floating or mine.dtype == theirs.dtype)


def _form(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def _header_bytes(length: int, size: int) -> int:
    if not 2 <= length <= min(TEXT_BYTES, size - 8):
        raise ValueError(f"expected safetensors, got a header of {length} bytes in {size}")
    return length


def _forms(header: bytes, room: int) -> dict[str, Tensor]:
    """The forms in a header whose tensors together take exactly `room` bytes."""
    entries = plain_json(header)
    if not isinstance(entries, dict):
        raise ValueError("expected safetensors, got a header that is no mapping")
    forms, places = dict[str, Tensor](), list[tuple[int, int]]()
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        kind, shape, place = _entry(name, entry)
        forms[name] = torch.empty(shape, dtype=kind, device="meta")
        if place[1] - place[0] != math.prod(shape) * kind.itemsize:
            raise ValueError(f"{name:.80}: its size is not that of its shape")
        places.append(place)
    end = 0
    for first, last in sorted(places):
        if first != end:
            raise ValueError("its tensors overlap or leave gaps")
        end = last
    if end != room:
        raise ValueError(f"expected {end} bytes of tensors, got {room}")
    return forms


def _entry(name: str, entry: object) -> tuple[torch.dtype, list[int], tuple[int, int]]:
    if isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}:
        kind = _TYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        shape, place = entry["shape"], entry["data_offsets"]
        whole = _whole(shape) and _whole(place) and len(place) == 2
        if kind is not None and whole and len(shape) <= MOST_AXES:
            if max(shape, default=0) > LONGEST_AXIS:
                raise ValueError(f"{name:.80}: expected axes of at most {LONGEST_AXIS} places")
            return kind, shape, (place[0], place[1])
    raise ValueError(f"{name:.80}: expected dtype, shape and data_offsets of a tensor")


def _whole(values: object) -> bool:
    """Whether these are integers of at least 0."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
