"""Accuracy of critic, model and both together, measured against what the emulator shows.

    python examples/benchmarks/foresight.py --agents krull,boxing --states 200

Trained agents act in Mode-1. In some of their states every first action is tried in the emulator
itself, followed by the critic's greedy policy for `--steps` steps, and the critic's value at the
end is added: that is the reference cost of the action. Compared with it are the critic's action
values; the cost of d steps in the learned model plus the critic's value after them (what Mode-2
chooses by); and the same with the emulator in the model's place, the best a model could do.

Printed for each agent: the squared error of the model's latents after d steps relative to
predicting that nothing changes; the correlation of its step costs with those of the emulator; the
critic's mean and the reference mean of its own choice (its bias); and for each way of choosing the
correlation of its costs with the reference, both centred over the actions of a state, and the gain
of its choice over the mean action. A choice worth less than the critic's explains a Mode-2 that
harms.

In a deterministic world one future per action is partly chance: where small changes grow fast, the
best of 18 futures is best by accident. With `--lives 10 --noise .1` each action is tried ten times,
one later action in ten is random, and the reference is the mean: the value of the action in
expectation. What is best by one half of these futures is then evaluated by the other half.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from agent.agent import Agent
from agent.assembly.load import RunRequest, prepared
from agent.imagination import Imagination, PlanCost
from modules import chance
from modules.actor.planner import one_hot
from modules.messages import ConfigError, Directive, Moment, Situation, State, WorldError
from modules.ports import Futures as ImaginedFutures
from modules.ports import World, WorldModel
from modules.world_model.simulator import Clairvoyant

ROWS = 8
APART = 25
"""Steps between two examined states, so that they differ."""


@dataclass
class Futures:
    """Every first action tried from B states, then the critic's policy, for H steps.

    `actions` [H] of [B·A A], `states` [H] of B·A rows, `energies` [H] of [B A]: u·IC of each state.
    `totals` [H] of [B A]: cost of the plan that ends after each step, the critic's value included.
    """

    actions: list[Tensor] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    energies: list[Tensor] = field(default_factory=list)
    totals: list[Tensor] = field(default_factory=list)


def imagine_every_action(
    imagination: Imagination,
    steps: int,
    actions: list[Tensor] | None = None,
    noise: float = 0.0,
    life: int = 0,
) -> Futures:
    """`Futures` in a world model; with `actions` [H] of [B·A A] instead of the critic's policy.

    With probability `noise` an action after the first is random, another one in each `life`.
    """
    rows, choices = imagination.situation.previous.plan.action.shape
    futures = imagination.begin(choices)
    action = torch.eye(choices).repeat(rows, 1)
    result = Futures()
    for step in range(steps):
        action = action if actions is None else actions[step]
        futures = imagination.extend(futures, action)
        state = imagination.world_model.complete(futures.state)
        futures = futures._replace(state=state)
        result.actions.append(action)
        result.states.append(state)
        result.energies.append(imagination.energy(state).view(rows, choices))
        result.totals.append(imagination.cost(futures))
        action = one_hot(action_values(imagination, futures).argmin(-1), choices)
        if noise:
            name = f"life {life} {step}"
            action = with_noise(action, noise, imagination.situation.rng_key, name)
    return result


def with_noise(action: Tensor, noise: float, key: Tensor, name: str) -> Tensor:
    """Actions [B·A A], each random with probability `noise`; `key` [B] and `name` derive which."""
    choices = action.shape[1]
    random = chance.uniform(key, name, choices).flatten() < noise
    other = chance.integers(key, f"{name} action", choices, choices).flatten()
    return torch.where(random.unsqueeze(-1), one_hot(other, choices), action)


def action_values(imagination: Imagination, futures: ImaginedFutures) -> Tensor:
    """v·TC(s, a) where N futures of each row stand, [B·N A]. Raises ConfigError where the critic
    has none.
    """
    values = imagination.action_values(futures)
    if values is None:
        raise ConfigError(
            "agent: expected a critic trained on action values, got none; name a trained agent"
        )
    return values.flatten(0, 1)


def correlation(one: Tensor, other: Tensor) -> float:
    """Of two tensors of the same shape, over all their entries; nan where one is constant."""
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])


def centred(costs: Tensor) -> Tensor:
    """Costs of actions [B A] minus their mean over actions."""
    return costs - costs.mean(-1, keepdim=True)


class Foresight:
    """The measurements of one agent, gathered over states."""

    def __init__(self, depths: list[int], steps: int, lives: int, noise: float) -> None:
        self.depths, self.steps, self.lives, self.noise = depths, steps, lives, noise
        self.references: list[Tensor] = []
        self.costs: dict[str, list[Tensor]] = {}
        self.errors: dict[int, list[tuple[float, float]]] = {depth: [] for depth in depths}
        self.energies: dict[int, list[tuple[Tensor, Tensor]]] = {depth: [] for depth in depths}

    def add(
        self,
        moment: Moment,
        imagined: Callable[[WorldModel], Imagination],
        model: WorldModel,
        emulator: Callable[[], WorldModel],
    ) -> None:
        """Adds the states of a moment, imagined by the model and by a new emulator each time,
        because that holds each state it has reached.
        """
        learned = imagined(model)
        reach = max(self.depths) if self.noise else self.steps
        real = imagine_every_action(imagined(emulator()), reach)
        own = imagine_every_action(learned, max(self.depths))
        same = imagine_every_action(learned, max(self.depths), real.actions)
        critic = action_values(learned, learned.begin(1))
        lives = [real]
        if self.noise:
            lives = [
                imagine_every_action(imagined(emulator()), self.steps, noise=self.noise, life=life)
                for life in range(self.lives)
            ]
        self.references.append(torch.stack([life.totals[self.steps - 1] for life in lives]))
        costs = {"critic": critic}
        for depth in self.depths:
            costs[f"model, {depth}"] = own.totals[depth - 1]
            costs[f"emulator, {depth}"] = real.totals[depth - 1]
            there = real.states[depth - 1].latent
            now = moment.state.latent.repeat_interleave(len(there) // len(critic), 0)
            error = (same.states[depth - 1].latent - there).square().mean()
            self.errors[depth].append((float(error), float((now - there).square().mean())))
            self.energies[depth].append((same.energies[depth - 1], real.energies[depth - 1]))
        for name, value in costs.items():
            self.costs.setdefault(name, []).append(value.double())

    def lines(self) -> list[str]:
        """The results, a line each."""
        costs = {name: torch.cat(values) for name, values in self.costs.items()}
        lives = torch.cat(self.references, 1)
        reference = lives.mean(0)
        lines = []
        for depth in self.depths:
            error, change = (sum(column) for column in zip(*self.errors[depth], strict=True))
            predicted, real = (torch.cat(each) for each in zip(*self.energies[depth], strict=True))
            lines.append(
                f"  model after {depth} steps: squared error {error / change:.2f} of that of no "
                f"change, correlation of step costs {correlation(predicted, real):.2f}"
            )
        chosen = costs["critic"].argmin(-1, keepdim=True)
        critic, real = costs["critic"].gather(-1, chosen), reference.gather(-1, chosen)
        lines.append(
            f"  critic of its own choice: mean {float(critic.mean()):.3f}, reference "
            f"{float(real.mean()):.3f}, correlation {correlation(critic, real):.2f}"
        )
        lines.append(f"  {'chosen by':<14}{'correlation':>12}{'gain over the mean action':>34}")
        for name, value in costs.items():
            lines.append(_line(name, [(value, reference)]))
        if len(lives) == 1:
            return [*lines, _line("reference", [(reference, reference)])]
        one, other = lives[::2].mean(0), lives[1::2].mean(0)
        return [*lines, _line("other futures", [(one, other), (other, one)])]


def _line(name: str, pairs: list[tuple[Tensor, Tensor]]) -> str:
    """How well costs choose actions: pairs of costs and reference costs, [B A] each."""
    gains = [-centred(real).gather(-1, costs.argmin(-1, keepdim=True)) for costs, real in pairs]
    gain = torch.cat(gains, -1).mean(-1)
    error = float(gain.std()) / len(gain) ** 0.5
    costs, real = (
        torch.cat([centred(part) for part in parts]) for parts in zip(*pairs, strict=True)
    )
    close = correlation(costs, real)
    return f"  {name:<14}{close:>12.2f}{float(gain.mean()):>25.3f} ± {error:.3f}"


def imagination(
    player: Agent, situation: Situation, directive: Directive, world_model: WorldModel
) -> Imagination:
    """A world model and the agent's cost in a situation; plans cost F_H, without λ-return."""
    return Imagination(
        world_model,
        player.modules.cost,
        situation,
        directive,
        PlanCost(player.plan_cost.discount),
    )


