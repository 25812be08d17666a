"""The interfaces of the world and of the six modules (LeCun 2022, Fig. 2).

A module is any object with these methods; one that learns is a `torch.nn.Module` too. Modules
import messages and never each other: one reads another's output as a message or, in planning,
through `Imagination`. Axes such as [B D] are those of `modules.messages`; B counts the rows, the
environments that are stepped side by side, N the candidates of a plan, M = B·N imagined states, H
the steps of a plan, W those of a window of experience. Sections and equations are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from modules.messages import (
    ActionSpec,
    Directive,
    Energy,
    Experience,
    LatentSpec,
    Message,
    MessageError,
    Moment,
    Observation,
    Pairs,
    Plan,
    Recollection,
    Shape,
    Situation,
    State,
    WorldSpec,
)


class Batch(NamedTuple):
    """What one update learns from: B windows of W steps, encoded.

    `targets` are the EMA encodings of all W steps, without gradient; a step that is in no module's
    `Learnable.target_mask` has latent 0. `states` are the online encodings, with gradient, of
    the first steps: as many as the learner's `online_steps`.
    """

    experience: Experience
    states: list[State]
    targets: list[State]


def encoded_state(experience: Experience, latents: Tensor, readouts: Tensor | None = None) -> State:
    """The first T of W steps of `experience` as one state of B·T rows, from their `latents`
    [B T D], the steps of a window side by side.

    `ended` is 1 where the episode ends at the step; `hidden` is empty [M 0], `uncertainty` 0.
    `readouts` [B T U]: what memory returns of them; None: what it returned then.
    """
    steps, goals = latents.shape[1], experience.goals
    if readouts is None and experience.readouts is not None:
        readouts = experience.readouts[:, :steps]
    flat = latents.flatten(0, 1)
    return State.unchecked(
        latent=flat,
        hidden=flat.new_zeros(len(flat), 0),
        signals=experience.signals[:, :steps].flatten(0, 1),
        ended=(experience.terminated | experience.truncated)[:, :steps].flatten().float(),
        uncertainty=flat.new_zeros(len(flat)),
        goal=None if goals is None else goals[:, :steps].flatten(0, 1),
        readout=None if readouts is None else readouts.flatten(0, 1),
    )


def encoded_states(
    experience: Experience, latents: Tensor, readouts: Tensor | None = None
) -> list[State]:
    """The state of `encoded_state` as T states of B rows, one a step."""
    rows, steps = latents.shape[:2]
    state = encoded_state(experience, latents, readouts)
    # Unbound at once: gradients of views taken one by one are each as large as all steps.
    by_field = {
        name: repeat(None) if value is None else value.view(rows, steps, *value.shape[1:]).unbind(1)
        for name, value in state.tensors()
    }
    return [
        State.unchecked(**dict(zip(by_field, values, strict=True)))
        for values in zip(*by_field.values(), strict=False)
    ]


class Futures(NamedTuple):
    """The imagined futures of N candidates of each of B rows, `steps` steps long.

    A candidate, a sequence of actions, has K futures, which differ in their latent variables z.
    `state`: where they stand, B·N·K rows, the candidates of a row side by side, the futures of a
    candidate within. `costs` [B N K] float64: Σ of the discounted costs of their steps. `survivals`
    [B N K] float64: probability that the episode lasts beyond the last step.
    """

    state: State
    costs: Tensor
    survivals: Tensor
    steps: int

    @property
    def survival(self) -> Tensor:
        """Probability that the episode of each candidate lasts beyond the last step, [B N]."""
        return self.survivals.mean(-1)

    def select(self, index: Tensor) -> Futures:
        """Of each row the candidates `index` [B M]."""
        rows, candidates, futures = self.costs.shape
        place = (torch.arange(rows) * candidates)[:, None] + index
        place = place.unsqueeze(-1) * futures + torch.arange(futures)
        whole = index.unsqueeze(-1).expand(-1, -1, futures)
        return Futures(
            self.state.select(place.flatten()),
            self.costs.gather(1, whole),
            self.survivals.gather(1, whole),
            self.steps,
        )

    def where(self, mask: Tensor, other: Futures) -> Futures:
        """These futures in the rows `mask` [B] (bool), `other` in the rest."""
        column, per_row = mask[:, None, None], self.costs[0].numel()
        return Futures(
            self.state.where(mask.repeat_interleave(per_row), other.state),
            self.costs.where(column, other.costs),
            self.survivals.where(column, other.survivals),
            self.steps,
        )

    def ended(self) -> Futures:
        """The same futures, their episodes over: what follows costs nothing."""
        return self._replace(survivals=torch.zeros_like(self.survivals))


@runtime_checkable
class World(Protocol):
    """B environments stepped side by side, each with its own sequence of episodes.

    `spec` describes observations and actions, `num_envs` is B. Any method raises WorldError where
    an environment fails.
    """

    spec: WorldSpec
    num_envs: int

    def reset(self, seed: int) -> Observation:
        """The first observation of every row; the episodes of row r are a function of `seed`, r
        and the actions alone.
        """

    def step(self, action: Tensor) -> Observation:
        """The observation after the encoded action [B A] (`ActionSpec`).

        In a row whose episode ended at the observation before, the action is ignored and the first
        observation of a new episode follows.
        """

    def snapshot(self) -> bytes:
        """All state of the world, without pickle, from which `restore` continues bit for bit.
        Raises WorldError where the world cannot be saved.
        """

    def restore(self, data: bytes) -> Observation:
        """Returns to a snapshot, and its observation. Raises WorldError where the bytes are damaged
        or of a world made with other settings.
        """

    def rehearse(self) -> str | None:
        """Why a snapshot will not restore the world, one line; None where no reason is known.

        A test before the first `reset`, which must follow it.
        """

    def render(self) -> Tensor:
        """Pictures for a person, [B H W 3] uint8, all of one size."""

    def close(self) -> None:
        """Frees processes, windows and memory; the world is not used afterwards."""


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
        """A handle of the present state of a row, which holds a copy of the environment.

        Raises WorldError where the environment cannot be copied.
        """

    def simulate(self, handle: Any, action: Any, seed: int | None) -> SimStep:
        """One step from `handle` with a native action (int or array [A]).

        With `seed` None the row's own random numbers are used (*clairvoyant*: it foresees chance);
        else the random numbers of the step are drawn from `seed` (*fair*).
        """

    def require_simulation(self) -> None:
        """Raises WorldError where imagined steps would not follow the rules of the world, or would
        change where it stands. Called before the first `reset`.
        """

    def render_observation(self, handle: Any) -> Any:
        """The observation of that state, numpy: pixels [H W C] uint8 or vector [N] float32."""


@runtime_checkable
class Perception(Protocol):
    """Observation → state: s[0] = Enc(x) (§3), modulated by the directive's tokens (§6).

    `latent_size` is D. A perception whose settings have a `sensor` asks the world for frames of
    that form (`worlds.protocols.Sensor`).
    """

    latent_size: int

    def perceive(self, observation: Observation, previous: Moment) -> State:
        """The estimate of the present state.

        Reads of the moment before it the tokens `previous.directive.tokens` and its own context
        `previous.state.hidden`. Raises MessageError where the observation has another form.
        """

    def initial(self, rows: int) -> State:
        """The state before the first of an episode: zeros in the usual shapes."""

    def encode_windows(
        self,
        experience: Experience,
        tokens: Tensor | None,
        augment_key: Tensor | None,
        step_mask: Tensor | None = None,
    ) -> Tensor:
        """Latents [B W D] of all steps of all windows in one pass, for the learner.

        `tokens` [B W T E]: those of each step; None: 0. `augment_key` [1] (int64): random key of
        the augmentation; None: no augmentation. `step_mask` [B W] (bool): the steps whose latents
        are read, others may be 0; None: all. Raises MessageError where the windows lack what the
        encoder needs.
        """


@runtime_checkable
class WorldModel(Protocol):
    """State and action → possible next states, and what perception missed (§3, roles 1 and 2).

    `latent` describes the latent variable z of a `LatentVariableModel`; None where a model has
    none (`modules.world_model.deterministic.Deterministic`).

    A model whose imagined states have identities may also offer `state_ids(state) -> Tensor`: [M]
    int64, equal where states look alike. Planners then compare these instead of latents.

    One that can show what it imagines offers `decode(state) -> Tensor`: the observations of states,
    frames [M H Y C] uint8 or vectors [M N], as the world shows them.

    One with a level above has `coarser`, a `CoarserWorldModel` or None, and `levels_shape`, (J, I),
    the form of `State.levels` in what it predicts.

    `hidden_size`, R: what `predict` returns has a `hidden` [B R], which `surprise` and the next
    `start`, in `situation.previous.expected`, may read; it is 0 where an episode begins.
    """

    latent: LatentSpec | None
    hidden_size: int

    def start(self, situation: Situation, directive: Directive) -> State:
        """The present state as `step` takes it, [B ...]: `hidden` is now the model's own."""

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The states [M ...] after the encoded actions [M A], under latent variables `z` [M Z];
        without `z` those under the most likely one. They keep the `readout` of `state`.
        """

    def complete(self, state: State) -> State:
        """The state with its latent, where `step` left computing it for later; else itself."""

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The state expected after the chosen action [B A] (§3.1.1).

        Its `hidden` [B R] is what the model itself carries on to `surprise` and to the next step.
        """

    def surprise(self, expected: State, state: State) -> Tensor:
        """How far the present `state` is from what `predict` `expected`, [B] >= 0.

        The distance of the two (`State.distance`); where there is a latent variable, that of the
        least surprising z: F = min_z E (§4.4).
        """


