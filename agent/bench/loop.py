"""Cost of the messages: `Agent.step` against the same computation written by hand.

Three ways to process the same recorded observations, in turn, piece by piece:

by hand   the networks, the memory and the arithmetic of every module, called one after another on
          plain tensors; no message is constructed, nothing is checked
checked   `Agent.step`: every message constructed and checked at its port
traced    the same, with episode statistics and a trace written

All three must choose the same actions. The world is not stepped while the clock runs. Nature CNN
at 84×84, four frames, JEPA, drives and a critic of random weights, ring and associative memory, a
Mode-1 policy, all on one thread.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.assembly.load import prepared, request_for
from agent.bench.support.clock import in_turn
from agent.engines.threads import one_thread
from agent.recording.episode_stats import EpisodeStats
from agent.recording.trace import TraceWriter
from modules import chance
from modules.actor.actor import Actor
from modules.actor.planner import one_hot
from modules.actor.policy import Categorical
from modules.cost.cost import Cost
from modules.memory.associative import Associative
from modules.memory.ring import Ring
from modules.messages import SIGNALS, Directive, Moment, Observation, State, WorldSpec
from modules.nets.frames import as_bytes
from modules.perception.pixels import Pixels
from modules.ports import World
from modules.world_model.jepa import JEPA

WORLD = "ALE/Breakout-v5"
_NOVELTY = SIGNALS.index("novelty")
_SEED = 0

Turn = Callable[[Observation], Tensor]
"""One turn of the loop: from an observation to the actions [B A]."""


class ByHand:
    """The loop without messages: direct code for exactly these modules."""

    def __init__(self, agent: Agent, rows: int, directive: Directive) -> None:
        m = agent.modules
        self.perception, self.model = cast(Pixels, m.perception), cast(JEPA, m.world_model)
        self.cost, self.ring = cast(Cost, m.cost), cast(Ring, m.memory)
        self.recall = cast(Associative, self.ring.associative)
        self.policy = cast(Categorical, cast(Actor, m.actor).policy)
        self.rows, self.steps = rows, 0
        self.tokens, self.mode, self.v = directive.tokens, directive.mode, directive.v
        start = m.perception.initial(rows)
        self.hidden, self.latent, self.signals = start.hidden, start.latent, start.signals
        self.age = torch.full((rows,), -1)
        self.over = torch.zeros(rows, dtype=torch.bool)

    @torch.no_grad()
    def step(self, observation: Observation) -> Tensor:
        """The actions [B A], by the steps of `Agent.step`."""
        # An episode that ended is followed by initial values.
        first = observation.first
        if bool(self.over.any()):
            fresh, keep = self.perception.initial(self.rows), ~self.over
            self.hidden = torch.where(keep[:, None], self.hidden, fresh.hidden)
            self.latent = torch.where(keep[:, None], self.latent, fresh.latent)
            self.signals = torch.where(keep[:, None], self.signals, fresh.signals)
            self.age = torch.where(keep, self.age, -1)
        assert observation.pixels is not None
        frame, hidden = as_bytes(observation.pixels), self.hidden
        if first.any():
            repeated = frame.flatten(1).repeat(1, self.perception.frame_stack - 1)
            hidden = torch.where(first[:, None], repeated, hidden)
        latent, self.hidden = self.perception.encode_frame(frame, hidden, self.tokens)
        novelty, self.recalled = self._recall(latent)
        signals = observation.signals.clone()
        signals[:, _NOVELTY] = novelty
        state = SimpleNamespace(
            latent=latent,
            signals=signals,
            goal=None,
            readout=None,
            inputs=lambda reads_memory: latent,
        )
        self.intrinsic = self.cost.intrinsic(cast(State, state))
        self.expected = self.cost.critic.expect(cast(State, state))
        heads = self.expected.critic_actions
        assert heads is not None
        best = (heads * self.v.unsqueeze(1)).sum(-1).argmin(-1)
        self.critic = heads[torch.arange(self.rows), best]
        error = (latent - self.latent).square().sum(-1)
        scale = latent.square().sum(-1) + self.latent.square().sum(-1)
        signal_error = (signals.tanh() - self.signals.tanh())[:, [0, 1, 3]].abs().amax(-1)
        self.surprise = (error / scale.clamp_min(1e-8) + signal_error) * ~first
        self.age = self.age + 1
        key = chance.keys(_SEED, self.rows, self.steps)
        logits = self.policy.logits(latent, self.tokens)
        noise = chance.gumbel(key, "policy", logits.shape[-1])
        action = one_hot((logits + noise).argmax(-1), logits.shape[-1])
        # As in planning, `step` checks no message.
        here = SimpleNamespace(
            latent=latent, hidden=self.tokens.flatten(1), goal=None, readout=None
        )
        after = self.model.step(cast(State, here), action)
        self.latent, self.signals, self.ended = after.latent, after.signals, after.ended
        seen = SimpleNamespace(
            pixels=observation.pixels,
            vector=None,
            goal=None,
            first=first,
            terminated=observation.terminated,
            truncated=observation.truncated,
            ended=observation.ended,
        )
        moment = SimpleNamespace(
            observation=seen,
            plan=SimpleNamespace(action=action, mode=self.mode),
            state=state,
            directive=SimpleNamespace(tokens=self.tokens),
        )
        # The directive never changes, so the moment before an episode equals any other.
        moment.where = lambda mask, initial: moment
        self.ring.write(cast(Moment, moment))
        self.over = observation.ended
        self.steps += 1
        return action

    def _recall(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Novelty [B] and the other fields of a recollection, as `Associative` computes them."""
        memory = self.recall
        match = memory.match(latent)
        coefficients = match.similarity / match.normaliser
        index = np.argsort(-coefficients, -1, kind="stable")[:, : memory.top_k]
        place = memory._rows[:, None], index
        weights = coefficients[place]
        ages = ((memory.time - memory.used[place]) * (weights > 0)).astype(np.float32)
        fields = (memory.keys[place], memory.values[place], weights, ages)
        value = (coefficients[:, None] @ memory.values)[:, 0]
        novelty = torch.from_numpy(memory.config.gamma / match.normaliser[:, 0])
        return novelty, (*map(torch.from_numpy, fields), torch.from_numpy(value))


