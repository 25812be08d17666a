"""Checks a kind of module against the contract of its port: one result a promise and world.

Policies, planners, critics, recalls and objectives are checked by the contract of the port that
they are part of; drives by that of the cost and by their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from agent.assembly.build import known_kinds
from agent.assembly.resolve import SLOT_NAMES, SLOTS, Kinds
from agent.contracts import drive, learnable, loop
from agent.contracts.promises import ContractError
from agent.contracts.subject import Subject, has_levels, port_of, running
from modules.messages import ConfigError, MessageError
from modules.ports import Learnable
from modules.suggest import not_one_of

VECTOR_WORLDS = ("CartPole-v1", "Pendulum-v1")
"""One with discrete actions and one with continuous ones."""

PIXEL_WORLD = "ALE/Pong-v5"
"""For the ports that receive frames."""

GOAL_WORLD = "sextet/Orchard-v0"
"""One that sets goals, for drives."""

PICTURE_WORLD = "sextet/TwoRooms-v0"
"""One whose goals are pictures, for critics and for planners with levels."""

PROMISES: dict[str, tuple[Callable[[Subject], None], ...]] = {
    port: import_module(f"agent.contracts.{port}").PROMISES for port in SLOTS
}
"""The promises of each port besides those of `loop` and `learnable`."""


@dataclass(frozen=True)
class Result:
    """Whether one promise holds in one world; `detail` says why not."""

    slot: str
    kind: str
    world: str
    promise: str
    holds: bool
    detail: str = ""

    def __str__(self) -> str:
        line = f"{'ok  ' if self.holds else 'FAIL'} {self.slot}={self.kind} {self.world}: "
        return line + self.promise + (f": {self.detail}" if self.detail else "")


def check(kind: str, plugins: tuple[str, ...] = ()) -> list[Result]:
    """Every promise of every slot that has this kind, in each world that the kind fits.

    `plugins` are importable packages with MODULES. Raises ConfigError where no slot has the kind.
    """
    kinds = known_kinds(plugins)
    slots = [slot for slot in SLOT_NAMES if kind in kinds.names(slot)]
    if not slots:
        known = [name for slot in SLOT_NAMES for name in kinds.names(slot)]
        raise ConfigError(f"check-module: {not_one_of(kind, known)}")
    return [result for slot in slots for result in check_slot(slot, kind, kinds)]


def check_slot(slot: str, kind: str, kinds: Kinds) -> list[Result]:
    """Every promise of one kind of one slot, in each world that the kind fits."""
    results: list[Result] = []
    refusals: list[str] = []
    more = {"drive": GOAL_WORLD, "critic": PICTURE_WORLD} | dict.fromkeys(
        ("perception", "world_model", "predictor", "memory"), PIXEL_WORLD
    )
    if has_levels(slot, kind, kinds):
        more["planner"] = PICTURE_WORLD
    for world in (*VECTOR_WORLDS, *([more[slot]] if slot in more else [])):
        promise = "the loop runs with it, its messages well-formed"
        try:
            with running(slot, kind, world, kinds) as subject:
                results.append(Result(slot, kind, world, promise, True))
                results += _results(subject, kind, world)
        except ConfigError as error:
            refusals.append(str(error))
        except Exception as error:
            results.append(Result(slot, kind, world, promise, False, _one_line(error)))
    return results or [Result(slot, kind, "-", "fits some world", False, refusals[0])]


def _results(subject: Subject, kind: str, world: str) -> Iterator[Result]:
    module, slot = subject.module, subject.slot
    promises: list[tuple[Callable[[Any], None], Any]] = [(p, subject) for p in loop.PROMISES]
    # An agent with a single drive may have a critic with nothing to learn: all energies 0.
    if isinstance(module, Learnable) and isinstance(module, nn.Module) and slot != "drive":
        # Before the promises of the port, since one of a memory's empties it.
        promises += [(promise, subject) for promise in learnable.PROMISES]
    promises += [(promise, subject) for promise in PROMISES[port_of(slot)]]
    # `goal` takes the goal, which is no signal.
    if slot == "drive" and kind != "goal":
        promises += [(p, subject.kinds.find("drive", kind)()) for p in drive.PROMISES]
    for promise, argument in promises:
        text = (promise.__doc__ or promise.__name__).partition("\n")[0].rstrip(".")
        try:
            promise(argument)
        except Exception as error:
            yield Result(slot, kind, world, text, False, _one_line(error))
        else:
            yield Result(slot, kind, world, text, True)


def _one_line(error: Exception) -> str:
    kind = "" if isinstance(error, ContractError | MessageError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
