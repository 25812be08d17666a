"""What a fork changes: one field of one message, as it is written and as it is made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agent.assembly.resolve import suggestion
from agent.recording.trace import Trace
from modules.messages import (
    SIGNALS,
    ActionSpec,
    ConfigError,
    Directive,
    Energy,
    Message,
    Moment,
    Observation,
    Plan,
    Recollection,
    State,
)

PARTS: dict[str, tuple[type[Message], str, str]] = {
    "observation": (Observation, "", ""),
    "state": (State, "perception", "perceive"),
    "recollection": (Recollection, "memory", "recall"),
    "energies": (Energy, "cost", "energy"),
    "directive": (Directive, "configurator", "configure"),
    "plan": (Plan, "actor", "act"),
    "expected": (State, "world_model", "predict"),
}
"""The messages of a moment that can be changed: their kind, and who says them by which verb."""

_NEVER = {
    "pixels": "a frame is not said in words",
    "hidden": "it means something to its owner only",
    "configurator_state": "it means something to its owner only",
}
_MANY = 10_000_000
_RANGES: dict[str, tuple[float, float]] = {
    "directive.mode": (1, 2),
    "directive.horizon_steps": (1, 1000),
    "directive.model_calls": (0, _MANY),
    "directive.commit_steps": (1, 1000),
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
    "plan.model_calls": (0, _MANY),
}


@dataclass(frozen=True)
class Alteration:
    """One field of one message and what it is to be, as `directive.mode=2`.

    `index` leads from the axis behind the rows to what is set to `value`.
    """

    text: str
    part: str
    field: str
    index: tuple[int, ...]
    value: Tensor

    def made(self, message: Any, row: int | None) -> Any:
        """The message with it changed, in one row or in all of them."""
        tensor = getattr(message, self.field).clone()
        rows: slice | int = slice(None) if row is None else row
        tensor[(rows, *self.index)] = self.value.to(tensor.dtype)
        changes: dict[str, Any] = {self.field: tensor}
        if self.part == "directive":
            changes["reason"] = tuple(
                f"a fork sets {self.text.partition('.')[2]}; else: {why}"
                if row in (None, at)
                else why
                for at, why in enumerate(message.reason)
            )
        return message.replace(**changes)


def change(text: str, template: Moment, trace: Trace) -> Alteration:
    """A change as written: `directive.u.score=0`, `plan.action=FIRE`, `state.latent.3=0.5`.

    Axes of drives, heads and signals are told by name, others by number; with fewer of them than
    the field has axes, all behind them is set, to one number or to a list. `plan.action` is the
    action done, native: a number or name, or the numbers in the world's own bounds.

    Raises ConfigError, one line, for what is not a field and for a value out of its range.
    """
    path, equals, said = text.partition("=")
    names = path.strip().split(".")
    if not equals or len(names) < 2:
        raise ConfigError(f"fork --set {text!r}: expected a change like directive.mode=2")
    part, name, rest = names[0], names[1], names[2:]
    if part not in PARTS:
        raise ConfigError(
            f"fork --set {text!r}: {part!r} is not one of {', '.join(PARTS)}"
            f"{suggestion(part, PARTS)}"
        )
    value: Any
    try:
        value = json.loads(said)
    except ValueError:
        value = said.strip()
    if (part, name) == ("plan", "action"):
        encoded = _action(value, rest, trace.world.actions, text)
        return Alteration(text, part, "actions", (0,), encoded)
    shapes = {field: shape for field, shape in PARTS[part][0]._tensors if shape.axes[0] == "B"}
    allowed = [field for field in shapes if field not in _NEVER]
    if name in _NEVER or name not in shapes:
        why = _NEVER.get(name, f"{name!r} is not one of {', '.join(allowed)}")
        raise ConfigError(f"fork --set {text!r}: {why}{suggestion(name, allowed)}")
    told = getattr(getattr(template, part), name)
    if told is None:
        raise ConfigError(f"fork --set {text!r}: in {trace.world.id} there is no {part}.{name}")
    if (part, name) == ("energies", "critic") and template.energies.critic_actions is not None:
        raise ConfigError(
            f"fork --set {text!r}: follows from energies.critic_actions and directive.v here; "
            "set one of those"
        )
    index, shape = [], shapes[name]
    for axis, size, word in _walk(shape.axes[1:], told.shape[1:], rest, text):
        index.append(_place(word, size, _names(axis, trace), text))
    if part == "state" and name == "signals" and index[:1] in ([], [SIGNALS.index("novelty")]):
        raise ConfigError(
            f"fork --set {text!r}: novelty comes from memory; set recollection.novelty, or name "
            "another signal"
        )
    wanted = tuple(told.shape[1 + len(index) :])
    low, high = _RANGES.get(f"{part}.{name}", (-math.inf, math.inf))
    room = template.plan.actions.shape[1]
    if (part, name) in (("directive", "horizon_steps"), ("plan", "steps")):
        high = room  # a plan has no room for more
    if (part, name) == ("plan", "remaining_commit"):
        high = room - 1
    return Alteration(
        text, part, name, tuple(index), _number(value, shape.kind, wanted, low, high, text)
    )


def _walk(
    axes: Sequence[str], sizes: Sequence[int], words: Sequence[str], text: str
) -> Iterator[tuple[str, int, str]]:
    """Each word of a path with the axis it is about and its length."""
    if len(words) > len(axes):
        raise ConfigError(
            f"fork --set {text!r}: expected at most {len(axes)} names or numbers behind the field, "
            f"got {len(words)}"
        )
    yield from zip(axes, sizes, words, strict=False)


def _names(axis: str, trace: Trace) -> tuple[str, ...]:
    """What the places on an axis are called."""
    return {
        "K": trace.drives,
        "L": trace.heads,
        "S": trace.world.signals,
        "A": trace.world.actions.names,
    }.get(axis, ())


def _place(word: str, size: int, names: Sequence[str], text: str) -> int:
    if word in names:
        return list(names).index(word)
    if word.isdecimal() and int(word) < size:
        return int(word)
    allowed = ", ".join(names) if names else f"0 to {size - 1}"
    raise ConfigError(
        f"fork --set {text!r}: {word!r} is not one of {allowed}{suggestion(word, names)}"
    )


def _number(
    value: Any, kind: str, shape: tuple[int, ...], low: float, high: float, text: str
) -> Tensor:
    """The value as a tensor that fits, within its range."""
    flat = _flat(value)
    if kind == "bool":
        fits = all(isinstance(one, bool) for one in flat)
        wanted = "true or false"
    else:
        whole = kind == "int"
        kinds = (int,) if whole else (int, float)
        fits = all(type(one) in kinds and low <= one <= high and abs(one) < 3e38 for one in flat)
        wanted = "a whole number" if whole else "a number"
        if (low, high) != (-math.inf, math.inf):
            wanted += f" from {low:g}" + ("" if high == math.inf else f" to {high:g}")
    if not fits or not flat:
        raise ConfigError(f"fork --set {text!r}: expected {wanted}, got {value!r:.60}")
    try:
        made = torch.tensor(value, dtype=torch.float64)
    except ValueError:
        made = torch.zeros(0, 0)
    if made.dim() and tuple(made.shape) != shape:
        raise ConfigError(
            f"fork --set {text!r}: expected one number, or a list of shape {list(shape)}"
        )
    return made


def _flat(value: Any) -> list[Any]:
    return [one for part in value for one in _flat(part)] if isinstance(value, list) else [value]


def _action(value: Any, rest: Sequence[str], actions: ActionSpec, text: str) -> Tensor:
    """The encoded action [A] that a native one is."""
    if rest:
        raise ConfigError(f"fork --set {text!r}: expected plan.action={_example(actions)}")
    if actions.discrete:
        place = _place(str(value), actions.size, actions.names, text)
        return actions.encode(torch.tensor(place))
    flat = _flat(value)
    if len(flat) != actions.size:
        raise ConfigError(f"fork --set {text!r}: expected plan.action={_example(actions)}")
    for one, low, high in zip(flat, actions.low, actions.high, strict=True):
        if type(one) not in (int, float) or not low <= one <= high:
            raise ConfigError(
                f"fork --set {text!r}: expected a number from {low:g} to {high:g}, got {one!r:.60}"
            )
    return actions.encode(torch.tensor(flat, dtype=torch.float32))


def _example(actions: ActionSpec) -> str:
    if actions.discrete:
        return actions.names[-1] if actions.names else str(actions.size - 1)
    return str([round((a + b) / 2, 3) for a, b in zip(actions.low, actions.high, strict=True)])
