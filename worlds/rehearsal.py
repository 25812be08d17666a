"""What replay and imagination promise, tested before they are relied on.

A test finds the differences that show within its steps; what shows later is found when it is used,
by the comparison that `restore` makes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from modules.messages import WorldError
from worlds.edge import EnvStep, GuardedEnv
from worlds.returned import shown

_STEPS, _LEAST = 200, 10
"""Steps of a life, and those that it takes however slow the environment is."""
_SECONDS = 0.3
_SEED, _OTHER_SEED, _LUCK = 1, 1_000, 7

Open = Callable[[], GuardedEnv]


def replay_fault(open_another: Open, live: GuardedEnv) -> str | None:
    """Why replay does not restore an environment, None where no reason shows.

    Two lives have the same seeds and actions. Between them is one of other seeds, with at least one
    reset, so that state which outlives `reset` shows. They take place in two copies of the
    environment; in `live`, one after the other, where no more can be opened.
    """
    opened = _opened(open_another, 2)
    one, other = opened if len(opened) == 2 else (live, live)
    try:
        began, first = time.monotonic(), list[EnvStep]()
        while len(first) < _STEPS:
            if len(first) >= _LEAST and time.monotonic() - began > _SECONDS:
                break
            first += _life(one, _SEED + len(first), _STEPS - len(first), began)
        _life(other, _OTHER_SEED, len(first), began)
        again = list[EnvStep]()
        while len(again) < len(first):
            again += _life(other, _SEED + len(again), len(first) - len(again), None)
        return _difference(first, again, "after a reset with the same seed")
    except WorldError as error:
        # The run will meet it, and end by it.
        return str(error)
    finally:
        for env in opened:
            env.close()


def simulation_fault(open_another: Open, live: GuardedEnv) -> str | None:
    """Why copies of an environment cannot be imagined in, None where no reason shows.

    Before each of some steps, the step is taken in copies. One that draws what the environment will
    draw must come out as the step itself does; two with one seed must come out alike.
    """
    opened = _opened(open_another, 1)
    env = opened[0] if opened else live
    try:
        env.reset(_SEED)
        choices, began = _choices(env), time.monotonic()
        for _ in range(_STEPS):
            action = choices.sample()
            foreseen, first, second = (env.copy(seed, env.where) for seed in (None, _LUCK, _LUCK))
            try:
                imagined, step = foreseen.step(action), None
                fault = _difference(
                    [first.step(action)], [second.step(action)], "imagined with one seed"
                )
                step = env.step(action)
            except WorldError:
                return None  # The run will meet it, and end by it.
            fault = fault or _difference([step], [imagined], "when it was imagined before")
            if fault is not None:
                return fault
            if step.terminated or step.truncated or time.monotonic() - began > _SECONDS:
                break
        return None
    except WorldError as error:
        return str(error)
    finally:
        for one in opened:
            one.close()


def _opened(open_another: Open, count: int) -> list[GuardedEnv]:
    """`count` more environments, or fewer where they cannot be opened."""
    opened = list[GuardedEnv]()
    try:
        while len(opened) < count:
            opened.append(open_another())
    except WorldError:
        for env in opened:
            env.close()
        return []
    return opened


def _choices(env: GuardedEnv) -> Any:
    """The action space, seeded."""
    choices = copy.deepcopy(env.action_space)
    choices.seed(_SEED)
    return choices


def _life(env: GuardedEnv, seed: int, steps: int, began: float | None) -> list[EnvStep]:
    """The first observation and the steps of one episode, at most `steps` in all.

    began: when the rehearsal began; after its time the episode is left. None: no such limit.
    """
    life = [env.reset(seed)]
    choices = _choices(env)
    while len(life) < steps:
        if began is not None and len(life) >= _LEAST and time.monotonic() - began > _SECONDS:
            break
        life.append(step := env.step(choices.sample()))
        if step.terminated or step.truncated:
            break
    return life


def _difference(first: list[EnvStep], again: list[EnvStep], when: str) -> str | None:
    """The first difference between two lives in words."""
    for number, (one, other) in enumerate(zip(first, again, strict=True)):
        values = _values(other)
        for name, a in _values(one).items():
            if not _equal(a, b := values[name]):
                return f"{name} {shown(b)} instead of {shown(a)} {when}, at step {number}"
    return None


def _values(step: EnvStep) -> dict[str, Any]:
    """What a step returned, by name, each signal by its own."""
    values = step._asdict()
    signals = values.pop("signals")
    return values | {f"signal {name}": value for name, value in signals.items()}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and all(_equal(one[key], other.get(key)) for key in one)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and all(map(_equal, one, other))
    return np.array_equal(one, other)