@runtime_checkable
class LatentVariableModel(WorldModel, Protocol):
    """A world model whose next state depends on a latent variable z too (§4.4, §4.8)."""

    latent: LatentSpec

    def sample_latent(
        self, state: State, action: Tensor, luck: Tensor, temperature: Tensor
    ) -> Tensor:
        """Latent variables [M Z] drawn from p(z | s, a), the Gibbs distribution of their
        regulariser, for states [M ...] and encoded actions [M A].

        `luck` [M U] in (0, 1) are the uniform numbers that a draw is a function of, U being
        `latent.luck`: with equal luck two candidates have the same good or bad fortune.
        `temperature` [M] >= 0: 0 draws the most likely z, 1 from p, more from a flatter one.
        """

    def infer_latent(self, state: State, action: Tensor, outcome: State) -> tuple[Tensor, Tensor]:
        """argmin_z E, [M Z], and F = min_z E, [M] >= 0, of states [M ...], encoded actions [M A]
        and the states [M ...] that followed: which z explains what happened (§4.4).
        """


@runtime_checkable
class CoarserWorldModel(WorldModel, Protocol):
    """The world model of a level above another (§4.6): a step is `pool_steps` of those below, an
    action one of the `macro_actions`.

    Its states are those of the agent, so that costs and the planner of the level below read them:
    `latent` [M D] is what a state of this level means at the lowest, `State.levels` its own latent.
    `coarser` is the level above this one, None of the highest.
    """

    pool_steps: int
    macro_actions: ActionSpec
    coarser: CoarserWorldModel | None

    def steps_to(self, state: State, goal: Tensor) -> Tensor:
        """Steps of this level from states to goals, latents of the lowest level [M D], [M] >= 0."""


