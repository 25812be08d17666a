"""The messages that the six modules exchange (LeCun 2022, Fig. 2).

One capital letter names one axis in every message:

====  ===========================================  ====  =====================================
B     rows: environments stepped side by side      K     intrinsic drives
H Y C height, width, channels of a frame           L     critic heads
N     size of a vector observation                 A     size of an encoded action
S     signals (`SIGNALS`, then the world's own)    T E   number and width of directive tokens
G     size of a goal                               P     steps of a plan
D     size of a latent                             M     candidate plans
R     size of a state's hidden context             V     recalled slots
Q     size of the configurator's state             U     size of a recalled value
X     size of a memory key                         O     logged steps of a candidate plan
W     steps of a window of experience              F     frames of a window, with context
J     levels above the first                       I     size of a coarser latent
Z     pairs that the world model writes            RU    size of a read-out of memory
====  ===========================================  ====  =====================================

A message is frozen, refuses unknown fields, and checks at construction that its fields agree with
each other; `Message.check` compares it with axes known elsewhere, and its numbers with the range of
their field. `Message.unchecked` skips the check of shapes, for the thousands of states imagined in
planning.

The paper specifies no schema for its messages; this one is ours.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

SIGNALS: tuple[str, ...] = ("reward", "life_lost", "lives", "end", "effort", "novelty")
"""The signals of every world, in this order; a world may append its own.

`reward`: of the last step, unclipped. `life_lost`: 1 where the last step lost a life. `lives`:
lives left. `end`: 1 where the game is over. `effort`: magnitude of the last action, 0 to 1.
`novelty`: 0 to 1, written by the loop from `Recollection.novelty`; worlds leave it 0.
"""


_SURPRISE_SIGNALS = [SIGNALS.index(name) for name in ("reward", "life_lost", "end")]


class Frozen(BaseModel):
    """A pydantic model that is immutable and refuses unknown fields, as all settings are."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SextetError(Exception):
    """Root of the errors a user can cause.

    SextetError
    ├── MessageError   a module returned a message of the wrong form
    ├── ConfigError    a setting is wrong; exit 2
    ├── WorldError     a world cannot be made, stepped or restored; exit 2 when it cannot be made
    └── TraceError     a recorded run cannot be read or written
    """

    exit_code = 2


class ConfigError(SextetError):
    """A setting is wrong: where, expected, got, what to try."""


class WorldError(SextetError):
    """A world cannot be made, stepped or restored."""


class TraceError(SextetError):
    """A recorded run cannot be read or written."""


class MessageError(SextetError):
    """The fields of a message disagree with each other, with the axes of its receiver, or with the
    range of their numbers.

    `message`, `field` and `row` name the place; `module`, and the `step` of the loop or the
    `update` of the learner, are added where they are known.
    """

    def __init__(
        self, message: str, field: str, expected: str, received: str, row: int | None = None
    ) -> None:
        self.message, self.field, self.expected, self.received = message, field, expected, received
        self.row = row
        self.module: str | None = None
        self.step: int | None = None
        self.update: int | None = None
        super().__init__(message)

    def __str__(self) -> str:
        where = f"{self.message}.{self.field}"
        if self.row is not None:
            where = f"{where}, row {self.row}"
        if self.module is not None:
            where = f"module {self.module}: {where}"
        if self.step is not None:
            where = f"step {self.step}: {where}"
        if self.update is not None:
            where = f"update {self.update}: {where}"
        return f"{where}: expected {self.expected}, got {self.received}"


