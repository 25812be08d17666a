"""The six ports and the world: what each module must do, in the words of the paper (Fig. 2).

A module is any object that has these methods; those that learn are `torch.nn.Module`s. Modules
know messages, never each other: what one needs of another reaches it as a message or, in
planning, through `Imagination`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from modules.messages import (
    ActionSpec,
    Directive,
    Energy,
    Experience,
    Message,
    MessageError,
    Moment,
    Observation,
    Plan,
    Recollection,
    Situation,
    State,
    WorldSpec,
)


class Batch(NamedTuple):
    """What one update learns from: B windows of W steps, encoded.

    `targets` are the EMA encodings of all W steps, without gradient; a step that no module asked
    for (`Learnable.target_mask`) has latent 0. `states` are the online encodings, with gradient, of
    the first steps: as many as the learner's `online_steps`.
    """

    experience: Experience
    states: list[State]
    targets: list[State]


def encoded_states(experience: Experience, latents: Tensor) -> list[State]:
    """The first T of W steps of `experience` as T states, from their `latents` [B T D].

    `ended` is 1 where the episode ends at the step; `hidden` is empty [B 0], `uncertainty` 0.
    """
    rows = len(latents)
    return [
        State.unchecked(
            latent=latents[:, t],
            hidden=latents.new_zeros(rows, 0),
            signals=experience.signals[:, t],
            ended=(experience.terminated[:, t] | experience.truncated[:, t]).float(),
            uncertainty=latents.new_zeros(rows),
            goal=None if experience.goals is None else experience.goals[:, t],
        )
        for t in range(latents.shape[1])
    ]


class Futures(NamedTuple):
    """N imagined futures of each of B rows, `steps` steps long.

    `state`: where they stand, B·N rows, the futures of a row side by side. `cost` [B N] float64:
    Σ of the discounted costs of their steps. `survival` [B N] float64: probability that the
    episode lasts beyond the last step.
    """

    state: State
    cost: Tensor
    survival: Tensor
    steps: int

    def select(self, index: Tensor) -> Futures:
        """Of each row the futures `index` [B M]."""
        rows = torch.arange(len(index))[:, None] * self.cost.shape[1]
        state = self.state.select((rows + index).flatten())
        return Futures(
            state, self.cost.gather(1, index), self.survival.gather(1, index), self.steps
        )

    def where(self, mask: Tensor, other: Futures) -> Futures:
        """These futures in the rows `mask` [B] (bool), `other` in the rest; N is 1."""
        column = mask[:, None]
        return Futures(
            self.state.where(mask, other.state),
            self.cost.where(column, other.cost),
            self.survival.where(column, other.survival),
            self.steps,
        )


@runtime_checkable
class World(Protocol):
    """Where the agent lives: B rows, each its own sequence of episodes."""

    spec: WorldSpec
    num_envs: int

    def reset(self, seed: int) -> Observation:
        """The first observation of every row. Row r's episodes follow from (seed, r)."""

    def step(self, action: Tensor) -> Observation:
        """What follows the encoded action [B A]; a row that had ended begins anew instead."""

    def snapshot(self) -> bytes:
        """Everything needed to continue bit for bit, without pickle. WorldError if it can't."""

    def restore(self, data: bytes) -> Observation:
        """Goes back to a snapshot and shows its observation again."""

    def render(self) -> Tensor:
        """What a person would see, [B H W 3] uint8."""

    def close(self) -> None:
        """Frees what the world holds."""


class SimStep(NamedTuple):
    """One imagined step of one row of a simulator: the handle of the state after it, its signals
    in the order of `WorldSpec.signals`, and whether the episode is over.
    """

    handle: Any
    signals: tuple[float, ...]
    ended: bool


@runtime_checkable
class Simulator(Protocol):
    """A world that can also be stepped from any of its states without changing where it stands.

    A handle is an immutable, hashable state of one row, valid in this process only; equal handles
    are one state.
    """

    def save_state(self, row: int) -> Any:
        """A handle of the present state of a row."""

    def simulate(self, handle: Any, action: Any, seed: int | None) -> SimStep:
        """One step from `handle` with a native action (int or array [A]).

        With `seed` None the row's own random numbers are used (*clairvoyant*: it foresees chance);
        else the random numbers of the step are drawn from `seed` (*fair*).
        """

    def render_observation(self, handle: Any) -> Any:
        """The observation of that state, numpy: pixels [H W C] uint8 or vector [N] float32."""


