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
full speed, collisions, and what the plans weigh, progress less 35 a collision.

*atari*: 25,000 steps, 100,000 frames, of a bundled agent's play, then 10,000 own steps by the
preset `atari-small`, judged by 30 episodes of held-out seeds under the protocol `100k`.
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
from numpy.typing import NDArray

import road as roads
from agent import evaluate, load
from command_line import options_of, print_results
from driving import planned
from films import filmed, put_frames
from probing import Rows, column, table_of, trained
from worlds import road

KEEP = 4
"""The action straight, at the same speed."""

COLLISION = 35
"""What a collision weighs against a step at full speed, see `examples/road.yaml`."""

WATCHED = ", watched"
"""Ends the name of a row whose training begins with what was learned by watching."""

GAMES = {"Boxing": "boxing", "Breakout": "breakout", "RoadRunner": "road_runner"}
"""Games, and the bundled agent whose play is watched."""

LONGEST = 1000
"""Frames of a film; a longer episode goes on in the next film."""

GAMES_SEED, JUDGE_SEED = 7, 4_000_000


class Size(NamedTuple):
    """On the road: seeds, watched episodes, updates by watching, own steps and updates, planned
    episodes. Games and seeds of each; watched steps, updates by watching, own steps, judged
    episodes.
    """

    seeds: int = 3
    drives: int = 80
    drive_watching: int = 200
    drive_steps: tuple[int, ...] = (1000, 2000, 4000, 8000)
    drive_updates: int = 200
    plans: int = 8
    games: tuple[str, ...] = tuple(GAMES)
    game_seeds: int = 1
    play_steps: int = 25_000
    play_watching: int = 4000
    own_steps: int = 10_000
    judged: int = 30


QUICK = Size(1, 4, 2, (400,), 2, 1, ("Breakout",), 1, 200, 4, 400, 1)


# -- road --------------------------------------------------------------------------------------


def keeping(episode: int) -> tuple[list[Any], NDArray[Any]]:
    """The frames of a car that keeps lane and speed among leaves in a strong wind."""
    env = gymnasium.make(road.ID, **roads.WORLDS["strong"])
    frames = [env.reset(seed=episode)[0]]
    frames += [env.step(np.int64(KEEP))[0] for _ in range(road.STEPS - 1)]
    return frames, np.full(road.STEPS - 1, KEEP)


def road_watched(runs: Path, seed: int, size: Size) -> Path:
    """A training on the frames of a car that does not act."""
    place = runs / f"road-watched-{size.drives}-{size.drive_watching}-{seed}"
    trained(
        place, road.ID,
        "world_model={kind: latent-action-jepa, width: 256, blocks: 1, invariance_weight: 0, "
        "unroll_steps: 2, target_grad_scale: 1, prediction_weight: 25, "
        "objective: {kind: vicreg, std_coeff: 25, cov_coeff: 1}, "
        "latent: {kind: categorical, codes: 12, anneal_updates: 100}}", "learner.online_steps=3",
        f"world.settings={json.dumps(roads.WORLDS['strong'])}", "training.evaluate_episodes=1",
        "learner.warmup_steps=2", "learner.replay_ratio=1", config=roads.SETTINGS, seed=seed,
        steps=size.drive_watching,
        recordings=[filmed(runs / f"road-film-{size.drives}", size.drives, keeping, 0)],
    )  # fmt: skip
    return place


def drives(runs: Path, size: Size) -> Rows:
    """Plans after each number of own steps, with and without watching, a seed each."""
    rows: Rows = {}
    for seed in range(size.seeds):
        for steps in size.drive_steps:
            for after in ("", WATCHED):
                place = runs / f"road-{steps}-{size.drive_updates}{after.replace(', ', '-')}-{seed}"
                settings = roads.overrides_of(roads.WORLDS["strong"], steps, size.drive_updates)
                if after:
                    settings += (f"training.init_from={road_watched(runs, seed, size)}",)
                result = trained(place, road.ID, *settings, config=roads.SETTINGS, seed=seed)
                figures = planned(place, seed, size.plans)
                score = figures["progress"] - COLLISION * figures["collisions"]
                figures |= {"score": score, "CPU s": result["cpu_seconds"]}
                rows.setdefault(f"road, {steps} steps{after}", []).append(figures)
    return rows


# -- games -------------------------------------------------------------------------------------


