"""Imitation: a policy that was shown 20 episodes of an expert does nearly as well as the expert.

    python examples/imitate.py --json
    python examples/imitate.py --quick

Behaviour by imitation (LeCun 2022, §3.2): the recordings are those of `sextet play`, the training
is that of `sextet train WORLD --expert RECORDING`, behaviour cloning in the policy's own kind.
Experts that react (a bundled agent, a controller written by hand) and that plan (the bundled
agent's own model, searched at each step) teach alike: what counts is what they did. The figure is
(score - random) / (expert - random), each a mean return: of 20 held-out episodes a seed, of an
untrained policy, of the expert's 20 recorded episodes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from agent import evaluate, play
from command_line import options_of, print_results
from probing import Rows, column, table_of, trained

EPISODE_STEPS = {"CartPole-v1": 501, "Pendulum-v1": 201, "ALE/Boxing-v5": 2700}
"""Steps of the longest episode, its first observation included."""


class Task(NamedTuple):
    """A row of the table: a world, an expert in it with its settings, what its pupil needs, and how
    many times as long it learns: torques that jump from one bound to the other take longer.
    """

    world: str
    expert: str
    settings: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    pupil: tuple[str, ...] = ()
    bar: float = 0.9
    longer: int = 1


TASKS = {
    "CartPole, reacted": Task("CartPole-v1", "cartpole"),
    "CartPole, planned": Task(
        "CartPole-v1", "cartpole", ("directive.commit_steps=2",), {"preset": "rollouts"}
    ),
    "Pendulum, reacted": Task(
        "Pendulum-v1", "Pendulum-v1", ("actor.policy.kind=swing-up",),
        {"preset": "reactive", "plugins": ("swing_up",)}, longer=4,
    ),
    "Boxing, reacted": Task(
        "ALE/Boxing-v5", "boxing", pupil=(
            "perception={kind: pixels-nature, latent_size: 256, frame_size: 64, "
            "subtract_mean_frame: true}", "learner.learning_rate=0.0003", "learner.batch=64",
            "learner.precision=bfloat16", "actor.policy.temperature=0.5",
        ), bar=0.7,
    ),
}  # fmt: skip
USUAL = ("CartPole, reacted", "CartPole, planned", "Pendulum, reacted")
"""The tasks that take minutes; Boxing takes longer and is asked for with --only."""


class Size(NamedTuple):
    """Seeds and updates of a training, episodes of the expert and of an evaluation."""

    seeds: int = 3
    updates: int = 1500
    episodes: int = 20


QUICK = Size(seeds=1, updates=300, episodes=5)


def demonstrated(runs: Path, name: str, task: Task, size: Size) -> tuple[Path, float]:
    """The recording of an expert, made where it is not there, and its mean return."""
    place = runs / f"expert-{name.replace(', ', '-')}-{size.episodes}"
    figures = place / "expert.json"
    if not figures.is_file():
        played = play(
            task.expert, *task.settings, episodes=size.episodes, num_envs=size.episodes, run=place,
            steps=size.episodes * EPISODE_STEPS[task.world], seed=7, **task.options,
        )  # fmt: skip
        mean = sum(played.returns) / len(played.returns)
        figures.write_text(json.dumps({"return": mean, "episodes": len(played.returns)}))
    return place, float(json.loads(figures.read_text())["return"])


def cloned(runs: Path, name: str, task: Task, recording: Path, seed: int, size: Size) -> float:
    """The mean return of a policy trained on the recording, over held-out episodes."""
    updates = task.longer * size.updates
    place = runs / f"{name.replace(', ', '-')}-{size.episodes}-{updates}-{seed}"
    result = trained(
        place, task.world, *task.pupil, f"training.evaluate_episodes={size.episodes}",
        "training.evaluate_every=0", "training.checkpoint_every=0", steps=updates, seed=seed,
        experts=[recording],
    )  # fmt: skip
    return float(result["evaluation"])


def rows_of(runs: Path, tasks: dict[str, Task], size: Size) -> Rows:
    """The figures of each task, a seed each."""
    rows: Rows = {}
    for name, task in tasks.items():
        recording, expert = demonstrated(runs, name, task, size)
        untrained = evaluate(
            task.world, *task.pupil[:1], preset="reactive", episodes=size.episodes,
            num_envs=size.episodes, seed=3,
        ).mean_return  # fmt: skip
        assert untrained is not None  # whole episodes were asked for
        for seed in range(size.seeds):
            score = cloned(runs, name, task, recording, seed, size)
            rows.setdefault(name, []).append(
                {
                    "expert": expert,
                    "random": untrained,
                    "clone": score,
                    "share": (score - untrained) / (expert - untrained),
                }
            )
    return rows


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""
    return {
        f"{name}: at least {TASKS[name].bar} of the expert's score": bool(
            column(rows, name, "share").mean() >= TASKS[name].bar
        )
        for name in rows
    }


def main() -> None:
    """Records and trains what is missing, and prints the table."""
    options = options_of(
        __doc__,
        quick="small trainings, under a minute",
        runs="imitate",
        parts=tuple(TASKS),
        counts=("seeds",),
    )
    size = QUICK if options.quick else Size()
    size = size._replace(seeds=options.seeds or size.seeds)
    names = (options.only,) if options.only else USUAL
    rows = rows_of(options.runs, {name: TASKS[name] for name in names}, size)
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(rows)], bars_of(rows), figures)


if __name__ == "__main__":
    main()