@runtime_checkable
class WritingWorldModel(WorldModel, Protocol):
    """A world model that also writes to memory (§4.9).

    `memory_writes` Z > 0: the pairs of each step. Their queries have the size of a latent, their
    values twice that.
    """

    memory_writes: int

    def writes(self, previous: Moment, state: State, first: Tensor) -> Pairs:
        """What the step from `previous` to the present `state` [B ...] changed, as pairs of query
        and value; nothing in the rows `first` [B], whose episode begins.
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


class Recorded(NamedTuple):
    """What a recording tells of a step: the step is an `expert`'s; whether its `action` and its
    `ends` (terminated or truncated) are known; `signals` [S] bool: which signals are.
    """

    expert: bool
    action: bool
    ends: bool
    signals: Tensor

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.action and self.ends and bool(self.signals.all())


@runtime_checkable
class Memory(Protocol):
    """Short-term memory: retrieval by time (§3.3) and by similarity (§4.9)."""

    def reset(self, initial: Moment) -> None:
        """Empties the memory; `initial` is the moment before the first of an episode.

        Raises MessageError where its rows are not those of the memory.
        """

    def previous(self) -> Moment:
        """The moment before the next observation: the last one written, and the initial moment in
        rows whose episode ended there.
        """

    def recall(self, state: State) -> Recollection:
        """The stored entries most similar to `state`, and its novelty; changes nothing."""

    def initial(self, rows: int) -> Recollection:
        """The recollection before the first of an episode: zeros in the usual shapes, novelty 0."""

    def write(self, moment: Moment, recorded: Recorded | None = None) -> None:
        """Stores a moment of all B rows, once a step; the moment is then the `previous` of the next
        step. A memory that is full overwrites its oldest steps. The moment is not copied.

        `recorded`: what is known of a moment that comes from a recording; None: the agent's own.
        """

    def last_written(self) -> Moment:
        """The last moment as it was written, also in rows whose episode ended there."""

    def cut_episodes(self) -> None:
        """Ends the episode of every row with the last step, as truncated, where it has not ended:
        the observation that follows is of another.
        """

    def sample(self, batch: int, window: int, key: Tensor) -> Experience:
        """`batch` windows of up to `window` steps, drawn by the random key [1] (int64).

        Raises MessageError where the memory is empty.
        """

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        """Sets the priorities [B], >= 0, of the windows at `Experience.indices` [B] (int64)."""

    def tensors(self) -> dict[str, Tensor]:
        """A copy of all that is stored, by name: what a checkpoint holds."""

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `tensors` returned, after `reset`; the memory then continues exactly.

        Raises MessageError where they are of a memory with other settings.
        """


