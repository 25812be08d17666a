"""The contract of every port, and a module held against it on small real data.

A module is put among the usual others, lives some steps of real worlds, and what it says is
compared with what its port promises. `check(kind, kinds)` gives one `Property` for each promise.
Policies, planners, critics, recalls and objectives are held against the contract of the port they
serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agent.assembly.build import Assembly, assemble
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import SLOT_NAMES, SLOTS, Kinds, suggestion
from agent.imagination import Imagination
from agent.live import live
from modules import chance
from modules.messages import (
    ConfigError,
    Experience,
    Message,
    MessageError,
    Moment,
    Situation,
    State,
)
from modules.ports import Batch, Learnable

VECTORS = ("CartPole-v1", "Pendulum-v1")
"""Small real data: discrete actions, and continuous ones."""

PIXELS = "ALE/Pong-v5"
"""Frames, for the ports that meet them."""

GOALS = "sextet/Orchard-v0"
"""A world that sets goals, for drives."""

ROWS, STEPS, SEED = 3, 12, 11
HORIZON, CALLS = 4, 24


@dataclass(frozen=True)
class Property:
    """One promise of a port, and whether it was kept; `detail` says why not."""

    slot: str
    kind: str
    world: str
    promise: str
    kept: bool
    detail: str = ""

    def __str__(self) -> str:
        said = f"{'ok  ' if self.kept else 'FAIL'} {self.slot}={self.kind} {self.world}: "
        return said + self.promise + (f": {self.detail}" if self.detail else "")


Promises = Iterator[tuple[str, Callable[[], None]]]
"""Pairs of a promise in words and what raises where it is not kept."""


class _BrokenError(Exception):
    """A promise that was not kept."""


def path_of(slot: str) -> tuple[str, ...]:
    """Where a slot stands in a config: `planner` is ("actor", "planner")."""
    if slot == "drive":
        return ("cost", "drives")
    return next(((outer, slot) for outer, inner in SLOTS.items() if slot in inner), (slot,))


def check(kind: str, kinds: Kinds) -> list[Property]:
    """Every promise of every slot that has this kind, in each world that it fits.

    Raises ConfigError where no slot has it.
    """
    slots = [slot for slot in SLOT_NAMES if kind in kinds.names(slot)]
    if not slots:
        known = [name for slot in SLOT_NAMES for name in kinds.names(slot)]
        raise ConfigError(
            f"check-module: {kind!r} is not one of {', '.join(dict.fromkeys(known))}"
            f"{suggestion(kind, known)}"
        )
    return [found for slot in slots for found in check_slot(slot, kind, kinds)]


def check_slot(slot: str, kind: str, kinds: Kinds) -> list[Property]:
    """Every promise of one slot's kind, in each world that it fits."""
    found: list[Property] = []
    refusals: list[str] = []
    meets_pixels = slot in ("perception", "world_model", "memory")
    worlds = (*VECTORS, PIXELS) if meets_pixels else VECTORS
    for world in (*VECTORS, GOALS) if slot == "drive" else worlds:
        tree = _tree(slot, kind, world)
        try:
            assembly = assemble(tree, kinds)
        except ConfigError as error:
            refusals.append(str(error))
            continue
        except Exception as error:
            found.append(
                Property(slot, kind, world, "is made by its constructor", False, _said(error))
            )
            continue
        try:
            found += _hold(slot, kind, world, tree, assembly, kinds)
        finally:
            assembly.world.close()
    if not found:
        found.append(Property(slot, kind, "-", "fits some world", False, refusals[0]))
    return found


def _tree(slot: str, kind: str, world: str) -> ConfigTree:
    """The kind among the usual others, which think little so that the check is quick."""
    tree: Any = [kind] if slot == "drive" else {"kind": kind}
    for name in reversed(path_of(slot)):
        tree = {name: tree}
    directing: ConfigTree = {"kind": kind} if slot == "configurator" else {"kind": "surprise"}
    if slot in ("policy", "planner"):
        directing = {"kind": "fixed", "mode": 1 if slot == "policy" else 2}
    rest = {
        "world": {"id": world, "num_envs": ROWS},
        "seed": SEED,
        "configurator": directing,
        "directive": {"horizon_steps": HORIZON, "model_calls": CALLS},
    }
    return merge(tree, rest)


