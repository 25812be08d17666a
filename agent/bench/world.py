"""What a step of the world costs: our Atari worlds against ale-py's vector environment."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

ROWS = 8
GAME, CARTRIDGE = "ALE/Breakout-v5", "breakout"


def run(steps: int = 40, turns: int = 60) -> dict[str, float]:
    """Steps a second of 8 rows of Breakout, 84×84 gray, random actions, protocol v5.

    `raw_steps_per_s`: ale-py's `AtariVectorEnv` itself. `training_world_steps_per_s`: ours around
    it. `single_rows_steps_per_s`: rows of single emulators, one thread. All play the same games,
    same seeds, same actions, in one process, `steps` agent steps of every row at a time, taking
    turns: other work on the machine disturbs all alike. Medians; `ratio` is the median over the
    turns of ours to raw.
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
    ratios = [ours / theirs for ours, theirs in zip(rates["training"], rates["raw"], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "raw_steps_per_s": statistics.median(rates["raw"]),
        "training_world_steps_per_s": statistics.median(rates["training"]),
        "single_rows_steps_per_s": statistics.median(rates["single"]),
    }
