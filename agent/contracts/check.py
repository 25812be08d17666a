"""Checks a kind of module against the contract of its port: one result a promise and world.

Policies, planners, critics, recalls and objectives are checked by the contract of the port that
they are part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from agent.assembly.build import known_kinds
from agent.assembly.resolve import SLOT_NAMES, Kinds, suggestion
from agent.contracts import (
    actor,
    configurator,
    cost,
    learnable,
    loop,
    memory,
    perception,
    world_model,
)
from agent.contracts.promises import ContractError
from agent.contracts.subject import Subject, port_of, running
from modules.messages import ConfigError, MessageError
from modules.ports import Learnable

VECTOR_WORLDS = ("CartPole-v1", "Pendulum-v1")
"""One with discrete actions and one with continuous ones."""

PIXEL_WORLD = "ALE/Pong-v5"
"""For the ports that receive frames."""

PROMISES: dict[str, tuple[Callable[[Subject], None], ...]] = {
    "perception": perception.PROMISES,
    "world_model": world_model.PROMISES,
    "cost": cost.PROMISES,
    "memory": memory.PROMISES,
    "actor": actor.PROMISES,
    "configurator": configurator.PROMISES,
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
        raise ConfigError(
            f"check-module: {kind!r} is not one of {', '.join(dict.fromkeys(known))}"
            f"{suggestion(kind, known)}"
        )
    return [result for slot in slots for result in check_slot(slot, kind, kinds)]


def check_slot(slot: str, kind: str, kinds: Kinds) -> list[Result]:
    """Every promise of one kind of one slot, in each world that the kind fits."""
    results: list[Result] = []
    refusals: list[str] = []
    sees_pixels = slot in ("perception", "world_model", "memory")
    for world in (*VECTOR_WORLDS, PIXEL_WORLD) if sees_pixels else VECTOR_WORLDS:
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
    module, port = subject.module, PROMISES[port_of(subject.slot)]
    learns = isinstance(module, Learnable) and isinstance(module, nn.Module)
    # A promise of a memory empties it: learning comes before.
    for promise in (*loop.PROMISES, *(learnable.PROMISES if learns else ()), *port):
        text = (promise.__doc__ or promise.__name__).partition("\n")[0].rstrip(".")
        try:
            promise(subject)
        except Exception as error:
            yield Result(subject.slot, kind, world, text, False, _one_line(error))
        else:
            yield Result(subject.slot, kind, world, text, True)


def _one_line(error: Exception) -> str:
    kind = "" if isinstance(error, ContractError | MessageError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