def _hold(
    slot: str, kind: str, world: str, tree: ConfigTree, assembly: Assembly, kinds: Kinds
) -> Iterator[Property]:
    def said(promise: str, attempt: Callable[[], None]) -> Property:
        try:
            attempt()
        except Exception as error:
            return Property(slot, kind, world, promise, False, _said(error))
        return Property(slot, kind, world, promise, True)

    lived: list[Moment] = []

    def lives() -> None:
        lived.extend(live(assembly.agent, assembly.world, STEPS * ROWS, SEED))

    yield (first := said(f"lives {STEPS} steps, its messages of the right form", lives))
    if not first.kept:
        return
    yield said("lives the same life again from the same seed", lambda: _same(lived, tree, kinds))
    yield said("rows do not disturb each other", lambda: _alone(lived, tree, kinds))
    subject = _Subject(assembly, lived)
    port = path_of(slot)[0]
    for promise, attempt in PROMISES[port](subject):
        yield said(promise, attempt)
    module = subject.module(port)
    # A drive alone may be 0 for ever, so that its critic has nothing to learn.
    if isinstance(module, Learnable) and isinstance(module, nn.Module) and slot != "drive":
        yield said("learns: finite losses, gradients that reach it", lambda: _learns(subject, port))


class _Subject:
    """A life that was lived, and the modules that lived it."""

    def __init__(self, assembly: Assembly, lived: list[Moment]) -> None:
        self.assembly, self.lived = assembly, lived
        self.modules, self.agent = assembly.agent.modules, assembly.agent
        self.last = lived[-1]
        self.dims = dict(self.agent.dims)

    def module(self, port: str) -> Any:
        return getattr(self.modules, port)

    def situation(self) -> Situation:
        """What was known when the last moment was decided."""
        return self.last.situation(self.lived[-2], chance.keys(SEED, ROWS, STEPS - 1))

    def imagination(self, situation: Situation, directive: Any) -> Imagination:
        return self.agent.imagination(situation, directive)

    def any_actions(self, count: int, place: str) -> Tensor:
        """Encoded actions [count A] drawn by chance."""
        spec = self.agent.world.actions
        key = chance.keys(SEED, count, 0)
        if spec.discrete:
            return spec.encode(chance.integers(key, place, spec.size, 1)[:, 0])
        return chance.uniform(key, place, spec.size) * 2 - 1


# -- promises of every port -------------------------------------------------------------------


def _same(lived: list[Moment], tree: ConfigTree, kinds: Kinds) -> None:
    again = assemble(tree, kinds)
    try:
        for one, other in zip(
            lived, live(again.agent, again.world, STEPS * ROWS, SEED), strict=True
        ):
            for (name, mine), (_, theirs) in zip(one.tensors(), other.tensors(), strict=True):
                if mine is not None and theirs is not None and not torch.equal(mine, theirs):
                    raise _BrokenError(f"step {one.step}: {name} differs")
    finally:
        again.world.close()


def _alone(lived: list[Moment], tree: ConfigTree, kinds: Kinds) -> None:
    """Row 0 in company against row 0 alone: the same seed decides the same life."""
    single = assemble(merge(tree, {"world": {"num_envs": 1}}), kinds)
    first = torch.tensor([0])
    try:
        for one, other in zip(lived, live(single.agent, single.world, STEPS, SEED), strict=True):
            for (name, mine), (_, theirs) in zip(
                one.select(first).tensors(), other.tensors(), strict=True
            ):
                if mine is None or theirs is None or mine.shape != theirs.shape:
                    continue
                # A batch of one multiplies matrices in another order: equal but for rounding.
                if not torch.allclose(mine.double(), theirs.double(), rtol=1e-3, atol=1e-3):
                    raise _BrokenError(f"step {one.step}: {name} of row 0 differs when it is alone")
    finally:
        single.world.close()


def _learns(subject: _Subject, port: str) -> None:
    module, perception = subject.module(port), subject.modules.perception
    experience = subject.modules.memory.sample(4, 6, chance.keys(SEED, 1, 1))
    # As if all of it had been planned: so an actor has something to follow.
    experience = experience.replace(mode2_mask=experience.mask)
    with torch.enable_grad():
        online = perception.encode_windows(experience, None, None)
        losses, urgent = module.losses(
            Batch(experience, _encoded(experience, online), _encoded(experience, online.detach())),
            chance.keys(SEED, 1, 2),
        )
        own = [p for p in module.parameters() if p.requires_grad]
        _require(bool(losses) == bool(own), "it must give losses if it has parameters, else none")
        if not own:
            return
        for name, loss in losses.items():
            _require(loss.ndim == 0 and loss.isfinite(), f"{name} is not one finite number")
        total = torch.stack(list(losses.values())).sum()
        found = torch.autograd.grad(total, own, allow_unused=True)
    _require(any(g is not None and g.any() for g in found), "no gradient reached its parameters")
    if urgent is not None:
        _require(urgent.shape == (4,), f"priorities: expected [4], got {list(urgent.shape)}")
    module.on_update()


