"""What a reader of recordings offers, and how recorded steps get into a memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.messages import ActionSpec, MessageError, Moment, TraceError, WorldSpec
from modules.ports import Memory, Recorded
from worlds.protocols import Reading, Sensor


class Form(NamedTuple):
    """The form in which an agent stores steps: the `world` as its perception reads it, by a
    `sensor` and a `reading` of the spaces. `shown`: frames [H Y C] as the world shows them, before
    the sensor; None: it shows no frames.
    """

    world: WorldSpec
    sensor: Sensor | None = None
    reading: Reading | None = None
    shown: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T observations.

    `observations` yields T arrays, [H Y C] uint8 or [N] float32. `actions` [T-1 A], encoded: the
    one at t leads to observation t+1. `signals` [T S] with `known` [S] bool: which of them the
    recording tells. Both may be float64. `terminated`, `truncated`: how it ended; both False where
    the recording stops amid the episode, None where that is unknown. `goals` [T G].
    """

    observations: Iterable[NDArray[Any]]
    steps: int
    signals: Tensor
    known: Tensor
    actions: Tensor | None = None
    terminated: bool | None = None
    truncated: bool | None = None
    goals: Tensor | None = None


class RecordedEpisodes(Protocol):
    """Steps that were recorded, of one or several episodes.

    `steps`: observations, summed over rows. `episodes`: those begun, as far as is known. `lacks`:
    which of "actions", "rewards" and "ends" it does not hold at all. `world`: the id and the
    protocol of its world, None where it does not say.
    """

    path: Path
    steps: int
    episodes: int
    lacks: tuple[str, ...]
    world: tuple[str, str | None] | None

    def require(self, form: Form) -> None:
        """Raises TraceError, one line, where the recording is damaged or of another form."""

    def episodes_in(self, form: Form) -> Iterator[Episode]:
        """The episodes, those of one row after those of the row before."""

    def moments(self, form: Form, initial: Moment) -> Iterator[tuple[Moment, Recorded]]:
        """The steps of all rows, one row after the other, as moments of one row like `initial`."""


def signals_of(
    world: WorldSpec,
    steps: int,
    rewards: Tensor | None,
    actions: Tensor | None,
    terminated: bool | None,
) -> tuple[Tensor, Tensor]:
    """The signals [T S] of an episode of T = `steps` observations, as `world` would have given
    them, and which of them are known [S]: reward, effort and end, as far as there are `rewards`
    [T-1], encoded `actions` [T-1 A] and a known end; lives where the world has none.
    """
    kind = torch.float32 if rewards is None else rewards.dtype
    signals = torch.zeros(steps, len(world.signals), dtype=kind)
    known = torch.zeros(len(world.signals), dtype=torch.bool)
    column = {name: number for number, name in enumerate(world.signals)}
    if world.protocol is None:  # only Atari games have lives
        known[[column["life_lost"], column["lives"]]] = True
    if rewards is not None:
        signals[1:, column["reward"]] = rewards
        known[column["reward"]] = True
    if actions is not None:
        efforts = actions.argmax(-1) > 0 if world.actions.discrete else actions.square().mean(-1)
        signals[1:, column["effort"]] = efforts.to(kind).clamp(0, 1)
        known[column["effort"]] = True
    if terminated is not None:
        signals[-1, column["end"]] = float(terminated)
        known[column["end"]] = True
    return signals, known


