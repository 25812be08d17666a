"""Small environments whose spaces are read in ways of their own.

`Pair` is a contextual bandit for any observation and action space: an observation shows one of
three contexts, and an action that fits the context pays 1.
"""

import itertools

import gymnasium as gym
import numpy as np
from gymnasium import spaces

CONTEXTS = 3
STEPS = 5
SIDE = 36


class Newest(gym.Env):
    """The newest frame is bright on the left or the right; the action that names the side pays."""

    observation_space = spaces.Box(0, 255, (64, 64), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def _frame(self):
        self.side = int(self.np_random.integers(2))
        frame = np.full((64, 64), 40, np.uint8)
        frame[16:48, 32 * self.side : 32 * self.side + 32] = 220
        return frame

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._frame(), {}

    def step(self, action):
        pays = float(action == self.side)
        self.steps += 1
        return self._frame(), pays, False, self.steps >= 20, {}


def newest_stacked(render_mode=None):
    """The last four grey frames, oldest first, [4 64 64]."""
    return gym.wrappers.FrameStackObservation(Newest(), 4)


class Shown(gym.Env):
    """Observations drawn from any space, for as long as asked; actions are checked."""

    def __init__(self, observation, action=None, render_mode=None):
        self.observation_space = observation
        self.action_space = spaces.Discrete(2) if action is None else action
        self.render_mode = render_mode

    def _observation(self):
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        return self._observation(), 0.0, self.steps == 4, False, {}


BYTES = {"low": 0, "high": 255, "dtype": np.uint8}
WORDS = ("go to the red door", "go to the blue door", "pick up the key")

OBSERVATIONS = {
    "Discrete": spaces.Discrete(CONTEXTS),
    "Discrete with start": spaces.Discrete(CONTEXTS, start=-7),
    "Box vector": spaces.Box(-1, 1, (4,), np.float32),
    "Box of infinite bounds": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    "uint8 picture": spaces.Box(shape=(SIDE, SIDE, 3), **BYTES),
    "stacked pictures": spaces.Box(shape=(4, SIDE, SIDE), **BYTES),
    "float picture": spaces.Box(0, 1, (SIDE, SIDE, 1), np.float32),
    "float picture to 255": spaces.Box(0, 255, (3, SIDE, SIDE), np.float32),
    "grid of codes": spaces.Box(shape=(4, 4, 3), **BYTES),
    "grid of few codes": spaces.Box(0, 9, (4, 4), np.int64),
    "grid of 0 and 1": spaces.Box(0, 1, (4, 4, 2), np.bool_),
    "Dict": spaces.Dict(far=spaces.Box(-1, 1, (2,)), near=spaces.Discrete(CONTEXTS)),
    "Tuple": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.MultiBinary(3))),
    "MultiDiscrete": spaces.MultiDiscrete([2, CONTEXTS]),
    "MultiBinary": spaces.MultiBinary(5),
    "Text and picture": spaces.Dict(
        image=spaces.Box(shape=(5, 5, 3), **BYTES),
        mission=spaces.Text(30, charset="abcdefghijklmnopqrstuvwxyz "),
    ),
    "goal": spaces.Dict(
        observation=spaces.Box(-1, 1, (3,)),
        desired_goal=spaces.Box(-1, 1, (2,)),
        achieved_goal=spaces.Box(-1, 1, (2,)),
    ),
}
"""An observation space of each kind."""

ACTIONS = {
    "Discrete": spaces.Discrete(3),
    "Discrete with start": spaces.Discrete(3, start=5),
    "Box": spaces.Box(-2, 2, (1,), np.float32),
    "integer Box": spaces.Box(0, 8, (1,), np.int32),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2]),
    "MultiBinary": spaces.MultiBinary(2),
}
"""An action space of each kind."""


def shown(space, context, noise):
    """An element of `space` that shows the context: the same for all observations of a context,
    but for random parts that say nothing. In a goal Dict the desired goal says nothing.
    """
    if isinstance(space, spaces.Dict):
        drawn = int(noise.integers(CONTEXTS))
        return {
            key: shown(part, drawn if key == "desired_goal" else context, noise)
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        return tuple(shown(part, context, noise) for part in space.spaces)
    if isinstance(space, spaces.Text):
        return WORDS[context]
    if isinstance(space, spaces.Discrete):
        return int(space.start) + context
    if isinstance(space, spaces.MultiDiscrete):
        return np.array([int(noise.integers(2)), context], space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return (np.arange(space.n) == context).astype(np.int8)
    low, high = (np.clip(bound, -1, 255) for bound in (space.low, space.high))
    value = low.copy()
    if space.dtype.kind != "f" and min(space.shape[:2]) < SIDE:
        value[context, context] = min(int(high.max()), 1 + 3 * context)
    elif len(space.shape) > 1 and max(space.shape) == SIDE:
        # A bright third of the newest frame, or of all channels.
        axis = space.shape.index(SIDE)
        part = [slice(None)] * value.ndim
        part[axis] = slice(12 * context, 12 * context + 12)
        if space.shape[0] == 4:
            part[0] = slice(3, 4)
        value[tuple(part)] = high[tuple(part)]
    else:
        value.flat[context % value.size] = 1
    return value.astype(space.dtype)


def fits(space, context, action):
    """Whether an action is one of the best in a context."""
    if isinstance(space, spaces.Discrete):
        return int(action) - int(space.start) == context
    if isinstance(space, spaces.MultiDiscrete):
        return bool((action == (context, context % 2)).all())
    if isinstance(space, spaces.MultiBinary):
        return bool((action == (context == 1, context == 2)).all())
    low, high = float(space.low[0]), float(space.high[0])
    third = (float(action[0]) - low) / (high - low) * CONTEXTS
    return context - 0.1 <= third <= context + 1.1


class Pair(gym.Env):
    """A contextual bandit of five steps an episode. The best policy is paid 1 at each step."""

    def __init__(self, observation, action, render_mode=None):
        self.observation_space, self.action_space = OBSERVATIONS[observation], ACTIONS[action]
        self.render_mode = render_mode

    def _observation(self):
        self.context = int(self.np_random.integers(CONTEXTS))
        return shown(self.observation_space, self.context, self.np_random)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        pays = float(fits(self.action_space, self.context, action))
        self.steps += 1
        return self._observation(), pays, False, self.steps == STEPS, {}


def slug(text):
    """A name as an id has it."""
    return text.replace(" ", "-").lower()


PAIRS = {
    f"SextetPair/{slug(observed)}-{slug(acted)}-v0": (observed, acted)
    for observed, acted in itertools.product(OBSERVATIONS, ACTIONS)
}
for id, (observed, acted) in PAIRS.items():
    gym.register(id, Pair, kwargs={"observation": observed, "action": acted})
gym.register("SextetNewest-v0", Newest)
gym.register("SextetNewest4-v0", newest_stacked)
