"""Interventions: configurators that wrap another one and change one field of its directive.

The wrapped configurator observes the world as it is under the intervention; its directive is
changed afterwards, and `reason` names both values. What an intervention must remember is in
`configurator_state`, before the state of the configurator that it wraps, so that forks, resumed
runs and new episodes need nothing else. Fields are written as for `sextet fork --set`
(`modules.field_path`): `u.score` is short for `directive.u.score`.

========  =====================  ==============================================================
clamp     clamp:mode=1           the field always has this value
ablate    ablate:u.score         the field always has the value of the base directive
delay     delay:mode=5           the field has the value of so many steps ago
shuffle   shuffle:mode           the field has a recent value of the row, drawn by chance
swap      swap:200=surprise      another configurator from this step of an episode on
========  =====================  ==============================================================

`recollection.readout`, what memory returns, can be clamped, shuffled, or exchanged among rows:
`exchange:recollection.readout` (`modules.memory.interventions`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modules import chance
from modules.field_path import FieldPath, Part, field_path, read_value
from modules.messages import ConfigError, Directive, Situation, range_words
from modules.ports import Configurator
from modules.suggest import not_one_of

EXAMPLES = {
    "clamp": "clamp:mode=1",
    "ablate": "ablate:u.score",
    "delay": "delay:mode=5",
    "shuffle": "shuffle:mode or shuffle:mode=32",
    "swap": "swap:200=surprise",
    "exchange": "exchange:recollection.readout",
}
"""The kinds of interventions, each as it is written."""

OF_MEMORY = ("clamp", "shuffle", "exchange")
"""The kinds that change what memory returns."""

SHUFFLED_STEPS = 16
"""How many values a shuffle holds by default."""


@dataclass(frozen=True)
class Written:
    """An intervention as it was written, checked as far as possible without drives and heads.

    `path`: the field; None for a swap. `value`: of a clamp. `steps`: of a delay, values that a
    shuffle holds, or the step of a swap. `other`: what a swap swaps in, a kind or a mapping of
    settings.
    """

    text: str
    kind: str
    path: FieldPath | None = None
    value: Tensor | None = None
    steps: int = 0
    other: Any = None

    @property
    def horizon_steps(self) -> int:
        """The horizon that it clamps, steps; 0 if none."""
        if self.value is None or self.path is None or self.path.field != "horizon_steps":
            return 0
        return int(self.value.max())


STEPS = {"delay": (0, 1000), "shuffle": (2, 1000), "swap": (0, 10_000_000)}
"""The range of a kind's number: steps of a delay, values of a pool, step of a swap."""


def read(text: str) -> Written:
    """An intervention from `clamp:mode=1` and the like. Raises ConfigError, one line."""
    where = f"config interventions {text!r}"
    kind, colon, rest = text.partition(":")
    if kind not in EXAMPLES:
        raise ConfigError(f"{where}: {not_one_of(kind, EXAMPLES)}")
    before, equals, after = rest.partition("=")
    value, example = read_value(after), EXAMPLES[kind]
    if not colon or not before or bool(equals) != bool(after):
        raise ConfigError(f"{where}: expected {example}")
    if kind in ("ablate", "exchange") and equals:
        raise ConfigError(f"{where}: expected no value, as in {example}")
    if kind in ("clamp", "delay", "swap") and not equals:
        raise ConfigError(f"{where}: expected a value, as in {example}")
    if kind == "swap":
        if not isinstance(value, str) and not (isinstance(value, dict) and "kind" in value):
            raise ConfigError(
                f"{where}: {after!r} is neither a kind nor settings; expected surprise or "
                "'{kind: surprise, enter_std: 3}'"
            )
        return Written(text, kind, steps=_steps(kind, read_value(before), where), other=value)
    path = field_path(before, where)
    of_memory = path.message == "recollection" and path.field == "readout"
    if path.message != "directive" and not of_memory:
        raise ConfigError(
            f"{where}: expected a field of the directive, got {path.message}.{path.field}; "
            "`sextet fork --set` changes other messages"
        )
    if (of_memory and kind not in OF_MEMORY) or (kind == "exchange" and not of_memory):
        raise ConfigError(
            f"{where}: expected recollection.readout to {', '.join(OF_MEMORY)}, got {kind} of "
            f"{path.message}.{path.field}"
        )
    if kind == "clamp":
        return Written(text, kind, path, value=path.number(value))
    if kind == "exchange":
        return Written(text, kind, path)
    if not equals or of_memory:
        return Written(text, kind, path, steps=SHUFFLED_STEPS)
    return Written(text, kind, path, steps=_steps(kind, value, where))