def encoded_actions(native: NDArray[Any], spec: ActionSpec, where: str) -> Tensor:
    """Encoded actions [T A] of the world's own, int [T] or float [T A]. Raises TraceError, one
    line, for those of another space.
    """
    if spec.discrete:
        fits = native.ndim == 1 and native.dtype.kind in "iu"
        expected = f"whole numbers from 0 to {spec.size - 1}"
        low, high = np.zeros(1), np.full(1, spec.size - 1)
    else:
        native = native[:, None] if native.ndim == 1 and spec.size == 1 else native
        fits = native.ndim == 2 and native.shape[1] == spec.size and native.dtype.kind in "fiu"
        low, high = np.array(spec.low), np.array(spec.high)
        expected = f"{spec.size} numbers from {min(spec.low)} to {max(spec.high)}"
    # Rounding to float32 may take a number just beyond its bound.
    slack = 1e-4 * (high - low)
    if not fits or not bool(((native >= low - slack) & (native <= high + slack)).all()):
        got = f"{native.dtype} {list(native.shape)}"
        if native.size and native.dtype.kind in "fiu":
            got += f" from {native.min():g} to {native.max():g}"
        raise TraceError(f"recording {where}: actions: expected {expected} a step, got {got}")
    if spec.discrete:
        return spec.encode(torch.from_numpy(native.astype(np.int64)))
    return spec.encode(torch.from_numpy(native.astype(np.float64))).clamp(-1, 1)


def moments_of(
    episodes: Iterable[Episode], form: Form, initial: Moment
) -> Iterator[tuple[Moment, Recorded]]:
    """The steps of `episodes` as moments like `initial`, with what is known of each."""
    pixels, flag, number = form.world.pixels is not None, torch.zeros(1, dtype=torch.bool), 0
    for episode in episodes:
        recorded = Recorded(
            expert=False,
            action=episode.actions is not None,
            # Of an episode whose end is unknown the steps before it would teach that it never ends.
            ends=episode.terminated is not None,
            signals=episode.known,
        )
        for t, observed in enumerate(episode.observations):
            last = t == episode.steps - 1
            values = torch.from_numpy(np.ascontiguousarray(observed)).unsqueeze(0)
            signals = episode.signals[t : t + 1].float()
            actions = initial.plan.actions.clone()
            if episode.actions is not None and not last:
                actions[:, 0] = episode.actions[t].float()
            observation = initial.observation.replace(
                pixels=values if pixels else None,
                vector=None if pixels else values.float(),
                signals=signals,
                goal=None if episode.goals is None else episode.goals[t : t + 1],
                first=flag | (t == 0),
                terminated=flag | bool(last and episode.terminated),
                truncated=flag | bool(last and episode.truncated),
            )
            yield (
                initial.replace(
                    step=number,
                    observation=observation,
                    state=initial.state.replace(signals=signals),
                    plan=initial.plan.replace(actions=actions),
                ),
                recorded,
            )
            number += 1


class OfEpisodes(ABC):
    """What recordings that are read by episodes have in common."""

    @abstractmethod
    def episodes_in(self, form: Form) -> Iterator[Episode]:
        """The episodes, one after the other."""

    def moments(self, form: Form, initial: Moment) -> Iterator[tuple[Moment, Recorded]]:
        """The steps of all episodes as moments of one row like `initial`."""
        return moments_of(self.episodes_in(form), form, initial)


def remember(
    memory: Memory, initial: Moment, recordings: Sequence[tuple[RecordedEpisodes, bool]], form: Form
) -> None:
    """Writes all steps of all recordings into a memory of one row, one after the other; with each
    recording, whether it is an expert's.

    `initial`: the moment that the memory was reset with. Of a recorded moment only observation,
    signals and action are used: another agent's latents have no meaning here. Raises TraceError,
    naming step and field, where one of these numbers is not finite.
    """
    for recording, expert in recordings:
        for moment, recorded in recording.moments(form, initial):
            recorded = recorded._replace(expert=expert)
            try:
                own = moment.check({})
            except MessageError as error:
                raise TraceError(
                    f"recording {recording.path}: step {moment.step}: {error}"
                ) from None
            memory.write(own, recorded if expert or not recorded.is_whole else None)


def described(recording: RecordedEpisodes) -> str:
    """What a recording holds and what it lacks, one line."""
    without = f"; without {', '.join(recording.lacks)}" if recording.lacks else ""
    several = "" if recording.episodes == 1 else "s"
    return (
        f"{recording.path}: {recording.steps} steps, {recording.episodes} episode{several}{without}"
    )
