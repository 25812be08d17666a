"""A tiny environment with one fault, at a call and a step that are set from outside.

Episodes last 10 steps; the observation is the step and the number of the episode, drawn under its
seed, so that what a replay holds can be checked. In `FaultyLevels-v0` that number counts the
episodes of the environment, which outlives `reset`: replay does not restore it.
"""

import json
import os
import signal
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np

LENGTH = 10
PLAN = "SEXTET_TORTURE_FAULT"
"""Environment variable: kind, number of the environment and its steps before the fault, as JSON."""

RAISED: dict[str, type[BaseException]] = {
    "raise": RuntimeError,
    "exit": SystemExit,
    "bare": BaseException,
    "generator": GeneratorExit,
    "recursion": RecursionError,
    "memory": MemoryError,
}
REWARDS: dict[str, Any] = {
    "reward nan": np.nan, "reward inf": -np.inf, "reward huge": 1e200, "reward none": None,
    "reward text": "1", "reward two": np.ones(2), "reward complex": 1j,
}  # fmt: skip
OBSERVATIONS: dict[str, Any] = {
    "observation nan": np.array([0, np.nan], np.float32),
    "observation inf": np.array([np.inf, 0], np.float32),
    "observation shape": np.zeros((1, 2), np.float32),
    "observation none": None,
    "observation text": "north",
    "observation ragged": [[1], [1, 2]],
    "observation huge": np.array([1e300, 0]),
}
FLAGS: dict[str, Any] = {"none": None, "two": np.ones(2, bool), "text": "no", "seven": 7}
TUPLES = ("tuple of 4", "tuple of 6", "tuple of 1", "no tuple")
ENDS = ("die", "kill", "stuck")
"""Faults that only a world in a process of its own survives."""


class Faulty(gymnasium.Env):  # type: ignore[type-arg]
    """Counts its steps over all episodes in `total`. `armed`: kind of fault and environment."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    made: ClassVar[list["Faulty"]] = []
    armed: ClassVar[tuple[str, "Faulty", int] | None] = None
    fired: ClassVar[int | None] = None

    def __init__(self, render_mode: str | None = None, levels: bool = False) -> None:
        self.render_mode, self.levels = render_mode, levels
        self.total = self.episode = self.t = 0
        self.closed = False
        self.number = len(Faulty.made)
        Faulty.made.append(self)
        if Faulty.armed is not None and Faulty.armed[0] == "construction":
            raise RuntimeError("cannot be made")

    def _fault(self, call: str) -> str:
        """The kind of fault that is due in this call, empty for none."""
        if PLAN in os.environ:
            kind, number, total = json.loads(os.environ[PLAN])
            due = number == self.number and self.total == total
        elif Faulty.armed is not None:
            kind, env, t = Faulty.armed
            due = env is self and (self.t == t or call == "reset")
        else:
            return ""
        if not due or (call == "reset") != kind.startswith("reset "):
            return ""
        kind = kind.removeprefix("reset ")
        Faulty.fired = self.t
        if kind in RAISED:
            raise RAISED[kind]("at the time set")
        if kind == "hang":
            time.sleep(1e6)
        if kind == "die":
            os._exit(7)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "stuck":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(1e6)
        return kind

    def _seen(self) -> Any:
        return np.array([self.t, self.episode], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        self.episode = self.episode + 1 if self.levels else int(self.np_random.integers(2**20))
        fault = self._fault("reset")
        seen = OBSERVATIONS.get(fault, self._seen())
        return seen if fault == "no tuple" else (seen, {})

    def step(self, action: Any) -> Any:
        self.t, self.total = self.t + 1, self.total + 1
        fault = self._fault("step")
        whole = [self._seen(), float(action), self.t == LENGTH, False, {}]
        whole[0] = OBSERVATIONS.get(fault, whole[0])
        whole[1] = REWARDS.get(fault, whole[1])
        for place, name in ((2, "terminated"), (3, "truncated")):
            for odd, value in FLAGS.items():
                if fault == f"{name} {odd}":
                    whole[place] = value
        match fault:
            case "tuple of 4":
                return tuple(whole[:4])
            case "tuple of 6":
                return (*whole, None)
            case "tuple of 1":
                return (whole[0],)
            case "no tuple":
                return whole[0]
        return tuple(whole)

    def close(self) -> None:
        self.closed = True
        if Faulty.armed is not None and Faulty.armed[0] == "close":
            raise RuntimeError("cannot close")


gymnasium.register("Faulty-v0", Faulty)
gymnasium.register("FaultyLevels-v0", Faulty, kwargs={"levels": True})