@runtime_checkable
class WritableMemory(Memory, Protocol):
    """A memory that the world model writes to, and whose reading is trained (§4.9)."""

    def write_pairs(self, pairs: Pairs) -> None:
        """Writes each value to the entries that its query addresses, in each step before `write`.

        Raises MessageError where queries or values have other sizes than its entries.
        """

    def reread(self, experience: Experience, latents: Tensor) -> Tensor | None:
        """The read-outs [B T U] of the first T steps of windows with `latents` [B T D], from the
        entries that it held then, by its present weights. Differentiable in these. None: those
        that it returned then.
        """


@runtime_checkable
class Imagination(Protocol):
    """World model and cost under a directive, for planners (§3.1.2 steps 3 and 4).

    Every candidate has as many futures as the directive says, all of them behind `Futures`: a
    planner sees candidates and what they cost. States are unchecked. Every future of a step is
    counted in `model_calls` [B] int64. Differentiable in actions and z.
    """

    model_calls: Tensor

    @property
    def num_futures(self) -> Tensor:
        """Futures of each candidate of a row, [B] int64 >= 1."""

    @property
    def pool_steps(self) -> int:
        """Steps of the level below in one step of this level; 1 at the lowest."""

    @property
    def subgoal(self) -> Tensor | None:
        """The sub-goal that the directive sets, [B D], inf in rows without one; None: it sets none
        at this level.
        """

    def coarser(self) -> Imagination:
        """Imagination at the level above, its actions macro-actions; counted here too (§4.6)."""

    def towards(self, subgoal: Tensor) -> Imagination:
        """The same imagination with the energies of a sub-goal [B D] in place of the goal's;
        counted here too.
        """

    def steps_to_goal(self) -> Tensor:
        """Steps of this level, one above the lowest, from the present state to the goal, [B]."""

    def select(self, index: Tensor) -> Imagination:
        """Imagination of the rows `index` [M] alone; its model calls are counted here too."""

    def start(self) -> State:
        """The present states, B rows."""

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The next states [M ...], after the encoded `action` [M A]; M is a multiple of B."""

    def state_ids(self, state: State) -> Tensor | None:
        """Numbers [M], equal where states look alike; None where latents are to be compared."""

    def energy(self, state: State) -> Tensor:
        """u·IC(s) + risk·uncertainty(s), [M]."""

    def critic_value(self, state: State) -> Tensor:
        """v·TC(s), [M]; exactly 0 before the critic's first update."""

    def action_values(self, futures: Futures) -> Tensor | None:
        """v·TC(s, a) of each discrete action where the futures stand, their mean for each
        candidate, [B N A]; None where the critic has none.
        """

    def begin(self, candidates: int) -> Futures:
        """The futures of `candidates` N of each row, of 0 steps."""

    def extend(self, futures: Futures, action: Tensor) -> Futures:
        """The futures after one more action of each candidate [B·N A], its discounted cost
        added.
        """

    def rollout(self, actions: Tensor) -> Futures:
        """The futures of N sequences of H actions for each row, [B N H A]."""

    def cost(self, futures: Futures) -> Tensor:
        """Cost of plans that end where the futures stand, [B N] float64 (§3.1.2 step 4, §4.8)."""


