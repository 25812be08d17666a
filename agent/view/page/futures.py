"""Frames of the imagined futures of a moment, and of what was recorded instead.

A trace has the actions and energies of the candidates, not their states. Where the world model is
a simulator, the world is restored to the moment and each candidate is simulated again. Where it is
learned, each candidate is imagined again, and each of its states is shown by the frame of the
recorded state with the nearest latent. The page says which of the two it shows.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.load import trained_weights
from agent.recording.weights import load_weights
from agent.view.page.data import Pack, Recording, as_bytes, plain
from modules import chance
from modules.messages import Plan, SextetError, State, TraceError
from modules.ports import Simulator

Frames = list[NDArray[np.uint8]]

PICTURES = 12
"""The most states shown of a future, evenly spaced."""


@dataclass(frozen=True)
class Future:
    """One candidate: its encoded actions [H A], its predicted energy, and its frames.

    `at` are the steps ahead that have a frame, `ended` the one at which the episode ends, if any.
    """

    actions: NDArray[np.float32]
    energy: float
    at: tuple[int, ...] = ()
    frames: tuple[NDArray[np.uint8], ...] = ()
    score: float | None = None
    ended: int | None = None
    note: str = ""


class FutureFrames(Protocol):
    """A source of frames for imagined futures; `how` describes it."""

    how: str

    def show(self, step: int, row: int, futures: Sequence[Future]) -> list[Future]:
        """The futures with frames. Raises TraceError, one line, where there are none."""


class Imagined:
    """The candidates of any recorded moment, with frames where possible.

    `plugins` are packages whose modules the run used. Thread-safe.
    """

    def __init__(self, recording: Recording, plugins: tuple[str, ...] = ()) -> None:
        self.recording, self.plugins = recording, plugins
        self._source: FutureFrames | None = None
        self._reason = ""
        self._built = False
        self._lock = threading.Lock()

    def pack(self, step: int, row: int, pictures: bool = True) -> Pack:
        """Candidates with actions, energies and frames, and the frames that were recorded."""
        recording = self.recording
        recording.allows(row)
        try:
            futures, note = candidates(recording.moment(step).plan, row)
        except TraceError as error:
            nothing: dict[str, Any] = {"at": [], "frames": []}
            facts = {"step": step, "note": str(error), "how": "", "futures": [], "came": nothing}
            return Pack(facts, {})
        how = ""
        if futures and pictures:
            with self._lock:
                source = self._make()
                how = self._reason
                if source is not None:
                    try:
                        futures = source.show(step, row, futures)
                        how = source.how
                    except (SextetError, RuntimeError, ValueError, TypeError) as error:
                        how = " ".join(str(error).split())
        frames: Frames = []
        described = []
        for future in futures:
            described.append(
                {
                    "energy": plain(future.energy),
                    "actions": [self._word(a) for a in future.actions],
                    "at": list(future.at),
                    "frames": list(range(len(frames), len(frames) + len(future.frames))),
                    "score": future.score,
                    "ended": future.ended,
                    "note": future.note,
                }
            )
            frames += future.frames
        came: dict[str, Any] = {"at": [], "frames": []}
        longest = max((len(f.actions) for f in futures), default=0)
        for ahead in spread(longest):
            frame = recording.frame(step + ahead, row)
            if frame is not None:
                came["at"].append(ahead)
                came["frames"].append(len(frames))
                frames.append(frame)
        facts = {"step": step, "note": note, "how": how, "futures": described, "came": came}
        alike = bool(frames) and all(f.shape == frames[0].shape for f in frames)
        return Pack(facts, {"frames": np.stack(frames)} if alike else {})

    def _word(self, action: NDArray[np.float32]) -> str:
        spec = self.recording.world.actions
        if spec.discrete:
            best = int(action.argmax())
            return spec.names[best] if best < len(spec.names) else str(best)
        return "(" + " ".join(f"{v:.2g}" for v in action[:4].tolist()) + ")"

    def _make(self) -> FutureFrames | None:
        """The source of frames for this run, built on the first call; None where there is none."""
        if not self._built:
            self._built = True
            if self.recording.world.pixels is None:
                self._reason = "this world has no pixels: actions and energies only"
                return None
            try:
                assembly = assembly_of(self.recording, self.plugins)
                model = assembly.config.slots["world_model"]
                if model.simulates:
                    foresees = model.kind == "clairvoyant"
                    self._source = Resimulated(self.recording, assembly, foresees)
                else:
                    self._source = Remembered(self.recording, assembly)
            except SextetError as error:
                self._reason = f"not shown: {error}"
        return self._source


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


def assembly_of(recording: Recording, plugins: tuple[str, ...]) -> Assembly:
    """The agent and world of a run, with the weights in its folder, if any."""
    assembly = assemble(recording.config, known_kinds(plugins))
    if (trained := trained_weights(recording.file.parent)) is not None:
        place, checkpoint = trained
        load_weights(assembly.agent.modules, checkpoint.tensors["weights"], str(place))
    return assembly


class Resimulated:
    """Frames of candidates simulated again from the recorded moment.

    With `foresees` (*clairvoyant*) the simulation uses the world's own random numbers; else
    (*fair*) new ones, as the model did, and shows one of several possible futures.
    """

    def __init__(self, recording: Recording, assembly: Assembly, foresees: bool) -> None:
        self.recording, self.world, self.foresees = recording, assembly.world, foresees
        self.seed = assembly.config.settings.seed
        self.how = ""
        self._at: int | None = None

    def show(self, step: int, row: int, futures: Sequence[Future]) -> list[Future]:
        """The futures with the frames of their states."""
        from_step = self._bring_to(step, row)
        luck = "the world's own" if self.foresees else "new"
        self.how = f"by the simulator from the keyframe of step {from_step}, random numbers: {luck}"
        return [self._carry_out(step, row, future) for future in futures]

    def _bring_to(self, step: int, row: int) -> int:
        """Restores the world to `step`: from a keyframe, then by the recorded actions."""
        recording, world = self.recording, self.world
        if (key := recording.keyframe(step)) is None:
            raise TraceError("not shown: the trace has no undamaged keyframe before this moment")
        observation = None
        if self._at is None or not key.step <= self._at <= step:
            observation, self._at = world.restore(key.world), key.step
        actions = recording.actions(self._at, step)
        while self._at < step:
            if self._at not in actions:
                missing, self._at = self._at, None
                raise TraceError(f"not shown: the action of step {missing} can't be read")
            observation = world.step(actions[self._at])
            self._at += 1
        recorded = recording.frame(step, row)
        if observation is not None and observation.pixels is not None and recorded is not None:
            again = as_bytes(observation.pixels[row].numpy())
            if not np.array_equal(again, recorded):
                self._at = None
                raise TraceError(
                    "not shown: replayed from its keyframe, the world shows another frame"
                )
        return key.step

    def _carry_out(self, step: int, row: int, future: Future) -> Future:
        world = self.world
        assert isinstance(world, Simulator)
        spec = self.recording.world.actions
        native = spec.decode(torch.from_numpy(np.array(future.actions, np.float32)))
        key = chance.keys(self.seed, self.recording.rows, step)[row : row + 1]
        handle, frames, at = world.save_state(row), [], []
        score, ended, shown = 0.0, None, set(spread(len(future.actions)))
        for ahead in range(1, len(future.actions) + 1):
            seed = None if self.foresees else int(chance.integers(key, f"page {ahead}", 2**31 - 1))
            action = native[ahead - 1]
            argument = int(action) if spec.discrete else action.numpy()
            handle, signals, over = world.simulate(handle, argument, seed)
            score += float(signals[0])
            if ahead in shown or over:
                frames.append(as_bytes(np.asarray(world.render_observation(handle))))
                at.append(ahead)
            if over:
                ended = ahead
                break
        return Future(
            future.actions, future.energy, tuple(at), tuple(frames), plain_score(score), ended
        )


def plain_score(value: float) -> float:
    """A score in four digits."""
    return float(f"{value:.4g}")


class Remembered:
    """Frames of candidates imagined again by the learned world model from the recorded state.

    Each imagined state is shown by the frame of the recorded state with the nearest latent.
    """

    how = "imagined again by the world model; each state shown by the nearest recorded one"

    def __init__(self, recording: Recording, assembly: Assembly) -> None:
        self.recording, self.agent = recording, assembly.agent
        self.seed = assembly.config.settings.seed
        assembly.world.close()
        self._known: tuple[int, NDArray[np.int64], Tensor] | None = None

    @torch.no_grad()
    def show(self, step: int, row: int, futures: Sequence[Future]) -> list[Future]:
        """The futures with recorded frames; `note` has the distance of these."""
        moment = self.recording.moment(step)
        before = self.recording.moment(step - 1) if step > self.recording.first else moment
        model = self.agent.modules.world_model
        key = chance.keys(self.seed, self.recording.rows, step)
        situation = moment.situation(before, key)
        expected = model.predict(situation, moment.plan.action, moment.directive)
        if not _alike(expected.latent[row], moment.expected.latent[row]):
            raise TraceError(
                "not shown: the weights of this run folder predict another state than was recorded"
            )
        start = model.start(situation, moment.directive)
        return [self._imagine(start.select(torch.tensor([row])), row, future) for future in futures]

    def _imagine(self, state: State, row: int, future: Future) -> Future:
        model = self.agent.modules.world_model
        steps, known = self._remembered(row)
        actions = torch.from_numpy(np.array(future.actions, np.float32))
        shown, at, frames, far = set(spread(len(actions))), [], [], []
        ended = None
        for ahead in range(1, len(actions) + 1):
            state = model.step(state, actions[ahead - 1 : ahead])
            over = float(state.ended[0]) >= 0.5
            if ahead in shown or over:
                latent = model.complete(state).latent
                distance = (known - latent).square().sum(-1)
                scale = known.square().sum(-1) + latent.square().sum(-1)
                relative = distance / scale.clamp_min(1e-8)
                nearest = int(relative.argmin())
                frame = self.recording.frame(int(steps[nearest]), row)
                if frame is not None:
                    at.append(ahead)
                    frames.append(frame)
                    far.append(float(relative[nearest]))
            if over:
                ended = ahead
                break
        note = f"nearest recorded states, distance {np.mean(far):.2g} of 2" if far else ""
        return Future(
            future.actions, future.energy, tuple(at), tuple(frames), None, ended, note
        )  # fmt: skip

    def _remembered(self, row: int) -> tuple[NDArray[np.int64], Tensor]:
        if self._known is None or self._known[0] != row:
            steps, latents = self.recording.latents(row)
            if not len(steps):
                raise TraceError("not shown: no latent of this run can be read")
            self._known = (row, steps, torch.from_numpy(latents))
        return self._known[1:]


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two latents are equal up to float16."""
    scale = float(a.square().sum() + b.square().sum())
    return float((a - b).square().sum()) <= 1e-3 * max(scale, 1e-8)
