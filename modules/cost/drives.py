"""The immutable drives IC_i of the intrinsic cost (LeCun 2022, §3.2, eq. 2).

A drive is a function of a state and nothing else: no parameter, no memory, nothing to train and
nothing a configurator could change; only how much it counts, u, is set from outside. Any squashing
belongs to the definition. `probe_hash` tells whether two programs mean the same by their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from modules import chance
from modules.messages import SIGNALS, ConfigError, State, WorldSpec
from modules.nets.normalisation import symlog
from modules.weights import known

_SCORE, _LIFE_LOST = SIGNALS.index("reward"), SIGNALS.index("life_lost")
_EFFORT, _NOVELTY = SIGNALS.index("effort"), SIGNALS.index("novelty")


def score(state: State) -> Tensor:
    """-sign(r)·ln(1+|r|) of the score gained on this step, [M].

    Nearly -r where rewards are small; a reward of 100 counts as 4.6 of 1, so that games of any
    scale can share weights, and a greater reward still is always better.
    """
    return -symlog(state.signals[:, _SCORE])


def pain(state: State) -> Tensor:
    """1 where a life was lost on this step, [M], 0 to 1.

    The end of a game without lives is not pain: losing there shows in the score.
    """
    return state.signals[:, _LIFE_LOST].clamp(0, 1)


def effort(state: State) -> Tensor:
    """Share of full effort in the action that led here, [M], 0 to 1."""
    return state.signals[:, _EFFORT].clamp(0, 1)


def novelty(state: State) -> Tensor:
    """Minus how new the state is to memory, [M], -1 to 0: what is new is good.

    Simulators and `persistence` foretell no novelty, so this is 0 in every state that a plan made
    in them leads to.
    """
    return -state.signals[:, _NOVELTY].clamp(0, 1)


def goal(state: State) -> Tensor:
    """Mean squared distance of what is achieved from the goal, [M], >= 0; 0 without a goal.

    Achieved are the last G signals where the body feels G more than the standard ones: such a
    goal is measured in the world's own units. Else the first G entries of the latent: a goal
    that is itself (part of) a latent.
    """
    if state.goal is None:
        return torch.zeros_like(state.signals[:, 0])
    size = state.goal.shape[-1]
    if _felt(state.signals.shape[-1], size):
        achieved = state.signals[:, -size:]
    else:
        achieved = state.latent[:, :size]
    return (achieved - state.goal).square().mean(-1)


def _felt(signals: int, size: int) -> bool:
    """Whether the body feels how far a goal of `size` numbers is achieved."""
    return signals - len(SIGNALS) >= size


Drive = Callable[[State], Tensor]
"""IC_i: energies [M] of states of M rows, unweighted; lower is better."""

DRIVES: Mapping[str, Drive] = MappingProxyType(
    {"score": score, "pain": pain, "effort": effort, "novelty": novelty, "goal": goal}
)
"""Every drive by its name."""


def drives_in(world: WorldSpec, wanted: Sequence[str]) -> tuple[str, ...]:
    """The drives an agent has in a world: those wanted, and `goal` where the world sets one.

    Raises ConfigError for an unknown name, one given twice, or none at all.
    """
    known(wanted, tuple(DRIVES), "cost.drives")
    names = tuple(wanted)
    if world.goal is not None and "goal" not in names:
        names = (*names, "goal")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"config cost.drives: {name!r} is there twice; name it once")
    if not names:
        raise ConfigError(
            f"config cost.drives: expected at least one of {', '.join(DRIVES)}, got none"
        )
    if "goal" in names and world.goal is None:
        raise ConfigError(
            "config cost.drives: expected a world that sets goals, got "
            f"{world.id}; leave 'goal' out"
        )
    return names


def read_latent(names: Sequence[str], world: WorldSpec) -> bool:
    """Whether one of the drives looks at the latent in this world."""
    return "goal" in names and world.goal is not None and not _felt(len(world.signals), world.goal)


def intrinsic(names: Sequence[str], state: State) -> Tensor:
    """IC_i(s) of each drive named, [M K]."""
    return torch.stack([DRIVES[name](state) for name in names], -1)


def probe_hash(names: Sequence[str]) -> str:
    """SHA-256, hexadecimal, of the names and of what the drives make of a fixed set of states.

    The same on every machine: the probes are 24-bit fractions, computed with in double precision
    and rounded to a millionth.
    """
    rows, size = 64, 4
    key = torch.arange(rows)
    drawn = chance.uniform(key, "probe", len(SIGNALS) + 3 * size).double() * 8 - 4
    signals, rest = drawn[:, : len(SIGNALS)], drawn[:, len(SIGNALS) :]
    latent, target, achieved = rest.view(rows, 3, size).unbind(1)
    signals[:, _SCORE] = signals[:, _SCORE].sign() * signals[:, _SCORE].abs() ** 5
    probes = [
        State.unchecked(latent=latent, signals=felt, goal=target)
        for felt in (signals, torch.cat([signals, achieved], -1))
    ]
    digest = hashlib.sha256()
    for name in names:
        for probe in probes:
            rounded = (DRIVES[name](probe) * 1e6).round().to(torch.int64)
            digest.update(name.encode() + b"=" + str(rounded.tolist()).encode() + b";")
    return digest.hexdigest()
