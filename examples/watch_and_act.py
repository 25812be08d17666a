"""First watching, then acting: what the frames of other drivers and players save in own steps.

    python examples/watch_and_act.py --only drive --json
    python examples/watch_and_act.py --only atari --json
    python examples/watch_and_act.py --quick

A baby first learns how the world works by observing, then to act in it after little practice
(LeCun 2022, §4.10). The recordings are folders of pictures without actions, rewards and ends. The
model `latent-action-jepa` learns from them, and perception with it. Then the usual training begins
with the perception (`training.init_from`), beside the same training without.

*drive*: 16,000 frames of a car that keeps its lane and its speed among leaves in a strong wind,
then 1,000 to 8,000 own random steps by `examples/road.yaml`, 200 updates for each number of them.
Then every step is planned in what was learned, as in `examples/driving.py`: progress in steps at
full speed, collisions, and what the plans weigh, progress less 35 a collision; and how well the
place of the other cars is read linearly from the latents of held-out episodes.

*atari*: 25,000 steps, 100,000 frames, of a bundled agent's play, and 10,000 own steps, judged by 30
episodes of held-out seeds under the protocol `100k`. Three ways to spend the own steps: the preset
`atari-small`; the same, beginning with a perception that watched; and random actions, from which a
network learns which action lies between two frames, so that a policy clones the watched play.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import one_hot

import road as roads
from agent import evaluate, load
from command_line import options_of
from driving import planned
from films import Film, filmed
from imitate import TASKS
from probing import Rows, column, latents_of, print_parts, read_out, trained
from watch import BOTH, watched_road
from worlds import road
from worlds.make import make_world
from worlds.protocols import Sensor

KEEP = 4
"""The action straight, at the same speed."""

COLLISION = 35
"""What a collision weighs against a step at full speed, see `examples/road.yaml`."""

WATCHED = ", watched"
"""Ends the name of a row whose training begins with what was learned by watching."""

CLONED = ", cloned"
"""Ends the name of a row whose policy clones the play that was watched."""

REPEAT = 0.5
"""Probability with which a random player draws no new action and does the last one again."""

CLONE_STEPS = 2000
"""Steps of a clone's longest episode."""

GAMES = {"Boxing": "boxing", "Breakout": "breakout", "RoadRunner": "road_runner"}
"""Games, and the bundled agent whose play is watched."""

LONGEST = 1000
"""Frames of a film; a longer episode goes on in the next film."""

GAMES_SEED, JUDGE_SEED = 7, 4_000_000


class Size(NamedTuple):
    """On the road: seeds, watched episodes, updates by watching, own steps and updates, planned
    episodes, held-out ones. Games and seeds of each; watched steps, updates by watching, own steps,
    judged episodes; updates of the network that says which action was taken, and of the clone.
    """

    seeds: int = 3
    drives: int = 80
    drive_watching: int = 200
    drive_steps: tuple[int, ...] = (1000, 2000, 4000, 8000)
    drive_updates: int = 200
    plans: int = 8
    held: int = 16
    games: tuple[str, ...] = tuple(GAMES)
    game_seeds: int = 1
    play_steps: int = 25_000
    play_watching: int = 4000
    own_steps: int = 10_000
    judged: int = 30
    inferring: int = 4000
    cloning: int = 1500


QUICK = Size(1, 4, 2, (400,), 2, 1, 4, ("Breakout",), 1, 200, 4, 400, 1, 4, 4)


# -- road --------------------------------------------------------------------------------------


def keeping(episode: int) -> tuple[list[Any], NDArray[Any]]:
    """The frames of a car that keeps lane and speed among leaves in a strong wind."""
    env = gymnasium.make(road.ID, **roads.WORLDS["strong"])
    frames = [env.reset(seed=episode)[0]]
    frames += [env.step(np.int64(KEEP))[0] for _ in range(road.STEPS - 1)]
    return frames, np.full(road.STEPS - 1, KEEP)


