"""Steps a second: Atari worlds of this package against ale-py's `AtariVectorEnv`; our own."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np
import torch

from agent.bench.support.clock import duration, in_turn
from modules.ports import World

ROWS = 8
GAME, CARTRIDGE = "ALE/Breakout-v5", "breakout"


def run(steps: int = 40, turns: int = 60) -> dict[str, float]:
    """Steps a second of 8 rows of Breakout, 84×84 gray, random actions, protocol v5.

    `raw_steps_per_s`: ale-py's `AtariVectorEnv` itself. `training_world_steps_per_s`: the world
    around it. `single_rows_steps_per_s`: rows of single emulators, one thread. All play the same
    games with the same seeds and actions in one process, in turns of `steps` agent steps, so that
    other work on the machine disturbs all alike. Medians; `ratio` is the median over turns of
    training world to raw. `orchard_steps_per_s`, `road_steps_per_s`, `fork_steps_per_s`: one
    environment of this package by itself.
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
    rng, size = np.random.default_rng(0), training.spec.actions.size
    native = rng.integers(size, size=(turns, steps, ROWS))
    encoded = training.spec.actions.encode(torch.from_numpy(native))

    def play(world: World) -> Callable[[int], None]:
        def turn(i: int) -> None:
            for action in encoded[i].unbind(0):
                world.step(action)

        return turn

    def play_raw(i: int) -> None:
        for action in native[i]:
            raw.step(action)

    ways = {"raw": play_raw, "training_world": play(training), "single_rows": play(single)}
    try:
        spans = {name: span[:, 0] for name, span in in_turn(ways, turns).items()}
    finally:
        raw.close()
        training.close()
        single.close()
    return {
        "ratio": float(np.median(spans["raw"] / spans["training_world"])),
        **{f"{name}_steps_per_s": steps * ROWS / float(np.median(span))
           for name, span in spans.items()},
        **{f"{name}_steps_per_s": _alone(f"sextet/{name.title()}-v0")
           for name in ("orchard", "road", "fork")},
    }  # fmt: skip


def _alone(id: str, steps: int = 5000) -> float:
    """Steps a second of one environment of pixels, resets at the ends of episodes included."""
    env = gymnasium.make(id, disable_env_checker=True)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=steps)  # type: ignore[attr-defined]

    def play() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return steps / duration(play).wall