def _encoded(experience: Experience, latents: Tensor) -> list[State]:
    """Each of the W steps of latents [B W D] as a state."""
    rows, steps = experience.mask.shape
    return [
        State.unchecked(
            latent=latents[:, t],
            hidden=torch.zeros(rows, 0),
            signals=experience.signals[:, t],
            ended=(experience.terminated[:, t] | experience.truncated[:, t]).float(),
            uncertainty=torch.zeros(rows),
            goal=None if experience.goals is None else experience.goals[:, t],
        )
        for t in range(steps)
    ]


def _require(kept: bool | Tensor, why: str) -> None:
    if not bool(kept):
        raise _BrokenError(why)


def _equal(one: Message, other: Message, exact: bool = True) -> None:
    for (name, mine), (_, theirs) in zip(one.tensors(), other.tensors(), strict=True):
        if mine is None or theirs is None:
            _require(mine is theirs, f"{name} is missing in one of them")
            continue
        same = mine.shape == theirs.shape and (
            torch.equal(mine, theirs)
            if exact
            else torch.allclose(mine.double(), theirs.double(), rtol=1e-3, atol=1e-4)
        )
        _require(same, f"{name} differs")


def _shapes(message: Message) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in message.tensors() if t is not None}


def _finite(message: Message, but: tuple[str, ...] = ()) -> None:
    for name, tensor in message.tensors():
        if tensor is not None and tensor.dtype.is_floating_point and name not in but:
            _require(tensor.isfinite().all(), f"{name} is not finite")


def _pair(index: int) -> Tensor:
    return torch.tensor([index])


# -- promises of each port --------------------------------------------------------------------


def _perception(s: _Subject) -> Promises:
    perceive, before = s.modules.perception.perceive, s.lived[-2]
    observation = s.last.observation

    def initial() -> None:
        state = s.modules.perception.initial(ROWS).check(s.dims)
        _require(_shapes(state) == _shapes(s.last.state), "its shapes are not those it perceives")

    def passes_on() -> None:
        with torch.no_grad():
            state = perceive(observation, before)
        _require(torch.equal(state.signals, observation.signals), "signals differ")
        _require(torch.equal(state.ended, observation.ended.float()), "ended differs")
        _finite(state)

    def alone() -> None:
        with torch.no_grad():
            whole = perceive(observation, before)
            for row in range(ROWS):
                one = perceive(observation.select(_pair(row)), before.select(_pair(row)))
                _equal(whole.select(_pair(row)), one, exact=False)

    def begins() -> None:
        fresh = observation.replace(first=torch.ones(ROWS, dtype=torch.bool))
        hidden = before.state.hidden
        other = before.replace(state=before.state.replace(hidden=torch.zeros_like(hidden)))
        with torch.no_grad():
            _equal(perceive(fresh, before), perceive(fresh, other))

    def gradients() -> None:
        module = s.module("perception")
        if not isinstance(module, nn.Module) or not list(module.parameters()):
            return
        with torch.enable_grad():
            latent = perceive(observation, before).latent
            _require(latent.requires_grad, "its latent carries no gradient")
            found = torch.autograd.grad(
                latent.square().sum() + latent.sum(), list(module.parameters()), allow_unused=True
            )
        _require(any(g is not None for g in found), "no parameter got a gradient")

    yield "neutral has the shapes of what it perceives", initial
    yield "passes on signals and ends as they were observed, all finite", passes_on
    yield "a row alone is perceived as in the batch", alone
    yield "where an episode begins, the carry of the one before does not matter", begins
    yield "gradients reach its parameters", gradients