@runtime_checkable
class Perception(Protocol):
    """Percept → state: s[0] = Enc(x) (§3), primed by the configurator."""

    latent_size: int

    def perceive(self, observation: Observation, before: Moment) -> State:
        """The state estimate; `before.directive` primes it, `before.state.carry` is context."""

    def initial(self, rows: int) -> State:
        """What stands for the state before an episode begins: zeros of the usual shapes."""

    def encode_windows(
        self,
        experience: Experience,
        tokens: Tensor | None,
        augment_key: Tensor | None,
        step_mask: Tensor | None = None,
    ) -> Tensor:
        """Latents [B W D] of the steps of all windows in one pass, for the learner.

        `tokens` [B W T E] primed each step's percept; None: they were 0. `augment_key` [1] int64:
        the key by which percepts are varied, None where they are not.
        `step_mask` [B W] (bool): the steps whose latents are read, others may be 0; None: all.
        """


@runtime_checkable
class WorldModel(Protocol):
    """State and action → what may follow, and what perception could not see (§3, roles 1, 2).

    A model whose imagined states have identities may also offer `state_ids(state) -> Tensor`: [M]
    int64, equal where states look alike. Planners then compare these instead of latents.
    """

    def start(self, situation: Situation, directive: Directive) -> State:
        """The present state, ready to be imagined from; row i of the result is row i given."""

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state after an encoded action [M A]; rows of `state` are any M candidates."""

    def complete(self, state: State) -> State:
        """An imagined state with its latent filled in, where `step` left that for later."""

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """What is expected after the action [B A] just chosen (§3.1.1).

        Its `carry` is empty, [B 0]: an expectation is compared, not imagined from.
        """


@runtime_checkable
class Cost(Protocol):
    """State → energy: immutable drives and a trainable critic (§3.2, eqs. 1-3).

    `drives` names the K intrinsic energies, `heads` the L critic heads.
    """

    drives: tuple[str, ...]
    heads: tuple[str, ...]

    def energy(self, state: State) -> Energy:
        """Energies of a perceived state, unweighted."""

    def intrinsic(self, state: State) -> Tensor:
        """IC_i(s), [M K], differentiable in the state."""

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        """v·TC(s) under weights `v` [M L], [M]; at the best action of a critic of actions."""

    def action_values(self, state: State, v: Tensor) -> Tensor | None:
        """v·TC(s, a) of each discrete action, [M A]; None of a critic of states."""

    def needs_latent(self) -> bool:
        """True where a drive reads the latent, so that imagination must complete it."""

    def is_initialised(self) -> bool:
        """False while the critic is untrained and exactly zero."""


@runtime_checkable
class Memory(Protocol):
    """Short-term memory: retrieval by time and by similarity (§3.3, §4.9)."""

    def reset(self, neutral: Moment) -> None:
        """Forgets everything; `neutral` is what comes before the first moment of an episode."""

    def previous(self) -> Moment:
        """The last moment of each row, neutral where the next observation begins an episode."""

    def recall(self, state: State) -> Recollection:
        """What the state calls to mind."""

    def initial(self, rows: int) -> Recollection:
        """What is recalled where nothing is: zeros of the usual shapes, novelty 0."""

    def write(self, moment: Moment) -> None:
        """Keeps a moment."""

    def last_written(self) -> Moment:
        """The last moment as it was written, also where its episode was over."""

    def sample(self, batch: int, window: int, key: Tensor) -> Experience:
        """`batch` windows of up to `window` steps; `key` [1] int64 derives the choice."""

    def update_priorities(self, index: Tensor, priorities: Tensor) -> None:
        """Takes back, for the windows `index` [B], how much is to be learned there [B], >= 0."""

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name: what a checkpoint holds."""

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Remembers what `tensors` gave, to go on exactly from there; after `begin`."""


@runtime_checkable
class Imagination(Protocol):
    """World model and cost under a directive, for planners (§3.1.2 steps 3 and 4).

    States are unchecked and have M = B·N rows, the N candidates of a row side by side. Every
    `step` is counted in `model_calls` [B] int64. Differentiable in actions and z.
    """

    actions: ActionSpec
    model_calls: Tensor

    def select(self, index: Tensor) -> Imagination:
        """Imagination of the rows `index` [M] alone; its model calls are counted here too."""

    def start(self) -> State:
        """The present states, B rows."""

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The next states, after the encoded `action` [M A]."""

    def state_ids(self, state: State) -> Tensor | None:
        """Numbers [M], equal where states look alike; None where latents are to be compared."""

    def energy(self, state: State) -> Tensor:
        """u·IC(s) + risk·uncertainty(s), [M]."""

    def critic_value(self, state: State) -> Tensor:
        """v·TC(s), [M]; exactly 0 before the critic's first update."""

    def action_values(self, state: State) -> Tensor | None:
        """v·TC(s, a) of each discrete action, [M A]; None where the critic has none."""

    def begin(self, candidates: int) -> Futures:
        """`candidates` futures of each row, of 0 steps."""

    def extend(self, futures: Futures, action: Tensor, z: Tensor | None = None) -> Futures:
        """The futures after one more action [M A], its discounted cost added."""

    def rollout(self, actions: Tensor, z: Tensor | None = None) -> Futures:
        """The futures of N sequences of H actions for each row, [B N H A]."""

    def cost(self, futures: Futures) -> Tensor:
        """Cost of plans that end where the futures stand, [B N] float64 (§3.1.2 step 4)."""


