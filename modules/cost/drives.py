"""The immutable drives IC_i of the intrinsic cost (LeCun 2022, §3.2, eq. 2).

A drive maps signals of the world to an energy. It has no parameters and no memory, so nothing can
train or configure it; only its weight u is set from outside. A signal is a drive by its name alone,
`signal:collision` or `signal:-progress`. A plugin adds others as
`MODULES = {"drive": {"upright": Upright}}`, and `cost.drives` names them. `probe_hash` identifies
what a drive computes, so that two programs can be compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from modules import chance
from modules.messages import SIGNALS, ConfigError, State, WorldSpec
from modules.nets.normalisation import symlog
from modules.suggest import suggestion
from modules.weights import known

ACHIEVED = "achieved_"
"""Signals whose names begin so are what has been achieved of a goal."""

OBSERVATION = re.compile(r"observation_(\d+)")
"""The name of a signal that is one entry of the observed vector."""

SIGNAL = "signal:"
"""The names of drives that are one signal begin so."""

PROBES, PROBE_SIZE, PROBE_RANGE = 64, 4, 4.0
"""States that a drive is hashed on, the size of their goals, and the bound of their numbers."""


class Drive(Protocol):
    """IC_i, one term of the intrinsic cost. The class of a plugin's is constructed without
    arguments.
    """

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that `energy` takes, in this order: those of `modules.messages.SIGNALS`,
        those that the world appends, `observation_0` … for the entries of a vector observation.
        """

    @property
    def energy(self) -> Callable[..., Tensor]:
        """`energy(*signals)`: energies [M] of signals [M], unweighted; lower is better."""


class ScoreDrive:
    """-sign(r)·ln(1+|r|) of the reward r of this step.

    Nearly -r where rewards are small; a reward of 100 is -4.6, so that games of any scale can
    share weights, and a larger reward is always better.
    """

    signals = ("reward",)

    def energy(self, reward: Tensor) -> Tensor:
        """Energies [M]."""
        return -symlog(reward)


class PainDrive:
    """1 where a life was lost on this step, else 0.

    The end of a game without lives is not pain: the score shows a loss there.
    """

    signals = ("life_lost",)

    def energy(self, life_lost: Tensor) -> Tensor:
        """Energies [M], 0 to 1."""
        return life_lost.clamp(0, 1)


class EffortDrive:
    """Share of full effort in the action that led to the state."""

    signals = ("effort",)

    def energy(self, effort: Tensor) -> Tensor:
        """Energies [M], 0 to 1."""
        return effort.clamp(0, 1)


class NoveltyDrive:
    """Minus the novelty of the state to memory: new states are good.

    Simulators and `persistence` predict novelty 0, so this is 0 in every state planned with them.
    """

    signals = ("novelty",)

    def energy(self, novelty: Tensor) -> Tensor:
        """Energies [M], -1 to 0."""
        return -novelty.clamp(0, 1)


class GoalDrive:
    """Mean squared distance from the goal of G numbers; 0 without a goal.

    What is achieved are the last G signals named `achieved_…` where the world has them, in its own
    units; else the first G entries of the latent: then the goal is itself (part of) a latent.
    """

    signals: tuple[str, ...] = ()

    def energy(self, achieved: Tensor, goal: Tensor) -> Tensor:
        """Energies [M], >= 0, of what is achieved [M G] and the goal [M G]."""
        return (achieved - goal).square().mean(-1)


@dataclass(frozen=True)
class SignalDrive:
    """One signal as an energy, in its own units: itself, or minus it where more of it is better."""

    signal: str
    sign: float

    @property
    def signals(self) -> tuple[str, ...]:
        """The signal alone."""
        return (self.signal,)

    def energy(self, value: Tensor) -> Tensor:
        """Energies [M]."""
        return self.sign * value


def signal_drive(name: str) -> SignalDrive | None:
    """The drive of the name `signal:NAME` or `signal:-NAME`; None for other names."""
    if not name.startswith(SIGNAL):
        return None
    signal = name.removeprefix(SIGNAL)
    return SignalDrive(signal.removeprefix("-"), -1.0 if signal.startswith("-") else 1.0)


DRIVES: Mapping[str, type[Drive]] = MappingProxyType(
    {
        "score": ScoreDrive,
        "pain": PainDrive,
        "effort": EffortDrive,
        "novelty": NoveltyDrive,
        "goal": GoalDrive,
    }
)
"""The drives of this package by name."""


class IntrinsicCost:
    """IC_i(s) of an agent's drives, by name, in a world with these `signals`.

    Raises KeyError where a drive takes a signal that is not among them (`observation_signals`).
    """

    def __init__(self, drives: Mapping[str, Drive], signals: Sequence[str]) -> None:
        self.drives = dict(drives)
        place = {name: column for column, name in enumerate(signals)}
        self._columns = {n: [place[s] for s in drive.signals] for n, drive in drives.items()}
        self._achieved = [place[name] for name in signals if name.startswith(ACHIEVED)]

    def energies(self, state: State) -> Tensor:
        """IC_i(s) of each drive, [M K], differentiable in the state."""
        return torch.stack([self._energy(name, state) for name in self.drives], -1)

    def signals_read(self) -> list[int]:
        """The columns of the signals that some drive takes."""
        taken = {column for columns in self._columns.values() for column in columns}
        return sorted(taken | set(self._achieved if "goal" in self.drives else ()))

    def needs_latent(self, world: WorldSpec) -> bool:
        """Whether a drive reads the latent: the `world`'s goal is a picture, or has more numbers
        than there are signals of what is achieved.
        """
        in_latent = world.goal_pixels or len(self._achieved) < (world.goal or 0)
        return "goal" in self.drives and in_latent

    def _energy(self, name: str, state: State) -> Tensor:
        drive = self.drives[name]
        if name != "goal":
            return drive.energy(*(state.signals[:, column] for column in self._columns[name]))
        if state.goal is None:
            return torch.zeros_like(state.signals[:, 0])
        size = state.goal.shape[-1]
        in_latent = len(self._achieved) < size
        columns = self._achieved[-size:]
        return drive.energy(
            state.latent[:, :size] if in_latent else state.signals[:, columns], state.goal
        )


