"""Small environments with the traits of public bug reports, one `Fault` for each oddity."""

import os
import random
import signal
import time

import gymnasium
import numpy as np

TWO = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


class Episodes(gymnasium.Env):
    """Episodes of 10 steps that show their step and pay the action."""

    observation_space = TWO
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": []}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def seen(self):
        return np.array([self.t / 10, 0], np.float32)

    def pay(self, action):
        return float(action)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        return self.seen(), self.pay(action), self.t == 10, False, {}


class Plain(Episodes):
    """Its constructor takes nothing."""

    def __init__(self):
        pass


def plain():
    """A function that takes nothing."""
    return Plain()


def passing(**arguments):
    """A function that passes on all that it is given, to a class that takes nothing."""
    return Plain(**arguments)


class Never(Episodes):
    """Its episodes have no end."""

    def step(self, action):
        return *super().step(action)[:2], False, False, {}


class Levels(Episodes):
    """What it pays outlives `reset`: a level, one higher in each episode."""

    level = 0

    def reset(self, seed=None, options=None):
        self.level += 1
        return super().reset(seed=seed)

    def pay(self, action):
        return float(self.level)


class Arm(Episodes):
    """Scales the action in place."""

    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.at.copy(), {}

    def step(self, action):
        action *= 0.05
        self.at += action
        self.t += 1
        return self.at, -float(np.square(self.at).sum()), False, self.t >= 50, {}


class Reused(Episodes):
    """Returns one array that it goes on writing to."""

    def reset(self, seed=None, options=None):
        self.array = np.zeros(2, np.float32)
        super().reset(seed=seed)
        return self.array, {}

    def seen(self):
        self.array[:] = self.t / 10
        return self.array


MODULE = np.random.default_rng(5)


class Lucky(Episodes):
    """Pays what a generator beside `np_random` draws; `source` says which."""

    def __init__(self, render_mode=None, source="python"):
        self.render_mode, self.source = render_mode, source
        self.own, self.own_python = np.random.default_rng(), random.Random()

    def pay(self, action):
        draws = {
            "python": random.random,
            "numpy": np.random.random,
            "module": MODULE.random,
            "own": self.own.random,
            "own_python": self.own_python.random,
            "system": lambda: int.from_bytes(os.urandom(4)) / 2**32,
        }
        return float(draws[self.source]())


