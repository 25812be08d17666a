"""World models that are the world itself: a simulator stepped from where the agent stands.

They need no learning and make no error, so what an agent does with them shows what its planner
and cost are worth. Two classes, because they answer two questions: `Clairvoyant` also foresees
the world's luck, `Fair` knows only its rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from modules import chance
from modules.messages import ConfigError, Directive, Situation, State, WorldSpec
from modules.ports import Simulator

EncodeFrame = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Encodes percepts: (frames [M H W C] or vectors [M N], carry [M R], tokens [M T E]) to
(latent [M D], carry [M R])."""


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
    """Where a row stands in this step of the agent. `nodes`: how many there are of it."""

    key: int
    node: int
    tokens: Tensor
    chance: Tensor
    nodes: int = 1


class _SimulatorModel(ABC):
    """What both classes share: a table of the states imagined in this step of the agent.

    An imagined state's `carry` [M 1] is its place in the table, its latent a mere name until
    `complete` looks at it. The same action from the same state is stepped once and remembered,
    and so are handles that compare equal: that saves time, every model call is still counted.
    The table is emptied when a row comes back with a new random key, that is in a new step.
    """

    def __init__(
        self, *, live_world: Any, latent_size: int, world: WorldSpec, encode_frame: EncodeFrame
    ) -> None:
        if not isinstance(live_world, Simulator):
            raise ConfigError(
                "config world_model.kind: expected a world that can be imagined from, got "
                f"{world.id!r} as {type(live_world).__name__}; choose world_model.kind=jepa or "
                "rows of single emulators"
            )
        self.simulator: Simulator = live_world
        self.latent_size, self.actions, self.encode_frame = latent_size, world.actions, encode_frame
        self._forget()

    def _forget(self) -> None:
        self._nodes: list[_Node] = []
        self._roots: dict[int, _Root] = {}
        self._after: dict[tuple[int, Hashable], int] = {}
        self._known: dict[Any, int] = {}
        self._met: dict[int, float] = {}

    @abstractmethod
    def _luck(self, node: int, action: Hashable) -> int | None:
        """The seed of a step, or None for the world's own random numbers."""

    def start(self, situation: Situation, directive: Directive) -> State:
        """The present state of each row; the simulator is asked once a row and agent step."""
        rows, keys = situation.env_index.tolist(), situation.rng_key.tolist()
        if any(
            r in self._roots and self._roots[r].key != k for r, k in zip(rows, keys, strict=True)
        ):
            self._forget()
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
        )

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The states after `action` [M A]; where the episode is over nothing moves any more."""
        native = self.actions.decode(action.detach())
        chosen = native.tolist()
        places = [
            self._follow(place, act if self.actions.discrete else tuple(act), native, i)
            for i, (place, act) in enumerate(zip(state.hidden[:, 0].tolist(), chosen, strict=True))
        ]
        reached = [self._nodes[place] for place in places]
        return State.unchecked(
            latent=self._names(reached),
            hidden=torch.tensor(places).unsqueeze(1),
            signals=torch.stack([node.signals for node in reached]),
            ended=torch.tensor([float(node.ended) for node in reached]),
            uncertainty=torch.zeros(len(places)),
            goal=state.goal,
        )

    def _names(self, nodes: list[_Node]) -> Tensor:
        """What stands for the latents until `complete`: equal where handles have equal hashes.

        So a planner can tell which futures look alike. The hash itself would differ from one
        process to the next; the order in which hashes are met does not.
        """
        met = self._met
        names = [met.setdefault(hash(node.handle), float(len(met))) for node in nodes]
        return torch.tensor(names).unsqueeze(1).expand(-1, self.latent_size)

    def _follow(self, place: int, action: Hashable, native: Tensor, i: int) -> int:
        node = self._nodes[place]
        if node.ended:
            return place
        if (place, action) in self._after:
            return self._after[place, action]
        argument = action if self.actions.discrete else native[i].numpy()
        glimpse = self.simulator.simulate(node.handle, argument, self._luck(place, action))
        # Equal handles are one state, but what was felt on the way there belongs to it too.
        same = (node.root, node.depth, glimpse.handle, glimpse.signals, glimpse.ended)
        known = self._known.get(same, len(self._nodes))
        if known == len(self._nodes):
            root = self._roots[node.root]
            self._nodes.append(
                _Node(
                    handle=glimpse.handle,
                    parent=place,
                    depth=node.depth + 1,
                    root=node.root,
                    number=root.nodes,
                    signals=torch.tensor(glimpse.signals, dtype=torch.float32),
                    ended=glimpse.ended,
                )
            )
            root.nodes += 1
            self._known[same] = known
        self._after[place, action] = known
        return known

    @torch.no_grad()
    def complete(self, state: State) -> State:
        """The states as perception would see them, frame stacks and directive tokens included."""
        places = state.hidden[:, 0].tolist()
        unseen: dict[int, set[int]] = {}
        for place in places:
            while self._nodes[place].latent is None:
                unseen.setdefault(self._nodes[place].depth, set()).add(place)
                place = self._nodes[place].parent
        for depth in sorted(unseen):
            self._look(sorted(unseen[depth]))
        latents = [self._nodes[place].latent for place in places]
        fields = dict(state.__dict__)
        fields["latent"] = torch.stack([latent for latent in latents if latent is not None])
        return State.unchecked(**fields)

    def _look(self, places: list[int]) -> None:
        """Sees the states at `places`, whose parents have been seen."""
        nodes = [self._nodes[place] for place in places]
        frames = torch.from_numpy(
            np.stack([self.simulator.render_observation(node.handle) for node in nodes])
        )
        carries = [self._nodes[node.parent].hidden for node in nodes]
        latents, after = self.encode_frame(
            frames,
            torch.stack([hidden for hidden in carries if hidden is not None]),
            torch.stack([self._roots[node.root].tokens for node in nodes]),
        )
        for node, latent, hidden in zip(nodes, latents, after, strict=True):
            node.latent, node.hidden = latent, hidden

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """What the simulator shows after `action` [B A]."""
        state = self.complete(self.step(self.start(situation, directive), action))
        return State(**{**state.__dict__, "hidden": torch.zeros(len(action), 0)})


class Clairvoyant(_SimulatorModel):
    """The simulator with its own random numbers: it foresees the world's luck.

    An upper bound, not an agent that could live elsewhere: say so with every figure.
    """

    class Config(BaseModel):
        """No settings; needs a world that can be imagined from."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["clairvoyant"] = "clairvoyant"

    def _luck(self, node: int, action: Hashable) -> int | None:
        return None


class Fair(_SimulatorModel):
    """The simulator with its luck drawn anew: it knows the rules of the world, not its future.

    Each state and action has its own luck, independent of that of every other; the same pair
    meets the same luck again within a step of the agent, whatever other rows imagine. Luck common
    to all candidates would compare them with less noise, but lets a plan fit one future that will
    not come.
    """

    class Config(BaseModel):
        """No settings; needs a world that can be imagined from."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["fair"] = "fair"

    def _luck(self, node: int, action: Hashable) -> int | None:
        root, number = self._roots[self._nodes[node].root].chance, self._nodes[node].number
        return int(chance.integers(root, f"fair {number} {action}", 2**31 - 1))