def plays(agent: str, steps: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Frames [H Y 3] of `steps` steps of a bundled agent, film by film."""
    player, film = load(agent, seed=GAMES_SEED), list[NDArray[np.uint8]]()
    with closing(player.world):
        for moment in player.live(steps):
            seen = moment.observation
            assert seen.pixels is not None  # a game is seen
            if film and (bool(seen.first) or len(film) == LONGEST):
                yield film
                film = []
            film.append(seen.pixels[0].numpy().copy())
    yield film


def game_film(runs: Path, game: str, steps: int) -> Path:
    """The folder of films of a game, made where it is not there."""
    place = runs / f"{game}-film-{steps}"
    if not place.is_dir():
        partial = place.with_name(f"{place.name}.partial")
        for number, film in enumerate(plays(GAMES[game], steps)):
            put_frames(partial / f"{number:04}", film)
        partial.rename(place)
    return place


def game_watched(runs: Path, game: str, seed: int, size: Size) -> Path:
    """A training on films of a game."""
    place = runs / f"{game}-watched-{size.play_steps}-{size.play_watching}-{seed}"
    trained(
        place, f"ALE/{game}-v5", "world_model.kind=latent-action-jepa",
        "world_model.latent={kind: categorical, codes: 18, anneal_updates: 500}",
        "world_model.encoder_grad_scale=1", "world_model.batch_fraction=1",
        "training.evaluate_every=0", "training.evaluate_episodes=1", "learner.warmup_steps=2",
        "learner.replay_ratio=1", preset="atari-small", protocol="100k", seed=seed,
        steps=size.play_watching, recordings=[game_film(runs, game, size.play_steps)],
    )  # fmt: skip
    return place


def games(runs: Path, size: Size) -> Rows:
    """Scores after own steps in each game, with and without watching, a seed each."""
    rows: Rows = {}
    for game, seed, after in product(size.games, range(size.game_seeds), ("", WATCHED)):
        place = runs / f"{game}-{size.own_steps}{after.replace(', ', '-')}-{seed}"
        settings = ["training.evaluate_every=0"]
        if after:
            settings.append(f"training.init_from={game_watched(runs, game, seed, size)}")
        result = trained(
            place, f"ALE/{game}-v5", *settings, preset="atari-small", protocol="100k",
            steps=size.own_steps, seed=seed,
        )  # fmt: skip
        judged = evaluate(
            place, protocol="100k", episodes=size.judged, num_envs=min(10, size.judged),
            seed=JUDGE_SEED,
        )  # fmt: skip
        assert judged.mean_return is not None  # whole episodes were asked for
        figures = {"game score": judged.mean_return, "CPU s": result["cpu_seconds"]}
        rows.setdefault(f"{game}{after}", []).append(figures)
    return rows


# -- output ------------------------------------------------------------------------------------


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def mean(row: str, name: str) -> float:
        return float(column(rows, row, name).mean())

    bars, own = {}, [row for row in rows if not row.endswith(WATCHED)]
    drives = [row for row in own if "score" in rows[row][0]]
    if drives:
        most = mean(drives[-1], "score")
        half = drives[: max(1, len(drives) - 1)]
        bars[f"road: watched, the score of {drives[-1]} with at most half of them"] = any(
            mean(row + WATCHED, "score") >= most for row in half
        )
    played = [row for row in own if "game score" in rows[row][0]]
    if played:
        better = [
            mean(row + WATCHED, "game score") >= 1.5 * mean(row, "game score") for row in played
        ]
        bars["games: watched, 1.5 times the score in two of three"] = sum(better) >= 2
    return bars


PARTS = {"drive": drives, "atari": games}


def main() -> None:
    """Films and trains what is missing, and prints the tables."""
    options = options_of(
        __doc__,
        quick="small trainings, under a minute",
        runs="watch",
        parts=tuple(PARTS),
        counts=("seeds",),
    )
    size = QUICK if options.quick else Size()
    if options.seeds:
        size = size._replace(seeds=options.seeds, game_seeds=options.seeds)
    options.runs.mkdir(parents=True, exist_ok=True)
    names = (options.only,) if options.only else tuple(PARTS)
    tables = [PARTS[name](options.runs, size) for name in names]
    rows = {name: seeds for table in tables for name, seeds in table.items()}
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(table) for table in tables], bars_of(rows), figures)


if __name__ == "__main__":
    main()