def _world_model(s: _Subject) -> Promises:
    model, cost = s.modules.world_model, s.modules.cost
    situation, directive = s.situation(), s.last.directive

    def start() -> State:
        return model.start(situation, directive)

    def begins() -> None:
        state = start()
        _require(state.batch == ROWS, f"expected {ROWS} rows, got {state.batch}")
        _require(torch.equal(state.signals, situation.state.signals), "signals differ")

    def steps() -> None:
        index = torch.arange(ROWS).repeat_interleave(2)
        after = model.step(start().select(index), s.any_actions(2 * ROWS, "check"))
        after = model.complete(after)
        dims = {**s.dims, "B": 2 * ROWS}
        State(**after.__dict__).check({k: v for k, v in dims.items() if k in ("B", "D", "S")})
        _finite(after)
        _require(((after.ended >= 0) & (after.ended <= 1)).all(), "ended is not within 0 and 1")
        _require((after.uncertainty >= 0).all(), "uncertainty is below 0")

    def apart() -> None:
        actions = s.any_actions(ROWS, "apart")
        whole = model.complete(model.step(start(), actions))
        for row in range(ROWS):
            one = model.complete(model.step(start().select(_pair(row)), actions[row : row + 1]))
            for name in ("latent", "signals", "ended", "uncertainty"):
                mine, theirs = getattr(whole, name)[row], getattr(one, name)[0]
                _require(torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4), f"{name} differs")

    def completed() -> None:
        once = model.complete(model.step(start(), s.any_actions(ROWS, "complete")))
        _equal(once, model.complete(once))

    def undisturbed() -> None:
        before = s.assembly.world.snapshot()
        state = start()
        for t in range(4):
            state = model.step(state, s.any_actions(ROWS, f"wander {t}"))
        cost.intrinsic(model.complete(state))
        _require(s.assembly.world.snapshot() == before, "the world is not as it was")

    def expects() -> None:
        actions = s.any_actions(ROWS, "predict")
        with torch.no_grad():
            expected = model.predict(situation, actions, directive).check(s.dims)
            _require(expected.hidden.shape == (ROWS, 0), "its carry is not empty")
            imagined = model.complete(model.step(start(), actions))
        _require(
            torch.allclose(expected.latent, imagined.latent, rtol=1e-3, atol=1e-4),
            "predict and step disagree",
        )

    def differentiable() -> None:
        module = s.module("world_model")
        if not isinstance(module, nn.Module) or not list(module.parameters()):
            return
        actions = s.any_actions(ROWS, "gradient").requires_grad_()
        # A fresh model may expect that nothing changes whatever is done: shake it awake.
        kept = {name: value.clone() for name, value in module.state_dict().items()}
        with torch.no_grad():
            for number, parameter in enumerate(module.parameters()):
                key = chance.keys(SEED, 1, number)
                parameter.add_(0.05 * chance.normal(key, "shake", *parameter.shape)[0])
        try:
            with torch.enable_grad():
                after = model.complete(model.step(start(), actions))
                (found,) = torch.autograd.grad(after.latent.sum() + after.signals.sum(), actions)
            _require(found.abs().sum() > 0, "the gradient is zero")
        finally:
            module.load_state_dict(kept)

    yield "starts from the present state, row for row", begins
    yield "steps any number of candidates; finite, ended within 0 and 1", steps
    yield "a candidate alone moves as among others", apart
    yield "a completed state stays as it is", completed
    yield "imagining leaves the world as it is", undisturbed
    yield "expects what it imagines, with no carry", expects
    yield "gradients of what it predicts reach the action", differentiable


