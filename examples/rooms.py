"""Rooms: an agent fetches what was carried out of its sight, because it remembers where it went.

    python examples/rooms.py --out docs/figures/rooms.png
    python examples/rooms.py --quick --json

It stands in a hall and sees a bottle, a cup and a key carried from room to room, then is asked for
one of them, which it cannot see (LeCun 2022, §4.9). Its world model writes each event to memory;
the critic reads there by queries of the goal, trained by the critic's own loss.
*Short way*: fetched in at most 1.1 times the steps of the shortest way. Below the whole agent the
same one with what memory returns set to 0, exchanged with that of another episode, or shuffled
among episodes in each step; then an agent trained with what memory returns at 0. *Place read*: the
share of held-out episodes in which a linear read-out of the latent and of what memory returns, at
the step of the question, names the room of the thing; one for each thing, chance is .25.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agent import load
from agent.learning.statistics import mean
from benchmarks.goal_floors import Choose, fetch, knowing_step, wandering_step
from command_line import options_of, print_results, save_picture
from modules.measures.probes import fit_linear, read_linear
from modules.messages import Moment
from probing import Rows, column, table_of, trained
from worlds.rooms import ROOMS, STATE_ID, STEPS, Cell, cell_of, path_length

JUDGE_SEED = 4_000_000
"""Added to the seed of a training for the episodes that it is judged on."""

FORGOTTEN = "clamp:recollection.readout=0"
ACTING = {
    "whole": (),
    "zeroed": (FORGOTTEN,),
    "exchanged": ("exchange:recollection.readout",),
    "shuffled": ("shuffle:recollection.readout",),
}
"""What is done to a trained agent, as `--intervene` writes it."""

DOORS = {(0, 2): 0, (2, 4): 1, (4, 2): 2, (2, 0): 3}
"""The cells of the hall before the doors, and the room behind each."""


class Size(NamedTuple):
    """Seeds, steps and updates of a training, episodes that it is judged on."""

    seeds: int = 3
    steps: int = 200_000
    updates: int = 12_000
    episodes: int = 100


QUICK = Size(seeds=1, steps=4800, updates=60, episodes=8)


def run_of(runs: Path, seed: int, size: Size, remembers: bool) -> Path:
    """The folder of a training: of an agent that `remembers`, or whose read-out is always 0."""
    place = runs / f"{'whole' if remembers else 'zero'}-{size.steps}-{size.updates}-{seed}"
    begin = min(8000, size.steps // 4)
    trained(
        place, STATE_ID, f"training.steps={size.steps}",
        f"learner.warmup_steps={begin}", f"learner.decay_updates={size.updates}",
        f"learner.replay_ratio={size.updates / (size.steps - begin)}",
        *(() if remembers else (f"interventions=['{FORGOTTEN}']",)),
        preset="recall", seed=seed,
    )  # fmt: skip
    return place


class Judged(NamedTuple):
    """E episodes, one a row: whether the thing was fetched and by a short way, bool [E]; the first
    action after the question, int [E]; at the question the thing and its room, int [E], latents
    [E D] and what memory returned [E U]; the cells of each way.
    """

    fetched: NDArray[np.bool_]
    short: NDArray[np.bool_]
    first_action: NDArray[np.int64]
    thing: NDArray[np.int64]
    room: NDArray[np.int64]
    latent: torch.Tensor
    readout: torch.Tensor
    ways: list[list[Cell]]


def judged(run: Path, seed: int, episodes: int, interventions: tuple[str, ...]) -> Judged:
    """Episodes side by side of a trained agent that no longer explores."""
    overrides = [f"world.num_envs={episodes}", "actor.policy.epsilon=0"]
    if interventions:
        overrides.append(f"interventions={list(interventions)}")
    player = load(run, *overrides, seed=JUDGE_SEED + seed)
    with closing(player.world):
        moments = list(player.live((STEPS + 1) * episodes))
    return read_episodes(moments)


def read_episodes(moments: list[Moment]) -> Judged:
    """The first episode of each row."""
    seen = np.stack([_numbers(moment.observation.vector) for moment in moments], 1)
    goals = np.stack([_numbers(moment.observation.goal) for moment in moments], 1)
    rewards = np.stack([moment.observation.signals[:, 0].numpy() for moment in moments], 1)
    questions = goals.any(-1).argmax(1)
    columns: dict[str, list[Any]] = {name: [] for name in Judged._fields}
    for row, begin in enumerate(questions.tolist()):
        end = begin + int((rewards[row, begin:] > 0).argmax()) if rewards[row].any() else STEPS
        way = [cell_of(numbers) for numbers in seen[row, begin : end + 1]]
        fetched = end < STEPS
        columns["fetched"].append(fetched)
        columns["short"].append(fetched and end - begin <= 1.1 * path_length(way[0], way[-1]))
        columns["first_action"].append(int(moments[begin].plan.action[row].argmax()))
        thing = int(goals[row, begin].argmax())
        columns["thing"].append(thing)
        columns["room"].append(_room(seen[row, : begin + 1], thing))
        state = moments[begin].state
        columns["latent"].append(state.latent[row])
        columns["readout"].append(moments[begin].recollection.readout[row])
        columns["ways"].append(way)
    numbers = ("fetched", "short", "first_action", "thing", "room")
    return Judged(
        *(np.array(columns[name]) for name in numbers),
        torch.stack(columns["latent"]), torch.stack(columns["readout"]), columns["ways"],
    )  # fmt: skip


def _numbers(values: torch.Tensor | None) -> NDArray[np.float32]:
    assert values is not None  # this world shows numbers and sets goals
    return values.numpy()


def _room(seen: NDArray[np.float32], thing: int) -> int:
    """The room that a thing was carried to, by where it was last seen in the hall, `seen` [T N]."""
    of_thing = seen[:, 7 + 3 * thing : 10 + 3 * thing]
    last = of_thing[of_thing[:, 0] > 0][-1]
    return DOORS[round(float(last[1]) * 4), round(float(last[2]) * 4)]


def place_read(episodes: Judged, with_readout: bool) -> float:
    """The share of the second half of the episodes in which the room of the thing is read rightly.

    The read-out is linear, one for each thing, fitted to the first half: a single one could not
    choose among what memory returns of several things.
    """
    features = episodes.latent
    if with_readout:
        features = torch.cat([features, episodes.readout], 1)
    rooms, right, count = torch.from_numpy(episodes.room), 0, 0
    hot = torch.nn.functional.one_hot(rooms, len(ROOMS) - 1).float()
    for thing in np.unique(episodes.thing):
        own = torch.from_numpy(np.flatnonzero(episodes.thing == thing))
        fitted, held = own[: len(own) // 2], own[len(own) // 2 :]
        read = read_linear(fit_linear(features[fitted], hot[fitted]), features[held])
        right += int((read.argmax(1) == rooms[held]).sum())
        count += len(held)
    return right / count


def rows_of(runs: Path, size: Size) -> tuple[Rows, list[list[Cell]]]:
    """Floors, and the agents of each seed; the ways to what the first seed's whole one fetched."""
    floors: dict[str, Choose] = {"random": wandering_step, "knows the world": knowing_step}
    rows: Rows = {name: [_floor(choose, 2 * size.episodes)] for name, choose in floors.items()}
    ways = list[list[Cell]]()
    for seed in range(size.seeds):
        run = run_of(runs, seed, size, remembers=True)
        whole = judged(run, seed, size.episodes, ())
        ways = ways or [w for w, done in zip(whole.ways, whole.fetched, strict=True) if done]
        for name, interventions in ACTING.items():
            arm = whole if name == "whole" else judged(run, seed, size.episodes, interventions)
            rows.setdefault(name, []).append(_figures(arm, whole))
        probed = judged(run, seed + 1, 10 * size.episodes, ())
        rows["whole"][-1] |= {
            "place read": place_read(probed, with_readout=True),
            "training, CPU min": _cpu_minutes(run),
        }
        untaught = run_of(runs, seed, size, remembers=False)
        arm = judged(untaught, seed, size.episodes, (FORGOTTEN,))
        rows.setdefault("trained at 0", []).append(
            _figures(arm, whole)
            | {
                "place read": place_read(probed, with_readout=False),
                "training, CPU min": _cpu_minutes(untaught),
            }
        )
    return rows, ways


