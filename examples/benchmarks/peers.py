"""Trains an agent of Stable-Baselines3 in an Atari game for minutes of CPU time, and judges it.

    python examples/benchmarks/peers.py ppo Breakout --minutes 60 --out runs/ppo-Breakout-0.json

Settings are those that RL Baselines3 Zoo publishes for Atari (hyperparams/ppo.yml and dqn.yml,
block `atari`): ten million steps are its schedule, of which an hour of one core does a part. The
agent is evaluated every tenth of `--minutes` on ten episodes, which count into its CPU time, and
stops at the first evaluation after `--minutes`. At each mark the best agent so far by these
evaluations is judged, after the training, by `--episodes` episodes of held-out seeds under the
protocols of Sextet.

`examples/benchmarks/hour.py` runs it; it needs the extra `[peers]`.
"""

from __future__ import annotations

import argparse
import copy
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.learning.evaluation import score
from agent.recording.atomic import write_json
from agent.recording.episode_stats import EpisodeQuota, EpisodeReturns
from worlds.make import make_world
from worlds.protocols import Sensor

SCHEDULE_STEPS = 10_000_000
ENVIRONMENTS = {"ppo": 8, "dqn": 1}
FRAMES, SIZE = 4, 84
ROWS = 10
OWN_EPISODES = 10
EPSILON = 0.01
"""Of DQN in evaluation, the last value of its schedule and that of Sextet's presets."""

OWN_SEED, HELD_SEED = 1_000_000, 3_000_000
"""Added to the seed of a training for its own evaluations, and for those that judge it."""