_DTYPES_BY_KIND = {
    "float": (torch.float32, torch.float64, torch.float16, torch.bfloat16),
    "bool": (torch.bool,),
    "int": (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}
_DTYPES_BY_KIND["any"] = tuple(itertools.chain(*_DTYPES_BY_KIND.values()))


_SLACK = 1e-4
"""Rounding may take a fraction this far beyond its range."""

_SHORT = 16
"""Up to this many numbers are compared one by one: in the loop that takes 2 µs, `aminmax` 9 µs."""


class Shape:
    """The axes of a tensor field, `Shape("B D")`, its kind of dtype and the range of its numbers.

    `kind` is "float", "bool", "int" or "any". Numbers are from `least` to `most`; floats are finite
    besides, unless `infinite`.
    """

    def __init__(
        self,
        axes: str,
        kind: str = "float",
        *,
        least: float = -math.inf,
        most: float = math.inf,
        infinite: bool = False,
    ) -> None:
        self.axes = tuple(axes.split())
        self.kind, self.least, self.most, self.infinite = kind, least, most, infinite
        self.dtypes = frozenset(_DTYPES_BY_KIND[kind])
        self.is_bounded = least > -math.inf or most < math.inf
        slack = 0.0 if kind == "int" else _SLACK
        largest = math.inf if infinite else sys.float_info.max
        self._low, self._high = max(least - slack, -largest), min(most + slack, largest)
        self._last: tuple[Tensor | None, int] = None, 0

    def __repr__(self) -> str:
        return f"{self.kind} [{' '.join(self.axes)}]"

    def allows(self, value: Tensor) -> bool:
        """Whether all numbers of `value` are in the range.

        A tensor that was allowed last time and has not changed is not read again: many directives
        and plans are made of the same tensors.
        """
        if not (self.is_bounded or value.dtype.is_floating_point) or value.numel() == 0:
            return True
        last, version = self._last
        if value is last and not value.is_inference() and value._version == version:
            return True
        low, high = self._low, self._high
        if value.numel() <= _SHORT:
            allowed = all(low <= number <= high for number in value.flatten().tolist())
        else:
            # A NaN is the least and the largest of its tensor, and in no range.
            least, most = torch.aminmax(value)
            allowed = low <= least.item() and most.item() <= high
        if allowed:
            self._last = value, 0 if value.is_inference() else value._version
        return allowed

    def refusal(self, message: str, field: str, value: Tensor) -> MessageError:
        """The error of a `value` that is not allowed, with its first number out of range."""
        array = value.detach().double().cpu().numpy()
        place = np.argwhere(~((array >= self._low) & (array <= self._high)))[0]
        row = int(place[0]) if self.axes[0] == "B" else None
        kind = "whole numbers" if self.kind == "int" else "numbers"
        if not (self.is_bounded or self.infinite):
            kind = f"finite {kind}"
        expected = range_words(kind, self.least, self.most)
        return MessageError(message, field, expected, f"{array[tuple(place)]:g}", row)


def range_words(kind: str, least: float, most: float) -> str:
    """A kind of number and its range, in words."""
    if (least, most) == (-math.inf, math.inf):
        return kind
    return f"{kind} from {least:.9g}" + ("" if most == math.inf else f" to {most:.9g}")


def _parts(hint: Any) -> Iterator[Any]:
    """A type hint and all hints nested in it: members of unions, metadata of `Annotated`."""
    yield hint
    for part in get_args(hint):
        yield from _parts(part)


_KINDS: dict[str, type[Message]] = {}
_AXES: dict[tuple[Any, ...], dict[str, int]] = {}
_FORMS_MAX = 4096
_set = object.__setattr__
_MAGIC = b"SXT1"


class Message(Frozen):
    """Base of all messages: frozen, complete, with fields that agree in their axes.

    A subclass declares tensors as `Annotated[Tensor, Shape("B D")]`, perhaps `| None`; other fields
    are messages, numbers, strings, or tuples with one entry per row. Raises MessageError, naming
    the field, where a field has the wrong form or two fields disagree. Equality is identity.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    version: ClassVar[int] = 4
    renamed: ClassVar[Mapping[str, str]] = {}
    """Name of a field in version 1 → its name now; bytes and traces of version 1 are read by it."""
    added: ClassVar[Mapping[str, int | bool]] = {}
    """Field [B] that version 2 did not have → its value in messages of that version."""
    _tensors: ClassVar[tuple[tuple[str, Shape], ...]] = ()
    _numeric: ClassVar[tuple[tuple[str, Shape], ...]] = ()
    _nested: ClassVar[tuple[str, ...]] = ()
    _others: ClassVar[tuple[str, ...]] = ()
    _names: ClassVar[frozenset[str]] = frozenset()
    _all_set: ClassVar[set[str]] = set()
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _required: ClassVar[frozenset[str]] = frozenset()
    _by_row: ClassVar[tuple[str, ...]] = ()
    __slots__ = ("_axes", "_is_checked")

    def __init__(self, **fields: Any) -> None:
        values = {**self._defaults, **fields}
        if (axes := self._axes_of_known_form(values)) is not None:
            self._set_fields(values)
            _set(self, "_axes", axes)
            _set(self, "_is_checked", False)
            return
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"]) or "?"
            raise MessageError(
                type(self).__name__, name, first["msg"], _describe(first.get("input"))
            ) from None
        _set(self, "_axes", self._known_axes())
        _set(self, "_is_checked", False)

    @classmethod
    def __pydantic_init_subclass__(cls, **settings: Any) -> None:
        """Reads the axes from the field types. Raises TypeError where a type is a forward
        reference: such a class could not check its messages.
        """
        tensors, nested, others = [], [], []
        if not cls.__pydantic_complete__:
            raise TypeError(
                f"message {cls.__name__}: expected fields whose types are known where the class is "
                "defined, got a forward reference; define those types first"
            )
        for name, field in cls.model_fields.items():
            parts = [*field.metadata, *_parts(field.annotation)]
            if shapes := [part for part in parts if isinstance(part, Shape)]:
                tensors.append((name, shapes[0]))
            elif any(isinstance(part, type) and issubclass(part, Message) for part in parts):
                nested.append(name)
            else:
                others.append(name)
        cls._tensors, cls._nested, cls._others = tuple(tensors), tuple(nested), tuple(others)
        cls._numeric = tuple(
            (name, shape)
            for name, shape in tensors
            if shape.is_bounded or shape.kind in ("float", "any")
        )
        cls._names, cls._all_set = frozenset(cls.model_fields), set(cls.model_fields)
        cls._defaults = {
            name: field.get_default()
            for name, field in cls.model_fields.items()
            if not field.is_required()
        }
        cls._required = frozenset(n for n, f in cls.model_fields.items() if f.is_required())
        constant = {name for name, shape in tensors if shape.axes[0] != "B"}
        cls._by_row = tuple(name for name in cls.model_fields if name not in constant)
        _KINDS[cls.__name__] = cls

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def _set_fields(self, values: dict[str, Any]) -> None:
        """Sets all fields without a check, as pydantic keeps them."""
        _set(self, "__dict__", values)
        _set(self, "__pydantic_fields_set__", self._all_set)
        _set(self, "__pydantic_extra__", None)
        _set(self, "__pydantic_private__", None)

    @classmethod
    def _form(cls, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """What decides whether the fields agree: shapes and dtypes of tensors, kinds and rows of
        messages.
        """
        form: list[Any] = [cls]
        for name, _ in cls._tensors:
            value = values[name]
            form.append(None if value is None else (value.shape, value.dtype))
        for name in cls._nested:
            value = values[name]
            rows = None if value is None or not value._tensors else value.batch
            form += (type(value), rows)
        return tuple(form)

    @classmethod
    def _axes_of_known_form(cls, values: Mapping[str, Any]) -> Mapping[str, int] | None:
        """The axes of fields whose form was checked before; None where it is new, or where other
        fields than tensors and messages are to be checked each time.
        """
        if cls._others or len(values) != len(cls._names):
            return None
        try:
            return _AXES.get(cls._form(values))
        except (KeyError, AttributeError, TypeError):  # a field is missing, or is no tensor
            return None

    def _known_axes(self) -> Mapping[str, int]:
        """The length of every axis, checked once for each form. It takes a third of the check."""
        key = self._form(self.__dict__)
        if (axes := _AXES.get(key)) is None:
            if len(_AXES) == _FORMS_MAX:
                _AXES.clear()
            axes = _AXES[key] = self._axis_lengths({})
        return axes

    def _axis_lengths(self, known: Mapping[str, int]) -> dict[str, int]:
        """The length of every axis, `known` ones included.

        Raises MessageError where an axis has two lengths, or a tensor has another number of axes or
        another dtype than declared.
        """
        axes, values, message = dict(known), self.__dict__, type(self).__name__
        for name, shape in self._tensors:
            if (value := values[name]) is None:
                continue
            if value.dim() != len(shape.axes) or value.dtype not in shape.dtypes:
                raise MessageError(message, name, repr(shape), _describe(value))
            for axis, length in zip(shape.axes, value.shape, strict=True):
                if axes.setdefault(axis, length) != length:
                    expected = " ".join(f"{a}={axes.get(a, '?')}" for a in shape.axes)
                    raise MessageError(message, name, f"[{expected}]", _describe(value))
        for name in self._nested:
            if (value := values[name]) is not None and value._tensors:
                rows = value.batch
                if axes.setdefault("B", rows) != rows:
                    raise MessageError(message, name, f"{axes['B']} rows", f"{rows} rows")
        return axes

    def check(self, dims: Mapping[str, int]) -> Self:
        """Itself. Raises MessageError where an axis has another length than in `dims`, or a number
        is out of the range of its field.
        """
        # A checked message has its axes; those of an unchecked one are not known yet.
        axes: Mapping[str, int] = getattr(self, "_axes", None) or self._axis_lengths(dims)
        for axis, length in axes.items():
            if dims.get(axis, length) != length:
                self._axis_lengths(dims)
        if (outside := self._outside()) is not None:
            name, shape, value = outside
            raise shape.refusal(type(self).__name__, name, value)
        return self

    def _outside(self) -> tuple[str, Shape, Tensor] | None:
        """The first field with a number out of its range, by its dotted path; None where there is
        none. The numbers of a message that was checked are not compared again.
        """
        if getattr(self, "_is_checked", False):
            return None
        values = self.__dict__
        for name, shape in self._numeric:
            value = values[name]
            if value is not None and not shape.allows(value):
                return name, shape, value
        for name in self._nested:
            nested: Message | None = values[name]
            if nested is not None and (outside := nested._outside()) is not None:
                return f"{name}.{outside[0]}", outside[1], outside[2]
        _set(self, "_is_checked", True)
        return None

    @property
    def batch(self) -> int:
        """Number of rows B."""
        values = self.__dict__
        for name, shape in self._tensors:
            if shape.axes[0] == "B" and values[name] is not None:
                return int(values[name].shape[0])
        return int(values[self._nested[0]].batch)

    @classmethod
    def unchecked(cls, **fields: Any) -> Self:
        """A message whose shapes are not checked, for states inside planning and learning.

        Raises MessageError where a field without a default is missing, or one is unknown.
        """
        if not cls._required.issubset(fields) or not cls._names.issuperset(fields):
            name = min(cls._required.difference(fields) or fields.keys() - cls._names)
            known = ", ".join(cls.model_fields)
            raise MessageError(cls.__name__, name, f"fields {known}", ", ".join(fields))
        message = cls.__new__(cls)
        message._set_fields({**cls._defaults, **fields})
        return message

    @classmethod
    def with_added(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an older message, with those that its version did not have (`added`)."""
        rows = next((len(v) for v in fields.values() if isinstance(v, Tensor)), 0)
        missing = cls.added.keys() - fields.keys()
        return {**fields, **{name: torch.full((rows,), cls.added[name]) for name in missing}}

    def replace(self, **changes: Any) -> Self:
        """A checked copy with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def to(self, device: torch.device) -> Self:
        """A copy with its tensors on `device`. Unchecked."""
        fields = {
            name: value.to(device) if isinstance(value, Tensor | Message) else value
            for name, value in self.__dict__.items()
        }
        return self.unchecked(**fields)

    def select(self, index: Tensor) -> Self:
        """The rows at `index` [M] (int64), in that order; repeats allowed. Unchecked."""
        fields = dict(self.__dict__)
        for name in self._by_row:
            value = fields[name]
            if isinstance(value, Tensor):
                fields[name] = value.index_select(0, index)
            elif isinstance(value, Message):
                fields[name] = value.select(index)
            elif isinstance(value, tuple):
                fields[name] = tuple(value[i] for i in index.tolist())
        return self.unchecked(**fields)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of several messages in one, in order; what has no axis B is the first one's.

        Where further axes differ, as those of plans of different length, the shorter ones are
        padded with 0, or with inf in fields that may be infinite. Unchecked.
        """
        fields, infinite = dict(parts[0].__dict__), {n for n, s in cls._tensors if s.infinite}
        for name in cls._by_row:
            values = [part.__dict__[name] for part in parts]
            if isinstance(values[0], Tensor):
                fields[name] = _stacked(values, math.inf if name in infinite else 0.0)
            elif isinstance(values[0], Message):
                fields[name] = type(values[0]).joined(values)
            elif isinstance(values[0], tuple):
                fields[name] = tuple(itertools.chain(*values))
        return cls.unchecked(**fields)

    def where(self, mask: Tensor, other: Self) -> Self:
        """Its rows where `mask` [B] (bool) is true, those of `other` elsewhere. Unchecked."""
        fields = dict(self.__dict__)
        for name in self._by_row:
            value, theirs = fields[name], other.__dict__[name]
            if isinstance(value, Tensor):
                column = mask.view(-1, *[1] * (value.dim() - 1))
                fields[name] = torch.where(column, value, theirs.to(value.dtype))
            elif isinstance(value, Message):
                fields[name] = value.where(mask, theirs)
            elif isinstance(value, tuple):
                pairs = zip(mask.tolist(), value, theirs, strict=True)
                fields[name] = tuple(a if keep else b for keep, a, b in pairs)
        return self.unchecked(**fields)

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor | None]]:
        """Every tensor field with its dotted path, those of nested messages included."""
        values = self.__dict__
        for name, _ in self._tensors:
            yield prefix + name, values[name]
        for name in self._nested:
            if values[name] is not None:
                yield from values[name].tensors(f"{prefix}{name}.")

    # -- bytes ------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The message without pickle: a JSON header, then the raw numbers of each tensor."""
        blobs: list[bytes] = []
        header = json.dumps(self._header(blobs), separators=(",", ":")).encode()
        return b"".join([_MAGIC, struct.pack("<I", len(header)), header, *blobs])

    def _header(self, blobs: list[bytes]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, _ in self._tensors:
            value = self.__dict__[name]
            if value is None:
                fields[name] = None
                continue
            value = value.detach().cpu().contiguous()
            dtype = str(value.dtype).removeprefix("torch.")
            fields[name] = [dtype, list(value.shape)]
            blobs.append(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name in self._nested:
            value = self.__dict__[name]
            fields[name] = None if value is None else value._header(blobs)
        for name in self._others:
            fields[name] = self.__dict__[name]
        return {"message": type(self).__name__, "version": self.version, "fields": fields}

    @staticmethod
    def from_bytes(data: bytes) -> Message:
        """The message that `to_bytes` wrote, in this version or an older one.

        Raises MessageError where the bytes are damaged or of a newer version.
        """
        if data[:4] != _MAGIC or len(data) < 8:
            raise MessageError("Message", "bytes", "a Sextet message", repr(data[:4]))
        (length,) = struct.unpack_from("<I", data, 4)
        try:
            header = json.loads(data[8 : 8 + length])
            message, end = _read(header, memoryview(data), 8 + length)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MessageError("Message", "bytes", "an intact message", str(error)) from None
        if end != len(data):
            raise MessageError("Message", "bytes", f"{end} bytes", f"{len(data)} bytes")
        return message


def _read(header: dict[str, Any], data: memoryview, at: int) -> tuple[Message, int]:
    kind = _KINDS[header["message"]]
    if header["version"] > kind.version:
        raise MessageError(
            kind.__name__, "version", f"{kind.version} or older", f"{header['version']}"
        )
    stored, fields = header["fields"], dict[str, Any]()
    if header["version"] < 2:
        stored = {kind.renamed.get(name, name): entry for name, entry in stored.items()}
    for name, _ in kind._tensors:
        if name not in stored and (name in kind._defaults or header["version"] < 3):
            continue
        if (entry := stored[name]) is None:
            fields[name] = None
            continue
        dtype, shape = getattr(torch, entry[0]), entry[1]
        size = dtype.itemsize
        for axis in shape:
            size *= axis
        if at + size > len(data):
            raise ValueError(f"{name} is cut short")
        if size:
            value = torch.frombuffer(bytearray(data[at : at + size]), dtype=dtype).view(shape)
        else:
            value = torch.empty(shape, dtype=dtype)
        fields[name] = value
        at += size
    for name in kind._nested:
        if (entry := stored[name]) is None:
            fields[name] = None
        else:
            fields[name], at = _read(entry, data, at)
    for name in kind._others:
        value = stored[name]
        fields[name] = tuple(value) if isinstance(value, list) else value
    return kind(**kind.with_added(fields)), at


def _stacked(values: Sequence[Tensor], padding: float) -> Tensor:
    """Tensors one below the other, each padded to the largest size of every axis but the first."""
    sizes = [max(lengths) for lengths in zip(*(v.shape[1:] for v in values), strict=True)]
    if any(list(value.shape[1:]) != sizes for value in values):
        padded = []
        for value in values:
            whole = value.new_full((len(value), *sizes), padding)
            whole[tuple(slice(length) for length in value.shape)] = value
            padded.append(whole)
        values = padded
    return torch.cat(list(values))


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{type(value).__name__} {value!r:.60}"


# -- the description of a world -------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _factor_matrix(factors: tuple[tuple[float, ...], ...], size: int) -> Tensor:
    # Cached, because each imagined step reads it.
    return torch.tensor(factors) if factors else torch.zeros(size, 0)


class ActionSpec(Frozen):
    """The actions of a world, and their encoding as A numbers.

    Discrete: `size` = A is the number of actions, an encoded action is one-hot or a relaxation of
    it, `names` are those of the actions. Continuous: A is the number of dimensions, an encoded
    action is in [-1, 1]^A and maps linearly to the world's bounds `low` and `high` [A]. With one
    encoding, models, planners and gradients treat both alike.

    `factors` [A Z] describe discrete actions by Z numbers each, such as the directions of a
    joystick: what is learned of an action generalises to others with the same factors. Empty where
    there are none.
    """

    discrete: bool
    size: int
    names: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    factors: tuple[tuple[float, ...], ...] = ()

    def factor_matrix(self) -> Tensor:
        """`factors` as a tensor, [A Z]."""
        return _factor_matrix(self.factors, self.size)

    def with_factors(self, encoded: Tensor) -> Tensor:
        """Encoded actions [... A] followed by their factors, [... A+Z]."""
        factors = self.factor_matrix().to(encoded)
        return torch.cat([encoded, encoded @ factors], -1) if factors.shape[1] else encoded

    def encode(self, native: Tensor) -> Tensor:
        """Encoded actions [... A] of native ones: int64 [...], or float [... A] within bounds."""
        if self.discrete:
            return torch.nn.functional.one_hot(native.long(), self.size).float()
        low, high = native.new_tensor(self.low), native.new_tensor(self.high)
        return (native - low) / (high - low) * 2 - 1

    def decode(self, encoded: Tensor) -> Tensor:
        """Native actions of encoded ones [... A]: int64 [...], the largest entry, or float [... A],
        clipped to [-1, 1] and scaled to the bounds.
        """
        if self.discrete:
            return encoded.argmax(-1)
        low, high = encoded.new_tensor(self.low), encoded.new_tensor(self.high)
        return low + (encoded.clamp(-1, 1) + 1) / 2 * (high - low)


class LatentSpec(Frozen):
    """The latent variable z of a world model (LeCun 2022, §4.4): what a state and an action do not
    determine.

    `kind`: "categorical" (one-hot codes), "gaussian" or "sparse" (real numbers). `size`: the
    numbers Z of one z. `luck`: the uniform numbers from which one z is drawn.
    """

    kind: Literal["categorical", "gaussian", "sparse"]
    size: int = Field(ge=1)
    luck: int = Field(ge=1)


class WorldSpec(Frozen):
    """The observations, signals and actions of a world, the same in each of its rows.

    `id` and `protocol` (None: the world has one set of rules) name the world. Of `pixels`, (height,
    width, channels), and `vector`, its size N, one is None. `signals`: their names, `SIGNALS`
    first. `goal`: size G of the goal vector, None without one. `goal_pixels`: whether the goal is a
    picture, in the form of `pixels`. `frames_per_step`: emulated frames per step. `readings`: what
    the spaces of observations and actions of a foreign environment were taken for, one line each.
    """

    id: str
    pixels: tuple[int, int, int] | None
    vector: int | None
    signals: tuple[str, ...]
    actions: ActionSpec
    goal: int | None = None
    goal_pixels: bool = False
    protocol: str | None = None
    frames_per_step: int = 1
    readings: tuple[str, ...] = ()

    def same_as(self, other: WorldSpec) -> bool:
        """Whether all is alike but the text of the `readings`, which older runs do not have."""
        return self.model_copy(update={"readings": other.readings}) == other


# -- the messages ---------------------------------------------------------------------------


class Observation(Message):
    """World → perception: one observation per row.

    `pixels` or `vector`, as `WorldSpec` says, `signals` of the last step and the goal, if any, as
    numbers, `goal`, or as a picture, `goal_pixels`.
    `first` marks the first observation of an episode. A row whose episode ended, `terminated` by
    the world or `truncated` by a limit, shows the last frame; the next action is ignored there, and
    the next observation is the `first` of a new episode (Gymnasium's NEXT_STEP autoreset).
    """

    pixels: Annotated[Tensor, Shape("B H Y C", "any")] | None
    vector: Annotated[Tensor, Shape("B N")] | None
    signals: Annotated[Tensor, Shape("B S")]
    goal: Annotated[Tensor, Shape("B G")] | None = None
    goal_pixels: Annotated[Tensor, Shape("B H Y C", "any")] | None = None
    first: Annotated[Tensor, Shape("B", "bool")]
    terminated: Annotated[Tensor, Shape("B", "bool")]
    truncated: Annotated[Tensor, Shape("B", "bool")]

    @property
    def ended(self) -> Tensor:
        """Rows whose episode ended, [B] bool."""
        return self.terminated | self.truncated


class State(Message):
    """Perception, world model → all: an estimate of the state of the world, s in the paper.

    `latent`: the representation. `hidden`: context of the module that made the state, which no
    other reads (perception: earlier frames; world model: tokens, simulator nodes, or, in what it
    expects, what the surprise will be measured from). `signals`:
    observed in a perceived state, predicted in an imagined one. `ended`: probability that the
    episode is over. `uncertainty`: >= 0, 0 where the state is certain. `goal`: of the episode, as
    numbers, or the latent of a goal that is a picture. `levels`: coarser latents of a hierarchical
    world model (§4.6), one for each level above, the lowest first; None where there is no
    hierarchy, and in states imagined at the lowest level. `readout`: that of memory at the
    perceived state, which imagined states keep from the state that they begin at; None where no
    module of the agent reads it.
    """

    renamed: ClassVar = {"carry": "hidden"}
    latent: Annotated[Tensor, Shape("B D")]
    hidden: Annotated[Tensor, Shape("B R", "any")]
    signals: Annotated[Tensor, Shape("B S")]
    ended: Annotated[Tensor, Shape("B", least=0, most=1)]
    uncertainty: Annotated[Tensor, Shape("B", least=0)]
    goal: Annotated[Tensor, Shape("B G")] | None = None
    levels: Annotated[Tensor, Shape("B J I")] | None = None
    readout: Annotated[Tensor, Shape("B RU")] | None = None

    def recalled(self, novelty: Tensor, readout: Tensor | None) -> State:
        """A copy with what memory knows: the signal `novelty` [B] and the `readout` [B RU]."""
        signals = self.signals.clone()
        signals[:, SIGNALS.index("novelty")] = novelty
        return self.replace(signals=signals, readout=readout)

    def inputs(self, reads_memory: bool) -> Tensor:
        """What a network reads of a state: the latent [B D], followed by the `readout` [B U] where
        it `reads_memory`. Raises MessageError where there is none.
        """
        if not reads_memory:
            return self.latent
        if self.readout is None:
            raise MessageError("State", "readout", "what memory returned, [B U]", "None")
        return torch.cat([self.latent, self.readout], -1)

    def distance(self, expected: State) -> Tensor:
        """The distance of this state from the `expected` one, [B], 0 where they are equal.

        |z - ẑ|² / (|z|² + |ẑ|²) of the latents (0 to 2), plus the largest |tanh(x) - tanh(x̂)| among
        the signals reward, life_lost and end (0 to 2).
        """
        error = (self.latent - expected.latent).square().sum(-1)
        scale = self.latent.square().sum(-1) + expected.latent.square().sum(-1)
        difference = (self.signals.tanh() - expected.signals.tanh())[:, _SURPRISE_SIGNALS]
        return error / scale.clamp_min(1e-8) + difference.abs().amax(-1)


def latents_of(states: Sequence[State]) -> Tensor:
    """The latents of W states of B rows, [B W D]."""
    return torch.stack([state.latent for state in states], 1)


def inputs_of(states: Sequence[State], reads_memory: bool) -> Tensor:
    """What a network reads of W states of B rows (`State.inputs`), [B W D] or [B W D+U]."""
    return torch.stack([state.inputs(reads_memory) for state in states], 1)


class Energy(Message):
    """Cost → actor, configurator, memory: the energies of a state, unweighted; lower is better.

    `intrinsic` is IC_i(s), `critic` the heads TC_j(s) (LeCun 2022, eqs. 1-3). A critic of actions
    gives the heads of each action in s, `critic_actions`; its `critic` is None until a directive
    is known, then TC_j at the action of least v·TC (`at_best_action`). `disagreement` >= 0 is the
    spread of the critic's ensemble.
    """

    intrinsic: Annotated[Tensor, Shape("B K")]
    critic: Annotated[Tensor, Shape("B L")] | None
    disagreement: Annotated[Tensor, Shape("B", least=0)]
    critic_actions: Annotated[Tensor, Shape("B A L")] | None = None

    def total(self, directive: Directive) -> Tensor:
        """C(s) = u·IC(s) + v·TC(s), [B]; of a critic of actions min_a v·TC(s, a)."""
        return (self.intrinsic * directive.u).sum(-1) + self.critic_value(directive)

    def action_values(self, directive: Directive) -> Tensor | None:
        """v·TC(s, a) of each action, [B A]; None of a critic of states."""
        if self.critic_actions is None:
            return None
        return (self.critic_actions * directive.v.unsqueeze(1)).sum(-1)

    def critic_value(self, directive: Directive) -> Tensor:
        """v·TC(s), [B]; of a critic of actions min_a v·TC(s, a)."""
        if (values := self.action_values(directive)) is not None:
            return values.amin(-1)
        assert self.critic is not None
        return (self.critic * directive.v).sum(-1)

    def at_best_action(self, directive: Directive) -> Energy:
        """A copy whose `critic` is the heads [B L] of the action of least v·TC(s, a); itself where
        the critic is one of states.
        """
        heads, values = self.critic_actions, self.action_values(directive)
        if heads is None or values is None:
            return self
        return self.replace(critic=heads[torch.arange(len(values)), values.argmin(-1)])


class Recollection(Message):
    """Memory → policy, world model, configurator: the entries most similar to the present state.

    `keys`, `values`, `weights` and `ages` (in steps) of the V slots of largest weight, the largest
    first; `weights` are the coefficients c_j of eq. 16. A slot without an entry has a key of zeros,
    weight 0 and age 0. `readout` is Σ c_j v_j over all slots (eq. 15); with several queries
    it holds their read-outs, concatenated, and `weights` are the means over queries. `novelty`: 0
    known, 1 unlike any entry.
    """

    renamed: ClassVar = {"value": "readout"}
    keys: Annotated[Tensor, Shape("B V X")]
    values: Annotated[Tensor, Shape("B V U")]
    weights: Annotated[Tensor, Shape("B V", least=0, most=1)]
    ages: Annotated[Tensor, Shape("B V", least=0)]
    readout: Annotated[Tensor, Shape("B RU")]
    novelty: Annotated[Tensor, Shape("B", least=0, most=1)]


class Pairs(Message):
    """World model → memory: what a step changed, as Z pairs of query and value (LeCun 2022, §4.9).

    `queries` address entries of the memory; a query of zeros writes nothing. `values` are what is
    written there.
    """

    queries: Annotated[Tensor, Shape("B Z X")]
    values: Annotated[Tensor, Shape("B Z U")]


class Directive(Message):
    """Configurator → all: the settings of every other module in this step (LeCun 2022, §6).

    `mode`: 1 reacts, 2 plans. `horizon_steps`: depth of imagination. `model_calls`: budget of
    imagined steps for this step. `commit_steps`: actions of a plan carried out before the next
    planning (1: plan in every step). `u`, `v`: weights of drives and critic heads. `tokens`:
    modulate perception, world model, policy and critic. `futures`: imagined futures of each plan,
    each with latent variables z of its own. `latent_temperature`: of the distribution that z is
    drawn from; 0: the most likely z. `risk`: weight of uncertainty in the cost of a plan (> 0
    averse). `adversarial`: a plan costs what the worst of its futures costs (§5).
    `configurator_state`: context of the configurator, which no other module reads. `reason`: for
    these settings, a line a row. `subgoal`: the latent that a hierarchical planner is to reach
    first (§6), inf where its upper level chooses one; None where no planner reads it.
    """

    renamed: ClassVar = {"carry": "configurator_state"}
    added: ClassVar = {"futures": 1, "adversarial": False}
    mode: Annotated[Tensor, Shape("B", "int", least=1, most=2)]
    horizon_steps: Annotated[Tensor, Shape("B", "int", least=1, most=1000)]
    model_calls: Annotated[Tensor, Shape("B", "int", least=0, most=10_000_000)]
    commit_steps: Annotated[Tensor, Shape("B", "int", least=1, most=1000)]
    u: Annotated[Tensor, Shape("B K", least=-1e6, most=1e6)]
    v: Annotated[Tensor, Shape("B L", least=-1e6, most=1e6)]
    tokens: Annotated[Tensor, Shape("B T E", least=-1e6, most=1e6)]
    futures: Annotated[Tensor, Shape("B", "int", least=1, most=1024)]
    latent_temperature: Annotated[Tensor, Shape("B", least=0, most=100)]
    risk: Annotated[Tensor, Shape("B", least=-1000, most=1000)]
    adversarial: Annotated[Tensor, Shape("B", "bool")]
    configurator_state: Annotated[Tensor, Shape("B Q", infinite=True)]
    subgoal: Annotated[Tensor, Shape("B D", infinite=True)] | None = None
    reason: tuple[str, ...]


class Plan(Message):
    """Actor → loop: the actions to carry out, and the alternatives.

    `actions[:, 0]` is carried out in this step. The first `steps` of `actions` are the plan
    (Mode-1: 1), the rest is padding. `remaining_commit` more of them are carried out without
    planning again. `energy`: predicted cost of the plan, 0 where none is predicted. `mode`:
    1 or 2. `model_calls`: imagined steps used. `candidates`: M alternatives, for trace and view,
    with their `candidate_energies`, inf where there is no candidate. `subgoals`: of each level
    above, the lowest first, the latent that the plan is to reach, inf where the plan goes to the
    goal itself or reacts; None where no level is above (§4.7).
    """

    renamed: ClassVar = {"committed": "remaining_commit"}
    actions: Annotated[Tensor, Shape("B P A", least=-1, most=1)]
    steps: Annotated[Tensor, Shape("B", "int", least=0, most=1000)]
    remaining_commit: Annotated[Tensor, Shape("B", "int", least=0, most=1000)]
    energy: Annotated[Tensor, Shape("B")]
    mode: Annotated[Tensor, Shape("B", "int", least=1, most=2)]
    model_calls: Annotated[Tensor, Shape("B", "int", least=0, most=10_000_000)]
    candidates: Annotated[Tensor, Shape("B M O A", least=-1, most=1)]
    candidate_energies: Annotated[Tensor, Shape("B M", infinite=True)]
    subgoals: Annotated[Tensor, Shape("B J D", infinite=True)] | None = None

    @property
    def action(self) -> Tensor:
        """The encoded action of this step, [B A]."""
        return self.actions[:, 0]


class Moment(Message):
    """Loop → memory, trace, view: all messages of one step.

    `step` counts from 0, -1 before the first. `surprise`: that of the world model at this state,
    after its last expectation. `episode_model_calls`, `episode_step`: model calls and steps before
    this one in the episode. `expected`: the next state as the world model predicts it.
    """

    renamed: ClassVar = {"spent": "episode_model_calls", "age": "episode_step"}
    step: int
    observation: Observation
    state: State
    recollection: Recollection
    energies: Energy
    surprise: Annotated[Tensor, Shape("B", least=0)]
    episode_model_calls: Annotated[Tensor, Shape("B", "int", least=0)]
    episode_step: Annotated[Tensor, Shape("B", "int", least=-1)]
    directive: Directive
    plan: Plan
    expected: State

    def situation(self, previous: Moment, rng_key: Tensor) -> Situation:
        """The situation in which this moment was decided, from the moment before it and the random
        keys [B] of its step, which a moment does not hold.
        """
        return Situation(
            env_index=torch.arange(len(self.surprise)),
            rng_key=rng_key,
            previous=previous,
            **_shared(self, Situation),
        )


class Situation(Message):
    """Loop → configurator, actor, world model: all that is known before the step is decided.

    `env_index`: the world's row of each row here, also after `select`. `surprise`,
    `episode_model_calls`, `episode_step`: as in `Moment`. `rng_key`: a random key per row, from
    which every module derives its random numbers (`modules.chance`). `previous`: the moment before,
    the initial one where an episode begins.
    """

    env_index: Annotated[Tensor, Shape("B", "int")]
    state: State
    recollection: Recollection
    energies: Energy
    surprise: Annotated[Tensor, Shape("B", least=0)]
    episode_model_calls: Annotated[Tensor, Shape("B", "int", least=0)]
    episode_step: Annotated[Tensor, Shape("B", "int", least=-1)]
    rng_key: Annotated[Tensor, Shape("B", "int")]
    previous: Moment

    def moment(
        self, step: int, observation: Observation, directive: Directive, plan: Plan, expected: State
    ) -> Moment:
        """The moment of this situation after it is decided, with the energies at the best action
        under the directive.
        """
        shared = _shared(self, Moment) | {"energies": self.energies.at_best_action(directive)}
        moment = Moment(
            step=step,
            observation=observation,
            directive=directive,
            plan=plan,
            expected=expected,
            **shared,
        )
        # All it is composed of has been checked, and memory returns it in the next step.
        _set(moment, "_is_checked", True)
        return moment


def _shared(message: Message, kind: type[Message]) -> dict[str, Any]:
    """The fields of `message` that messages of `kind` have too."""
    return {name: value for name, value in message.__dict__.items() if name in kind._names}


class Experience(Message):
    """Memory → learner: B windows of W steps within an episode.

    A window shorter than W is padded behind its end; `mask` is True at its steps. `actions` are
    encoded and were taken at their step; `signals` and ends were observed at it. `frames`: each
    step's own frame, after the context frames that perception stacks (F = W + context). `tokens`:
    those under which each step was encoded, so that step t + 1 has the directive's of step t;
    None: all were 0. `readouts`: what memory returned at each step; None where no module reads it.
    `recalled_keys`, `recalled_values`: the entries that it was read from, of a memory whose
    reading is trained. `mode2_mask`: steps whose action Mode-2 chose; None: unknown.
    `expert_mask`: steps of an expert's recording; None: none is.
    Of recordings that lack something: `action_mask`, steps whose action is known (others are 0),
    `signals_mask`, the signals known at each step, `ends_mask`, steps at which it is known whether
    the episode ended; None: all are known.
    `importance_weights` correct for prioritised sampling; `indices` name the windows in
    `Memory.update_priorities`.
    """

    frames: Annotated[Tensor, Shape("B F H Y C", "any")] | None
    vectors: Annotated[Tensor, Shape("B W N")] | None
    actions: Annotated[Tensor, Shape("B W A", least=-1, most=1)]
    signals: Annotated[Tensor, Shape("B W S")]
    goals: Annotated[Tensor, Shape("B W G")] | None = None
    tokens: Annotated[Tensor, Shape("B W T E")] | None = None
    readouts: Annotated[Tensor, Shape("B W RU")] | None = None
    recalled_keys: Annotated[Tensor, Shape("B W V X")] | None = None
    recalled_values: Annotated[Tensor, Shape("B W V U")] | None = None
    mode2_mask: Annotated[Tensor, Shape("B W", "bool")] | None = None
    expert_mask: Annotated[Tensor, Shape("B W", "bool")] | None = None
    action_mask: Annotated[Tensor, Shape("B W", "bool")] | None = None
    signals_mask: Annotated[Tensor, Shape("B W S", "bool")] | None = None
    ends_mask: Annotated[Tensor, Shape("B W", "bool")] | None = None
    terminated: Annotated[Tensor, Shape("B W", "bool")]
    truncated: Annotated[Tensor, Shape("B W", "bool")]
    mask: Annotated[Tensor, Shape("B W", "bool")]
    importance_weights: Annotated[Tensor, Shape("B", least=0)]
    indices: Annotated[Tensor, Shape("B", "int", least=0)]

    def slice_steps(self, start: int, stop: int) -> Experience:
        """Steps `start` to `stop` of each window, with their context frames. Unchecked."""
        fields, behind = dict(self.__dict__), self.mask.shape[1] - stop
        if self.frames is not None:
            fields["frames"] = self.frames[:, start : self.frames.shape[1] - behind]
        for name, shape in self._tensors:
            if "W" in shape.axes and fields[name] is not None:
                fields[name] = fields[name][:, start:stop]
        return self.unchecked(**fields)