@runtime_checkable
class Actor(Protocol):
    """Situation → action, directly (Mode-1, §3.1.1) or by optimisation in imagination (Mode-2,
    §3.1.2).
    """

    def act(self, situation: Situation, imagination: Imagination, directive: Directive) -> Plan:
        """The plan of every row; its first action is carried out. Rows may be in different modes.

        A plan takes at most `directive.model_calls` imagined steps a row. A row in Mode-2 whose
        episode has ended or whose budget is 0 gets a plan of Mode-1, as `Plan.mode` says.
        """

    def initial(self, rows: int) -> Plan:
        """The plan before the first of an episode: nothing committed, zeros in the shapes of
        every plan of this actor.
        """


@runtime_checkable
class Configurator(Protocol):
    """Situation → directive: the settings of every other module for this step (§6)."""

    def configure(self, situation: Situation) -> Directive:
        """The settings for the rest of this step, and the reason for them, a line a row."""

    def initial(self, rows: int) -> Directive:
        """The directive before the first of an episode; its tokens modulate the first encoding."""


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


Methods = Mapping[str, type[Message] | Shape]
"""Names of methods, and what each returns: a message, or a tensor of a shape."""

CHECKED_METHODS: Mapping[str, Methods] = {
    "perception": {"perceive": State},
    "world_model": {"predict": State, "surprise": Shape("B", least=0)},
    "cost": {"energy": Energy},
    "memory": {"previous": Moment, "recall": Recollection},
    "actor": {"act": Plan},
    "configurator": {"configure": Directive},
}
"""Port → its methods whose message is checked in every step."""

IMAGINED_METHODS: Mapping[str, Methods] = {
    "world_model": {"start": State, "step": State, "complete": State},
    "cost": {
        "intrinsic": Shape("M K"),
        "critic_value": Shape("M"),
        "action_values": Shape("M A"),
    },
}
"""Port → its methods that planners use, unchecked unless a plan is refused."""

WRITING_METHODS: Mapping[str, Methods] = {
    "world_model": {**CHECKED_METHODS["world_model"], "writes": Pairs}
}
"""As `CHECKED_METHODS`, of a world model that writes to memory."""

LEARNING_METHODS: Mapping[str, Methods] = {"memory": {"sample": Experience}}
"""Port → its methods that are checked in every update."""

M = TypeVar("M")


class _Gate:
    """A module whose messages are checked against the axes of its agent."""

    def __init__(
        self, port: str, module: Any, dims: Mapping[str, int], methods: Mapping[str, Methods]
    ) -> None:
        self._module, self._dims = module, dims
        self._name: str = module._name if isinstance(module, _Gate) else module_name(port, module)
        for name, expected in methods[port].items():
            setattr(self, name, self._checked(name, expected))

    def __getattr__(self, name: str) -> Any:
        # A copy that has no fields yet must not look for them in a module it does not have.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._module, name)

    def _checked(self, name: str, expected: type[Message] | Shape) -> Callable[..., Any]:
        method, dims = getattr(self._module, name), self._dims

        def checked(*arguments: Any) -> Any:
            try:
                answer = method(*arguments)
                if isinstance(expected, Shape):
                    if answer is not None and not expected.allows(answer):
                        raise expected.refusal("values", name, answer)
                    return answer
                if type(answer) is not expected:
                    received = type(answer).__name__
                    raise MessageError(expected.__name__, name, expected.__name__, received)
                return answer.check(dims)
            except MessageError as error:
                if error.module is None:
                    error.module = self._name
                raise

        return checked


def module_name(port: str, module: object) -> str:
    """A module as errors name it: `cost (Cost)`."""
    return f"{port} ({type(module).__name__})"


def gate(
    port: str,
    module: M,
    dims: Mapping[str, int],
    methods: Mapping[str, Methods] = CHECKED_METHODS,
) -> M:
    """The module with what its `methods` return checked.

    `dims` gives the lengths of the axes that the agent knows (see `modules.messages`). A message of
    another form, or with numbers out of the range of their field, raises MessageError that names
    module, message, field, row, expected and received.
    """
    return cast(M, _Gate(port, module, dims, methods))
