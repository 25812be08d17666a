"""Counterfactual forks: what would have happened had one word between the modules been another.

A run is brought back to a recorded moment, one field of one message is changed, and it is lived
on from there, beside what did happen. Nothing changed is the control: the future must then be the
recorded one, bit for bit, or the comparison would be worth nothing.

Back to a moment: the last keyframe before it (`agent/recording/keyframe.py`), then the moments up
to it, with the recorded plans in place of the planning, the last of them computed in full; where
that does not lead to the recorded moments, everything since the keyframe is computed again. Worlds
that cannot be restored are replayed from their beginning. Every moment on the way is compared with
the trace, so a run that cannot be reproduced here is not forked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from agent.agent import Agent
from agent.assembly.build import assemble, build_agent, known_kinds
from agent.assembly.load import trained_weights
from agent.counterfactual.field_edit import PARTS, Alteration, change
from agent.modules import initial_moment
from agent.recording.drive_guard import drive_hashes, require_same
from agent.recording.keyframe import stand
from agent.recording.trace import Record, Trace, record_of
from agent.recording.weights import load_weights
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
"""Steps that no run has."""


@dataclass(frozen=True)
class Stretch:
    """Some moments of a life, and what they amount to.

    `digest` is over everything a trace records of them. `score` is the unclipped reward felt in
    them, `energy` the mean of each drive, both over all rows; `ended` counts episodes' ends.
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
    """What happened from step `at` on, and what would have.

    Both stretches are measured over the `compared` steps, which are fewer than `steps` where the
    record ends sooner; `fork.moments` has all of them. `first_difference` is the first step at
    which anything said differs, `diverged` the first at which what is observed or done does,
    None where nothing does. `replayed_from` is the keyframe gone back to, None the beginning.
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
        """Whether every bit that was recorded is the same."""
        return self.first_difference is None

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        figures: dict[str, Any] = {
            "run": self.run,
            "at": self.at,
            "steps": self.steps,
            "compared": self.compared,
            "changes": list(self.changes),
            "hold": self.hold,
            "row": self.row,
            "identical": self.identical,
            "first_difference": self.first_difference,
            "diverged": self.diverged,
            "replayed_from": self.replayed_from,
        }
        for name in ("digest", "score", "model_calls", "mode2_share", "energy", "ended"):
            of_original, of_fork = getattr(self.original, name), getattr(self.fork, name)
            if name == "digest":
                figures |= {"original_digest": of_original, "fork_digest": of_fork}
            else:
                figures |= {f"{name}_original": of_original, f"{name}_fork": of_fork}
        return figures


def _stretch(moments: Sequence[Moment], records: Sequence[Record], trace: Trace) -> Stretch:
    """What the moments of `records` amount to; there may be more moments than records."""
    digest = hashlib.blake2b(digest_size=16)
    for moment, record in zip(moments, records, strict=False):
        digest.update(moment.step.to_bytes(8, "little"))
        record.hash_into(digest.update)
    counted = moments[: len(records)]
    felt = torch.stack([m.energies.intrinsic for m in counted]).double().mean((0, 1))
    score = torch.stack([m.observation.signals[:, SIGNALS.index("reward")] for m in counted])
    planned = torch.stack([m.plan.mode == 2 for m in counted])
    return Stretch(
        moments=tuple(moments),
        digest=digest.hexdigest(),
        score=float(score.double().sum()),
        model_calls=int(sum(int(m.plan.model_calls.sum()) for m in counted)),
        mode2_share=float(planned.double().mean()),
        energy=dict(zip(trace.drives, felt.tolist(), strict=True)),
        ended=int(sum(int(m.observation.ended.sum()) for m in counted)),
    )


def _same_life(a: Moment, b: Moment) -> bool:
    """Whether the same was observed and done."""
    pairs = [(a.plan.action, b.plan.action)]
    pairs += [
        (mine, theirs)
        for (_, mine), (_, theirs) in zip(
            a.observation.tensors(), b.observation.tensors(), strict=True
        )
        if mine is not None and theirs is not None
    ]
    return all(mine.shape == theirs.shape and torch.equal(mine, theirs) for mine, theirs in pairs)


# -- back to a moment -------------------------------------------------------------------------


class _Elsewhere(Exception):
    """Living again led to another moment than the recorded one."""

    def __init__(self, step: int, what: str) -> None:
        self.step, self.what = step, what
        super().__init__(what)


class _Saying:
    """Stands where an actor was and says the recorded plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def act(self, *_: object) -> Plan:
        return self.plan