class Fault(Episodes):
    """One oddity, at step `at` of every episode, or at `at` = 0 in `reset`."""

    def __init__(self, render_mode=None, what="", at=5):
        self.render_mode, self.what, self.at = render_mode, what, at
        if what == "construction":
            raise RuntimeError("cannot be made")

    def reset(self, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        if self.at == 0:
            self.fail()
            if self.what == "bare":
                return observation
            observation = self.odd_observation(observation)
        return observation, info

    def fail(self):
        raised = {
            "raise": RuntimeError("broken\nin two lines"),
            "exit": SystemExit(0),
            "bare_exception": BaseException("bare"),
        }
        if self.what in raised:
            raise raised[self.what]
        if self.what == "die":
            os._exit(3)
        if self.what == "kill":
            os.kill(os.getpid(), 9)
        if self.what == "hang":
            try:
                time.sleep(1e6)
            except BaseException:
                time.sleep(1e6)
        if self.what == "stuck":
            # As C code that returns late: no handler of a signal runs.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(1e6)

    def odd_observation(self, observation):
        odd = {
            "observation_nan": np.array([0, np.nan], np.float32),
            "observation_inf": np.array([np.inf, 0], np.float32),
            "observation_shape": np.zeros(3, np.float32),
            "observation_none": None,
            "observation_text": "north",
        }
        return odd.get(self.what, observation)

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.t != self.at:
            return observation, reward, terminated, truncated, info
        self.fail()
        rewards = {
            "reward_nan": float("nan"),
            "reward_inf": float("inf"),
            "reward_huge": 1e300,
            "reward_none": None,
            "reward_text": "much",
            "reward_two": np.array([1.0, 2.0]),
        }
        reward = rewards.get(self.what, reward)
        if self.what == "terminated_none":
            terminated = None
        if self.what == "truncated_array":
            truncated = np.array([False, True])
        whole = self.odd_observation(observation), reward, terminated, truncated, info
        return {"four": whole[:4], "six": (*whole, 0), "one": whole[0]}.get(self.what, whole)

    def close(self):
        if self.what == "close":
            raise RuntimeError("cannot close")


FAULTS = {
    "raise": "broken in two lines",
    "exit": "SystemExit",
    "bare_exception": "BaseException: bare",
    "observation_nan": "observation: expected finite numbers, got nan at [1]",
    "observation_inf": "observation: expected finite numbers, got inf at [0]",
    "observation_shape": "observation: expected numbers of shape [2], got shape [3]",
    "observation_none": "observation: expected numbers [2] of float32, got None",
    "observation_text": "observation: expected numbers [2] of float32, got 'north'",
    "reward_nan": "reward: expected one finite number, got nan",
    "reward_inf": "reward: expected one finite number, got inf",
    "reward_huge": "reward: expected one finite number, got 1e+300",
    "reward_none": "reward: expected one finite number, got None",
    "reward_text": "reward: expected one finite number, got 'much'",
    "reward_two": "reward: expected one finite number, got an array [2]",
    "terminated_none": "terminated: expected one boolean, got None",
    "truncated_array": "truncated: expected one boolean, got an array [2]",
    "four": "expected 5",
    "six": "expected 5",
    "one": "expected 5",
}
"""Faults of a step → what the line says."""


class Easy(Episodes):
    """Values of other types than declared, all of which are taken."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        terminated, truncated = np.array([terminated]), np.bool_(truncated)
        return (
            observation.astype(np.float64).tolist(),
            np.array([reward]),
            terminated,
            truncated,
            info,
        )


class Drawn(Episodes):
    """Draws something else at each step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def render(self):
        frame = np.full((20, 30, 3), 100, np.uint8)
        drawings = [
            frame,
            None,
            [frame, frame],
            frame / 255,
            frame[:, :, 0],
            np.dstack([frame, frame[:, :, :1]]),
            np.full((40, 30, 3), 100, np.uint8),
            "picture",
            frame.astype(np.int64),
            frame.transpose(2, 0, 1),
        ]
        if self.t == 10:
            raise SystemExit(1)
        return drawings[self.t]


class Signals(Episodes):
    """Declares two signals; `hit` is not in the `info` of a reset. `odd` replaces the `info` of
    step 5, `declared` what the class declares.
    """

    metadata = {"render_modes": [], "signals": ("height", "hit")}

    def __init__(self, render_mode=None, odd=None, declared=None):
        self.odd = odd
        if declared is not None:
            self.metadata = {**self.metadata, "signals": declared}

    def reset(self, seed=None, options=None):
        return super().reset(seed=seed)[0], {"height": 0.5, "words": "no signal"}

    def step(self, action):
        *step, _ = super().step(action)
        info = {"height": self.np_random.uniform(), "hit": np.bool_(self.t % 3 == 0), "more": None}
        if self.t == 5 and self.odd is not None:
            info = self.odd(info)
        return *step, info


for kind in (Signals, Episodes, Plain, Never, Levels, Arm, Reused, Easy, Drawn):
    gymnasium.register(f"Foreign{kind.__name__}-v0", kind)
gymnasium.register("ForeignFunction-v0", plain)
gymnasium.register("ForeignPassing-v0", passing)
for where in ("python", "numpy", "module", "own", "own_python", "system"):
    gymnasium.register(f"ForeignLucky-{where}-v0", Lucky, kwargs={"source": where})
for fault in (*FAULTS, "bare", "construction", "die", "kill", "hang", "stuck", "close"):
    for step in (0, 5):
        gymnasium.register(
            f"ForeignFault-{fault}-{step}-v0", Fault, kwargs={"what": fault, "at": step}
        )
