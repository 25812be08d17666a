"""A step that branches at random with known rates, and the training of a world model on it.

Where a state stands at a fork, the next one is one of three branches at distance 1 from each other;
at the others the next state is certain. Two spaces have such steps:

- `SYNTHETIC`: half of the states stand at a fork, whose branches happen at rates .5, .3 and .2. Six
  numbers say where the state is (3), on which branch (2) and whether it stands at a fork (1).
- `world_space`: steps of random actions in `sextet/Fork-v0`, as vectors or as frames, a fifth of
  which take a fork, at rates .4, .3 and .3; the branch is there to be seen until the episode ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from modules import chance
from modules.messages import SIGNALS, ActionSpec, Experience, State, WorldSpec
from modules.objectives.none import Unregularised
from modules.objectives.objective import Objective
from modules.ports import Batch, encoded_states
from modules.world_model.jepa import JEPA
from modules.world_model.latent_jepa import LatentJEPA
from modules.world_model.latents.latent import LatentVariable
from worlds.fork import BEFORE, ID, STATE_ID, VERTICES
from worlds.fork import RATES as WORLD_RATES

PLACES, SIZE = 3, 6
"""Numbers of a synthetic state that say where it is, and of a state: then the branch, 2, and the
fork, 1. A state of the world has as many: progress, the route, 3, and the branch, 2.
"""

BRANCHES = torch.tensor(VERTICES - VERTICES.mean(0)).float()
RATES = torch.tensor([0.5, 0.3, 0.2])
WORLD = WorldSpec(
    id="fork", pixels=None, vector=SIZE, signals=SIGNALS, actions=ActionSpec(discrete=True, size=3)
)
BATCH = 192


class Steps(NamedTuple):
    """M steps: observed states, actions [M 3], the states after them, and what could have happened.

    `ends`: the next state on each branch, without noise, [M 3 ...]. `branch` [M]: the one that was
    taken; off a fork it has no effect. `place` [M 3]: where the state is. A state is a vector [6],
    or the number of a frame in `Space.frames`.
    """

    state: Tensor
    action: Tensor
    after: Tensor
    ends: Tensor
    branch: Tensor
    place: Tensor


class Space(NamedTuple):
    """`steps(rows, luck, fork)` draws random steps; `fork`: all at one, or none; None: as they
    happen. `rates` [3]: of the branches. `frames` [N 64 64 3] uint8: those that differ.
    """

    steps: Callable[[int, torch.Generator, bool | None], Steps]
    rates: Tensor
    frames: Tensor | None = None

    @property
    def entropy(self) -> float:
        """The entropy of the branch at a fork, nats."""
        return float(-(self.rates * self.rates.log()).sum())


def steps_of(rows: int, luck: torch.Generator, fork: bool | None = None) -> Steps:
    """Random steps of the synthetic space; half of them at a fork, where `fork` is None."""
    place = torch.randn(rows, PLACES, generator=luck)
    at_fork = (torch.rand(rows, 1, generator=luck) < 0.5).float()
    if fork is not None:
        at_fork = torch.full((rows, 1), float(fork))
    action = torch.eye(3)[torch.randint(3, (rows,), generator=luck)]
    branch = torch.multinomial(RATES, rows, True, generator=luck)
    noise = 0.02 * torch.randn(rows, 2, generator=luck)
    state = torch.cat([place, torch.zeros(rows, 2), at_fork], 1)
    after = torch.cat([0.9 * place + 0.1 * action, at_fork * BRANCHES[branch] + noise, at_fork], 1)
    ends = after.unsqueeze(1).repeat(1, 3, 1)
    ends[..., PLACES : PLACES + 2] = BRANCHES * at_fork.unsqueeze(-1)
    return Steps(state, action, after, ends, branch, place)


SYNTHETIC = Space(steps_of, RATES)


def world_space(pixels: bool, episodes: int = 1000, seed: int = 0) -> Space:
    """The steps of `episodes` of random actions in the world, drawn with replacement."""
    env: Any = gymnasium.make(ID if pixels else STATE_ID, disable_env_checker=True).unwrapped
    rng, rows, numbers = np.random.default_rng(seed), list[tuple[Any, ...]](), dict[bytes, int]()
    frames = list[Any]()

    def observed(observation: Any) -> Any:
        """The vector itself, or the number of the frame."""
        if not pixels:
            return observation
        number = numbers.setdefault(observation.tobytes(), len(numbers))
        if number == len(frames):
            frames.append(observation)
        return number

    for episode in range(episodes):
        state, _ = env.reset(seed=seed + episode)
        state, ended = observed(state), False
        while not ended:
            action, route, at_fork = int(rng.integers(3)), env.route, env.steps == BEFORE
            after, _, ended, _, info = env.step(action)
            ends = [observed(after)] * 3
            if at_fork:
                ends = [observed(_on_branch(env, branch)) for branch in range(3)]
            following = observed(after)
            rows.append((state, action, following, ends, info["branch"], route, at_fork))
            state = following
    env.close()
    states, actions, afters, ends, branches, routes, forks = (
        torch.from_numpy(np.array(column)) for column in zip(*rows, strict=True)
    )
    # Before the first action there is no route.
    places = torch.cat([torch.eye(3), torch.zeros(1, 3)])[routes]
    every = Steps(states, torch.eye(3)[actions], afters, ends, branches.clamp_min(0), places)

    def steps(count: int, luck: torch.Generator, fork: bool | None) -> Steps:
        among = torch.arange(len(forks)) if fork is None else (forks == fork).nonzero()[:, 0]
        chosen = among[torch.randint(len(among), (count,), generator=luck)]
        return Steps(*(column[chosen] for column in every))

    shown = torch.from_numpy(np.array(frames)) if pixels else None
    return Space(steps, torch.tensor(WORLD_RATES), shown)


def _on_branch(env: Any, branch: int) -> Any:
    """What the world would show, had this branch been taken."""
    env.branch, taken = branch, env.branch
    observation = env._observation()
    env.branch = taken
    return observation


def state_of(latent: Tensor) -> State:
    """A perceived state of these latents [M D]."""
    rows = len(latent)
    return State.unchecked(
        latent=latent,
        hidden=torch.zeros(rows, 0),
        signals=torch.zeros(rows, len(SIGNALS)),
        ended=torch.zeros(rows),
        uncertainty=torch.zeros(rows),
    )


def batch_of(steps: Steps, latents: Tensor) -> Batch:
    """A batch of windows of two steps with `latents` [M 2 D]; as targets without gradient."""
    rows = len(latents)
    none = torch.zeros(rows, 2, dtype=torch.bool)
    experience = Experience.unchecked(
        frames=None,
        vectors=None,
        actions=torch.stack([steps.action, steps.action], 1),
        signals=torch.zeros(rows, 2, len(SIGNALS)),
        terminated=none,
        truncated=none,
        mask=~none,
        importance_weights=torch.ones(rows),
        indices=torch.arange(rows),
    )
    states = encoded_states(experience, latents)
    return Batch(experience, states, encoded_states(experience, latents.detach()))


def jepa(
    variable: type[LatentVariable] | None,
    settings: dict[str, Any],
    *,
    objective: Objective | None = None,
    **config: float,
) -> JEPA:
    """A fresh world model of the steps; `variable` with its `settings`: the kind of its z, None: it
    has none. `config` departs from the settings of the model.
    """
    facts: dict[str, Any] = {"world": WORLD, "latent_size": SIZE, "token_shape": (0, 0)}
    config = {"width": 64, "blocks": 2, "unroll_steps": 1, "ensemble_size": 1, **config}
    against_collapse = objective or Unregularised()
    if variable is None:
        return JEPA(config=JEPA.Config(**config), objective=against_collapse, **facts)  # type: ignore[arg-type]
    kind: Any = variable
    return LatentJEPA(
        latent=kind(config=kind.Config(**settings), **facts),
        config=LatentJEPA.Config(**config),  # type: ignore[arg-type]
        objective=against_collapse,
        **facts,
    )


def fit(
    model: JEPA,
    updates: int,
    seed: int,
    *,
    space: Space = SYNTHETIC,
    encoder: nn.Module | None = None,
    target_grad_scale: float = 0.0,
) -> None:
    """Trains a world model, and the encoder of its states, on BATCH steps an update; in the second
    half of the updates with that `target_grad_scale`. Without an encoder latents are the states.
    """
    encode = encoder or nn.Identity()
    luck = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW([*model.parameters(), *encode.parameters()])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=updates)
    for update in range(updates):
        if update == updates // 2 and target_grad_scale:
            # From the first update on the branch would be dropped before z has learned to say it.
            scale = {"target_grad_scale": target_grad_scale}
            model.config = model.config.model_copy(update=scale)
        steps = space.steps(BATCH, luck, None)
        latents = encode(torch.stack([steps.state, steps.after], 1).flatten(0, 1))
        batch = batch_of(steps, latents.unflatten(0, (-1, 2)))
        losses, _ = model.losses(batch, chance.keys(seed, 1, update))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        model.on_update()
