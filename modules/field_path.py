"""Paths to numbers in messages, as interventions and forks write them: `directive.u.score`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from modules.messages import (
    ConfigError,
    Directive,
    Energy,
    Message,
    Observation,
    Plan,
    Recollection,
    Shape,
    State,
)
from modules.plain_yaml import plain_yaml
from modules.suggest import not_one_of, suggestion

MESSAGES: Mapping[str, type[Message]] = {
    "observation": Observation,
    "state": State,
    "recollection": Recollection,
    "energies": Energy,
    "directive": Directive,
    "plan": Plan,
    "expected": State,
}
"""The messages of a moment, by the name that a path begins with."""

RANGES: Mapping[str, tuple[float, float]] = {
    "directive.mode": (1, 2),
    "directive.horizon_steps": (1, 1000),
    "directive.model_calls": (0, 10_000_000),
    "directive.commit_steps": (1, 1000),
    "directive.u": (-1e6, 1e6),
    "directive.v": (-1e6, 1e6),
    "directive.tokens": (-1e6, 1e6),
    "directive.latent_temperature": (0, 100),
    "directive.risk": (-1000, 1000),
    "recollection.novelty": (0, 1),
    "recollection.weights": (0, 1),
    "state.ended": (0, 1),
    "state.uncertainty": (0, math.inf),
    "expected.ended": (0, 1),
    "expected.uncertainty": (0, math.inf),
    "energies.disagreement": (0, math.inf),
    "plan.mode": (1, 2),
    "plan.steps": (1, 1000),
    "plan.remaining_commit": (0, 1000),
    "plan.model_calls": (0, 10_000_000),
}
"""Least and largest value of fields; the others may have any finite value. Settings, keys,
interventions and forks all read the ranges of a directive here.
"""

OPAQUE: Mapping[str, str] = {
    "pixels": "a frame has too many numbers to write down",
    "hidden": "only its owner knows the meaning of its numbers",
    "configurator_state": "only its owner knows the meaning of its numbers",
}
"""Fields that no path leads to, and why."""

AnyMessage = TypeVar("AnyMessage", bound=Message)


def fields_of(message: str) -> dict[str, Shape]:
    """The fields of a message that paths lead to, each with its axes."""
    return {
        name: shape
        for name, shape in MESSAGES[message]._tensors
        if shape.axes[0] == "B" and name not in OPAQUE
    }


@dataclass(frozen=True)
class FieldPath:
    """A field of a message, or a part of it.

    `words` are names or numbers along the axes behind the rows; with fewer of them than axes the
    path leads to all numbers on the rest. `where` is what an error about it begins with.
    """

    message: str
    field: str
    words: tuple[str, ...]
    where: str

    @property
    def name(self) -> str:
        """The field and the part: `u.score`."""
        return ".".join((self.field, *self.words))

    @property
    def shape(self) -> Shape:
        """Axes and kind of the field."""
        return fields_of(self.message)[self.field]

    def number(self, value: Any, most: float | None = None) -> Tensor:
        """`value`, one number or nested lists of them, as float64.

        Raises ConfigError for a value of another kind or out of the field's range; `most`: an upper
        limit in place of that of `RANGES`.
        """
        kind = self.shape.kind
        least, limit = RANGES.get(f"{self.message}.{self.field}", (-math.inf, math.inf))
        limit = limit if most is None else most
        if kind == "bool":
            expected = "true or false"
        else:
            expected = range_words("a whole number" if kind == "int" else "a number", least, limit)
        refusal = f"{self.where}: {self.name}: expected {expected}, got {value!r:.60}"
        try:
            # Text that is a number too: YAML reads 1e3 as text.
            numbers = np.array(value, np.float64)
            booleans = [isinstance(one, bool) for one in np.array(value, object).flat]
        except (ValueError, TypeError):
            raise ConfigError(
                f"{refusal}; give one number, or a list with rows of equal length"
            ) from None
        fits = (numbers >= least) & (numbers <= limit) & (abs(numbers) < 3e38)
        if kind == "int":
            fits &= numbers == numbers.round()
        if not numbers.size or not fits.all() or {*booleans} != {kind == "bool"}:
            raise ConfigError(refusal)
        return torch.from_numpy(numbers)

    def part(self, message: Message, names: Mapping[str, Sequence[str]]) -> Part:
        """Where the path leads in messages with the axes of `message`.

        `names`: what the places on an axis are called, by its letter. Raises ConfigError for a
        place that its axis does not have.
        """
        value = getattr(message, self.field)
        if value is None:
            raise ConfigError(f"{self.where}: there is no {self.message}.{self.field} here")
        axes = self.shape.axes[1:]
        if len(self.words) > len(axes):
            raise ConfigError(
                f"{self.where}: expected at most {len(axes)} names or numbers behind "
                f"{self.message}.{self.field}, got {len(self.words)}"
            )
        index = []
        for word, axis, size in zip(self.words, axes, value.shape[1:], strict=False):
            index.append(place_on_axis(word, size, names.get(axis, ()), self.where))
        return Part(self, tuple(index), tuple(value.shape[1 + len(index) :]))


@dataclass(frozen=True)
class Part:
    """The numbers of a message that a path leads to: `index` behind the rows, then `shape`."""

    path: FieldPath
    index: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, message: Message) -> Tensor:
        """The numbers, [B W] float32; whole ones up to 10,000,000 stay exact."""
        numbers = self._view(getattr(message, self.path.field)).float()
        return numbers.reshape(len(numbers), -1)

    def put(self, message: AnyMessage, numbers: Tensor, row: int | None = None) -> AnyMessage:
        """The message with `numbers` [B W] there, in all rows or in one."""
        field: Tensor = getattr(message, self.path.field).clone()
        part = self._view(field)
        numbers = numbers if field.is_floating_point() else numbers.round()
        rows = slice(None) if row is None else slice(row, row + 1)
        part[rows] = numbers.to(field.dtype).reshape(part.shape)[rows]
        return message.replace(**{self.path.field: field})

    def _view(self, field: Tensor) -> Tensor:
        index: tuple[Any, ...] = (slice(None), *self.index)
        return field[index]

    def filled(self, value: Tensor, rows: int) -> Tensor:
        """The numbers [B W] where all rows have `value`, one number or as many as there are.

        Raises ConfigError for another shape.
        """
        if value.dim() and tuple(value.shape) != self.shape:
            raise ConfigError(
                f"{self.path.where}: expected one number, or a list of shape {list(self.shape)}"
            )
        return value.expand(self.shape).reshape(1, -1).repeat(rows, 1)


def field_path(text: str, where: str) -> FieldPath:
    """A path from `MESSAGE.FIELD`, names or numbers behind it; a path that begins with a field of
    the directive is short for one of `directive`.

    Raises ConfigError, which begins with `where`, for an unknown message or field.
    """
    words = text.strip().split(".")
    own = fields_of("directive")
    if words[0] in own:
        words = ["directive", *words]
    message, field = words[0], ".".join(words[1:2])
    if message not in MESSAGES:
        raise ConfigError(f"{where}: {not_one_of(message, (*own, *MESSAGES))}")
    if field not in (allowed := fields_of(message)):
        raise ConfigError(f"{where}: {message}: {OPAQUE.get(field) or not_one_of(field, allowed)}")
    return FieldPath(message, field, tuple(words[2:]), where)


def place_on_axis(word: str, size: int, names: Sequence[str], where: str) -> int:
    """The place on an axis of `size` that has a name or number. Raises ConfigError."""
    if word in names:
        return list(names).index(word)
    if word.isdecimal() and int(word) < size:
        return int(word)
    allowed = ", ".join(names) if names else f"0 to {size - 1}"
    raise ConfigError(f"{where}: {word!r} is not one of {allowed}{suggestion(word, names)}")


def read_value(text: str) -> Any:
    """A value as YAML reads it, else the text itself."""
    try:
        return plain_yaml(text)
    except ValueError:
        return text.strip()


def range_words(kind: str, least: float, most: float) -> str:
    """A kind of number and its range, in words."""
    if (least, most) == (-math.inf, math.inf):
        return kind
    return f"{kind} from {least:.9g}" + ("" if most == math.inf else f" to {most:.9g}")
