"""World models that are the world's own simulator, stepped from where the agent stands.

They need no training and make no error, so results with them measure planner and cost alone.
`Clairvoyant` also uses the world's random numbers, `Fair` draws its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modules import chance
from modules.messages import ConfigError, Directive, Frozen, Situation, State, WorldSpec
from modules.ports import Simulator
from modules.world_model.deterministic import Deterministic

EncodeFrame = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Encodes percepts: (frames [M H W C] or vectors [M N], hidden [M R], tokens [M T E]) to
(latent [M D], hidden [M R])."""


@dataclass(slots=True)
class _Node:
    """A state reached in imagination: how, and what is known of it. `number`: its place among
    those of its root.
    """

    handle: Any
    parent: int
    depth: int
    root: int
    number: int
    signals: Tensor
    ended: bool
    latent: Tensor | None = None
    hidden: Tensor | None = None


@dataclass(slots=True)
class _Root:
    """Where a row stands in this step of the agent. `num_nodes`: nodes reached from it, itself
    included.
    """

    key: int
    node: int
    tokens: Tensor
    rng_key: Tensor
    num_nodes: int = 1


class _SimulatorModel(Deterministic, ABC):
    """A table of the states imagined in this step of the agent.

    `hidden` [M 1] of an imagined state is its place in the table; its latent is NaN until
    `complete` renders and encodes it. The same action from the same state is simulated once, and
    equal handles share a place: that saves time, and every model call is still counted. The table
    is emptied when a row comes with a new random key, that is in a new step.
    """

    def __init__(
        self, *, live_world: Any, latent_size: int, world: WorldSpec, encode_frame: EncodeFrame
    ) -> None:
        if not isinstance(live_world, Simulator):
            raise ConfigError(
                "config world_model.kind: expected a world that can be imagined from, got "
                f"{world.id!r} as {type(live_world).__name__}; choose world_model.kind=jepa, "
                "rows of single emulators or world.isolate=false"
            )
        live_world.require_simulation()
        self.simulator: Simulator = live_world
        self.latent_size, self.actions, self.encode_frame = latent_size, world.actions, encode_frame
        self._clear()

    def _clear(self) -> None:
        self._nodes: list[_Node] = []
        self._roots: dict[int, _Root] = {}
        self._after: dict[tuple[int, Hashable], int] = {}
        self._places: dict[Hashable, int] = {}
        self._ids: dict[int, int] = {}

    @abstractmethod
    def _seed(self, place: int, action: Hashable) -> int | None:
        """The seed of a step, or None for the world's own random numbers."""

    def start(self, situation: Situation, directive: Directive) -> State:
        """The present state of each row; one handle is saved a row and agent step."""
        rows, keys = situation.env_index.tolist(), situation.rng_key.tolist()
        if any(
            r in self._roots and self._roots[r].key != k for r, k in zip(rows, keys, strict=True)
        ):
            self._clear()
        state, places = situation.state, []
        for i, (row, key) in enumerate(zip(rows, keys, strict=True)):
            if row not in self._roots:
                place = len(self._nodes)
                self._nodes.append(
                    _Node(
                        handle=self.simulator.save_state(row),
                        parent=-1,
                        depth=0,
                        root=row,
                        number=0,
                        signals=state.signals[i],
                        ended=bool(state.ended[i] >= 0.5),
                        latent=state.latent[i],
                        hidden=state.hidden[i],
                    )
                )
                self._roots[row] = _Root(
                    key, place, directive.tokens[i], situation.rng_key[i : i + 1]
                )
            places.append(self._roots[row].node)
        return State.unchecked(
            latent=state.latent,
            hidden=torch.tensor(places).unsqueeze(1),
            signals=state.signals,
            ended=state.ended,
            uncertainty=torch.zeros(len(places)),
            goal=state.goal,
            readout=state.readout,
        )

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The states after `action` [M A]; a state whose episode is over stays as it is."""
        native = self.actions.decode(action.detach())
        numbers = native.tolist()
        places = [
            self._simulate(place, act if self.actions.discrete else tuple(act), native, i)
            for i, (place, act) in enumerate(zip(state.hidden[:, 0].tolist(), numbers, strict=True))
        ]
        reached = [self._nodes[place] for place in places]
        return State.unchecked(
            latent=torch.full((1, 1), torch.nan).expand(len(places), self.latent_size),
            hidden=torch.tensor(places).unsqueeze(1),
            signals=torch.stack([node.signals for node in reached]),
            ended=torch.tensor([float(node.ended) for node in reached]),
            uncertainty=torch.zeros(len(places)),
            goal=state.goal,
            readout=state.readout,
        )

    def state_ids(self, state: State) -> Tensor:
        """Numbers [M] int64, equal where handles have equal hashes (see `ports.WorldModel`).

        Counted in order of appearance, because a hash differs from process to process.
        """
        hashes = [hash(self._nodes[place].handle) for place in state.hidden[:, 0].tolist()]
        return torch.tensor([self._ids.setdefault(one, len(self._ids)) for one in hashes])

    def _simulate(self, place: int, action: Hashable, native: Tensor, i: int) -> int:
        """The place of the state after row i's action."""
        node = self._nodes[place]
        if node.ended:
            return place
        if (place, action) in self._after:
            return self._after[place, action]
        argument = action if self.actions.discrete else native[i].numpy()
        step = self.simulator.simulate(node.handle, argument, self._seed(place, action))
        # Equal handles are one state only with equal signals, which belong to the way there.
        same = (node.root, node.depth, step.handle, step.signals, step.ended)
        after = self._places.setdefault(same, len(self._nodes))
        if after == len(self._nodes):
            root = self._roots[node.root]
            self._nodes.append(
                _Node(
                    handle=step.handle,
                    parent=place,
                    depth=node.depth + 1,
                    root=node.root,
                    number=root.num_nodes,
                    signals=torch.tensor(step.signals, dtype=torch.float32),
                    ended=step.ended,
                )
            )
            root.num_nodes += 1
        self._after[place, action] = after
        return after

    @torch.no_grad()
    def complete(self, state: State) -> State:
        """The states with the latents that perception would encode, frame stacks and directive
        tokens included.
        """
        places = state.hidden[:, 0].tolist()
        pending: dict[int, set[int]] = {}
        for place in places:
            while self._nodes[place].latent is None:
                pending.setdefault(self._nodes[place].depth, set()).add(place)
                place = self._nodes[place].parent
        for depth in sorted(pending):
            self._encode(sorted(pending[depth]))
        latents = [self._nodes[place].latent for place in places]
        stacked = torch.stack([latent for latent in latents if latent is not None])
        return state.replace(latent=stacked)

    def _encode(self, places: list[int]) -> None:
        """Encodes the states at `places`, whose parents are encoded."""
        nodes = [self._nodes[place] for place in places]
        frames = torch.from_numpy(
            np.stack([self.simulator.render_observation(node.handle) for node in nodes])
        )
        contexts = [self._nodes[node.parent].hidden for node in nodes]
        latents, contexts_after = self.encode_frame(
            frames,
            torch.stack([hidden for hidden in contexts if hidden is not None]),
            torch.stack([self._roots[node.root].tokens for node in nodes]),
        )
        for node, latent, hidden in zip(nodes, latents, contexts_after, strict=True):
            node.latent, node.hidden = latent, hidden

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The completed state after `action` [B A], `hidden` [B 0]."""
        state = self.complete(self.step(self.start(situation, directive), action))
        return state.replace(hidden=torch.zeros(len(action), 0))


class Clairvoyant(_SimulatorModel):
    """The simulator with the world's own random numbers: chance events are foreseen.

    An upper bound and no fair agent: state it with every figure.
    """

    class Config(Frozen):
        """No settings; needs a world that can be imagined from."""

    def _seed(self, place: int, action: Hashable) -> int | None:
        return None


class Fair(_SimulatorModel):
    """The simulator with random numbers of its own: it has the rules of the world, not its chance
    events.

    Each pair of state and action has independent random numbers, the same ones again within a
    step of the agent, also beside other rows. Numbers common to all candidates would compare
    them with less noise but fit plans to one future that will not happen.
    """

    class Config(Frozen):
        """No settings; needs a world that can be imagined from."""

    def _seed(self, place: int, action: Hashable) -> int | None:
        node = self._nodes[place]
        key = self._roots[node.root].rng_key
        return int(chance.integers(key, f"fair {node.number} {action}", 2**31 - 1))