def _recorded(world: World, steps: int) -> list[Observation]:
    """Observations of a run with random actions."""
    seen, size = [world.reset(_SEED)], world.spec.actions.size
    for step in range(steps - 1):
        key = chance.keys(_SEED, world.num_envs, step)
        seen.append(world.step(one_hot(chance.integers(key, "bench", size), size)))
    return seen


def _initialise_critic(agent: Agent) -> None:
    """Gives the critic random weights: one without updates returns 0 and is not evaluated."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        for member in cast(Any, agent.modules.cost).critic.members:
            torch.nn.init.normal_(member.last.weight, std=0.01)


def _agent(rows: int) -> tuple[Agent, World]:
    """The agent measured, and its world."""
    settings = (
        "perception.kind=pixels-nature",
        "world_model.kind=jepa",
        "actor.policy.kind=categorical",
        "configurator.kind=fixed",
        "configurator.mode=1",
    )
    assembly = prepared(request_for(WORLD, settings, seed=_SEED, num_envs=rows))
    return assembly.agent, assembly.world


@contextmanager
def _turns(
    agents: Sequence[Agent], world: WorldSpec, rows: int, folder: Path
) -> Iterator[dict[str, Turn]]:
    """The three ways, each with modules of its own."""
    by_hand_agent, checked, traced = agents
    for agent in agents:
        agent.reset(rows, _SEED)
    by_hand = ByHand(by_hand_agent, rows, by_hand_agent.modules.configurator.initial(rows))
    stats = EpisodeStats(world.id, rows)
    costs = traced.modules.cost
    with TraceWriter(folder / "trace.sqlite", world, rows, costs.drives, costs.heads) as writer:

        def checked_step(observation: Observation) -> Tensor:
            return checked.step(observation).plan.action

        def traced_step(observation: Observation) -> Tensor:
            moment = traced.step(observation)
            stats.add(moment)
            writer.write(moment)
            return moment.plan.action

        yield {"by_hand": by_hand.step, "checked": checked_step, "traced": traced_step}


def compare(
    make: Callable[[int], tuple[Agent, World]], rows: int, steps: int, piece: int
) -> dict[str, float]:
    """Milliseconds a turn of the three ways, and the ratios, for `rows` worlds side by side.

    The ways take turns of `piece` steps, in an order that changes, so that other load on the
    machine affects all three alike; each ratio is the median over rounds.
    """
    agents, worlds = zip(*(make(rows) for _ in range(3)), strict=True)
    for agent in agents:
        _initialise_critic(agent)
    observations = _recorded(worlds[0], steps)
    for world in worlds:
        world.close()
    chosen: dict[str, list[Tensor]] = {}

    def play(name: str, turn: Turn) -> Callable[[int], None]:
        done = chosen[name] = []

        def one_piece(i: int) -> None:
            done.extend(map(turn, observations[i * piece : (i + 1) * piece]))

        return one_piece

    with (
        tempfile.TemporaryDirectory() as folder,
        _turns(agents, worlds[0].spec, rows, Path(folder)) as turns,
    ):
        ways = {name: play(name, turn) for name, turn in turns.items()}
        gc.collect()
        spans = in_turn(ways, steps // piece - 1, warmup=1)
    by_hand, checked, traced = (torch.stack(actions) for actions in chosen.values())
    if not (torch.equal(by_hand, checked) and torch.equal(by_hand, traced)):
        raise AssertionError("bench loop: expected equal actions of the three ways, got others")
    ms = {name: span[:, 0] / piece * 1e3 for name, span in spans.items()}
    return {
        **{f"{name}_ms": float(np.median(each)) for name, each in ms.items()},
        "ratio": float(np.median(ms["checked"] / ms["by_hand"])),
        "ratio_trace": float(np.median(ms["traced"] / ms["by_hand"])),
    }


@one_thread()
def run() -> dict[str, float]:
    """The figures of `compare`, at 1 and 16 rows."""
    return {
        f"{name}_b{rows}": figure
        for rows, steps, piece in ((1, 1260, 30), (16, 420, 10))
        for name, figure in compare(_agent, rows, steps, piece).items()
    }
