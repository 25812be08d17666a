"""How good are the critic, the model, and both together, measured against what really follows.

    python examples/benchmarks/foresight.py --agents krull,boxing --states 200

Trained agents live in Mode-1. In some of their states every first action is tried in the emulator
itself, the critic's choice (Mode-1 of a greedy policy) goes on from each, and after `--steps` steps
the critic says the rest: that is what really follows. Against it stand: the critic at once; the
same for some steps in the model the agent learned, the critic at their end (what Mode-2 has to
choose by); and the same with the emulator in the model's place, the most a model could give.

Printed for each agent: how wrong the model is after 1, 2, ... steps, as a share of the error of
expecting that nothing changes; how well it foretells what these steps cost (correlation); what the
critic says too much or too little (bias); and for each way to choose, the correlation of what it
says of an action with what really follows, both about the state's mean over actions, and how much
better than that mean its choice is. A choice worth less than the critic's explains a Mode-2 that
harms.

In a world without luck of its own one such life also holds what nobody could have known: where a
small change is soon a large one, the best of 18 futures is best by accident. With `--lives 10
--noise .1` each action is tried ten times, one step in ten of what then follows is any action, and
what really follows is the mean: what an action is worth on the whole. What is best by half of
these lives is then judged by the other half.
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
from agent.imagination import Imagination, plan_cost
from modules import chance
from modules.actor.planner import one_hot
from modules.messages import ConfigError, Directive, Moment, Situation, State, WorldError
from modules.ports import World, WorldModel
from modules.world_model.simulator import Clairvoyant

ROWS = 8
APART = 25
"""Steps from one state that is looked at to the next, so that they differ."""


@dataclass
class Futures:
    """Every action tried from B states, then Mode-1: what steps cost [H][B A], where they end."""

    actions: list[Tensor] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    costs: list[Tensor] = field(default_factory=list)
    ended: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def total(self, steps: int, discount: float) -> Tensor:
        """What the first action leads to, [B A]: `steps` steps, and the critic at their end."""
        costs, ended = torch.stack(self.costs[:steps], -1), torch.stack(self.ended[:steps], -1)
        return plan_cost(costs, ended, self.values[steps - 1], discount)


def followed(
    imagination: Imagination,
    steps: int,
    told: list[Tensor] | None = None,
    noise: float = 0.0,
    life: int = 0,
) -> Futures:
    """`Futures` in a world model; with the actions `told` [H][M A] instead of the critic's own.
    Of those after the first that share `noise` is any action, another in each `life`.
    """
    rows, choices = imagination.situation.batch, imagination.actions.size
    state = imagination.start().select(torch.arange(rows).repeat_interleave(choices))
    action = torch.eye(choices).repeat(rows, 1)
    made = Futures()
    for step in range(steps):
        action = action if told is None else told[step]
        made.actions.append(action)
        state = imagination.world_model.complete(imagination.step(state, action))
        made.states.append(state)
        made.costs.append(imagination.energy(state).view(rows, choices))
        made.ended.append(state.ended.view(rows, choices))
        made.values.append(imagination.value(state).view(rows, choices))
        action = one_hot(learned(imagination, state).argmin(-1), choices)
        if noise:
            action = strayed(action, noise, imagination.situation.rng_key, f"life {life} {step}")
    return made


def strayed(action: Tensor, noise: float, key: Tensor, name: str) -> Tensor:
    """Actions [B·A A], of which that share is any action, as the rows' `key` [B] and `name` say."""
    choices = action.shape[1]
    stray = chance.uniform(key, name, choices).flatten() < noise
    other = chance.integers(key, f"{name} action", choices, choices).flatten()
    return torch.where(stray.unsqueeze(-1), one_hot(other, choices), action)


def learned(imagination: Imagination, state: State) -> Tensor:
    """What the critic expects of each action in states [M], [M A]. ConfigError where it cannot."""
    expected = imagination.expected(state)
    if expected is None:
        raise ConfigError(
            "agent: expected one whose critic has learned of actions; name a trained one"
        )
    return expected