@runtime_checkable
class Actor(Protocol):
    """Situation → action, directly (Mode-1, §3.1.1) or by optimisation in imagination (Mode-2,
    §3.1.2).
    """

    def act(self, situation: Situation, imagination: Imagination, directive: Directive) -> Plan:
        """The plan of every row, whose first action is carried out; rows in both modes together."""

    def initial(self, rows: int) -> Plan:
        """The plan before the first of an episode: nothing committed, zeros in the shapes of
        every plan of this actor.
        """


@runtime_checkable
class Configurator(Protocol):
    """Everyone's latest word → everyone's settings (§6)."""

    def configure(self, situation: Situation) -> Directive:
        """How the rest of this step is to work, a reason included."""

    def initial(self, rows: int) -> Directive:
        """The directive before the first step of an episode."""


@runtime_checkable
class Learnable(Protocol):
    """A module with losses. The learner sums those of all modules and descends the sum."""

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Named scalar losses, and priorities of the windows [B] >= 0 or None.

        `key` [1] int64 is the random key of this update (`modules.chance`).
        """

    def on_update(self) -> None:
        """Called after each optimiser step: target networks follow, schedules advance."""

    def on_reset(self) -> None:
        """Called after the learner has reset weights: schedules begin again."""

    def window_steps(self) -> int:
        """Steps of experience that the next `losses` reads, W."""

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps whose target states the next `losses` reads, [B W] bool, where the first
        `steps` have online states; the latents of other targets may be 0.
        """


VERBS: dict[str, tuple[str, ...]] = {
    "perception": ("perceive",),
    "world_model": ("predict",),
    "cost": ("energy",),
    "memory": ("previous", "recall"),
    "actor": ("act",),
    "configurator": ("configure",),
}
"""The methods of each port whose message is checked when it crosses."""

ANSWERS: dict[str, type[Message]] = {
    "perceive": State,
    "predict": State,
    "energy": Energy,
    "previous": Moment,
    "recall": Recollection,
    "act": Plan,
    "configure": Directive,
}
"""What each of those methods must answer with."""

P = TypeVar("P")


class _Gate:
    """A module behind its port: what it says is checked against the agent's axes."""

    def __init__(self, port: str, module: Any, dims: Mapping[str, int]) -> None:
        self._port, self._module, self._dims = port, module, dims
        for verb in VERBS[port]:
            setattr(self, verb, self._checked(getattr(module, verb), verb))

    def __getattr__(self, name: str) -> Any:
        # A copy that has no fields yet must not look for them in a module it does not have.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._module, name)

    def _checked(self, method: Any, verb: str) -> Any:
        wanted, dims, port = ANSWERS[verb], self._dims, self._port

        def crossing(*arguments: Any) -> Any:
            try:
                message = method(*arguments)
                if type(message) is not wanted:
                    raise MessageError(
                        wanted.__name__, verb, wanted.__name__, f"{type(message).__name__}"
                    )
                return message.check(dims)
            except MessageError as error:
                if error.module is None:
                    error.module = f"{port} ({type(self._module).__name__})"
                raise

        return crossing


def gate(port: str, module: P, dims: Mapping[str, int]) -> P:
    """The module, its answers checked as they cross the port.

    `dims` gives the length of every axis the agent knows (see `modules.messages`). A wrong answer
    raises MessageError naming module, message, field, wanted and got.
    """
    return cast(P, _Gate(port, module, dims))
