"""NaN, infinity and numbers out of range in all that modules return while an agent learns or plays.

In each case a module of a small agent begins to answer with one wrong number at a random step. The
run must stop before that step changes anything, with one line that names the module, and exit code
1; its last checkpoint must be finite, and a training that continues from it must reach its end.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import agent.agent
from agent.api.failure import RunFailedError
from agent.api.play import play
from agent.api.train import train
from agent.learning.learner import Learner
from agent.recording import checkpoint
from modules.messages import Experience, Message, Moment, Shape
from modules.ports import CHECKED_METHODS, gate
from tests.torture.harness import Outcome

STEPS, SAVED_EVERY = 60, 20

_LEARNED = (
    "perception.kind=vectors", "perception.width=16",
    "world_model.kind=jepa", "world_model.width=16", "world_model.blocks=1",
    "world_model.ensemble_size=2", "world_model.unroll_steps=2",
    "cost.critic.width=16", "memory.capacity=500",
    "learner.batch=8", "learner.warmup_steps=10", "learner.replay_ratio=0.5",
    f"training.checkpoint_every={SAVED_EVERY}", "training.evaluate_every=0",
    "training.report_every=10", "training.evaluate_episodes=1",
)  # fmt: skip
_PLANNING = (
    "configurator.kind=fixed", "configurator.mode=2", "cost.critic.kind=scalar",
    "directive.horizon_steps=3", "directive.model_calls=24", "directive.commit_steps=1",
)  # fmt: skip

PRESETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "reacts": ("CartPole-v1", (
        *_LEARNED, "configurator.kind=fixed", "configurator.mode=1", "cost.critic.kind=actions",
        "actor.policy.kind=greedy", "actor.policy.epsilon=0.2", "memory.priority_exponent=0.5",
        "learner.imagination_horizon=2", "world.num_envs=2",
    )),
    "plans": ("CartPole-v1", (
        *_LEARNED, *_PLANNING, "actor.planner.kind=beam", "actor.policy.kind=categorical",
        "learner.critic_unroll_steps=2",
    )),
    "moves": ("Pendulum-v1", (
        *_LEARNED, *_PLANNING, "actor.planner.kind=cem", "learner.ema_rate=0.1",
        "learner.reset_every=7",
    )),
}  # fmt: skip
"""Small agents: a world and settings."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong: `port` answers in `method` with `value` in the field `target`."""

    kind: str
    preset: str
    port: str
    method: str
    target: str
    value: float


def _wrong_numbers(shape: Shape) -> Iterator[float]:
    """The numbers that a field of `shape` must not have."""
    if shape.kind in ("float", "any"):
        yield from (math.nan,) if shape.infinite else (math.nan, math.inf)
    if shape.most < math.inf:
        yield shape.most + 5
    if shape.least > -math.inf:
        yield shape.least - 6


def _fields(kind: type[Message] | Shape, nested: bool) -> Iterator[tuple[str, Shape]]:
    """The fields of a message with numbers, by dotted path; a tensor is a field without a name."""
    if isinstance(kind, Shape):
        yield "", kind
        return
    yield from kind._numeric
    if nested:
        for name in kind._nested:
            message = kind.model_fields[name].annotation
            if isinstance(message, type) and issubclass(message, Message):
                yield from ((f"{name}.{field}", shape) for field, shape in message._numeric)


ABSENT = ("goal", "pixels", "goals", "frames", "tokens")
"""Fields that the worlds and agents here do not have."""