def _floor(choose: Choose, episodes: int) -> dict[str, float]:
    figures = fetch(choose, episodes)
    return {
        "short way": figures["fetched_by_short_way"]["share"],
        "fetched": figures["fetched"]["share"],
    }


def _figures(arm: Judged, whole: Judged) -> dict[str, float]:
    """The figures of an arm; its episodes are those of the whole agent, pair by pair."""
    lost = mean(whole.fetched.astype(float) - arm.fetched)
    return {
        "short way": float(arm.short.mean()),
        "fetched": float(arm.fetched.mean()),
        "first action differs": float((arm.first_action != whole.first_action).mean()),
        "return lost": lost.mean,
        "return lost, at least": lost.low,
    }


def _cpu_minutes(run: Path) -> float:
    return float(json.loads((run / "result.json").read_text())["cpu_seconds"]) / 60


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def of(row: str, name: str) -> float:
        return float(column(rows, row, name).mean())

    return {
        "with memory at least 90 % fetched by a short way": of("whole", "short way") >= 0.9,
        "trained at 0 at most 60 %": of("trained at 0", "short way") <= 0.6,
        "the room of the thing read in at least 90 %": of("whole", "place read") >= 0.9,
        "without memory at chance, at most 35 %": of("trained at 0", "place read") <= 0.35,
        "zeroed: other first actions in at least 20 %": of("zeroed", "first action differs") >= 0.2,
        "zeroed: less return, interval clear of 0": of("zeroed", "return lost, at least") > 0,
    }


def draw(ways: list[list[Cell]], place: Path, episodes: int = 4) -> None:
    """A PNG: ways of some episodes, a colour each, from the square to the thing fetched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    inside = np.array([[5 <= r < 10 or 5 <= c < 10 for c in range(15)] for r in range(15)])
    axes.imshow(inside, cmap="Greys", vmin=0, vmax=4)
    for line in (4.5, 9.5):
        for begin, end in ((4.5, 6.5), (7.5, 9.5)):
            axes.plot([line, line], [begin, end], color="black")
            axes.plot([begin, end], [line, line], color="black")
    for number, way in enumerate(ways[:episodes]):
        rows, columns = np.array(way).T + 0.12 * (number - episodes / 2)
        (drawn,) = axes.plot(columns, rows, lw=2)
        axes.plot(columns[0], rows[0], "s", ms=7, color=drawn.get_color())
        axes.plot(columns[-1], rows[-1], "*", ms=14, color=drawn.get_color())
    axes.set_title("Ways to things out of sight: from the square to the star", fontsize=9)
    axes.set_axis_off()
    save_picture(figure, place, dpi=110)


def main() -> None:
    """Trains what is missing, judges, prints the table and draws the picture."""
    options = options_of(
        __doc__, quick="small trainings, under a minute", picture="rooms", runs="rooms"
    )
    size = QUICK if options.quick else Size()
    rows, ways = rows_of(options.runs, size)
    draw(ways, options.out)
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(rows)], bars_of(rows), figures)


if __name__ == "__main__":
    main()