class _Altering:
    """A module whose answer to one verb is changed while `active`."""

    active = True

    def __init__(
        self, module: Any, verb: str, changes: Sequence[Alteration], row: int | None
    ) -> None:
        self._module, answer = module, getattr(module, verb)

        def altered(*arguments: Any) -> Any:
            said = answer(*arguments)
            for each in changes if self.active else ():
                said = each.made(said, row)
            return said

        setattr(self, verb, altered)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class Replay:
    """A recorded run brought back to life, to be forked any number of times; close it, or use it
    as a context manager.

    `run` is its folder, or its trace beside the checkpoints it needs. `plugins` are packages to
    import, where it was lived with any. Raises TraceError where its record cannot be used,
    ConfigError where what it was lived with is not here, each in one line.
    """

    def __init__(self, run: str | PathLike[str], plugins: Sequence[str] = ()) -> None:
        self.trace = Trace.open(run)
        try:
            if not self.trace.config:
                raise TraceError(
                    f"trace {self.trace.path}: expected the run's configuration, got none"
                )
            self.folder = self.trace.path.parent
            assembly = assemble(self.trace.config, known_kinds(tuple(plugins)))
        except BaseException:
            self.trace.close()
            raise
        self.config, self.world = assembly.config, assembly.world
        self.seed = assembly.config.settings.seed
        try:
            require_same(
                self.trace.drive_hashes, drive_hashes(assembly.agent), f"run {self.folder}"
            )
            if self.world.spec != self.trace.world or self.world.num_envs != self.trace.rows:
                raise TraceError(
                    f"trace {self.trace.path}: {self.trace.world.id} is another world here than "
                    "it was there; install what the run was lived with"
                )
            self._weights = self._trained()
            self.template = initial_moment(
                assembly.agent.modules, self.world.spec, self.world.num_envs
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Frees the world and the file."""
        self.world.close()
        self.trace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _trained(self) -> tuple[str, dict[str, Tensor]] | None:
        found = trained_weights(self.folder)
        return None if found is None else (str(found[0]), found[1].tensors["weights"])

    def _agent(self) -> Agent:
        """An agent as it was before it lived: nothing of another fork is in it."""
        agent = build_agent(self.config, self.world)
        if self._weights is not None:
            where, weights = self._weights
            load_weights(agent.modules, weights, where)
        return agent

    def before(self, at: int) -> tuple[Agent, Observation, int | None]:
        """The agent as it stood before the moment of a step, what it is about to observe, and the
        keyframe gone back to. The world is where it was then.

        Raises TraceError where living again leads elsewhere than the record.
        """
        try:
            return self._led_to(at, by_record=True)
        except _Elsewhere:
            pass
        try:
            return self._led_to(at, by_record=False)
        except _Elsewhere as error:
            raise TraceError(
                f"run {self.folder}: cannot be reproduced here, at step {error.step} {error.what}; "
                "use the program, plugins and threads it was lived with"
            ) from None

    def _led_to(self, at: int, by_record: bool) -> tuple[Agent, Observation, int | None]:
        agent = self._agent()
        observation, begun = self._begin(agent, at)
        for step in range(begun, at):
            # The last step before is lived in full: so all that goes on from it is the agent's.
            moment = self._lived(agent, observation, step, by_record and step < at - 1)
            observation = self.world.step(moment.plan.action)
        return agent, observation, begun - 1 if begun else None

    def _begin(self, agent: Agent, at: int) -> tuple[Observation, int]:
        """Stands at the last keyframe before `at` that can be used, or at the beginning; what is
        observed next, and its step.
        """
        for kept in self.trace.keyframes_before(at):
            try:
                self.world.restore(kept.world)
                moment = stand(agent, self.world.num_envs, self.seed, kept.agent)
                if moment.step == kept.step and agent.steps_done == kept.step + 1:
                    return self.world.step(moment.plan.action), agent.steps_done
            except (WorldError, TraceError):
                continue
        agent.reset(self.world.num_envs, self.seed)
        return self.world.reset(self.seed), 0

    def _lived(self, agent: Agent, observation: Observation, step: int, by_record: bool) -> Moment:
        """The moment of a step, lived again and held against the record."""
        actor = agent.actor
        if by_record:
            agent.actor = _Saying(self.trace.moment(step).plan)  # type: ignore[assignment]
        try:
            moment = agent.step(observation)
        except MessageError as error:
            raise _Elsewhere(step, str(error)) from None
        finally:
            agent.actor = actor
        again, was = record_of(moment), self.trace.record(step)
        if again != was:
            raise _Elsewhere(step, self._differing(moment, step))
        return moment

    def _differing(self, moment: Moment, step: int) -> str:
        """The first field in which a moment is not the recorded one."""
        recorded = dict(self.trace.moment(step).tensors())
        kept = ("hidden", "configurator_state", "latent", "keys", "values", "readout", "tokens",
        "candidates",
                "critic_actions")  # fmt: skip
        for name, value in moment.tensors():
            was = recorded[name]
            if name.rpartition(".")[2] in kept or value is None or was is None:
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
        """Lives on for `steps` turns from the moment of step `at` with `changes` in place.

        They hold for `hold` steps, 0: all; in all rows or in one. Raises ConfigError for a step
        that was not recorded or a change that cannot be made, TraceError where the record does
        not suffice.
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
        made = [change(text, self.template, self.trace) for text in changes]
        agent, observation, replayed_from = self.before(at)
        moments: list[Moment] = []
        altering = self._altered(agent, made, row)
        seen = [each for each in made if each.part == "observation"]
        for step in range(at, at + steps):
            holds = hold == 0 or step < at + hold
            for module in altering:
                module.active = holds
            for each in seen if holds else ():
                observation = each.made(observation, row)
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
            diverged=next((a.step for a, b in pairs if not _same_life(a, b)), None),
            replayed_from=replayed_from,
        )

    def _altered(
        self, agent: Agent, changes: Sequence[Alteration], row: int | None
    ) -> list[_Altering]:
        """Lays the changes around the modules of an agent that say what is changed."""
        laid = []
        for part, (_, port, verb) in PARTS.items():
            mine = [each for each in changes if each.part == part]
            if mine and port:
                laid.append(_Altering(getattr(agent, port), verb, mine, row))
                setattr(agent, port, laid[-1])
        return laid


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