def _steps(kind: str, value: object, where: str) -> int:
    least, most = STEPS[kind]
    if type(value) is not int or not least <= value <= most:
        expected = range_words("a whole number", least, most)
        raise ConfigError(f"{where}: steps: expected {expected}, got {value!r:.60}")
    return value


def _with_state(situation: Situation, configurator_state: Tensor) -> Situation:
    """The situation for a wrapped configurator: its own state in the previous directive."""
    previous = situation.previous
    directive = previous.directive.replace(configurator_state=configurator_state)
    return situation.replace(previous=previous.replace(directive=directive))


class Intervention(ABC):
    """A configurator that changes one part of the directive of the one it wraps.

    `wrapped`: that configurator. `part`: the part, of W numbers. `size`: how many values of the
    part it holds; its own state is [B size·W].
    """

    verb = ""

    def __init__(self, wrapped: Configurator, part: Part, size: int = 0) -> None:
        self.wrapped, self.part, self.size = wrapped, part, size
        self.width = size * part.of(wrapped.initial(1)).shape[1]

    @abstractmethod
    def change(self, intended: Tensor, own: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """What the part has in place of `intended` [B W], and the next state of its own [B Q].

        `own` [B Q]: the present one, at first filled with initial values; `key` [B]: random keys.
        """

    def configure(self, situation: Situation) -> Directive:
        """The directive of the wrapped configurator, changed."""
        state = situation.previous.directive.configurator_state
        own, inner = state[:, : self.width], state[:, self.width :]
        directive = self.wrapped.configure(_with_state(situation, inner))
        return self._changed(directive, own, situation.rng_key)

    def initial(self, rows: int) -> Directive:
        """The initial directive of the wrapped configurator, changed."""
        directive = self.wrapped.initial(rows)
        own = self.part.of(directive).repeat(1, self.size)
        return self._changed(directive, own, torch.zeros(rows, dtype=torch.int64))

    def _changed(self, directive: Directive, own: Tensor, key: Tensor) -> Directive:
        intended = self.part.of(directive)
        actual, own = self.change(intended, own, key)
        differs = (actual != intended).any(-1).tolist()
        reason = tuple(
            f"{why}; {self.part.path.name} {self.verb}: {new}" + (f", not {old}" if other else "")
            for why, new, old, other in zip(
                directive.reason, _words(actual), _words(intended), differs, strict=True
            )
        )
        state = torch.cat([own, directive.configurator_state.float()], -1)
        return self.part.put(directive, actual).replace(configurator_state=state, reason=reason)


def _words(numbers: Tensor) -> list[str]:
    """Numbers [B W] in words, one string a row."""
    if numbers.shape[1] > 8:
        return [f"{numbers.shape[1]} numbers"] * len(numbers)
    return [" ".join(f"{value:.4g}" for value in row) for row in numbers.tolist()]


class Clamp(Intervention):
    """The part always has the value `value`, from the first step of an episode on.

    Identity: clamped to the value that it has anyway, nothing changes; `mode` at 1 around a `fixed`
    configurator is that configurator in Mode-1. Raises ConfigError if `value` has another shape
    than the part.
    """

    verb = "clamped"

    def __init__(self, wrapped: Configurator, part: Part, value: Tensor) -> None:
        super().__init__(wrapped, part)
        self.value = part.filled(value, 1).float()

    def change(self, intended: Tensor, own: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The value."""
        return self.value.expand_as(intended), own


class Ablate(Clamp):
    """The part always has the value of `default`, one row: the agent's own base directive.

    Ablated weights, horizon, budget, commitment and risk are those of the block `directive:`,
    tokens are 0, and `mode` is 2 at every step, as under a `fixed` configurator with that block: a
    configurator that departs from the block no longer does so in this field. Identities: twice is
    once; around `fixed` in Mode-2 nothing changes.
    """

    verb = "ablated"

    def __init__(self, wrapped: Configurator, part: Part, default: Directive) -> None:
        super().__init__(wrapped, part, part.of(default)[0].reshape(part.shape))


class Delay(Intervention):
    """The part has the value that was intended `size` steps ago.

    In the first steps of an episode that is the value in the initial directive. Identity: 0 steps.
    """

    verb = "delayed"

    def change(self, intended: Tensor, own: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The oldest value of the queue, which `intended` joins."""
        queue = torch.cat([own, intended], -1)
        return queue[:, : intended.shape[1]], queue[:, intended.shape[1] :]


class Shuffle(Intervention):
    """The part has a value that was intended some steps ago, in random order.

    Of the `size` values in a pool of each row's episode, one is drawn with the row's `rng_key` at
    each step, and the intended value takes its place. So each intended value is used once, at
    another time, except for the last `size`; the pool begins with copies of the initial value. The
    part keeps its distribution over time and loses its timing. Identity: with a single value
    nothing changes.
    """

    verb = "shuffled"

    def __init__(self, wrapped: Configurator, part: Part, size: int = SHUFFLED_STEPS) -> None:
        super().__init__(wrapped, part, size)
        # Two shuffles of one field draw differently: they wrap states of different sizes.
        inner = wrapped.initial(1).configurator_state.shape[1]
        self.stream = f"configurator shuffle {part.path.name} {inner}"

    def change(self, intended: Tensor, own: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """A value of the pool, in whose place `intended` is put."""
        pool = own.view(len(intended), self.size, -1).clone()
        rows = torch.arange(len(intended))
        drawn = chance.integers(key, self.stream, self.size, 1)[:, 0]
        actual = pool[rows, drawn]
        pool[rows, drawn] = intended
        return actual, pool.flatten(1)


class Swap:
    """Another configurator from a step of each episode on.

    Both run from the first step on, each with its own state, that of the wrapped one first.
    Identities: at step 0 it is the other one; at a step that is never reached, the first.
    """

    def __init__(self, wrapped: Configurator, from_step: int, other: Configurator) -> None:
        self.wrapped, self.from_step, self.other = wrapped, from_step, other
        self.width = wrapped.initial(1).configurator_state.shape[1]

    def configure(self, situation: Situation) -> Directive:
        """The directive of the first or the other one, by each row's step."""
        state = situation.previous.directive.configurator_state
        first = self.wrapped.configure(_with_state(situation, state[:, : self.width]))
        other = self.other.configure(_with_state(situation, state[:, self.width :]))
        return self._chosen(first, other, situation.episode_step.clamp_min(0) >= self.from_step)

    def initial(self, rows: int) -> Directive:
        """The initial directive of the one in charge at step 0."""
        swapped = torch.full((rows,), self.from_step <= 0)
        return self._chosen(self.wrapped.initial(rows), self.other.initial(rows), swapped)

    def _chosen(self, first: Directive, other: Directive, swapped: Tensor) -> Directive:
        state = torch.cat([first.configurator_state.float(), other.configurator_state.float()], -1)
        chosen = other.replace(configurator_state=state).where(
            swapped, first.replace(configurator_state=state)
        )
        reason = tuple(
            f"{why}; swapped at step {self.from_step}" if now else why
            for why, now in zip(chosen.reason, swapped.tolist(), strict=True)
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

    `default`: the directive of `fixed` with the agent's block `directive:`, one row. `other`: the
    configurator of a swap. Raises ConfigError for a drive or head that is none of these.
    """
    if written.path is None:
        assert other is not None
        return Swap(wrapped, written.steps, other)
    part = written.path.part(wrapped.initial(1), {"K": drives, "L": heads})
    if written.value is not None:
        return Clamp(wrapped, part, written.value)
    if written.kind == "ablate":
        return Ablate(wrapped, part, default)
    return (Delay if written.kind == "delay" else Shuffle)(wrapped, part, written.steps)
