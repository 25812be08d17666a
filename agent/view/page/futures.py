"""Frames of the imagined futures of a moment, and of what was recorded instead.

A trace has the actions and energies of the candidates, not their states. Where the world model is
a simulator, the world is restored to the moment and each candidate is simulated again. Where it is
learned, each candidate is imagined again; a model that can decode its states shows the frames it
predicts, of another each state is shown by the frame of the recorded state with the nearest latent.
The page says which of these it shows.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.agent import Agent
from agent.counterfactual.fork import Replay
from agent.imagination import Imagination
from agent.modules import initial_moment
from agent.recording.keyframe import restore_agent
from agent.recording.trace.reader import one_line
from agent.reporting.text import Words
from agent.view.page.data import Pack, Recording, as_bytes, plain
from modules import chance
from modules.messages import Moment, Plan, SextetError, Situation, State, TraceError
from modules.ports import Simulator

Frames = list[NDArray[np.uint8]]
S = TypeVar("S")

PICTURES = 12
"""The most states shown of a future, evenly spaced."""

STRIPS = 4
"""The most futures shown of a candidate."""

Strip = tuple[tuple[int, NDArray[np.uint8]], ...]
"""Frames of a future, each with its number of steps ahead."""

Pictured = tuple[NDArray[np.uint8], str]
"""A frame that shows a latent, and a remark on how well."""


@dataclass(frozen=True)
class Future:
    """One candidate: its encoded actions [H A], its predicted energy, and its frames.

    `ended` is the number of steps after which the episode ends, if it does. `others`: frames of
    further futures of this candidate, where the world model has a latent variable; the energy is
    that of all of them together.
    """

    actions: NDArray[np.float32]
    energy: float
    frames: Strip = ()
    score: float | None = None
    ended: int | None = None
    note: str = ""
    others: tuple[Strip, ...] = ()


class FutureFrames(Protocol):
    """A source of frames for imagined futures; `how` describes it."""

    how: str

    def show(self, step: int, row: int, futures: Sequence[Future]) -> list[Future]:
        """The futures with frames. Raises TraceError, one line, where there are none."""

    def subgoals(self, step: int, row: int, plan: Plan) -> list[Pictured]:
        """A frame for the sub-goal of each level; none where the plan has no sub-goal."""


class Imagined:
    """The candidates of any recorded moment, with frames where possible.

    `plugins` are packages whose modules the run used. Thread-safe.
    """

    def __init__(self, recording: Recording, plugins: tuple[str, ...] = ()) -> None:
        self.recording, self.plugins = recording, plugins
        self._words = Words(recording.world, recording.drives, recording.heads)
        self._lock = threading.Lock()

    def pack(self, step: int, row: int) -> Pack:
        """Candidates with actions, energies and frames, and the frames that were recorded."""
        recording = self.recording
        recording.allows(row)
        futures, how, goals = list[Future](), "", list[Pictured]()
        try:
            plan = recording.moment(step).plan
            futures, note = candidates(plan, row)
        except TraceError as error:
            note = str(error)
        if futures:
            with self._lock:
                try:
                    futures = self._source.show(step, row, futures)
                    how = self._source.how
                    goals = self._source.subgoals(step, row, plan)
                except (SextetError, RuntimeError, ValueError, TypeError) as error:
                    how = f"frames are not shown: {one_line(error)}"
        frames: Frames = []

        def strip(pictures: Iterable[tuple[int, NDArray[np.uint8]]]) -> dict[str, list[int]]:
            """Adds frames, each with its number of steps ahead; the places of these frames."""
            at = []
            for ahead, frame in pictures:
                at.append(ahead)
                frames.append(frame)
            return {"at": at, "frames": list(range(len(frames) - len(at), len(frames)))}

        described = [
            {
                "energy": plain(future.energy),
                "actions": [self._words.action(action) for action in future.actions.tolist()],
                "score": None if future.score is None else plain(future.score),
                "ended": future.ended,
                "note": future.note,
                **strip(future.frames),
                "others": [strip(other) for other in future.others],
            }
            for future in futures
        ]
        longest = max((len(future.actions) for future in futures), default=0)
        shown = ((ahead, recording.frame(step + ahead, row)) for ahead in spread(longest))
        recorded = strip((ahead, frame) for ahead, frame in shown if frame is not None)
        subgoals = [
            {"level": level, "note": note_of, **strip([(0, picture)])}
            for level, (picture, note_of) in enumerate(goals, 2)
        ]
        facts = {
            "step": step,
            "note": note,
            "how": how,
            "subgoals": subgoals,
            "futures": described,
            "recorded": recorded,
        }
        alike = bool(frames) and all(f.shape == frames[0].shape for f in frames)
        return Pack(facts, {"frames": np.stack(frames)} if alike else {})

    @cached_property
    def _source(self) -> FutureFrames:
        """The source of frames for this run. Raises SextetError where there is none."""
        if self.recording.world.pixels is None:
            raise TraceError("this world has no pixels")
        replay = Replay(self.recording.path, self.plugins)
        model = replay.config.slots["world_model"]
        if model.simulates:
            return Resimulated(self.recording, replay, clairvoyant=model.kind == "clairvoyant")
        agent = replay.agent()
        replay.close()
        decodes = hasattr(agent.modules.world_model, "decode")
        source = Decoded if decodes else Remembered
        return source(self.recording, agent, replay.seed)


def candidates(plan: Plan, row: int) -> tuple[list[Future], str]:
    """The candidates of a row, the chosen one first, and a note where there are none."""
    if int(plan.mode[row]) != 2:
        return [], "Mode-1: the policy acted, nothing was imagined."
    futures = []
    for candidate, energy in zip(
        plan.candidates[row].numpy(), plan.candidate_energies[row].tolist(), strict=True
    ):
        if np.isfinite(energy):
            # Shorter candidates are padded with zeros to the longest possible plan.
            used = np.flatnonzero(np.abs(candidate).sum(-1))
            futures.append(Future(candidate[: used[-1] + 1 if len(used) else 1], energy))
    if futures:
        return futures, ""
    steps = max(int(plan.steps[row]), 1)
    continued = Future(plan.actions[row, :steps].numpy(), float(plan.energy[row]))
    return [continued], "A committed plan is carried out; no candidates were compared."


def spread(length: int) -> list[int]:
    """Up to `PICTURES` steps ahead, from 1 to `length`, evenly apart."""
    if length <= PICTURES:
        return list(range(1, length + 1))
    return sorted({round(1 + i * (length - 1) / (PICTURES - 1)) for i in range(PICTURES)})


def with_frames(
    future: Future,
    states: Iterable[tuple[S, bool]],
    frame: Callable[[S], NDArray[np.uint8] | None],
) -> Future:
    """The future with frames of its states up to the end of the episode.

    `states`: the states of the plan, and whether the episode ends with each. `frame` shows a state;
    None: not.
    """
    shown, frames, ended = spread(len(future.actions)), [], None
    for ahead, (state, over) in enumerate(states, 1):
        if ahead in shown or over:
            frames.append((ahead, frame(state)))
        if over:
            ended = ahead
            break
    seen = tuple((ahead, picture) for ahead, picture in frames if picture is not None)
    return replace(future, frames=seen, ended=ended)


class Resimulated:
    """Frames of candidates simulated again from the recorded moment.

    With `clairvoyant` the simulation uses the world's own random numbers; else
    (*fair*) new ones, as the model did, and shows one of several possible futures.
    """

    def __init__(self, recording: Recording, replay: Replay, clairvoyant: bool) -> None:
        self.recording, self.world, self.clairvoyant = recording, replay.world, clairvoyant
        self.seed = replay.seed
        self.how = ""
        self._at: int | None = None

    def show(self, step: int, row: int, futures: Sequence[Future]) -> list[Future]:
        """The futures with the frames of their states."""
        from_step = self._restore_to(step, row)
        source = "the world's own" if self.clairvoyant else "new"
        self.how = (
            f"by the simulator from the keyframe of step {from_step}, random numbers: {source}"
        )
        return [self._simulate(step, row, future) for future in futures]

    def subgoals(self, step: int, row: int, plan: Plan) -> list[Pictured]:
        """None: a simulator has no levels."""
        return []

    def _restore_to(self, step: int, row: int) -> int:
        """Restores the world to `step`: from a keyframe, then by the recorded actions."""
        recording, world = self.recording, self.world
        if (key := recording.keyframe(step)) is None:
            raise TraceError("the trace has no undamaged keyframe before this moment")
        observation = None
        if self._at is None or not key.step <= self._at <= step:
            observation, self._at = world.restore(key.world), key.step
        actions = recording.actions(self._at, step)
        while self._at < step:
            if self._at not in actions:
                missing, self._at = self._at, None
                raise TraceError(f"the action of step {missing} cannot be read")
            observation = world.step(actions[self._at])
            self._at += 1
        recorded = recording.frame(step, row)
        if observation is not None and observation.pixels is not None and recorded is not None:
            again = as_bytes(observation.pixels[row].numpy())
            if not np.array_equal(again, recorded):
                self._at = None
                raise TraceError("replayed from its keyframe, the world shows another frame")
        return key.step

    def _simulate(self, step: int, row: int, future: Future) -> Future:
        world = self.world
        assert isinstance(world, Simulator)
        spec = self.recording.world.actions
        native = spec.decode(torch.from_numpy(future.actions))
        key = chance.keys(self.seed, self.recording.rows, step)[row : row + 1]
        rewards: list[float] = []

        def states() -> Iterator[tuple[Any, bool]]:
            handle = world.save_state(row)
            for ahead, action in enumerate(native, 1):
                argument = int(action) if spec.discrete else action.numpy()
                seed = None
                if not self.clairvoyant:
                    seed = int(chance.integers(key, f"page {ahead}", 2**31 - 1))
                handle, signals, over = world.simulate(handle, argument, seed)
                rewards.append(float(signals[0]))
                yield handle, over

        def frame(handle: Any) -> NDArray[np.uint8]:
            return as_bytes(np.asarray(world.render_observation(handle)))

        shown = with_frames(future, states(), frame)
        return replace(shown, score=sum(rewards))


class _Reimagined(ABC):
    """Candidates imagined again by the learned world model from the recorded state."""

    how: str

    def __init__(self, recording: Recording, agent: Agent, seed: int) -> None:
        self.recording, self.agent, self.seed = recording, agent, seed

    @abstractmethod
    def frame(self, state: State, row: int) -> tuple[NDArray[np.uint8] | None, float]:
        """The frame of an imagined state of one row, and its distance from that state."""

    def note(self, distances: Sequence[float]) -> str:
        """A remark on a future whose frames have these distances."""
        return ""

    @torch.no_grad()
    def show(self, step: int, row: int, futures: Sequence[Future]) -> list[Future]:
        """The futures with the frames of their states."""
        moment, situation = self._situation(step)
        model = self.agent.modules.world_model
        expected = model.predict(situation, moment.plan.action, moment.directive)
        if not _alike(expected.latent[row], moment.expected.latent[row]):
            raise TraceError(
                "the weights of this run folder predict another state than was recorded"
            )
        cost, plan_cost = self.agent.modules.cost, self.agent.plan_cost
        imagination = Imagination(model, cost, situation, moment.directive, plan_cost)
        # With the random keys of the moment, these are the futures that the plan was chosen by.
        alone = imagination.select(torch.tensor([row]))
        return [self._imagine(alone, row, future) for future in futures]

    @torch.no_grad()
    def subgoals(self, step: int, row: int, plan: Plan) -> list[Pictured]:
        """The sub-goals of each level as frames, as the states of futures are."""
        if plan.subgoals is None or not bool(plan.subgoals[row].isfinite().all()):
            return []
        state, shown = self.recording.moment(step).state.select(torch.tensor([row])), []
        for latent in plan.subgoals[row]:
            picture, distance = self.frame(state.replace(latent=latent[None]), row)
            if picture is not None:
                shown.append((picture, self.note([distance])))
        return shown

    def _situation(self, step: int) -> tuple[Moment, Situation]:
        """A recorded moment and its situation, with what a recurrent model carried to it."""
        recording = self.recording
        moment = recording.moment(step)
        before = recording.moment(step - 1) if step > recording.first else moment
        if getattr(self.agent.modules.world_model, "hidden_size", 0):
            before = _carrying(before, self._carried(step))
        return moment, moment.situation(before, self._key(step))

    def _carried(self, step: int) -> Tensor:
        """The recurrent state of the world model before a step, [B R].

        A trace does not have it: the model predicts the recorded steps again from the keyframe
        before, which has it, or from the beginning of the run.
        """
        recording, m, first = self.recording, self.agent.modules, self.recording.first
        before = initial_moment(m, self.agent.world, recording.rows)
        key = recording.keyframe(step - 1) if step > first else None
        if key is not None and key.agent:
            restore_agent(self.agent, recording.rows, self.seed, key.agent)
            first, before = key.step + 1, m.memory.previous()
        for number in range(first, step):
            moment = recording.moment(number)
            situation = moment.situation(before, self._key(number))
            hidden = m.world_model.predict(situation, moment.plan.action, moment.directive).hidden
            before = _carrying(moment, torch.where(moment.observation.ended[:, None], 0, hidden))
        return before.expected.hidden

    def _key(self, step: int) -> Tensor:
        return chance.keys(self.seed, self.recording.rows, step)

    def _imagine(self, imagination: Imagination, row: int, future: Future) -> Future:
        model = self.agent.modules.world_model
        distances: list[float] = []
        ahead, reached = imagination.begin(1), list[State]()
        for action in torch.from_numpy(future.actions)[:, None]:
            ahead = imagination.extend(ahead, action)
            reached.append(ahead.state)

        def frame(state: State) -> NDArray[np.uint8] | None:
            picture, distance = self.frame(model.complete(state), row)
            distances.append(distance)
            return picture

        strips = []
        for number in range(min(ahead.costs.shape[2], STRIPS)):
            index = torch.tensor([number])
            states = (state.select(index) for state in reached)
            passed = ((state, float(state.ended[0]) >= 0.5) for state in states)
            strips.append(with_frames(future, passed, frame))
        note = self.note(distances)
        if (count := ahead.costs.shape[2]) > 1:
            note = ", ".join(filter(None, (f"{len(strips)} of {count} futures", note)))
        return replace(strips[0], note=note, others=tuple(one.frames for one in strips[1:]))


class Decoded(_Reimagined):
    """Frames that the world model itself predicts (`modules.ports.WorldModel`)."""

    how = "imagined again by the world model, and decoded by it"

    def frame(self, state: State, row: int) -> tuple[NDArray[np.uint8] | None, float]:
        """The decoded frame; distance 0."""
        model: Any = self.agent.modules.world_model
        return model.decode(state)[0].numpy(), 0.0


class Remembered(_Reimagined):
    """Each imagined state is shown by the frame of the recorded state with the nearest latent."""

    how = "imagined again by the world model; each state shown by the nearest recorded one"

    _known: tuple[int, NDArray[np.int64], Tensor] | None = None

    def frame(self, state: State, row: int) -> tuple[NDArray[np.uint8] | None, float]:
        """The recorded frame, and the distance of its latent, 0 to 2."""
        steps, known = self._latents(row)
        scale = known.square().sum(-1) + state.latent.square().sum(-1)
        relative = (known - state.latent).square().sum(-1) / scale.clamp_min(1e-8)
        nearest = int(relative.argmin())
        return self.recording.frame(int(steps[nearest]), row), float(relative[nearest])

    def note(self, distances: Sequence[float]) -> str:
        """Their mean distance."""
        return f"nearest recorded states, distance {np.mean(distances):.2g} of 2"

    def _latents(self, row: int) -> tuple[NDArray[np.int64], Tensor]:
        if self._known is None or self._known[0] != row:
            steps, latents = self.recording.latents(row)
            if not len(steps):
                raise TraceError("no latent of this run can be read")
            self._known = (row, steps, torch.from_numpy(latents))
        return self._known[1:]


def _carrying(moment: Moment, hidden: Tensor) -> Moment:
    """The moment with the recurrent state [B R] that its expectation carries."""
    return moment.replace(expected=moment.expected.replace(hidden=hidden))


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two latents are equal up to float16."""
    scale = float(a.square().sum() + b.square().sum())
    return float((a - b).square().sum()) <= 1e-3 * max(scale, 1e-8)
