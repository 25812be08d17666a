"""Counterfactual forks: the future of a recorded run with one field of one message changed.

A run is restored to a recorded moment, a field is set, and the run continues from there; the result
is compared with the recorded future. Without a change the two must agree bit for bit: this is the
control, without which a difference would mean nothing.

A moment is restored from the last keyframe before it (`agent/recording/keyframe.py`) and by
replaying the steps in between, with the recorded plans in place of planning and the last step
computed in full. Where this does not reproduce the recorded moments, all steps since the keyframe
are computed in full. Worlds that cannot be restored are replayed from their beginning. Every
replayed moment is compared with the trace, so a run that cannot be reproduced here is not forked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch

from agent.agent import Agent
from agent.assembly.build import assemble, build_agent, known_kinds
from agent.assembly.load import trained_weights
from agent.assembly.trust import require_named
from agent.counterfactual.field_edit import PORTS, FieldEdit, field_edit
from agent.modules import initial_moment
from agent.recording.drive_guard import drive_hashes, require_same
from agent.recording.keyframe import restore_agent
from agent.recording.trace import Record, Trace, record_of
from agent.recording.weights import load_weights, require_weights
from modules.messages import (
    SIGNALS,
    ConfigError,
    MessageError,
    Moment,
    Observation,
    Plan,
    TraceError,
    WorldError,
)

_MANY = 10_000_000
"""More steps than a run has."""


@dataclass(frozen=True)
class Stretch:
    """Some consecutive moments and sums over them.

    `digest`: of all that a trace records of them. `score`: the sum of the unclipped reward,
    `energy`: the mean of each drive, both over all rows. `ended`: number of episodes that ended.
    """

    moments: tuple[Moment, ...]
    digest: str
    score: float
    model_calls: int
    mode2_share: float
    energy: dict[str, float]
    ended: int


@dataclass(frozen=True)
class Fork:
    """The recorded and the counterfactual future of step `at`.

    Sums are over the `compared` steps, fewer than `steps` where the recording ends earlier;
    `fork.moments` has all steps. `first_difference`: the first step at which any recorded bit
    differs, `diverged`: the first at which an observation or action does; None: no step.
    `replayed_from`: the keyframe that was restored, None: the beginning.
    """

    run: str
    at: int
    steps: int
    compared: int
    changes: tuple[str, ...]
    hold: int
    row: int | None
    original: Stretch
    fork: Stretch
    first_difference: int | None
    diverged: int | None
    replayed_from: int | None

    @property
    def identical(self) -> bool:
        """Whether every recorded bit is the same."""
        return self.first_difference is None

    def as_dict(self) -> dict[str, Any]:
        """The results as plain values, for JSON."""
        figures: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name == "first_difference":
                figures["identical"] = self.identical
            if not isinstance(value, Stretch):
                figures[name] = list(value) if isinstance(value, tuple) else value
        for name in ("digest", "score", "model_calls", "mode2_share", "energy", "ended"):
            for end, stretch in (("original", self.original), ("fork", self.fork)):
                key = f"{end}_{name}" if name == "digest" else f"{name}_{end}"
                figures[key] = getattr(stretch, name)
        return figures


def _stretch(moments: Sequence[Moment], records: Sequence[Record], trace: Trace) -> Stretch:
    """The sums over the moments of `records`; there may be more moments than records."""
    digest = hashlib.blake2b(digest_size=16)
    for moment, record in zip(moments, records, strict=False):
        digest.update(moment.step.to_bytes(8, "little"))
        record.hash_into(digest.update)
    counted = moments[: len(records)]
    energy = torch.stack([m.energies.intrinsic for m in counted]).double().mean((0, 1))
    score = torch.stack([m.observation.signals[:, SIGNALS.index("reward")] for m in counted])
    planned = torch.stack([m.plan.mode == 2 for m in counted])
    return Stretch(
        moments=tuple(moments),
        digest=digest.hexdigest(),
        score=float(score.double().sum()),
        model_calls=int(sum(int(m.plan.model_calls.sum()) for m in counted)),
        mode2_share=float(planned.double().mean()),
        energy=dict(zip(trace.drives, energy.tolist(), strict=True)),
        ended=int(sum(int(m.observation.ended.sum()) for m in counted)),
    )


def _same_course(a: Moment, b: Moment) -> bool:
    """Whether observations and actions are equal."""
    mine, theirs = (
        [moment.plan.action, *(value for _, value in moment.observation.tensors())]
        for moment in (a, b)
    )
    return all(
        x.shape == y.shape and torch.equal(x, y)
        for x, y in zip(mine, theirs, strict=True)
        if x is not None and y is not None
    )


# -- back to a moment -------------------------------------------------------------------------


class _NotReproduced(Exception):
    """A replayed moment differs from the recorded one."""

    def __init__(self, step: int, what: str) -> None:
        self.step, self.what = step, what
        super().__init__(what)


class _RecordedActor:
    """An actor that returns the recorded plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def act(self, *_: object) -> Plan:
        return self.plan


