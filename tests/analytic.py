"""Small worlds whose best plan is known, as world models; and a situation to plan from."""

import torch
from torch import Tensor

from agent.imagination import Imagination, PlanCost
from modules import chance
from modules.messages import (
    SIGNALS,
    ActionSpec,
    Directive,
    Energy,
    Moment,
    Observation,
    Plan,
    Recollection,
    Situation,
    State,
    WorldSpec,
)
from modules.world_model.deterministic import Deterministic


def spec(discrete: bool, size: int) -> WorldSpec:
    bounds = () if discrete else (1.0,) * size
    return WorldSpec(
        id="analytic",
        pixels=None,
        vector=2,
        signals=SIGNALS,
        actions=ActionSpec(
            discrete=discrete, size=size, low=tuple(-b for b in bounds), high=bounds
        ),
    )


def situation(
    latent: Tensor,
    plan: Plan,
    directive: Directive,
    seed: int = 0,
    step: int = 0,
    surprise: float = 0.0,
    ended: Tensor | None = None,
    critic_actions: Tensor | None = None,
) -> Situation:
    rows = len(latent)
    zeros, whole = torch.zeros(rows), torch.zeros(rows, dtype=torch.int64)
    never = zeros > 0
    state = State(
        latent=latent,
        hidden=torch.zeros(rows, 0),
        signals=torch.zeros(rows, len(SIGNALS)),
        ended=zeros if ended is None else ended,
        uncertainty=zeros,
    )
    recollection = Recollection(
        keys=torch.zeros(rows, 1, 1),
        values=torch.zeros(rows, 1, 1),
        weights=torch.zeros(rows, 1),
        ages=torch.zeros(rows, 1),
        readout=torch.zeros(rows, 1),
        novelty=zeros,
    )
    energies = Energy(
        intrinsic=torch.zeros(rows, 1),
        critic=torch.zeros(rows, 1),
        disagreement=zeros,
        critic_actions=critic_actions,
    )
    before = Moment(
        step=step - 1,
        observation=Observation(
            pixels=None,
            vector=torch.zeros(rows, 2),
            signals=state.signals,
            first=never,
            terminated=never,
            truncated=never,
        ),
        state=state,
        recollection=recollection,
        energies=energies,
        surprise=zeros,
        episode_model_calls=whole,
        episode_step=whole,
        directive=directive,
        plan=plan,
        expected=state,
    )
    return Situation(
        env_index=torch.arange(rows),
        state=state,
        recollection=recollection,
        energies=energies,
        surprise=zeros + surprise,
        episode_model_calls=whole,
        episode_step=whole,
        rng_key=chance.keys(seed, rows, step),
        previous=before,
    )


def directive(
    rows: int,
    mode: list[int] | int = 2,
    horizon: list[int] | int = 8,
    calls: list[int] | int = 1000,
    commit: int = 1,
    risk: float = 0.0,
    futures: int = 1,
    latent_temperature: float = 1.0,
    adversarial: bool = False,
) -> Directive:
    def each(value: list[int] | int) -> Tensor:
        return torch.tensor(value if isinstance(value, list) else [value] * rows)

    return Directive(
        mode=each(mode),
        horizon_steps=each(horizon),
        model_calls=each(calls),
        commit_steps=each(commit),
        u=torch.ones(rows, 1),
        v=torch.ones(rows, 1),
        tokens=torch.zeros(rows, 1, 1),
        futures=torch.full((rows,), futures),
        latent_temperature=torch.full((rows,), latent_temperature),
        risk=torch.full((rows,), risk),
        adversarial=torch.full((rows,), adversarial),
        configurator_state=torch.zeros(rows, 0),
        reason=("test",) * rows,
    )


class LatentCost:
    """Energy is a function of the latent; the critic's value is `critic` times its first number,
    its action values are `action_values_of` latents [M D], [M A 1].
    """

    drives = heads = ("distance",)

    def __init__(self, energy, critic: float = 0.0, action_values_of=None) -> None:
        self.energy, self.critic = energy, critic
        self.action_values_of = action_values_of

    def intrinsic(self, state: State) -> Tensor:
        return self.energy(state.latent).unsqueeze(-1)

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        if (values := self.action_values(state, v)) is not None:
            return values.amin(-1)
        return v.sum(-1) * self.critic * state.latent[:, 0]

    def action_values(self, state: State, v: Tensor) -> Tensor | None:
        if self.action_values_of is None:
            return None
        return (self.action_values_of(state.latent) * v.unsqueeze(1)).sum(-1)

    def needs_latent(self) -> bool:
        return False

    def is_initialised(self) -> bool:
        return self.critic != 0


class LatentModel(Deterministic):
    """s' = f(s, a) on the latent, with the probability of an end after it."""

    def __init__(self, move, ended=None) -> None:
        self.move, self.ended, self.calls = move, ended, 0

    def start(self, situation: Situation, directive: Directive) -> State:
        return situation.state

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        self.calls += len(action)
        latent = self.move(state.latent, action)
        ended = latent.new_zeros(len(latent)) if self.ended is None else self.ended(latent)
        return State.unchecked(
            latent=latent,
            hidden=torch.zeros(len(latent), 0),
            signals=torch.zeros(len(latent), len(SIGNALS)),
            ended=ended,
            uncertainty=torch.zeros(len(latent)),
            goal=None,
        )

    def complete(self, state: State) -> State:
        return state


def linear_quadratic() -> tuple[LatentModel, LatentCost]:
    """A mass pushed by a force, [position, speed]: energy is |s'|² + what the force cost.

    The third number of the latent is the force, so that the energy can read it.
    """

    def move(latent: Tensor, action: Tensor) -> Tensor:
        position, speed, _ = latent.unbind(-1)
        force = action[:, 0]
        speed = 0.9 * speed + 0.3 * force
        return torch.stack([position + 0.5 * speed, speed, force], -1)

    def energy(latent: Tensor) -> Tensor:
        position, speed, force = latent.unbind(-1)
        return position**2 + 0.1 * speed**2 + 0.05 * force**2

    return LatentModel(move), LatentCost(energy)


def maze(seed: int, places: int = 64, choices: int = 3) -> tuple[LatentModel, LatentCost]:
    """Random places with random energies; an action leads from one to another; some end it all."""
    luck = torch.Generator().manual_seed(seed)
    leads = torch.randint(places, (places, choices), generator=luck)
    energies = torch.randn(places, generator=luck)
    ends = (torch.rand(places, generator=luck) < 0.15).float()

    def move(latent: Tensor, action: Tensor) -> Tensor:
        return leads[latent[:, 0].long(), action.argmax(-1)].float().unsqueeze(-1)

    return (
        LatentModel(move, lambda latent: ends[latent[:, 0].long()]),
        LatentCost(lambda latent: energies[latent[:, 0].long()], critic=0.01),
    )


def imagine(
    model: LatentModel,
    cost: LatentCost,
    latent: Tensor,
    world: WorldSpec,
    actor,
    discount: float = 0.95,
    sum_critic_every_step: bool = False,
    td_lambda: float = 1.0,
    branch_steps: int = 0,
    seed: int = 0,
    **orders,
) -> tuple[Situation, Imagination, Directive]:
    orders = directive(len(latent), **orders)
    values = None if cost.action_values_of is None else cost.action_values_of(latent)
    moment = situation(latent, actor.initial(len(latent)), orders, seed=seed, critic_actions=values)
    return (
        moment,
        Imagination(
            model,
            cost,
            moment,
            orders,
            PlanCost(discount, sum_critic_every_step, td_lambda, branch_steps),
        ),
        orders,
    )