def _cost(s: _Subject) -> Promises:
    cost, state = s.modules.cost, s.last.state
    directive = s.last.directive

    def felt() -> None:
        energy = cost.energy(state)
        _require(torch.equal(energy.intrinsic, cost.intrinsic(state)), "feel and intrinsic differ")
        _finite(energy)
        _require((energy.disagreement >= 0).all(), "disagreement is below 0")

    def weighed() -> None:
        energy = cost.energy(state)
        _require(
            torch.allclose(
                energy.critic_value(directive),
                cost.critic_value(state, directive.v),
                rtol=1e-4,
                atol=1e-5,
            ),
            "v·TC of feel and of future differ",
        )
        if (said := cost.action_values(state, directive.v)) is not None:
            best = cost.critic_value(state, directive.v)
            same = torch.allclose(said.amin(-1), best, rtol=1e-4, atol=1e-5)
            _require(same, "v·TC of future is not that of the best action")

    def fresh() -> None:
        if not cost.is_initialised():
            energy = cost.energy(state).at_best_action(directive)
            assert energy.critic is not None
            _require(not energy.critic.any(), "a critic that does not speak said something")
            _require(not cost.critic_value(state, directive.v).any(), "and foretold something")

    def immutable() -> None:
        module = s.module("cost")
        before = cost.intrinsic(state).clone()
        if isinstance(module, nn.Module):
            kept = {name: value.clone() for name, value in module.state_dict().items()}
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(1)
            try:
                _require(
                    torch.equal(cost.intrinsic(state), before),
                    "a drive changed with the parameters",
                )
            finally:
                module.load_state_dict(kept)

    def alone() -> None:
        whole = cost.energy(state)
        for row in range(ROWS):
            _equal(whole.select(_pair(row)), cost.energy(state.select(_pair(row))), exact=False)

    def differentiable() -> None:
        signals = state.signals.clone().requires_grad_()
        with torch.enable_grad():
            total = cost.intrinsic(State.unchecked(**{**state.__dict__, "signals": signals})).sum()
        _require(total.requires_grad, "energies carry no gradient to what is felt")

    yield "feels what its drives say, all finite", felt
    yield "v·TC is the same felt and imagined", weighed
    yield "a fresh critic says exactly nothing", fresh
    yield "drives do not change when parameters do", immutable
    yield "a row alone costs what it does in the batch", alone
    yield "gradients of the energy reach what is felt", differentiable


def _memory(s: _Subject) -> Promises:
    memory = s.modules.memory

    def previous() -> None:
        last, ended = memory.previous(), s.last.observation.ended
        for row in range(ROWS):
            if not bool(ended[row]):
                _equal(last.select(_pair(row)).state, s.last.select(_pair(row)).state)

    def recalls() -> None:
        found = memory.recall(s.last.state).check({"B": ROWS})
        _finite(found)
        _require((found.weights >= 0).all(), "a weight is below 0")
        _require((found.weights.sum(-1) <= 1 + 1e-4).all(), "weights sum to more than 1")
        _require(((found.novelty >= 0) & (found.novelty <= 1)).all(), "novelty not within 0 and 1")
        _require((found.ages >= 0).all(), "an age is below 0")
        _require(_shapes(found) == _shapes(memory.initial(ROWS)), "neutral has other shapes")
        _equal(found, memory.recall(s.last.state))

    def recognises() -> None:
        # The state was just written, so it is better known than one like nothing seen.
        strange = s.last.state.replace(latent=-50 * s.last.state.latent - 7)
        known = memory.recall(s.last.state).novelty
        _require((known <= memory.recall(strange).novelty).all(), "it knows the strange better")

    def samples() -> None:
        key = chance.keys(SEED, 1, 0)
        found = memory.sample(16, 6, key)
        _equal(found, memory.sample(16, 6, key))
        _require(found.mask.shape == (16, 6), f"expected 16 windows of 6, got {found.mask.shape}")
        _require(found.mask[:, 0].all(), "a window begins with nothing")
        over = (found.terminated | found.truncated)[:, :-1]
        _require(not (over & found.mask[:, 1:]).any(), "a window crosses the end of an episode")

    def forgets() -> None:
        from agent.modules import initial_moment

        before = initial_moment(s.modules, s.agent.world, ROWS)
        memory.reset(before)
        _equal(memory.previous(), before)
        _equal(memory.recall(s.last.state), memory.recall(s.last.state))

    yield "gives back the last moment", previous
    yield "recalls weights, ages and novelty within their bounds, repeatably", recalls
    yield "knows what it has seen better than what it has not", recognises
    yield "samples windows that never cross the end of an episode", samples
    yield "begins by forgetting", forgets


