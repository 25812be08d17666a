"""What a fork changes: one field of one message, by the path and the value that `--set` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agent.recording.trace import Trace
from modules.field_path import Part, field_path, place_on_axis, read_value
from modules.messages import SIGNALS, ActionSpec, ConfigError, Moment

PORTS: Mapping[str, tuple[str, str]] = {
    "state": ("perception", "perceive"),
    "recollection": ("memory", "recall"),
    "energies": ("cost", "energy"),
    "directive": ("configurator", "configure"),
    "plan": ("actor", "act"),
    "expected": ("world_model", "predict"),
}
"""The messages of a moment that a module sends: the port, and the verb that returns them."""


@dataclass(frozen=True)
class FieldEdit:
    """A part of a message and the `value` (float64) that it is set to; `text` is the edit as
    written, `directive.mode=2`. An edit of a directive is added to its reason.
    """

    text: str
    part: Part
    value: Tensor

    @property
    def message(self) -> str:
        """The field of `Moment` that holds the message."""
        return self.part.path.message

    def apply(self, message: Any, row: int | None) -> Any:
        """The message with the part set, in one row or in all of them."""
        edited = self.part.put(message, self.part.filled(self.value, message.batch), row)
        if self.message != "directive":
            return edited
        text = f"a fork sets {self.text.removeprefix('directive.')}"
        return edited.replace(
            reason=tuple(
                f"{text}; else: {why}" if row in (None, at) else why
                for at, why in enumerate(message.reason)
            )
        )


def field_edit(text: str, template: Moment, trace: Trace) -> FieldEdit:
    """An edit as written: `directive.u.score=0`, `plan.action=FIRE`, `state.latent.3=0.5`.

    Drives, heads and signals are named, places on other axes numbered; without a place on an axis
    all of them are set, to one number or to a list. `plan.action` is the action in the world's own
    terms: a number or name, or numbers within the world's bounds. `template` has the axes of the
    messages.

    Raises ConfigError, one line, for an unknown field and for a value out of range.
    """
    where = f"fork --set {text!r}"
    path_text, equals, value_text = text.partition("=")
    if not equals:
        raise ConfigError(f"{where}: expected a change like directive.mode=2")
    if path_text.strip().split(".")[:2] == ["plan", "action"]:
        if path_text.strip() != "plan.action":
            raise ConfigError(f"{where}: expected plan.action={_example(trace.world.actions)}")
        actions = field_path("plan.actions.0", where).part(template.plan, {})
        return FieldEdit(text, actions, _action(value_text, trace.world.actions, where))
    path = field_path(path_text, where)
    part = path.part(getattr(template, path.message), trace.axis_names)
    if path.field == "critic" and template.energies.critic_actions is not None:
        raise ConfigError(
            f"{where}: follows from energies.critic_actions and directive.v here; set one of those"
        )
    if (path.message, path.field) == ("state", "signals") and part.index[:1] in (
        (),
        (SIGNALS.index("novelty"),),
    ):
        raise ConfigError(
            f"{where}: novelty comes from memory; set recollection.novelty, or name another signal"
        )
    # A plan has no room for more steps than its tensors.
    room = template.plan.actions.shape[1]
    most = {"horizon_steps": room, "steps": room, "remaining_commit": room - 1}.get(path.field)
    value = path.number(read_value(value_text), most)
    part.filled(value, 1)
    return FieldEdit(text, part, value)


def _action(value_text: str, actions: ActionSpec, where: str) -> Tensor:
    """The encoded action [A] of one in the world's own terms."""
    if actions.discrete:
        place = place_on_axis(value_text.strip(), actions.size, actions.names, where)
        return actions.encode(torch.tensor(place))
    value = read_value(value_text)
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) != actions.size:
        raise ConfigError(f"{where}: expected plan.action={_example(actions)}")
    for one, low, high in zip(numbers, actions.low, actions.high, strict=True):
        if type(one) not in (int, float) or not low <= one <= high:
            raise ConfigError(
                f"{where}: expected a number from {low:g} to {high:g}, got {one!r:.60}"
            )
    return actions.encode(torch.tensor(numbers, dtype=torch.float32))


def _example(actions: ActionSpec) -> str:
    if actions.discrete:
        return actions.names[-1] if actions.names else str(actions.size - 1)
    return str([round((a + b) / 2, 3) for a, b in zip(actions.low, actions.high, strict=True)])