def _faults() -> Iterator[Fault]:
    for preset in PRESETS:
        for port, methods in CHECKED_METHODS.items():
            for method, message in methods.items():
                for field, shape in _fields(message, nested=message is Moment):
                    if field.split(".")[-1] not in ABSENT:
                        for value in _wrong_numbers(shape):
                            yield Fault("output", preset, port, method, field, value)
        for field, shape in Experience._numeric:
            if field not in ABSENT:
                for value in _wrong_numbers(shape):
                    yield Fault("experience", preset, "memory", "sample", field, value)
        for value in (math.nan, math.inf):
            yield Fault("states", preset, "perception", "encode_windows", "", value)
            yield Fault("priorities", preset, "cost", "losses", "", value)
            for port in ("world_model", "cost"):
                for number in ("0", "1", "2"):
                    yield Fault("loss", preset, port, "losses", number, value)
            for port in ("perception", "world_model", "cost"):
                for number in ("0", "-1"):
                    yield Fault("gradient", preset, port, "", number, value)
                yield Fault("weight", preset, port, "_update_ema", "", value)
        if preset != "reacts":
            yield Fault("imagined", preset, "world_model", "step", "signals", math.nan)
            yield Fault("imagined", preset, "world_model", "step", "ended", math.nan)
            yield Fault("imagined", preset, "world_model", "start", "latent", math.nan)
            yield Fault("imagined", preset, "cost", "intrinsic", "", math.nan)
            yield Fault("imagined", preset, "cost", "critic_value", "", math.nan)


FAULTS = tuple(_faults())
CASES = len(FAULTS)


