"""Watching: a world model learns from frames alone, and a few actions say what its codes mean.

    python examples/watch.py --only rooms --json
    python examples/watch.py --only road --json
    python examples/watch.py --quick

Most of what is learned is learned by observing (LeCun 2022, §4.10). The recordings are folders of
pictures. Two ways lead from frames to a model of actions. By `training.infer_actions` a network
learns from the few known actions which one lies between two frames, and infers all others. And the
model `latent-action-jepa` infers between two frames a latent variable z, which takes the place of
the action; where an action is known, its prior learns which z the action is.

*rooms*: 24,000 frames of random steps in TwoRooms, and sixty tries of ten steps whose actions are
known, 2.5 % of the steps. Plans to the places of pictures, as in `examples/two_rooms.py`, in a
model that watched, either way; in one that knows every action; in one trained on the tries alone.

*road*: frames of a car among leaves in a strong wind, no action beside them. How much the codes say
of the car's action, of what the action did (at the edge of the road and at its greatest and least
speed a part of it does nothing) and of the leaves, as shares of their entropies; how many codes are
in use; how much of the next latents they say by themselves; what is read linearly from the latents.
Four trainings: codes alone, on an encoder with its initial weights; from these on codes and
encoder; codes and encoder from the beginning; and an encoder that redraws the frame.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

import road as roads
from agent import load
from command_line import options_of
from films import filmed
from modules.measures.branches import leakage
from modules.measures.codes import conditional_share, information_share, perplexity
from modules.ports import LatentVariableModel
from probing import Rows, column, print_parts, read_out, state_of, trained
from two_rooms import SETTINGS as ROOMS
from two_rooms import planned
from worlds import road
from worlds.point_rooms import STEPS, TWO_ID, TwoRooms

TRY_STEPS = 10
"""Steps of a try, a short episode whose actions are known. Many short ones see more of the rooms
than few long ones: three episodes of 200 steps did not teach which z an action is (docs/LOG.md).
"""

ROOM_MODELS = ("watching", "watching by z", "all actions", "tries alone")
Z_OF_ROOMS = "latent: {kind: gaussian, size: 2, noise: 0.2, components: 2, weight: 0.004}"
CODES = "latent: {kind: categorical, codes: 12, anneal_updates: 100}"
VICREG = "prediction_weight: 25, objective: {kind: vicreg, std_coeff: 25, cov_coeff: 1}"
BOTH = (f"unroll_steps: 2, target_grad_scale: 1, {VICREG}", 3)
ROAD_MODELS = {
    "codes alone": (f"unroll_steps: 1, encoder_grad_scale: 0, {VICREG}", 1),
    "codes first": BOTH,
    "both at once": BOTH,
    "reconstruction": ("unroll_steps: 1, objective: {kind: reconstruction}", 1),
}
"""Of each training on the road what its world model has of its own, and the steps of a window that
are encoded with gradient. "codes first" continues from "codes alone".
"""


class Size(NamedTuple):
    """Seeds; of the rooms episodes of frames, tries, updates, updates of the network that says
    which action was taken, episodes of plans; of the road episodes of frames, updates of codes
    alone and of the other trainings, held-out episodes.
    """

    seeds: int = 1
    walks: int = 120
    tries: int = 60
    updates: int = 1800
    inferring: int = 600
    plans: int = 100
    drives: int = 80
    alone_updates: int = 400
    road_updates: int = 300
    held: int = 16


QUICK = Size(
    walks=6, tries=6, updates=12, inferring=12, plans=2, drives=4, alone_updates=4, road_updates=4,
    held=4,
)  # fmt: skip


# -- frames -----------------------------------------------------------------------------------


def walk(episode: int, steps: int = STEPS) -> tuple[list[Any], NDArray[Any]]:
    """The frames of random steps in TwoRooms."""
    env, rng = TwoRooms(goal_form="none"), np.random.default_rng(episode)
    env.reset(seed=episode)
    frames, actions = [env.picture(env.place)], list[NDArray[Any]]()
    for _ in range(steps):
        actions.append(np.tanh(rng.normal(size=2)).astype(np.float32))
        env.step(actions[-1])
        frames.append(env.picture(env.place))
    return frames, np.stack(actions)


def drive(episode: int) -> tuple[list[Any], NDArray[Any]]:
    """The frames of random driving among leaves in a strong wind."""
    env, rng = gymnasium.make(road.ID, **roads.WORLDS["strong"]), np.random.default_rng(episode)
    frames, actions = [env.reset(seed=episode)[0]], list[int]()
    for _ in range(road.STEPS - 1):
        actions.append(int(rng.integers(9)))
        frames.append(env.step(np.int64(actions[-1]))[0])
    return frames, np.array(actions)


# -- rooms ------------------------------------------------------------------------------------


def attempt(episode: int) -> tuple[list[Any], NDArray[Any]]:
    """The frames of a try, from a start of its own."""
    return walk(1_000_000 + episode, TRY_STEPS)


def rooms_run(runs: Path, name: str, seed: int, size: Size) -> Path:
    """A training on recordings, one of ROOM_MODELS."""
    inferring = size.inferring if name == "watching" else 0
    sizes = f"{size.walks}-{size.tries}-{size.updates}-{inferring}"
    place, sources = runs / f"{name.replace(' ', '-')}-{sizes}-{seed}", []
    if name != "all actions":
        sources.append(filmed(runs / f"tries-{size.tries}", map(attempt, range(size.tries)), 1))
    if name != "tries alone":
        labels = int(name == "all actions")
        film = runs / f"{'all' if labels else 'film'}-{size.walks}"
        sources.append(filmed(film, map(walk, range(size.walks)), labels))
    settings = ["training.evaluate_episodes=1", "learner.warmup_steps=2", "learner.replay_ratio=1",
                "learner.train_modules=[]", f"learner.decay_updates={size.updates}"]  # fmt: skip
    if inferring:
        settings.append(f"training.infer_actions={inferring}")
    if name == "watching by z":
        settings += [
            "world_model={kind: latent-action-jepa, width: 192, blocks: 2, unroll_steps: 8, "
            "target_grad_scale: 1, signals_weight: 1, invariance_weight: 0, objective: {kind: sum, "
            "parts: [{kind: vicreg, std_coeff: 16, cov_coeff: 16}, {kind: smoothness, weight: 12}, "
            "{kind: inverse-dynamics, weight: 3}]}, known_action_weight: 40, " + Z_OF_ROOMS + "}"
        ]
    trained(
        place, TWO_ID, *settings, config=ROOMS, steps=size.updates, seed=seed, recordings=sources
    )
    return place


def rooms(runs: Path, size: Size) -> Rows:
    """Plans in each model, a seed each."""
    rows: Rows = {}
    for name in ROOM_MODELS:
        for seed in range(size.seeds):
            figures, _ = planned(rooms_run(runs, name, seed, size), seed, size.plans)
            rows.setdefault(name, []).append(figures)
    return rows


# -- road -------------------------------------------------------------------------------------


def watched_road(
    place: Path, film: Path, model: tuple[str, int], updates: int, seed: int, *begin: str
) -> Path:
    """A training on frames of the road, no action beside them; `model` as in ROAD_MODELS."""
    own, online_steps = model
    trained(
        place, road.ID,
        "world_model={kind: latent-action-jepa, width: 256, blocks: 1, invariance_weight: 0, "
        f"{own}, {CODES}}}", f"learner.online_steps={online_steps}",
        f"world.settings={json.dumps(roads.WORLDS['strong'])}", "training.evaluate_episodes=1",
        "learner.warmup_steps=2", "learner.replay_ratio=1", *begin, config=roads.SETTINGS,
        steps=updates, seed=seed, recordings=[film],
    )  # fmt: skip
    return place


def road_run(runs: Path, name: str, seed: int, size: Size) -> Path:
    """A training of ROAD_MODELS."""
    updates, begin = size.road_updates, list[str]()
    if name == "codes alone":
        updates = size.alone_updates
    elif name == "codes first":
        begin = [f"training.init_from={road_run(runs, 'codes alone', seed, size)}"]
    film = filmed(runs / f"road-film-{size.drives}", map(drive, range(size.drives)), 0)
    place = runs / f"road-{name.replace(' ', '-')}-{size.drives}-{updates}-{seed}"
    return watched_road(place, film, ROAD_MODELS[name], updates, seed, *begin)


def held_drives(episodes: int, seed: int = 2_000_000) -> roads.Held:
    """Episodes that no training has seen, with the truth of cars and leaves and, as `own`, the lane
    and the speed of the agent's car.
    """
    frames, actions, truths = [], [], []
    env = gymnasium.make(road.ID, **roads.WORLDS["strong"])
    bare, rng = env.unwrapped, np.random.default_rng(seed)
    assert isinstance(bare, road.Road)
    for episode in range(episodes):
        frame, _ = env.reset(seed=seed + episode)
        for _ in range(road.STEPS):
            frames.append(frame)
            own = np.array([bare.lane, bare.speed], np.float64)
            truths.append({**roads.truth_of(bare), "own": own})
            actions.append(int(rng.integers(9)))
            frame = env.step(np.int64(actions[-1]))[0]
    shape = (episodes, road.STEPS)
    stacked = {name: np.stack([one[name] for one in truths]) for name in truths[0]}
    return roads.Held(
        torch.from_numpy(np.stack(frames)).view(*shape, *frames[0].shape),
        torch.tensor(actions).view(shape),
        {name: torch.from_numpy(truth).view(*shape, -1) for name, truth in stacked.items()},
    )


def effects_of(held: roads.Held) -> NDArray[np.int64]:
    """What each action did, [E·(T-1)], a number for each of nine: the car went to the left, stayed
    or went to the right, and became slower, kept its speed or became faster.
    """
    changes = held.truth["own"].diff(dim=1).sign().long().flatten(0, 1)
    return np.asarray((3 * (changes[:, 0] + 1) + changes[:, 1] + 1).numpy())


def places_of(held: roads.Held) -> NDArray[np.int64]:
    """Lane and speed of the car before each action, [E·(T-1)], a number for each of nine."""
    lane, speed = held.truth["own"][:, :-1].flatten(0, 1).long().unbind(1)
    return np.asarray((len(road.SPEEDS) * lane + speed).numpy())


def ceilings(held: roads.Held) -> Rows:
    """The share of the action's entropy in what it did together with the lane and speed before it,
    more than which no code of two frames tells, and in what it did alone.
    """
    actions, effects = held.actions[:, :-1].flatten().numpy(), effects_of(held)
    places = places_of(held)
    return {
        "at most": [{"action": information_share(9 * places + effects, actions)}],
        "at most, what it did": [{"action": information_share(effects, actions)}],
    }


@torch.no_grad()
def codes_of(run: Path, held: roads.Held) -> dict[str, float]:
    """What the inferred codes say, and what is read from the latents, on held-out episodes."""
    latents = roads.latents_of(run, held)
    player = load(run)
    with closing(player.world):
        model = cast(LatentVariableModel, player.agent.modules.world_model)
        tokens = player.agent.modules.configurator.initial(1).tokens.flatten(1)
        spec = player.world.spec
    before, after = (
        state_of(part.flatten(0, 1), tokens, len(spec.signals))
        for part in (latents.encoded[:, :-1], latents.encoded[:, 1:])
    )
    unknown = torch.zeros(len(before.latent), spec.actions.size)
    z, _ = model.infer_latent(before, unknown, after)
    codes, actions = z.argmax(-1).numpy(), held.actions[:, :-1].flatten().numpy()
    # Of each leaf the quarter of its turn, as its sine and cosine say.
    turns = (held.truth["leaves"][:, 1:].flatten(0, 1) > 0).long()
    sines, cosines = turns.chunk(2, -1)
    quarters = (2 * sines + cosines).numpy()
    leaves = [information_share(codes, quarters[:, leaf]) for leaf in range(quarters.shape[1])]
    effects, places = effects_of(held), places_of(held)
    steering, pedal = np.divmod(effects, 3)
    own = held.truth["own"]
    return {
        "action": information_share(codes, actions),
        "what it did": information_share(codes, effects),
        "what it did, given lane and speed": conditional_share(codes, effects, places),
        "steering, given these": conditional_share(codes, steering, places),
        "pedal, given these": conditional_share(codes, pedal, places),
        "leaves": float(np.mean(leaves)),
        "leaves, most": float(np.max(leaves)),
        "codes in use": perplexity(codes, z.shape[1]),
        "leakage": leakage(z, after.latent),
        "R² lane": read_out(latents, own[..., :1]).now,
        "R² speed": read_out(latents, own[..., 1:]).now,
        "R² cars": read_out(latents, held.truth["cars"]).now,
        "R² leaves": read_out(latents, held.truth["leaves"]).now,
    }


def road_codes(runs: Path, size: Size) -> Rows:
    """What the codes of each training say, a seed each, and what codes can say at most."""
    held = held_drives(size.held)
    rows: Rows = {
        name: [codes_of(road_run(runs, name, seed, size), held) for seed in range(size.seeds)]
        for name in ROAD_MODELS
    }
    return rows | ceilings(held)


# -- output -----------------------------------------------------------------------------------


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""
    bars = {}
    if "watching" in rows:
        watched, full, few = (
            float(column(rows, name, "touched").mean())
            for name in ("watching", "all actions", "tries alone")
        )
        bars["rooms: at most 8 points behind all actions"] = watched >= full - 0.08
        bars["rooms: ahead of the tries alone"] = watched > few
    if "codes first" in rows:
        action, done, leaves = (
            float(column(rows, "codes first", name).mean())
            for name in ("action", "what it did, given lane and speed", "leaves")
        )
        bars["road: codes say at least .7 of the action"] = action >= 0.7
        bars["road: of what it did, lane and speed being known, as much"] = done >= 0.7
        bars["road: and at most .05 of the leaves"] = leaves <= 0.05
    return bars


PARTS = {"rooms": rooms, "road": road_codes}


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
    size = size._replace(seeds=options.seeds or size.seeds)
    print_parts(PARTS, options, size, bars_of)


if __name__ == "__main__":
    main()
