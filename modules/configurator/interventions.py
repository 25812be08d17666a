"""Interventions: configurators that wrap one and change what it says, so that its effect shows.

Nobody else knows. The configurator within hears the world as it went under the intervention; what
it says is changed on the way out, and the directive's `reason` tells both. What an intervention
must remember lies in the directive's carry, before that of the one it wraps, so that forks,
resumed runs and new episodes need nothing else.

========  =====================  ==============================================================
clamp     clamp:mode=1           the field always has this value
ablate    ablate:u.score         the field always has what a `fixed` configurator would say
delay     delay:mode=5           the field has the value of so many steps ago
shuffle   shuffle:mode           the field has a value of the row's recent past, drawn by chance
swap      swap:200=surprise      from this step of an episode on another configurator directs
========  =====================  ==============================================================
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import Tensor

from modules import chance
from modules.configurator.base_directive import RANGES
from modules.messages import ConfigError, Directive, Situation
from modules.ports import Configurator

INTERVENTIONS = ("clamp", "ablate", "delay", "shuffle", "swap")
"""The kinds of interventions, as they are written."""

SHUFFLED_WITHIN = 16
"""How many values a shuffle holds where nothing was said, steps."""

LIMITS: Mapping[str, tuple[float, float, bool]] = {
    name: (least, most, name in ("mode", "horizon_steps", "model_calls", "commit_steps"))
    for name, (least, most) in RANGES.items()
}
"""Each field of a directive that may be intervened in: least, most, and whether it is whole."""

_EXAMPLES = {
    "clamp": "clamp:mode=1",
    "ablate": "ablate:u.score",
    "delay": "delay:mode=5",
    "shuffle": "shuffle:mode or shuffle:mode=32",
    "swap": "swap:200=surprise",
}


def _refuse(text: str, why: str) -> ConfigError:
    return ConfigError(f"config interventions: {text!r}: {why}")


def _guess(got: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(got, list(names), 1)
    return f". Did you mean {close[0]!r}?" if close else ""


def _number(text: str, what: str, value: Any, least: float, most: float, whole: bool) -> float:
    """`value` as a number in range. Raises ConfigError, one line."""
    kind = "a whole number" if whole else "a number"
    if isinstance(value, str):
        # YAML has 1e3 as a word.
        try:
            value = float(value)
        except ValueError:
            raise _refuse(text, f"{what} {value!r} is not {kind}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse(text, f"{what} {value!r} is not {kind}")
    if not math.isfinite(value) or (whole and value != int(value)):
        raise _refuse(text, f"{what} {value!r} is not {kind}")
    if not least <= value <= most:
        raise _refuse(text, f"{what} {value:g} is not within {least:g} and {most:g}")
    return float(value)


@dataclass(frozen=True)
class Written:
    """An intervention as it was written, checked as far as can be without knowing the drives.

    `field` and `name`: of `u.score` they are `u` and `score`. `number`: the value of a clamp,
    the steps of a delay or a swap, how many values a shuffle holds. `other`: who directs after a
    swap, a kind or a mapping of settings.
    """

    text: str
    kind: str
    field: str = ""
    name: str | None = None
    number: float = 0.0
    other: Any = None

    @property
    def horizon_steps(self) -> int:
        """The horizon it may ask for, steps."""
        return int(self.number) if self.kind == "clamp" and self.field == "horizon_steps" else 0


def read(text: str) -> Written:
    """An intervention from `clamp:mode=1` and the like. Raises ConfigError, one line."""
    kind, colon, rest = text.partition(":")
    if kind not in INTERVENTIONS:
        raise _refuse(
            text, f"{kind!r} is not one of {', '.join(INTERVENTIONS)}{_guess(kind, INTERVENTIONS)}"
        )
    path, equals, value_text = rest.partition("=")
    example = f"expected {_EXAMPLES[kind]}"
    if not colon or not path or bool(equals) != bool(value_text):
        raise _refuse(text, example)
    try:
        value = yaml.safe_load(value_text) if equals else None
    except yaml.YAMLError:
        value = value_text
    if kind == "swap":
        if value is None:
            raise _refuse(text, example)
        number = _number(text, "step", path, 0, 10_000_000, True)
        if not isinstance(value, str) and not (isinstance(value, dict) and "kind" in value):
            raise _refuse(
                text, f"{value_text!r} is neither a kind nor settings; expected surprise or "
                "'{kind: surprise, enter_std: 3}'"
            )  # fmt: skip
        return Written(text, kind, number=number, other=value)
    field, dot, name = path.partition(".")
    if field not in LIMITS:
        raise _refuse(text, f"{field!r} is not one of {', '.join(LIMITS)}{_guess(field, LIMITS)}")
    if dot and (field not in ("u", "v") or not name):
        raise _refuse(text, f"only u and v have parts, as in {kind}:u.score")
    made: dict[str, Any] = {"text": text, "kind": kind, "field": field, "name": name or None}
    if kind == "clamp":
        if value is None:
            raise _refuse(text, f"no value; {example}")
        return Written(**made, number=_number(text, field, value, *LIMITS[field]))
    if kind == "delay":
        if value is None:
            raise _refuse(text, f"no steps; {example}")
        return Written(**made, number=_number(text, "steps", value, 0, 1000, True))
    if kind == "ablate" and value is not None:
        raise _refuse(text, f"takes no value; {example}")
    held = SHUFFLED_WITHIN if value is None else _number(text, "steps", value, 2, 1000, True)
    return Written(**made, number=held)


class Place:
    """Which numbers of a directive an intervention is about: `mode`, `u`, `u.score`, …

    Raises ConfigError where there is no such field, or no such drive or critic head.
    """

    def __init__(
        self, path: str, drives: tuple[str, ...] = (), heads: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.field, _, name = path.partition(".")
        if self.field not in LIMITS:
            raise ConfigError(
                f"config interventions: {self.field!r} is not one of {', '.join(LIMITS)}"
                f"{_guess(self.field, LIMITS)}"
            )
        self.column: int | None = None
        if name:
            names = {"u": drives, "v": heads}.get(self.field, ())
            if name not in names:
                raise ConfigError(
                    f"config interventions: {path!r}: {name!r} is not one of "
                    f"{', '.join(names) or 'its parts, it has none'}{_guess(name, names)}"
                )
            self.column = names.index(name)

    def of(self, directive: Directive) -> Tensor:
        """The numbers there, [B W] float32; whole ones up to 10,000,000 stay exact."""
        value: Tensor = getattr(directive, self.field)
        value = value.float().flatten(1) if value.dim() > 1 else value.float().unsqueeze(1)
        return value if self.column is None else value[:, self.column : self.column + 1]

    def put(self, directive: Directive, numbers: Tensor) -> dict[str, Tensor]:
        """The field with `numbers` [B W] there, as a change to the directive."""
        old: Tensor = getattr(directive, self.field)
        if self.column is not None:
            new = old.clone()
            new[:, self.column] = numbers[:, 0].to(old.dtype)
        elif old.dtype.is_floating_point:
            new = numbers.to(old.dtype).reshape(old.shape)
        else:
            new = numbers.round().to(old.dtype).reshape(old.shape)
        return {self.field: new}

    def words(self, numbers: Tensor) -> list[str]:
        """The numbers [B W] in words, one for each row."""
        if numbers.shape[1] > 8:
            return [f"{numbers.shape[1]} numbers"] * len(numbers)
        return [" ".join(f"{value:.4g}" for value in row) for row in numbers.tolist()]


def _heard_by(situation: Situation, configurator_state: Tensor) -> Situation:
    """The situation as one of the configurators within hears it: with its own `carry`."""
    before = situation.previous
    directive = before.directive.replace(configurator_state=configurator_state)
    return situation.replace(previous=before.replace(directive=directive))


class Intervention(ABC):
    """A configurator around another one, `wrapped`, changing one field of what it says.

    Its carry is its own `width` numbers, then those of the wrapped one.
    """

    width = 0
    verb = ""

    def __init__(self, wrapped: Configurator, place: Place) -> None:
        self.wrapped, self.place = wrapped, place

    @abstractmethod
    def change(self, meant: Tensor, own: Tensor, situation: Situation) -> tuple[Tensor, Tensor]:
        """What the field shall be instead of `meant` [B W], and its own carry afterwards."""

    def begin(self, meant: Tensor) -> tuple[Tensor, Tensor]:
        """The same where an episode begins: `meant` [B W] is what the neutral directive says."""
        return meant, meant.new_zeros(len(meant), 0)

    def configure(self, situation: Situation) -> Directive:
        """What the wrapped one says of the situation, changed."""
        configurator_state = situation.previous.directive.configurator_state
        own, inner = configurator_state[:, : self.width], configurator_state[:, self.width :]
        said = self.wrapped.configure(_heard_by(situation, inner) if self.width else situation)
        meant = self.place.of(said)
        return self._said(said, meant, *self.change(meant, own, situation))

    def initial(self, rows: int) -> Directive:
        """What the wrapped one says where an episode begins, changed."""
        said = self.wrapped.initial(rows)
        meant = self.place.of(said)
        return self._said(said, meant, *self.begin(meant))

    def _said(self, said: Directive, meant: Tensor, shall: Tensor, own: Tensor) -> Directive:
        words, otherwise = self.place.words(shall), self.place.words(meant)
        reason = tuple(
            f"{why}; {self.place.path} {self.verb}: {new}" + (f", not {old}" if differs else "")
            for why, new, old, differs in zip(
                said.reason, words, otherwise, (shall != meant).any(-1).tolist(), strict=True
            )
        )
        configurator_state = (
            torch.cat([own, said.configurator_state.float()], -1)
            if self.width
            else said.configurator_state
        )
        return said.replace(
            **self.place.put(said, shall), configurator_state=configurator_state, reason=reason
        )


class Clamp(Intervention):
    """The field always has the same value, also where an episode begins.

    Identity: with the value that is there anyway, nothing changes; `mode` at 1 around a `fixed`
    configurator is that configurator in Mode-1.
    """

    verb = "clamped"

    def __init__(self, wrapped: Configurator, place: Place, value: float) -> None:
        super().__init__(wrapped, place)
        self.value = value

    def change(self, meant: Tensor, own: Tensor, situation: Situation) -> tuple[Tensor, Tensor]:
        """The value."""
        return torch.full_like(meant, self.value), own

    def begin(self, meant: Tensor) -> tuple[Tensor, Tensor]:
        """The value."""
        return torch.full_like(meant, self.value), meant.new_zeros(len(meant), 0)


class Ablate(Intervention):
    """The field always has what `default` says, one row: that of a `fixed` configurator.

    Standard weights, zero tokens, Mode-2 at every step, usual horizon and budget: what is chosen
    moment by moment no longer reaches anyone. Identity: twice is once.
    """

    verb = "ablated"

    def __init__(self, wrapped: Configurator, place: Place, default: Directive) -> None:
        super().__init__(wrapped, place)
        self.default = place.of(default)

    def change(self, meant: Tensor, own: Tensor, situation: Situation) -> tuple[Tensor, Tensor]:
        """The default."""
        return self.default.expand_as(meant), own

    def begin(self, meant: Tensor) -> tuple[Tensor, Tensor]:
        """The default."""
        return self.default.expand_as(meant), meant.new_zeros(len(meant), 0)


class Delay(Intervention):
    """The field has the value that was meant `steps` steps ago.

    In the first steps of an episode that is what the neutral directive says. Identity: 0 steps.
    """

    verb = "delayed"

    def __init__(self, wrapped: Configurator, place: Place, steps: int) -> None:
        super().__init__(wrapped, place)
        self.steps = steps
        self.width = steps * place.of(wrapped.initial(1)).shape[1]

    def change(self, meant: Tensor, own: Tensor, situation: Situation) -> tuple[Tensor, Tensor]:
        """The oldest value held; the one that is meant is held in turn."""
        waiting = torch.cat([own, meant], -1)
        return waiting[:, : meant.shape[1]], waiting[:, meant.shape[1] :]

    def begin(self, meant: Tensor) -> tuple[Tensor, Tensor]:
        """What is meant, held so many times."""
        return meant, meant.repeat(1, self.steps)


class Shuffle(Intervention):
    """The field has a value meant some steps ago, in an order that chance makes.

    Within a row's own episode: at each step one of the `held` values, drawn by the row's
    `chance`, is said and the one that is meant takes its place. So every value that is meant is
    said once, at another time, but for the last `held`; the neutral directive's value is what is
    held at first. The field keeps how often it has each value and loses when. Identity: where
    there is one value only, nothing changes.
    """

    verb = "shuffled"

    def __init__(self, wrapped: Configurator, place: Place, held: int = SHUFFLED_WITHIN) -> None:
        super().__init__(wrapped, place)
        self.held = held
        neutral = wrapped.initial(1)
        self.width = held * place.of(neutral).shape[1]
        # Two shuffles of one field draw apart: what they wrap has another carry.
        self.luck = f"configurator shuffle {place.path} {neutral.configurator_state.shape[1]}"

    def change(self, meant: Tensor, own: Tensor, situation: Situation) -> tuple[Tensor, Tensor]:
        """A value held; the one that is meant takes its place."""
        pool = own.view(len(meant), self.held, -1).clone()
        rows = torch.arange(len(meant))
        drawn = chance.integers(situation.rng_key, self.luck, self.held, 1)[:, 0]
        shall = pool[rows, drawn]
        pool[rows, drawn] = meant
        return shall, pool.flatten(1)

    def begin(self, meant: Tensor) -> tuple[Tensor, Tensor]:
        """What is meant, held so many times."""
        return meant, meant.repeat(1, self.held)


class Swap:
    """Another configurator directs from a step of each episode on.

    Both hear everything from the beginning, each with its own carry, the wrapped one's first.
    Identities: at step 0 it is the other one; at a step that never comes, the first.
    """

    def __init__(self, wrapped: Configurator, after_step: int, other: Configurator) -> None:
        self.wrapped, self.after_step, self.other = wrapped, after_step, other
        self.split = wrapped.initial(1).configurator_state.shape[1]

    def configure(self, situation: Situation) -> Directive:
        """What the one whose turn it is says."""
        configurator_state = situation.previous.directive.configurator_state
        first = self.wrapped.configure(_heard_by(situation, configurator_state[:, : self.split]))
        second = self.other.configure(_heard_by(situation, configurator_state[:, self.split :]))
        return self._said(first, second, situation.episode_step.clamp_min(0) >= self.after_step)

    def initial(self, rows: int) -> Directive:
        """What the one says whose turn it is where an episode begins."""
        late = torch.full((rows,), self.after_step <= 0)
        return self._said(self.wrapped.initial(rows), self.other.initial(rows), late)

    def _said(self, first: Directive, second: Directive, late: Tensor) -> Directive:
        configurator_state = torch.cat(
            [first.configurator_state.float(), second.configurator_state.float()], -1
        )
        chosen = second.replace(configurator_state=configurator_state).where(
            late, first.replace(configurator_state=configurator_state)
        )
        reason = tuple(
            f"{why}; swapped at step {self.after_step}" if now else why
            for why, now in zip(chosen.reason, late.tolist(), strict=True)
        )
        return chosen.replace(reason=reason)


def intervene(
    written: Written,
    wrapped: Configurator,
    *,
    drives: tuple[str, ...],
    heads: tuple[str, ...],
    default: Directive,
    other: Configurator | None = None,
) -> Configurator:
    """The intervention that was written, around a configurator.

    `default`: what a `fixed` configurator says, one row; `other`: who directs after a swap.
    Raises ConfigError where it names no drive or head of these.
    """
    if written.kind == "swap":
        assert other is not None
        return Swap(wrapped, int(written.number), other)
    path = written.field if written.name is None else f"{written.field}.{written.name}"
    place = Place(path, drives, heads)
    if written.kind == "clamp":
        return Clamp(wrapped, place, written.number)
    if written.kind == "ablate":
        return Ablate(wrapped, place, default)
    if written.kind == "delay":
        return Delay(wrapped, place, int(written.number))
    return Shuffle(wrapped, place, int(written.number))
