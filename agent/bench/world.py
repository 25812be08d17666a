"""Steps a second: Atari worlds of this package against ale-py's `AtariVectorEnv`; Orchard."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

ROWS = 8
GAME, CARTRIDGE = "ALE/Breakout-v5", "breakout"


def run(steps: int = 40, turns: int = 60) -> dict[str, float]:
    """Steps a second of 8 rows of Breakout, 84×84 gray, random actions, protocol v5.

    `raw_steps_per_s`: ale-py's `AtariVectorEnv` itself. `training_world_steps_per_s`: the world
    around it. `single_rows_steps_per_s`: rows of single emulators, one thread. All play the same
    games with the same seeds and actions in one process, in turns of `steps` agent steps, so that
    other work on the machine disturbs all alike. Medians; `ratio` is the median over turns of
    training world to raw. `orchard_steps_per_s`: one Orchard by itself.
    """
    from ale_py.vector_env import AtariVectorEnv

    from worlds.atari_rng import chapter_seed
    from worlds.make import make_world
    from worlds.protocols import PROTOCOLS, Sensor

    rules = PROTOCOLS["v5"]
    raw = AtariVectorEnv(
        CARTRIDGE,
        ROWS,
        repeat_action_probability=rules.sticky,
        frameskip=rules.frame_skip,
        noop_max=rules.noop_max,
        max_num_frames_per_episode=rules.frames_limit,
        stack_num=1,
        reward_clipping=False,
        use_fire_reset=False,
    )
    training = make_world(GAME, ROWS, sensor=Sensor(), vector=True)
    single = make_world(GAME, ROWS, sensor=Sensor())
    raw.reset(seed=np.array([chapter_seed(1, row, 0) for row in range(ROWS)]))
    training.reset(1)
    single.reset(1)
    rng = np.random.default_rng(0)
    rates: dict[str, list[float]] = {"raw": [], "training": [], "single": []}
    try:
        for turn in range(turns):
            native = rng.integers(training.spec.actions.size, size=(steps, ROWS))
            encoded = training.spec.actions.encode(torch.from_numpy(native)).unbind(0)
            order = ("raw", "training", "single")
            for name in order if turn % 2 == 0 else order[::-1]:
                start = time.perf_counter()
                if name == "raw":
                    for action in native:
                        raw.step(action)
                else:
                    world = training if name == "training" else single
                    for taken in encoded:
                        world.step(taken)
                rates[name].append(steps * ROWS / (time.perf_counter() - start))
    finally:
        raw.close()
        training.close()
        single.close()
    ratios = [wrapped / raw for wrapped, raw in zip(rates["training"], rates["raw"], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "raw_steps_per_s": statistics.median(rates["raw"]),
        "training_world_steps_per_s": statistics.median(rates["training"]),
        "single_rows_steps_per_s": statistics.median(rates["single"]),
        "orchard_steps_per_s": _orchard(),
    }


def _orchard(steps: int = 5000) -> float:
    from worlds.orchard import Orchard

    env = Orchard()
    env.reset(seed=0)
    start = time.perf_counter()
    for step in range(steps):
        env.step(np.int64(step % 5))
    return steps / (time.perf_counter() - start)