class _Faulty:
    """A module whose `method` answers wrongly after its method `clock` was called `after` times."""

    def __init__(
        self, module: Any, fault: Fault, clock: str, after: int, rng: random.Random
    ) -> None:
        self._module, self._fault, self._after, self._rng = module, fault, after, rng
        self._clock, self._calls = clock, 0
        for name in {clock, fault.method}:
            setattr(self, name, partial(self._call, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def _call(self, name: str, *arguments: Any) -> Any:
        answer = getattr(self._module, name)(*arguments)
        self._calls += name == self._clock
        if name != self._fault.method or self._calls <= self._after:
            return answer
        return _spoiled(answer, self._fault.target, self._fault.value, self._rng)


def _spoiled(answer: Any, target: str, value: float, rng: random.Random) -> Any:
    """A copy of a message or tensor with `value` at a random place of the field `target`; all of
    a tensor that is no field, so that no search finds a way around it.
    """
    if isinstance(answer, Tensor):
        return torch.full_like(answer, value)
    first, _, rest = target.partition(".")
    field = getattr(answer, first)
    if rest:
        return answer.replace(**{first: _spoiled(field, rest, value, rng)})
    if field is None or not field.numel():
        raise _NothingThere(target)
    field = field.clone()
    if not hasattr(answer, "_axes"):  # imagined states are unchecked
        return answer.unchecked(**{**answer.__dict__, first: torch.full_like(field, value)})
    field.view(-1)[rng.randrange(field.numel())] = value
    return answer.replace(**{first: field})


class _NothingThere(BaseException):
    """The field has no numbers in this agent, so none can be wrong."""


@contextmanager
def at_fault(fault: Fault, seed: object) -> Iterator[None]:
    """Agents made within answer wrongly as `fault` says, from a step or update on that `seed`
    draws.
    """
    rng = random.Random(str(seed))
    rows = 2 if "world.num_envs=2" in PRESETS[fault.preset][1] else 1
    after = rng.randrange(SAVED_EVERY + 2, STEPS - 2) // rows
    updates = rng.randrange(7, 15)  # the first checkpoint holds 5

    def faulty_gate(port: str, module: Any, *others: Any) -> Any:
        if port == fault.port and hasattr(module, fault.method):
            clock, calls = fault.method, after
            if fault.kind == "imagined":
                clock = next(iter(CHECKED_METHODS[port]))  # called once a step
            elif fault.kind == "experience":
                calls = updates
            module = _Faulty(module, fault, clock, calls, rng)
        return gate(port, module, *others)

    def faulty_learner(self: Learner, *others: Any, **named: Any) -> None:
        original(self, *others, **named)
        module = self.online_modules[fault.port]
        getattr(_InLearning, fault.kind)(self, module, fault, updates)

    original = Learner.__init__
    with ExitStack() as patches:
        if fault.kind == "experience":
            patches.enter_context(patch("agent.learning.learner.gate", faulty_gate))
        elif fault.kind in ("output", "imagined"):
            patches.enter_context(patch.object(agent.agent, "gate", faulty_gate))
        else:
            patches.enter_context(patch.object(Learner, "__init__", faulty_learner))
        yield


class _InLearning:
    """Spoils a module from an update of a learner on; each method is a kind of fault."""

    @staticmethod
    def _from(
        learner: Learner, updates: int, place: Any, method: str, change: Callable[[Any], Any]
    ) -> None:
        original = getattr(place, method)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            answer = original(*arguments, **named)
            return change(answer) if learner.updates >= updates else answer

        setattr(place, method, wrapped)

    @classmethod
    def states(cls, learner: Learner, module: Any, fault: Fault, updates: int) -> None:
        cls._from(learner, updates, module, fault.method, lambda latents: latents + fault.value)

    @classmethod
    def loss(cls, learner: Learner, module: Any, fault: Fault, updates: int) -> None:
        def change(answer: Any) -> Any:
            named, priorities = answer
            name = list(named)[int(fault.target) % len(named)]
            return {**named, name: named[name] + fault.value}, priorities

        cls._from(learner, updates, module, fault.method, change)

    @classmethod
    def priorities(cls, learner: Learner, module: Any, fault: Fault, updates: int) -> None:
        def change(answer: Any) -> Any:
            named, priorities = answer
            if priorities is None:
                raise _NothingThere(fault.method)
            return named, priorities + fault.value

        cls._from(learner, updates, module, fault.method, change)

    @staticmethod
    def gradient(learner: Learner, module: Any, fault: Fault, updates: int) -> None:
        def change(gradient: Tensor) -> Tensor:
            return gradient * fault.value if learner.updates >= updates else gradient

        parameters = [p for p in module.parameters() if p.requires_grad]
        parameters[int(fault.target)].register_hook(change)

    @classmethod
    def weight(cls, learner: Learner, module: Any, fault: Fault, updates: int) -> None:
        def change(answer: Any) -> Any:
            with torch.no_grad():
                for weight in module.parameters():
                    weight.fill_(fault.value)
            return answer

        cls._from(learner, updates, learner, fault.method, change)


def case(number: int, seed: int) -> Outcome:
    """A training at fault and its continuation; every fifth fault of an output in playing."""
    fault = FAULTS[number]
    world, settings = PRESETS[fault.preset]
    with tempfile.TemporaryDirectory() as place, torch.random.fork_rng():
        folder = Path(place) / "run"
        plays = fault.kind == "output" and number % 5 == 0
        try:
            with at_fault(fault, f"{seed} {number}"):
                if plays:
                    play(world, *settings, seed=seed, steps=2 * STEPS, run=folder)
                else:
                    train(world, *settings, seed=seed, steps=STEPS, run=folder)
        except _NothingThere:
            return Outcome(fault.kind, "absent")
        except RunFailedError as error:
            wrong = _unnamed(fault, str(error))
            if not (wrong or plays):
                wrong = _not_resumed(folder)
            return Outcome(fault.kind, "stopped", wrong and f"{fault}: {wrong}")
        return Outcome(fault.kind, "went on", f"{fault}: expected RunFailedError, got none")


def _unnamed(fault: Fault, line: str) -> str:
    """What the line of an error lacks; empty where it lacks nothing."""
    if fault.kind == "weight" and line.startswith("checkpoint"):
        required = (f"weights {fault.port}/",)
    else:
        required = (f"module {fault.port} (", "update " if "update" in line else "step ")
    if "\n" in line or not all(words in line for words in required):
        return f"expected one line with {required}, got {line!r}"
    return ""


def _not_resumed(folder: Path) -> str:
    """Why the last checkpoint of a run is not good; empty where it is."""
    saved = [int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    if not saved:
        return "expected a checkpoint, got none"
    for part, tensors in checkpoint.load(folder / "checkpoints" / str(max(saved))).tensors.items():
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                return f"expected finite numbers in the checkpoint, got others in {part} {name}"
    if "NaN" in (folder / "metrics.jsonl").read_text(encoding="utf-8"):
        return "expected figures without NaN, got some"
    steps = train(resume=folder, steps=max(saved) + 10).steps
    return "" if steps >= max(saved) + 10 else f"expected to go on, got {steps} steps"