def _actor(s: _Subject) -> Promises:
    actor, situation = s.modules.actor, s.situation()
    spec = s.agent.world.actions
    horizon = s.last.plan.actions.shape[1]

    def act(
        mode: int, calls: int, situation: Situation = situation, standing: Any = s.last.directive
    ) -> tuple[Any, Imagination]:
        whole = torch.ones(situation.batch, dtype=torch.int64)
        directive = standing.replace(
            mode=whole * mode, model_calls=whole * calls, horizon_steps=whole * horizon,
            commit_steps=whole,
        )  # fmt: skip
        imagination = s.imagination(situation, directive)
        with torch.no_grad():
            return actor.act(situation, imagination, directive), imagination

    def initial() -> None:
        plan = actor.initial(ROWS)
        _require(_shapes(plan) == _shapes(s.last.plan), "its shapes are not those of its plans")
        _require(
            not plan.remaining_commit.any() and not plan.model_calls.any(),
            "it has spent or promised",
        )

    def valid() -> None:
        for mode in (1, 2):
            plan, _ = act(mode, 60)
            plan.check(s.dims)
            _finite(plan, but=("candidate_energies",))
            _require(((plan.steps >= 1) & (plan.steps <= horizon)).all(), "steps out of range")
            action = plan.action
            if spec.discrete:
                one = ((action == 0) | (action == 1)).all() and (action.sum(-1) == 1).all()
                _require(one, f"mode {mode}: an action is not one-hot")
            else:
                _require((action.abs() <= 1).all(), f"mode {mode}: an action is out of bounds")

    def budget() -> None:
        for calls in (0, 1, 2, 7, 40, 150):
            plan, imagination = act(2, calls)
            most = int(plan.model_calls.max())
            _require(most <= calls, f"spent {most} model calls of {calls}")
            _require(
                torch.equal(plan.model_calls, imagination.model_calls),
                f"says {plan.model_calls.tolist()}, imagined {imagination.model_calls.tolist()}",
            )

    def reacts() -> None:
        plan, imagination = act(1, 100)
        _require(not imagination.model_calls.any(), "Mode-1 imagined")
        _require((plan.mode == 1).all(), "asked for Mode-1, says it planned")

    def waits() -> None:
        over = situation.replace(state=situation.state.replace(ended=torch.ones(ROWS)))
        _, imagination = act(2, 100, over)
        _require(not imagination.model_calls.any(), "it plans for an episode that is over")

    def together() -> None:
        whole, _ = act(2, 40)
        for row in range(ROWS):
            index = _pair(row)
            one, _ = act(2, 40, situation.select(index), s.last.directive.select(index))
            _require(
                torch.allclose(whole.action[row], one.action[0], atol=1e-3), f"row {row} differs"
            )

    yield "neutral has the shapes of its plans, nothing spent", initial
    yield "actions are one-hot or within bounds, in both modes", valid
    yield "stays within any budget and says what it spent", budget
    yield "Mode-1 imagines nothing", reacts
    yield "does not plan where the episode is over", waits
    yield "a row is served alone as among others", together


def _configurator(s: _Subject) -> Promises:
    configurator, situation = s.modules.configurator, s.situation()

    def configure(situation: Situation) -> Any:
        with torch.no_grad():
            return configurator.configure(situation).check({**s.dims, "B": situation.batch})

    def initial() -> None:
        standing = configurator.initial(ROWS)
        _require(_shapes(standing) == _shapes(s.last.directive), "other shapes than its directives")

    def sensible() -> None:
        for directive in (configure(situation), configurator.initial(ROWS)):
            _finite(directive)
            _require(((directive.mode == 1) | (directive.mode == 2)).all(), "mode is not 1 or 2")
            most, room = int(directive.horizon_steps.max()), s.last.plan.actions.shape[1]
            _require(most <= room, f"horizon {most} is longer than plans, {room}")
            _require((directive.horizon_steps >= 1).all(), "a horizon is below 1")
            _require((directive.model_calls >= 0).all(), "a budget is below 0")
            _require((directive.commit_steps >= 1).all(), "commit_steps below 1")
            _require((directive.u >= 0).all(), "a drive has a weight below 0")
            _require(len(directive.reason) == ROWS, "expected one reason a row")
            _require(all(directive.reason), "a reason is empty")

    def repeatable() -> None:
        one, other = configure(situation), configure(situation)
        _equal(one, other)
        _require(one.reason == other.reason, "reasons differ")

    def alone() -> None:
        whole = configure(situation)
        for row in range(ROWS):
            one = configure(situation.select(_pair(row)))
            _equal(whole.select(_pair(row)), one, exact=False)

    yield "neutral has the shapes of its directives", initial
    yield "modes, horizons, budgets, weights and reasons are sensible", sensible
    yield "keeps nothing from one call to the next", repeatable
    yield "a row alone is configured as in the batch", alone


PROMISES: dict[str, Callable[[_Subject], Promises]] = {
    "perception": _perception,
    "world_model": _world_model,
    "cost": _cost,
    "memory": _memory,
    "actor": _actor,
    "configurator": _configurator,
}
"""What each port promises beyond the form of its messages."""


def _said(error: Exception) -> str:
    kind = "" if isinstance(error, _BrokenError | MessageError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