def correlation(one: Tensor, other: Tensor) -> float:
    """Of two tensors of the same shape, over all their entries; nan where one is constant."""
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])


def about_mean(said: Tensor) -> Tensor:
    """What is said of actions [B A], about the mean over them."""
    return said - said.mean(-1, keepdim=True)


class Foresight:
    """What was found in the states of one agent."""

    def __init__(self, depths: list[int], steps: int, lives: int, noise: float) -> None:
        self.depths, self.steps, self.lives, self.noise = depths, steps, lives, noise
        self.came: list[Tensor] = []
        self.said: dict[str, list[Tensor]] = {}
        self.errors: dict[int, list[tuple[float, float]]] = {depth: [] for depth in depths}
        self.felt: dict[int, list[tuple[Tensor, Tensor]]] = {depth: [] for depth in depths}

    def look(
        self,
        moment: Moment,
        imagined: Callable[[WorldModel], Imagination],
        model: WorldModel,
        emulator: Callable[[], WorldModel],
    ) -> None:
        """Adds the states of a moment, imagined by the model and by an emulator. That is made anew
        for every life: it remembers each state it was ever in.
        """
        learnt = imagined(model)
        discount = learnt.discount
        reach = max(self.depths) if self.noise else self.steps
        real = followed(imagined(emulator()), reach)
        own = followed(learnt, max(self.depths))
        same = followed(learnt, max(self.depths), real.actions)
        critic = learned(learnt, learnt.start())
        lives = [real]
        if self.noise:
            lives = [
                followed(imagined(emulator()), self.steps, noise=self.noise, life=life)
                for life in range(self.lives)
            ]
        came = torch.stack([life.total(self.steps, discount) for life in lives])
        self.came.append(came.double())
        found = {"critic": critic}
        for depth in self.depths:
            found[f"model, {depth}"] = own.total(depth, discount)
            found[f"emulator, {depth}"] = real.total(depth, discount)
            there = real.states[depth - 1].latent
            now = moment.state.latent.repeat_interleave(len(there) // len(critic), 0)
            missed = (same.states[depth - 1].latent - there).square().mean()
            self.errors[depth].append((float(missed), float((now - there).square().mean())))
            self.felt[depth].append((same.costs[depth - 1], real.costs[depth - 1]))
        for name, value in found.items():
            self.said.setdefault(name, []).append(value.double())

    def lines(self) -> list[str]:
        """The findings, a line each."""
        every = {name: torch.cat(values) for name, values in self.said.items()}
        lives = torch.cat(self.came, 1)
        truth = lives.mean(0)
        lines = []
        for depth in self.depths:
            missed, still = (sum(column) for column in zip(*self.errors[depth], strict=True))
            foretold, came = (torch.cat(column) for column in zip(*self.felt[depth], strict=True))
            lines.append(
                f"  model after {depth} steps: error {missed / still:.2f} of nothing changing, "
                f"cost of the step foretold with correlation {correlation(foretold, came):.2f}"
            )
        chosen = every["critic"].argmin(-1, keepdim=True)
        said, came = every["critic"].gather(-1, chosen), truth.gather(-1, chosen)
        lines.append(
            f"  critic of its own choice: said {float(said.mean()):.3f}, came "
            f"{float(came.mean()):.3f}, correlation {correlation(said, came):.2f}"
        )
        lines.append(
            f"  {'chosen by':<14}{'correlation':>12}{'better than the mean action by':>34}"
        )
        for name, value in every.items():
            lines.append(_line(name, [(value, truth)]))
        if len(lives) == 1:
            return [*lines, _line("the truth", [(truth, truth)])]
        one, other = lives[::2].mean(0), lives[1::2].mean(0)
        return [*lines, _line("other lives", [(one, other), (other, one)])]


def _line(name: str, pairs: list[tuple[Tensor, Tensor]]) -> str:
    """How well actions are chosen by what is said of them, given with what came, [B A] each."""
    gains = [-about_mean(came).gather(-1, said.argmin(-1, keepdim=True)) for said, came in pairs]
    gain = torch.cat(gains, -1).mean(-1)
    error = float(gain.std()) / len(gain) ** 0.5
    said, came = (
        torch.cat([about_mean(part) for part in parts]) for parts in zip(*pairs, strict=True)
    )
    close = correlation(said, came)
    return f"  {name:<14}{close:>12.2f}{float(gain.mean()):>25.3f} ± {error:.3f}"


def imagination(
    player: Agent, known: Situation, directive: Directive, by: WorldModel
) -> Imagination:
    """What a world model and the agent's cost imagine of a situation."""
    cost, actions = player.modules.cost, player.world.actions
    return Imagination(by, cost, known, directive, actions, player.discount)


def looked(agent: str, given: argparse.Namespace) -> list[str]:
    """What `--states` states of an agent's life show. Raises ConfigError or WorldError."""
    flags = {"worlds": ROWS, "seed": given.seed}
    if given.protocol is not None:
        flags["protocol"] = given.protocol
    made = prepared(RunRequest(agent=agent, flags=flags, interventions=("clamp:mode=1",)))
    try:
        return _lived(made.agent, made.world, given)
    finally:
        made.world.close()


@torch.no_grad()
def _lived(player: Agent, world: World, given: argparse.Namespace) -> list[str]:
    """`looked` by an agent in its world."""
    modules = player.modules
    player.reset(ROWS, given.seed)

    def emulator() -> Clairvoyant:
        return Clairvoyant(
            live_world=world,
            latent_size=modules.perception.latent_size,
            world=player.world,
            encode_frame=modules.perception.encode_frame,  # type: ignore[attr-defined]
        )

    found = Foresight(given.depths, given.steps, given.lives, given.noise)
    observation = world.reset(given.seed)
    for step in range(1, APART * -(-given.states // ROWS) + 1):
        before = modules.memory.previous()
        moment = player.step(observation)
        if step % APART == 0:
            known = moment.situation(before, chance.keys(given.seed, ROWS, moment.step))
            imagined = partial(imagination, player, known, moment.directive)
            found.look(moment, imagined, modules.world_model, emulator)
        observation = world.step(moment.plan.action)
    return found.lines()


def number(text: str) -> int:
    """A whole number above 0. Raises ValueError, which argparse says in a line."""
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
    """Looks at every agent, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--agents", required=True, help="bundled agents, runs or checkpoints")
    parser.add_argument("--states", type=number, default=200, help="looked at in all (200)")
    parser.add_argument("--steps", type=number, default=20, help="really lived from each (20)")
    parser.add_argument("--lives", type=number, default=1, help="of each action, with noise (1)")
    parser.add_argument("--noise", type=share, default=0.0, help="share of any actions in them (0)")
    parser.add_argument("--depths", type=numbers, default="1,2,5", help="steps imagined (1,2,5)")
    parser.add_argument("--protocol", help="v5 or 100k (the agent's own)")
    parser.add_argument("--seed", type=int, default=5_000_000)
    given = parser.parse_args()
    if (given.lives > 1) != (given.noise > 0):
        parser.error(
            "--lives, --noise: expected several lives with noise or one without, "
            f"got {given.lives} "
            f"with {given.noise:g}; try --lives 10 --noise 0.1"
        )
    if max(given.depths) > given.steps:
        parser.error(f"--depths: expected at most --steps {given.steps}, got {max(given.depths)}")
    for agent in given.agents.split(","):
        try:
            lines = looked(agent, given)
        except (ConfigError, WorldError) as error:
            print(f"foresight: {agent}: {error}", file=sys.stderr)
            sys.exit(2)
        print(agent, *lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