def cpu_minutes() -> float:
    """CPU time of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used) / 60


def algorithm(name: str, game: str, seed: int) -> Any:
    """PPO or DQN with the zoo's settings in the zoo's environment, without sticky actions."""
    import ale_py
    import gymnasium
    from stable_baselines3 import DQN, PPO
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    plain = {"frameskip": 1, "repeat_action_probability": 0.0}
    env = VecFrameStack(
        make_atari_env(f"ALE/{game}-v5", ENVIRONMENTS[name], seed=seed, env_kwargs=plain), FRAMES
    )
    if name == "ppo":
        return PPO(
            "CnnPolicy", env, seed=seed, n_steps=128, n_epochs=4, batch_size=256,
            learning_rate=lambda left: 2.5e-4 * left, clip_range=lambda left: 0.1 * left,
            vf_coef=0.5, ent_coef=0.01, device="cpu",
        )  # fmt: skip
    return DQN(
        "CnnPolicy", env, seed=seed, buffer_size=100_000, learning_rate=1e-4, batch_size=32,
        learning_starts=100_000, target_update_interval=1000, train_freq=4, gradient_steps=1,
        exploration_fraction=0.1, exploration_final_eps=0.01, optimize_memory_usage=False,
        device="cpu",
    )  # fmt: skip


def returns(model: Any, game: str, protocol: str, episodes: int, seed: int) -> list[float]:
    """Returns of the first `episodes` episodes to begin, in ten rows under a protocol of Sextet.

    Frames are those of `AtariWrapper`: 84 by 84, gray, the maximum of two, four stacked. Where the
    game has FIRE, it is pressed at the start of an episode and after a lost life, and then the
    second action, as `FireResetEnv` does in training.
    """
    sensor = Sensor(height=SIZE, width=SIZE, gray=True, max_pool=True)
    rows = min(ROWS, episodes)
    world = make_world(f"ALE/{game}-v5", rows, protocol, sensor)
    names, lost = world.spec.actions.names, world.spec.signals.index("life_lost")
    quota, totals = EpisodeQuota(episodes, rows), EpisodeReturns(rows)
    stack = np.zeros((rows, FRAMES, SIZE, SIZE), np.uint8)
    begin, rng = np.zeros(rows, int), np.random.default_rng(seed)
    is_dqn = type(model).__name__ == "DQN"
    observation = world.reset(seed)
    try:
        while not quota.whole:
            first = observation.first.numpy()
            assert observation.pixels is not None
            frames = observation.pixels[..., 0].numpy()
            stack = np.concatenate([stack[:, 1:], frames[:, None]], 1)
            stack[first] = 0
            stack[first, -1] = frames[first]
            begin = np.maximum(begin - 1, 0)
            if "FIRE" in names:
                begin[first | (observation.signals[:, lost].numpy() > 0)] = 2
            chosen, _ = model.predict(stack, deterministic=is_dqn)
            if is_dqn:
                random = rng.random(rows) < EPSILON
                chosen = np.where(random, rng.integers(len(names), size=rows), chosen)
            chosen = np.where(begin == 2, 1, np.where(begin == 1, 2, chosen))
            observation = world.step(world.spec.actions.encode(torch.from_numpy(chosen)))
            quota.add(totals.add(observation))
    finally:
        world.close()
    return [value for row in quota.returns for value in row]


@dataclass
class Snapshot:
    """An agent at its own evaluation: its weights, steps, CPU minutes and mean return."""

    minutes: float
    steps: int
    mean: float
    weights: dict[str, torch.Tensor]


def train(model: Any, name: str, game: str, seed: int, minutes: float) -> list[Snapshot]:
    """Trains until the first evaluation after `minutes` of CPU time."""
    from stable_baselines3.common.callbacks import BaseCallback

    snapshots: list[Snapshot] = []
    every = minutes / 10

    class Evaluations(BaseCallback):
        def _on_step(self) -> bool:
            if cpu_minutes() < every * (len(snapshots) + 1):
                return True
            values = returns(model, game, "100k", OWN_EPISODES, seed + OWN_SEED)
            weights = copy.deepcopy(model.policy.state_dict())
            mean = float(np.mean(values))
            snapshots.append(Snapshot(cpu_minutes(), model.num_timesteps, mean, weights))
            print(f"{name} {game} {seed}: {snapshots[-1].minutes:.1f} min "
                  f"{model.num_timesteps} steps {mean:.4g}", flush=True)  # fmt: skip
            return cpu_minutes() < minutes

    model.learn(SCHEDULE_STEPS, callback=Evaluations())
    return snapshots


def judged(
    snapshots: list[Snapshot], marks: list[float], judge: Callable[[Snapshot], dict[str, Any]]
) -> list[dict[str, Any]]:
    """For each mark what `judge` says of the agent that was best by its own evaluations so far."""
    points = []
    for mark in marks:
        # A snapshot is taken at the first step after a mark.
        so_far = [one for one in snapshots if one.minutes <= mark * 1.05] or snapshots[:1]
        best = max(so_far, key=lambda one: one.mean)
        points.append(
            {"minutes": mark, "steps": so_far[-1].steps, "cpu": so_far[-1].minutes, **judge(best)}
        )
    return points


def main() -> int:
    """Trains and judges one agent; writes its figures as JSON."""
    parser = argparse.ArgumentParser(prog="peers.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=sorted(ENVIRONMENTS))
    parser.add_argument("game")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--marks", default="10,20,40,60")
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    model = algorithm(chosen.name, chosen.game, chosen.seed)
    snapshots = train(model, chosen.name, chosen.game, chosen.seed, chosen.minutes)
    wall = (time.monotonic() - began) / 60

    def judge(snapshot: Snapshot) -> dict[str, Any]:
        model.policy.load_state_dict(snapshot.weights)
        figures = {}
        for protocol in ("100k", "v5"):
            seed = chosen.seed + HELD_SEED
            values = returns(model, chosen.game, protocol, chosen.episodes, seed)
            figures[protocol] = {**score(values)._asdict(), "returns": values}
        return figures

    marks = [float(mark) for mark in chosen.marks.split(",")]
    write_json(
        chosen.out,
        {
            "learner": chosen.name, "game": chosen.game, "seed": chosen.seed,
            "cpu_minutes": snapshots[-1].minutes, "wall_minutes": wall,
            "steps": snapshots[-1].steps, "points": judged(snapshots, marks, judge),
        },
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