class _Edited:
    """A module of whose messages some fields are edited while `active`."""

    active = True

    def __init__(self, module: Any, verb: str, edits: Sequence[FieldEdit], row: int | None) -> None:
        self._module, method = module, getattr(module, verb)

        def edited(*arguments: Any) -> Any:
            message = method(*arguments)
            for edit in edits if self.active else ():
                message = edit.apply(message, row)
            return message

        setattr(self, verb, edited)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class Replay:
    """A recorded run that can be forked any number of times; close it, or use it as a context
    manager.

    `run`: its folder, or its trace beside the checkpoints that it needs. `plugins`: the packages
    that it was recorded with. Raises TraceError if the trace cannot be used, ConfigError if
    something that the run was recorded with is missing, each in one line.
    """

    def __init__(self, run: str | PathLike[str], plugins: Sequence[str] = ()) -> None:
        with ExitStack() as opened:
            self.trace = opened.enter_context(Trace.open(run))
            if not self.trace.config:
                raise TraceError(
                    f"trace {self.trace.path}: expected the run's configuration, got none"
                )
            self.folder = self.trace.path.parent
            require_named(self.trace.config, plugins, f"run {self.folder}")
            assembly = assemble(self.trace.config, known_kinds(tuple(plugins)))
            self.config, self.world = assembly.config, assembly.world
            self.seed = assembly.config.settings.seed
            opened.callback(self.world.close)
            require_same(
                self.trace.drive_hashes, drive_hashes(assembly.agent), f"run {self.folder}"
            )
            if self.world.spec != self.trace.world or self.world.num_envs != self.trace.rows:
                raise TraceError(
                    f"trace {self.trace.path}: {self.trace.world.id} is another world here than "
                    "it was there; install what the run was recorded with"
                )
            self._trained = trained_weights(
                self.folder,
                lambda _, forms: require_weights(assembly.agent.modules, forms, str(self.folder)),
            )
            self.template = initial_moment(
                assembly.agent.modules, self.world.spec, self.world.num_envs
            )
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Closes the world and the file."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def agent(self) -> Agent:
        """The agent as it was before the run; it shares nothing with those of other forks."""
        agent = build_agent(self.config, self.world)
        if self._trained is not None:
            where, saved = self._trained
            load_weights(agent.modules, saved.tensors["weights"], str(where))
        return agent

    def before(self, at: int) -> tuple[Agent, Observation, int | None]:
        """The agent as it was before the moment of step `at`, the observation of that step, and the
        step of the restored keyframe. The world is in the state of that moment.

        Raises TraceError if the run cannot be reproduced.
        """
        try:
            return self._replayed(at, by_record=True)
        except _NotReproduced:
            pass
        try:
            return self._replayed(at, by_record=False)
        except _NotReproduced as error:
            raise TraceError(
                f"run {self.folder}: cannot be reproduced here, at step {error.step} {error.what}; "
                "use the program, plugins and threads that it was recorded with"
            ) from None

    def _replayed(self, at: int, by_record: bool) -> tuple[Agent, Observation, int | None]:
        agent = self.agent()
        observation, begun = self._begin(agent, at)
        for step in range(begun, at):
            # The last step before is computed in full: its plan is then the agent's own.
            moment = self._replayed_step(agent, observation, step, by_record and step < at - 1)
            observation = self.world.step(moment.plan.action)
        return agent, observation, begun - 1 if begun else None

    def _begin(self, agent: Agent, at: int) -> tuple[Observation, int]:
        """Restores the last usable keyframe before `at`, or the beginning; the next observation and
        its step.
        """
        for keyframe in self.trace.keyframes_until(at - 1):
            try:
                self.world.restore(keyframe.world)
                moment = restore_agent(agent, self.world.num_envs, self.seed, keyframe.agent)
                if moment.step == keyframe.step and agent.steps_done == keyframe.step + 1:
                    return self.world.step(moment.plan.action), agent.steps_done
            except (WorldError, TraceError):
                continue
        agent.reset(self.world.num_envs, self.seed)
        return self.world.reset(self.seed), 0

    def _replayed_step(
        self, agent: Agent, observation: Observation, step: int, by_record: bool
    ) -> Moment:
        """The moment of a step, computed again and compared with the recorded one."""
        actor = agent.actor
        if by_record:
            agent.actor = _RecordedActor(self.trace.moment(step).plan)  # type: ignore[assignment]
        try:
            moment = agent.step(observation)
        except MessageError as error:
            raise _NotReproduced(step, str(error)) from None
        finally:
            agent.actor = actor
        again, was = record_of(moment), self.trace.record(step)
        if again != was:
            raise _NotReproduced(step, self._differing(moment, step))
        return moment

    def _differing(self, moment: Moment, step: int) -> str:
        """The first field in which a moment is not the recorded one."""
        recorded = dict(self.trace.moment(step).tensors())
        # Recorded in less than full precision, or not at all.
        inexact = ("hidden", "configurator_state", "latent", "keys", "values", "readout", "tokens",
                   "candidates", "critic_actions")  # fmt: skip
        for name, value in moment.tensors():
            was = recorded[name]
            if name.rpartition(".")[2] in inexact or value is None or was is None:
                continue
            if value.shape != was.shape or not torch.equal(value, was):
                return f"{name} differs"
        return "what is recorded in less than full precision differs"

    # -- forking ----------------------------------------------------------------------------

    def fork(
        self,
        at: int,
        changes: Sequence[str] = (),
        steps: int = 60,
        row: int | None = None,
        hold: int = 1,
    ) -> Fork:
        """Runs `steps` steps from the moment of step `at` on, with `changes` (see `field_edit`).

        They hold for `hold` steps, 0: all; in all rows or in one. Raises ConfigError for a step
        that was not recorded or a change that cannot be made, TraceError if the run cannot be
        reproduced.
        """
        there = self.trace.steps
        for name, value, low, high in (
            ("at", at, 0, there - 1),
            ("steps", steps, 1, _MANY),
            ("hold", hold, 0, _MANY),
            ("row", 0 if row is None else row, 0, self.world.num_envs - 1),
        ):
            if not low <= value <= high:
                limit = f"{low} or more" if high == _MANY else f"{low} to {high}"
                raise ConfigError(f"fork --{name}: expected {limit}, got {value}")
        edits = [field_edit(text, self.template, self.trace) for text in changes]
        agent, observation, replayed_from = self.before(at)
        moments: list[Moment] = []
        edited = self._edited(agent, edits, row)
        of_observations = [edit for edit in edits if edit.message == "observation"]
        for step in range(at, at + steps):
            holds = hold == 0 or step < at + hold
            for module in edited:
                module.active = holds
            for edit in of_observations if holds else ():
                observation = edit.apply(observation, row)
            moments.append(agent.step(observation))
            if step + 1 < at + steps:
                observation = self.world.step(moments[-1].plan.action)
        last = min(at + steps, there)
        original = [self.trace.moment(step) for step in range(at, last)]
        were = [self.trace.record(step) for step in range(at, last)]
        are = [record_of(moment) for moment in moments[: len(were)]]
        pairs = list(zip(original, moments, strict=False))
        return Fork(
            run=str(self.folder),
            at=at,
            steps=steps,
            compared=len(were),
            changes=tuple(changes),
            hold=hold,
            row=row,
            original=_stretch(original, were, self.trace),
            fork=_stretch(moments, are, self.trace),
            first_difference=next(
                (at + i for i, (a, b) in enumerate(zip(were, are, strict=True)) if a != b), None
            ),
            diverged=next((a.step for a, b in pairs if not _same_course(a, b)), None),
            replayed_from=replayed_from,
        )

    def _edited(self, agent: Agent, edits: Sequence[FieldEdit], row: int | None) -> list[_Edited]:
        """Puts modules that apply the edits in place of the agent's."""
        modules = []
        for message, (port, verb) in PORTS.items():
            if own := [edit for edit in edits if edit.message == message]:
                modules.append(_Edited(getattr(agent, port), verb, own, row))
                setattr(agent, port, modules[-1])
        return modules


def fork(
    run: str | Path,
    at: int,
    changes: Sequence[str] = (),
    steps: int = 60,
    row: int | None = None,
    hold: int = 1,
    plugins: Sequence[str] = (),
) -> Fork:
    """One fork of a recorded run, as `Replay.fork`.

    >>> control = fork("runs/play-breakout-1", at=120)
    >>> control.identical
    True
    >>> fork("runs/play-breakout-1", 120, ["directive.mode=1"], hold=0).fork.score
    2.0
    """
    with Replay(run, plugins) as replay:
        return replay.fork(at, changes, steps, row, hold)
