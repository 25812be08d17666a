"""What an environment returns, checked against its spaces and copied.

Every function raises WrongValueError, which names the field, what was expected and what came.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from modules.messages import SIGNALS

RESERVED = ("observation_", "achieved_")
"""How the names of signals begin that a world makes itself."""

_LARGEST = float(np.finfo(np.float32).max)
"""Observations and signals are float32: a larger number would become infinite."""


class WrongValueError(Exception):
    """A field of what an environment returned, what was expected there, and what came."""

    def __init__(self, field: str, expected: str, got: str) -> None:
        self.field, self.expected, self.got = field, expected, got
        super().__init__(f"{field}: expected {expected}, got {got}")


def shown(value: Any) -> str:
    """A value in a few words: its type and shape, or the value itself where it is short."""
    if isinstance(value, np.ndarray) and value.size != 1:
        return f"an array {list(value.shape)} of {value.dtype}"
    if isinstance(value, tuple | list):
        return f"{len(value)} values"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}…"


def items(returned: Any, call: str, names: tuple[str, ...]) -> Any:
    """The values that `call` returned, one for each of `names`."""
    if isinstance(returned, tuple | list) and len(returned) == len(names):
        return returned
    raise WrongValueError(f"{call}()", f"{len(names)} values ({', '.join(names)})", shown(returned))


def number(value: Any, field: str) -> float:
    """One finite number; an array of size one counts as its entry."""
    if type(value) is not float:
        array = _array(value)
        if array is None or array.size != 1:
            raise WrongValueError(field, "one finite number", shown(value))
        value = array.reshape(()).item()
    if not -_LARGEST <= value <= _LARGEST:
        raise WrongValueError(field, "one finite number", shown(value))
    return float(value)


def flag(value: Any, field: str) -> bool:
    """One boolean, or 0 or 1; an array of size one counts as its entry."""
    if type(value) is bool:
        return value
    array = _array(value)
    if array is None or array.size != 1 or array.reshape(()) not in (0, 1):
        raise WrongValueError(field, "one boolean", shown(value))
    return bool(array.reshape(()))


def declared_signals(metadata: Any) -> tuple[str, ...]:
    """The names in `metadata["signals"]` of an environment, whose values are in every `info`."""
    field = "metadata['signals']"
    names = metadata.get("signals", ()) if isinstance(metadata, Mapping) else ()
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise WrongValueError(field, "a tuple of names", shown(names))
    for name in names:
        if not name.isidentifier():
            raise WrongValueError(field, "names of letters, digits and _", repr(name))
        if name in SIGNALS or name.startswith(RESERVED):
            taken = f"{', '.join(SIGNALS)}, {'…, '.join(RESERVED)}…"
            raise WrongValueError(field, f"other names than {taken}", repr(name))
        if names.count(name) > 1:
            raise WrongValueError(field, "each name once", f"{name!r} twice")
    return tuple(names)


def signals_in(info: Any, names: tuple[str, ...], default: float | None = None) -> dict[str, float]:
    """One finite number for each of `names`; `default` where `info` lacks it, None: refused."""
    if not names:
        return {}
    if not isinstance(info, Mapping):
        raise WrongValueError("info", f"a mapping with keys {', '.join(names)}", shown(info))
    return {name: number(info.get(name, default), f"info.{name}") for name in names}


def element(space: spaces.Space[Any], value: Any, field: str) -> Any:
    """A copy of an element of `space` in the shape and dtype that the space declares.

    Numbers may be beyond the bounds of a Box, as Gymnasium allows, but are finite. Values of spaces
    that hold no numbers (`Text` and the like) are copied as they are.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or not space.keys() <= value.keys():
            raise WrongValueError(field, f"a mapping with keys {', '.join(space)}", shown(value))
        return {key: element(part, value[key], f"{field}.{key}") for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            raise WrongValueError(field, f"{len(space.spaces)} values", shown(value))
        parts = zip(space.spaces, value, strict=True)
        return tuple(element(part, v, f"{field}[{i}]") for i, (part, v) in enumerate(parts))
    if isinstance(space, spaces.Discrete):
        array = _numbers(value, (), np.dtype(np.int64), field)
        if not 0 <= int(array) - int(space.start) < int(space.n):
            first, last = int(space.start), int(space.start + space.n - 1)
            raise WrongValueError(field, f"a whole number {first} to {last}", shown(value))
        return int(array)
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        assert space.shape is not None
        assert space.dtype is not None
        array = _numbers(value, space.shape, space.dtype, field)
        if not isinstance(space, spaces.Box) and not space.contains(array):
            raise WrongValueError(field, f"an element of {space}", shown(array.tolist()))
        return array
    return copy.deepcopy(value)


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    """A value as an array of real numbers or booleans; None where it is none."""
    try:
        array = np.asarray(value)
    except Exception:
        return None
    return array if array.dtype.kind in "biuf" else None


def _numbers(
    value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], field: str
) -> np.ndarray[Any, Any]:
    """A copy with a shape and a dtype. A size-one value may have any shape of size one."""
    array = _array(value)
    if array is None:
        raise WrongValueError(field, f"numbers {list(shape)} of {dtype}", shown(value))
    if array.shape != shape:
        if array.size != 1 or math.prod(shape) != 1:
            got = f"shape {list(array.shape)}"
            raise WrongValueError(field, f"numbers of shape {list(shape)}", got)
        array = array.reshape(shape)
    if array.dtype.kind == "f" and not (np.abs(array) <= np.float32(_LARGEST)).all():
        raise _not_finite(array, field)
    if array.dtype == dtype:
        return array.copy()
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
    if dtype == np.float16 and not np.isfinite(converted).all():
        raise _not_finite(converted, field)
    if dtype.kind != "f" and not np.array_equal(converted, array):
        odd = array[converted != array].ravel()[0]
        raise WrongValueError(field, f"whole numbers that {dtype} holds", shown(odd.item()))
    return converted


def _not_finite(array: np.ndarray[Any, Any], field: str) -> WrongValueError:
    place = np.argwhere(~(np.abs(array) <= np.float32(_LARGEST)))[0].tolist()
    entry = f" at {place}" if place else ""
    return WrongValueError(field, "finite numbers", f"{array[tuple(place)]}{entry}")