def road_watched(runs: Path, seed: int, size: Size) -> Path:
    """A training on the frames of a car that does not act."""
    film = filmed(runs / f"keeping-film-{size.drives}", map(keeping, range(size.drives)), 0)
    place = runs / f"road-watched-{size.drives}-{size.drive_watching}-{seed}"
    return watched_road(place, film, BOTH, size.drive_watching, seed)


def drives(runs: Path, size: Size) -> Rows:
    """Plans after each number of own steps, with and without watching, a seed each."""
    rows: Rows = {}
    held = roads.held_out(roads.WORLDS["strong"], size.held)
    for seed, steps, after in product(range(size.seeds), size.drive_steps, ("", WATCHED)):
        place = runs / f"road-{steps}-{size.drive_updates}{after.replace(', ', '-')}-{seed}"
        settings = roads.overrides_of(roads.WORLDS["strong"], steps, size.drive_updates)
        if after:
            settings += (f"training.init_from={road_watched(runs, seed, size)}",)
        result = trained(place, road.ID, *settings, config=roads.SETTINGS, seed=seed)
        figures = planned(place, seed, size.plans)
        figures |= {
            "score": figures["progress"] - COLLISION * figures["collisions"],
            "cars, R²": read_out(latents_of(place, held), held.truth["cars"]).now,
            "own steps, thousands": steps / 1000,
            "CPU s": result["cpu_seconds"],
        }
        rows.setdefault(f"road, {steps} steps{after}", []).append(figures)
    return rows


# -- games -------------------------------------------------------------------------------------


def plays(agent: str, steps: int) -> Iterator[Film]:
    """`steps` steps of an agent, film by film; a film ends with its episode."""
    player, film = load(agent, seed=GAMES_SEED), list[NDArray[np.uint8]]()
    with closing(player.world):
        for moment in player.live(steps):
            seen = moment.observation
            assert seen.pixels is not None  # a game is seen
            if film and (bool(seen.first) or len(film) == LONGEST):
                yield film, None
                film = []
            film.append(seen.pixels[0].numpy().copy())
    yield film, None


def play_filmed(runs: Path, game: str, size: Size) -> Path:
    """The folder of films of a bundled agent's play, without its actions."""
    return filmed(runs / f"{game}-film-{size.play_steps}", plays(GAMES[game], size.play_steps), 0)


def tries(game: str, steps: int, seed: int) -> Iterator[Film]:
    """`steps` steps of random actions, film by film, with these actions."""
    frames, actions = list[NDArray[np.uint8]](), list[int]()
    rng, last = np.random.default_rng(seed), 0
    sensor = Sensor(height=64, width=64)
    with closing(make_world(f"ALE/{game}-v5", protocol="100k", sensor=sensor)) as world:
        count, observation = world.spec.actions.size, world.reset(seed)
        for step in range(steps + 1):
            assert observation.pixels is not None  # a game is seen
            if step and bool(observation.first):
                yield frames, np.array(actions[:-1], int)
                frames, actions = [], []
            frames.append(observation.pixels[0].numpy().copy())
            last = last if rng.random() < REPEAT else int(rng.integers(count))
            actions.append(last)
            observation = world.step(one_hot(torch.tensor([last]), count).float())
    yield frames, np.array(actions[:-1], int)


def game_cloned(runs: Path, game: str, seed: int, size: Size) -> Path:
    """A policy that clones watched play by actions inferred from own steps. One that never serves
    the ball would play for ever.
    """
    film = play_filmed(runs, game, size)
    own = filmed(
        runs / f"{game}-tries-{size.own_steps}-{seed}", tries(game, size.own_steps, seed), 1
    )
    place = runs / f"{game}-cloned-{size.inferring}-{size.cloning}-{seed}"
    trained(
        place, f"ALE/{game}-v5", *TASKS["Boxing, reacted"].pupil, "training.evaluate_every=0",
        "training.evaluate_episodes=1", "training.checkpoint_every=0",
        f"training.infer_actions={size.inferring}", f"world.episode_steps={CLONE_STEPS}",
        protocol="100k", seed=seed, steps=size.cloning, recordings=[own], experts=[film],
    )  # fmt: skip
    return place