def examined(agent: str, options: argparse.Namespace) -> list[str]:
    """The results of `--states` states of an agent. Raises ConfigError or WorldError."""
    flags = {"num_envs": ROWS, "seed": options.seed}
    if options.protocol is not None:
        flags["protocol"] = options.protocol
    assembly = prepared(RunRequest(agent=agent, flags=flags, interventions=("clamp:mode=1",)))
    try:
        return _measured(assembly.agent, assembly.world, options)
    finally:
        assembly.world.close()


@torch.no_grad()
def _measured(player: Agent, world: World, options: argparse.Namespace) -> list[str]:
    """`examined` by an agent in its world."""
    modules = player.modules
    player.reset(ROWS, options.seed)

    def emulator() -> Clairvoyant:
        return Clairvoyant(
            live_world=world,
            latent_size=modules.perception.latent_size,
            world=player.world,
            encode_frame=modules.perception.encode_frame,  # type: ignore[attr-defined]
        )

    foresight = Foresight(options.depths, options.steps, options.lives, options.noise)
    observation = world.reset(options.seed)
    for step in range(1, APART * -(-options.states // ROWS) + 1):
        before = modules.memory.previous()
        moment = player.step(observation)
        if step % APART == 0:
            keys = chance.keys(options.seed, ROWS, moment.step)
            situation = moment.situation(before, keys)
            imagined = partial(imagination, player, situation, moment.directive)
            foresight.add(moment, imagined, modules.world_model, emulator)
        observation = world.step(moment.plan.action)
    return foresight.lines()


def number(text: str) -> int:
    """A whole number above 0. Raises ValueError, which argparse reports."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def share(text: str) -> float:
    """A number from 0 to 1. Raises ValueError."""
    if not 0 <= (value := float(text)) <= 1:
        raise ValueError
    return value


def numbers(text: str) -> list[int]:
    """Several of them, as 1,2,5."""
    return [number(part) for part in text.split(",")]


def main() -> None:
    """Measures every agent, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--agents", required=True, help="bundled agents, runs or checkpoints")
    parser.add_argument("--states", type=number, default=200, help="examined in all (200)")
    parser.add_argument("--steps", type=number, default=20, help="in the emulator from each (20)")
    parser.add_argument("--lives", type=number, default=1, help="of each action, with noise (1)")
    parser.add_argument(
        "--noise", type=share, default=0.0, help="share of random actions in them (0)"
    )
    parser.add_argument("--depths", type=numbers, default="1,2,5", help="steps imagined (1,2,5)")
    parser.add_argument("--protocol", help="v5 or 100k (the agent's own)")
    parser.add_argument("--seed", type=int, default=5_000_000)
    options = parser.parse_args()
    if (options.lives > 1) != (options.noise > 0):
        parser.error(
            "--lives, --noise: expected several lives with noise or one without, "
            f"got {options.lives} "
            f"with {options.noise:g}; try --lives 10 --noise 0.1"
        )
    if max(options.depths) > options.steps:
        parser.error(
            f"--depths: expected at most --steps {options.steps}, got {max(options.depths)}"
        )
    for agent in options.agents.split(","):
        try:
            lines = examined(agent, options)
        except (ConfigError, WorldError) as error:
            print(f"foresight: {agent}: {error}", file=sys.stderr)
            sys.exit(2)
        print(agent, *lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