def drives_in(world: WorldSpec, names: Sequence[str], known_drives: Sequence[str]) -> list[str]:
    """The drives of an agent in a world: those named, and `goal` where the world sets one.

    Raises ConfigError for an unknown name, a repeated one, or none at all. Signals are looked up by
    `observation_signals`.
    """
    others = [name for name in names if not name.startswith(SIGNAL)]
    own = (SIGNAL + signal for signal in world.signals[len(SIGNALS) :])
    known(others, (*known_drives, *own), "cost.drives")
    drives = list(names)
    sets_goals = world.goal is not None or world.goal_pixels
    if sets_goals and "goal" not in drives:
        drives.append("goal")
    for name in drives:
        if drives.count(name) > 1:
            raise ConfigError(f"config cost.drives: {name!r} is there twice; name it once")
    if not drives:
        raise ConfigError(
            f"config cost.drives: expected at least one of {', '.join(known_drives)}, got none"
        )
    if "goal" in drives and not sets_goals:
        raise ConfigError(
            "config cost.drives: expected a world that sets goals, got "
            f"{world.id}; leave 'goal' out"
        )
    return drives


def observation_signals(drives: Mapping[str, Drive], world: WorldSpec) -> tuple[int, ...]:
    """The entries of the observed vector that drives take and the world must append as signals.

    Raises ConfigError where a drive takes a signal that the world cannot give.
    """
    entries = set[int]()
    for name, drive in drives.items():
        for signal in drive.signals:
            if signal in world.signals:
                continue
            match, size = OBSERVATION.fullmatch(signal), world.vector or 0
            if match is None or int(match[1]) >= size:
                entry = f", observation_0 to observation_{size - 1}" if size else ""
                raise ConfigError(
                    f"config cost.drives: drive {name!r} expected the signal {signal!r}, got a "
                    f"world, {world.id}, with {', '.join(world.signals)}{entry}; leave it out"
                    f"{suggestion(signal, world.signals)}"
                )
            entries.add(int(match[1]))
    return tuple(sorted(entries))


def register(name: str, cls: type) -> str:
    """The probe hash of a drive that a plugin adds.

    Raises ConfigError where the class is not a drive: it cannot be constructed without arguments,
    lacks `signals` or `energy`, has parameters, or does not map signals [M] to finite energies [M];
    and for a name that is a signal's.
    """
    here = f"drive {name!r}"
    try:
        if name.startswith(SIGNAL):
            raise ValueError(f"expected a name that does not begin with {SIGNAL}")
        drive = cls()
        signals = drive.signals
        if not isinstance(signals, tuple) or not all(isinstance(s, str) for s in signals):
            raise TypeError(f"signals: expected a tuple of names, got {signals!r}")
        columns = [torch.linspace(-PROBE_RANGE, PROBE_RANGE, PROBES) for _ in signals]
        energy = drive.energy(*columns)
        if not isinstance(energy, Tensor) or energy.shape != (PROBES,):
            raise TypeError(f"energy: expected a tensor [{PROBES}] of signals [{PROBES}]")
        if not bool(energy.isfinite().all()):
            raise ValueError(f"energy: expected finite numbers of signals within ±{PROBE_RANGE:g}")
        if isinstance(drive, nn.Module) and list(drive.parameters()):
            raise TypeError("expected no parameters: drives are immutable")
        return probe_hash(name, drive)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{here}: {what}; see modules.cost.drives.Drive") from None


def probe_hash(name: str, drive: Drive) -> str:
    """SHA-256, hexadecimal, of the drive's name and its energies on a fixed set of states.

    The same on every machine: the states are 24-bit fractions, energies are computed in double
    precision and rounded to 1e-6.
    """
    key = torch.arange(PROBES)
    drawn = chance.uniform(key, "probe", len(SIGNALS) + 3 * PROBE_SIZE).double() * 8 - 4
    signals, rest = drawn[:, : len(SIGNALS)], drawn[:, len(SIGNALS) :]
    latent, target, achieved = rest.view(PROBES, 3, PROBE_SIZE).unbind(1)
    reward = signals[:, SIGNALS.index("reward")]
    reward.copy_(reward.sign() * reward.abs() ** 5)
    others = [signal for signal in drive.signals if signal not in SIGNALS]
    names = [*SIGNALS, *others]
    other = [chance.uniform(key, f"probe {signal}", 1).double() * 8 - 4 for signal in others]
    signals = torch.cat([signals, *other], -1)
    with_goal = [f"{ACHIEVED}{i}" for i in range(PROBE_SIZE)]
    digest = hashlib.sha256()
    for columns, values in (
        (names, signals),
        ([*names, *with_goal], torch.cat([signals, achieved], -1)),
    ):
        probe = State.unchecked(
            latent=latent,
            hidden=latent.new_zeros(PROBES, 0),
            signals=values,
            ended=latent.new_zeros(PROBES),
            uncertainty=latent.new_zeros(PROBES),
            goal=target,
        )
        energies = IntrinsicCost({name: drive}, columns).energies(probe)[:, 0]
        rounded = (energies * 1e6).round().to(torch.int64)
        digest.update(name.encode() + b"=" + str(rounded.tolist()).encode() + b";")
    return digest.hexdigest()