def game_watched(runs: Path, game: str, seed: int, size: Size) -> Path:
    """A training on films of a game."""
    film = play_filmed(runs, game, size)
    place = runs / f"{game}-watched-{size.play_steps}-{size.play_watching}-{seed}"
    trained(
        place, f"ALE/{game}-v5", "world_model.kind=latent-action-jepa",
        "world_model.latent={kind: categorical, codes: 18, anneal_updates: 500}",
        "world_model.encoder_grad_scale=1", "world_model.batch_fraction=1",
        "training.evaluate_every=0", "training.evaluate_episodes=1", "learner.warmup_steps=2",
        "learner.replay_ratio=1", preset="atari-small", protocol="100k", seed=seed,
        steps=size.play_watching, recordings=[film],
    )  # fmt: skip
    return place


def game_played(runs: Path, game: str, seed: int, size: Size, watched: bool) -> Path:
    """A training on own steps, which begins with a perception that watched, or without."""
    place = runs / f"{game}-{size.own_steps}{'-watched' * watched}-{seed}"
    settings = ["training.evaluate_every=0", "training.evaluate_episodes=1"]
    if watched:
        settings.append(f"training.init_from={game_watched(runs, game, seed, size)}")
    trained(
        place, f"ALE/{game}-v5", *settings, preset="atari-small", protocol="100k",
        steps=size.own_steps, seed=seed,
    )  # fmt: skip
    return place


def games(runs: Path, size: Size) -> Rows:
    """Scores of the three ways to spend own steps in each game, a seed each."""
    rows: Rows = {}
    for game, seed, after in product(size.games, range(size.game_seeds), ("", WATCHED, CLONED)):
        if after == CLONED:
            place = game_cloned(runs, game, seed, size)
        else:
            place = game_played(runs, game, seed, size, bool(after))
        judged = evaluate(
            place, protocol="100k", episodes=size.judged, num_envs=min(10, size.judged),
            seed=JUDGE_SEED,
        )  # fmt: skip
        assert judged.mean_return is not None  # whole episodes were asked for
        result = json.loads((place / "result.json").read_text())
        figures = {"game score": judged.mean_return, "CPU s": result["cpu_seconds"]}
        rows.setdefault(f"{game}{after}", []).append(figures)
    return rows


# -- output ------------------------------------------------------------------------------------


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def mean(row: str, name: str) -> float:
        return float(column(rows, row, name).mean())

    bars, own = {}, [row for row in rows if not row.endswith((WATCHED, CLONED))]
    drives = [row for row in own if "score" in rows[row][0]]
    if drives:
        last = drives[-1]
        bars[f"road: watched, the score of {last} with at most half of them"] = any(
            mean(row + WATCHED, "score") >= mean(last, "score")
            for row in drives
            if 2 * mean(row, "own steps, thousands") <= mean(last, "own steps, thousands")
        )
    played = [row for row in own if "game score" in rows[row][0]]
    if played:
        # Scores may be negative, as in Boxing: 1.5 times such a one is less than it.
        for after in (WATCHED, CLONED):
            better = [
                mean(row + after, "game score") >= max(1.5 * alone, alone)
                for row, alone in ((row, mean(row, "game score")) for row in played)
            ]
            bars[f"games{after}: 1.5 times the score in two of three"] = sum(better) >= 2
    return bars


PARTS = {"drive": drives, "atari": games}


def main() -> None:
    """Films and trains what is missing, and prints the tables."""
    options = options_of(
        __doc__,
        quick="small trainings, about a minute",
        runs="watch",
        parts=tuple(PARTS),
        counts=("seeds",),
    )
    size = QUICK if options.quick else Size()
    if options.seeds:
        size = size._replace(seeds=options.seeds, game_seeds=options.seeds)
    print_parts(PARTS, options, size, bars_of)


if __name__ == "__main__":
    main()
