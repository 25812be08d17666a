"""Cost of an update: the learner against the same update written by hand; shares of a turn.

The update by hand is plain PyTorch for exactly one agent: its layers, the replay memory as arrays
and its losses, without messages or ports. Both start from the same weights, and before the clock
runs both must compute the same losses on one batch. Then they update in turn, each from its own
windows of the same replay memory, and the medians are compared.

The small CNN at 84×84, four frames, batch 32, five predicted steps, one prediction head, one
critic of every action five steps ahead, one thread.
"""

from __future__ import annotations

import copy
import time
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agent.assembly.build import assemble, known_kinds
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import preset
from agent.bench.support.clock import in_turn
from agent.engines.threads import one_thread
from agent.learning.learner import Learner
from agent.live import continue_from
from modules import chance
from modules.cost.cost import Cost
from modules.cost.critic import ActionCritic
from modules.memory.ring import Ring
from modules.messages import SIGNALS, Experience
from modules.nets.conv import CNN
from modules.nets.normalisation import symlog
from modules.perception.pixels import PixelsSmall, shifted
from modules.world_model.jepa import JEPA

WORLD = "ALE/Breakout-v5"

FILLED, WARM_TURNS = 1000, 5
"""Steps in memory, then turns with updates, before turns are timed."""

BATCH, UNROLL, REACH, STACK, SHIFT, INTENSITY = 32, 5, 5, 4, 4, 0.05
WINDOW = UNROLL + 1
RATE, TARGET_RATE, DECAY, CLIP, DISCOUNT = 1e-4, 0.01, 0.1, 10.0, 0.99

TREE: ConfigTree = {
    "world": {"id": WORLD, "protocol": "100k"},
    "perception": {"kind": "pixels-small"},
    "world_model": {
        "kind": "jepa", "unroll_steps": UNROLL, "blocks": 1, "ensemble_size": 1,
        "objective": {"kind": "none"},
    },
    "cost": {"critic": {"kind": "actions", "ensemble_size": 1, "n_steps": REACH,
                        "ema_rate": TARGET_RATE}},
    "memory": {"capacity": 10_000},
    "actor": {"policy": {"kind": "greedy", "epsilon": 0.5}},
    "configurator": {"kind": "fixed", "mode": 1},
    "learner": {
        "batch": BATCH, "online_steps": 1, "learning_rate": RATE, "weight_decay": DECAY,
        "max_grad_norm": CLIP, "ema_rate": TARGET_RATE, "warmup_steps": 2,
        "precision": "bfloat16",
    },
}  # fmt: skip


@one_thread()
def run(steps: int = 1500, updates: int = 60, turns: int = 100) -> dict[str, float]:
    """Collects `steps` steps, then times `updates` of each kind and `turns` of a training.

    `ratio`: updates a second of the learner over those by hand; 1 is as fast. `update_ms`,
    `by_hand_ms`: medians of processor time, sampling included; `update_wall_ms`: of wall time,
    which is larger where other programs use the processor. `share_env`, `share_act`,
    `share_sample`, `share_update`: of the time of a turn of the preset `atari-hour`.
    """
    learner = _learner(TREE, steps)
    hand = Handwritten(learner)
    agree(learner, hand)
    ways = {"hand": lambda _: hand.update(), "learner": lambda _: learner.update()}
    spans = in_turn(ways, updates, warmup=5)
    wall_s, learner_s = np.median(spans["learner"], 0).tolist()
    hand_s = float(np.median(spans["hand"][:, 1]))
    return {
        "ratio": round(hand_s / learner_s, 4),
        "update_ms": round(1e3 * learner_s, 2),
        "by_hand_ms": round(1e3 * hand_s, 2),
        "update_wall_ms": round(1e3 * wall_s, 2),
        **_shares(turns),
    }


def _learner(tree: ConfigTree, steps: int) -> Learner:
    """A learner whose agent has made `steps` steps."""
    assembly = assemble(tree, known_kinds(), training=True)
    agent, world = assembly.agent, assembly.world
    agent.reset(world.num_envs, 0)
    for _ in continue_from(agent, world, world.reset(0), steps):
        pass
    world.close()
    return Learner(agent, config=assembly.config.settings.learner, seed=0)


def _shares(turns: int) -> dict[str, float]:
    """Shares of the time of a turn of training with the preset `atari-hour`."""
    tree = merge(preset("atari-hour"), {"world": TREE["world"], "memory": {"capacity": 10_000}})
    assembly = assemble(tree, known_kinds(), training=True)
    agent, world = assembly.agent, assembly.world
    learner = Learner(agent, config=assembly.config.settings.learner, seed=0)
    begin = FILLED // world.num_envs
    agent.reset(world.num_envs, 0)
    observation, spent = world.reset(0), dict.fromkeys(("env", "act", "sample", "update"), 0.0)
    for turn in range(begin + WARM_TURNS + turns):
        if turn == begin + WARM_TURNS:
            spent = dict.fromkeys(spent, 0.0)
        times = [time.perf_counter()]
        moment = agent.step(observation)
        times.append(time.perf_counter())
        due = 0
        if turn >= begin:
            due = sum(1 for _ in learner.learn(world.num_envs, learner.config.warmup_steps))
        times.append(time.perf_counter())
        for _ in range(due):
            # Sampled once more by itself: within an update it cannot be timed.
            key = chance.keys(0, 1, learner.updates)
            agent.memory.sample(learner.config.batch, learner.window_steps(), key)
        times.append(time.perf_counter())
        observation = world.step(moment.plan.action)
        times.append(time.perf_counter())
        for name, span in zip(("act", "update", "sample", "env"), np.diff(times), strict=True):
            spent[name] += float(span)
    world.close()
    spent["update"] -= spent["sample"]
    total = sum(spent.values())
    return {f"share_{name}": round(value / total, 4) for name, value in spent.items()}


# -- by hand --------------------------------------------------------------------------------


class _Batch(NamedTuple):
    """Windows as arrays, [B W ...], frames [B W+3 H Y 1], and the random numbers of the batch."""

    frames: Tensor
    actions: Tensor
    signals: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    member_weights: Tensor
    shift: Tensor
    brightness: Tensor


class Running:
    """Running mean and variance."""

    def __init__(self, size: int) -> None:
        self.mean, self.var, self.count = torch.zeros(size), torch.ones(size), 0

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Adds the values `x` [M D]."""
        rate = max(1 / (self.count + 1), 0.01)
        var, mean = torch.var_mean(x, 0, correction=0)
        moved = mean - self.mean
        self.var = (1 - rate) * self.var + rate * var + rate * (1 - rate) * moved.square()
        self.mean = self.mean + rate * moved
        self.count += 1

    def magnitude(self) -> Tensor:
        """Root mean square."""
        return (self.var + self.mean.square()).sqrt()


class Encoder(nn.Module):
    """Two convolutions, a linear map, a sphere."""

    def __init__(self, of: PixelsSmall) -> None:
        super().__init__()
        first, second = cast(CNN, of.network).convolutions
        self.layers = nn.Sequential(
            copy.deepcopy(first), nn.ReLU(True), copy.deepcopy(second), nn.ReLU(True),
            nn.Flatten(), copy.deepcopy(of.project),
        )  # fmt: skip
        self.usual = Running(of.latent_size)

    def forward(self, frames: Tensor, learning: bool) -> Tensor:
        """Latents [M D] of frames [M 4 H Y], standardised by the batch."""
        out: Tensor = self.layers(frames).float()
        if learning:
            self.usual.update(out.detach())
        var, mean = torch.var_mean(out, 0, correction=0)
        standard = (out - mean) / ((var + 1e-6).sqrt() + 1e-3)
        return functional.rms_norm(standard, (out.shape[-1],), eps=1e-6)


class Block(nn.Module):
    """x + W₂·SiLU(W₁·norm(x))."""

    def __init__(self, norm: nn.Module, inner: nn.Module, outer: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*map(copy.deepcopy, (norm, inner)), nn.SiLU())
        self.layers.append(copy.deepcopy(outer))

    def forward(self, x: Tensor) -> Tensor:
        """[M width] to [M width]."""
        return x + self.layers(x)  # type: ignore[no-any-return]


def _mlp(of: Any) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for linear in of.hidden:
        layers += [copy.deepcopy(linear), nn.SiLU()]
    return nn.Sequential(*layers, copy.deepcopy(of.last))


class Handwritten:
    """The update of one agent, with copies of the weights and replay memory of a learner."""

    def __init__(self, learner: Learner) -> None:
        m, self.autocast = learner.modules, learner.autocast
        perception, model = cast(PixelsSmall, m.perception), cast(JEPA, m.world_model)
        critic = cast(ActionCritic, cast(Cost, m.cost).critic)
        self.online = Encoder(perception)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        trunk = cast(Any, model.trunk)
        self.predict = nn.Sequential(
            copy.deepcopy(trunk.first),
            *(Block(*of) for of in zip(trunk.norms, trunk.inner, trunk.outer, strict=True)),
            copy.deepcopy(model.change),
        )
        self.energy, self.heads = _mlp(model.signal_head), model.config.ensemble_size
        self.critics = nn.ModuleList(_mlp(member) for member in critic.members)
        self.critic_targets = copy.deepcopy(self.critics).requires_grad_(False)
        # The other weights have averages too, which are evaluated and stored.
        self.rest = nn.ModuleList([self.predict, self.energy, self.critics])
        self.rest_averages = copy.deepcopy(self.rest).requires_grad_(False)
        size = perception.latent_size
        self.latent_stats, self.delta_stats = Running(size), Running(size)
        self.error_stats = Running(size)
        self.signal_stats = Running(len(SIGNALS))
        trained = nn.ModuleList([self.online, self.predict, self.energy, self.critics])
        self.parameters = list(trained.parameters())
        self.optimiser = torch.optim.AdamW(self.parameters, lr=RATE, weight_decay=DECAY, fused=True)
        tensors = m.memory.tensors()
        self.replay = {name: t.numpy() for name, t in tensors.items() if "." not in name}
        self.steps = len(self.replay["began"])
        self.actions, self.drives = critic.values.shape[0], len(critic.heads)
        self.rng = np.random.default_rng(0)

    def update(self) -> dict[str, float]:
        """One update."""
        losses = self.losses(self.sample())
        total = torch.stack(list(losses.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimiser.step()
        with torch.no_grad():
            for slow, fast in (
                (self.target, self.online),
                (self.critic_targets, self.critics),
                (self.rest_averages, self.rest),
            ):
                torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), TARGET_RATE)
            self.target.usual = copy.copy(self.online.usual)
        figures = torch.stack([*(loss.detach() for loss in losses.values()), total.detach(), norm])
        return dict(zip([*losses, "total", "norm"], figures.tolist(), strict=True))

    def sample(self) -> _Batch:
        """Windows from random starts, and the augmentation of their frames."""
        replay, rng = self.replay, self.rng
        start = rng.integers(0, self.steps - WINDOW, BATCH)[:, None]
        times = start + np.arange(WINDOW)
        valid = replay["began"][times] <= start
        stop = start + valid.sum(1, keepdims=True) - 1
        at = np.minimum(times, stop)
        shown = np.clip(start + np.arange(1 - STACK, WINDOW), replay["began"][start], stop)
        real = torch.from_numpy(valid)
        chosen = torch.from_numpy(replay["actions"].take(at, 0)).long()
        drawn = rng.integers(-SHIFT, SHIFT + 1, (BATCH, 2))
        noise = rng.standard_normal(BATCH).clip(-2, 2).astype(np.float32)
        return _Batch(
            frames=torch.from_numpy(replay["frames"].take(shown, 0)),
            actions=functional.one_hot(chosen, self.actions).float() * real[..., None],
            signals=torch.from_numpy(replay["signals"].take(at, 0)) * real[..., None],
            terminated=torch.from_numpy(replay["terminated"].take(at, 0)) & real,
            truncated=torch.from_numpy(replay["truncated"].take(at, 0)) & real,
            valid=real,
            member_weights=torch.ones(BATCH, 1)
            if self.heads == 1
            else torch.from_numpy(2.0 * rng.integers(0, 2, (BATCH, self.heads))).float(),
            shift=torch.from_numpy(drawn),
            brightness=torch.from_numpy(1 + INTENSITY * noise),
        )

    def _encoded(self, encoder: Encoder, batch: _Batch, mask: Tensor, learning: bool) -> Tensor:
        """Latents [M D] of the steps `mask` [B W], after augmentation."""
        several = mask.shape[1] + STACK - 1
        frames = batch.frames[:, :several]
        moved = shifted(frames, batch.shift)[..., 0]
        exact = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        runs = moved.unfold(1, STACK, 1).permute(0, 1, 4, 2, 3)[mask].to(exact)
        bright = (batch.brightness * (1 / 255)).to(exact)
        row = mask.nonzero()[:, 0]
        return cast(Tensor, encoder(runs.mul_(bright[row, None, None, None]), learning))

    def losses(self, batch: _Batch) -> dict[str, Tensor]:
        """The losses of this agent, by name."""
        valid, rows = batch.valid, torch.arange(BATCH)
        with torch.autocast("cpu", torch.bfloat16, self.autocast):
            first = self._encoded(self.online, batch, valid[:, :1], True)
            with torch.no_grad():
                later = valid & (torch.arange(valid.shape[1]) > 0)
                encoded = self._encoded(self.target, batch, later, False)
            target = encoded.new_zeros(*valid.shape, encoded.shape[-1]).index_put((later,), encoded)
        return self._model(batch, first, target) | {
            "cost/critic": self._critic(batch, first, target, rows)
        }

    def _model(self, batch: _Batch, first: Tensor, target: Tensor) -> dict[str, Tensor]:
        valid, signals = batch.valid, symlog(batch.signals)
        over = batch.terminated | batch.truncated
        usable = valid[:, 1:] & valid[:, :-1] & ~over[:, :-1]
        self.latent_stats.update(target[:, 1:][valid[:, 1:]])
        self.delta_stats.update((target[:, 2:] - target[:, 1:-1])[usable[:, 1:]])
        self.signal_stats.update(signals[:, 1:][usable])
        scale = self.latent_stats.var.sqrt().clamp_min(1e-3)
        stride = torch.maximum(self.delta_stats.magnitude(), 1e-3 * scale)
        reached = usable.cumprod(1).bool()
        latent, row = first, torch.arange(BATCH)
        predicted, states, changes, rows, times = [], [], [], [], []
        for t in range(UNROLL):
            alive = reached[row, t]
            latent, row = latent[alive], row[alive]
            standard = (latent - self.latent_stats.mean) / scale
            out = self.predict(torch.cat([standard, batch.actions[row, t]], -1))
            change = out.view(len(row), self.heads, -1)
            predicted.append(latent[:, None] + stride * change)
            states.append(latent if t == 0 else latent.detach())
            changes.append(change.mean(1))
            rows.append(row)
            times.append(torch.full_like(row, t + 1))
            latent = latent + stride * changes[-1]
        row, after = torch.cat(rows), torch.cat(times)
        errors = torch.cat(predicted) - target[row, after][:, None]
        self.error_stats.update(errors[: len(predicted[0])].detach().flatten(0, 1))
        unit = torch.maximum((scale * stride).sqrt(), self.error_stats.magnitude())
        standard = (torch.cat(states) - self.latent_stats.mean) / scale
        outputs = self.energy(
            torch.cat([standard, batch.actions[row, after - 1], torch.cat(changes).detach()], -1)
        )
        expected = (
            signals[row, after] - self.signal_stats.mean
        ) / self.signal_stats.var.sqrt().clamp_min(1e-2)
        ends = batch.terminated[row, after].float()
        return {
            "world_model/prediction": (
                (errors / unit).square().mean(2) * batch.member_weights[row]
            ).mean(),
            "world_model/signals": (outputs[:, :-1] - expected).square().mean(),
            "world_model/ended": functional.binary_cross_entropy_with_logits(outputs[:, -1], ends),
        }

    def _values(self, critics: nn.ModuleList, latent: Tensor) -> Tensor:
        """Energies [E M A K] of every action."""
        out = torch.stack([critic(latent) for critic in critics])
        both = out.view(*out.shape[:2], self.actions + 1, self.drives)
        value, own = both[:, :, :1], both[:, :, 1:]
        values: Tensor = value + own - own.mean(2, keepdim=True)
        return values

    def _critic(self, batch: _Batch, first: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            signals = batch.signals
            energies = torch.stack(
                [
                    -symlog(signals[..., SIGNALS.index("reward")]),
                    signals[..., SIGNALS.index("life_lost")].clamp(0, 1),
                    signals[..., SIGNALS.index("effort")].clamp(0, 1),
                    -signals[..., SIGNALS.index("novelty")].clamp(0, 1),
                ],
                -1,
            )
            there = batch.valid[:, 1 : REACH + 1]
            weights = DISCOUNT ** torch.arange(REACH) * there
            reach = there.sum(1)
            ahead = (energies[:, 1 : REACH + 1] * weights[..., None]).sum(1)
            rest = DISCOUNT**reach * ~batch.terminated[rows, reach]
            reached = target[rows, reach]
            best = self._values(self.critics, reached).mean(0).sum(-1).argmin(-1)
            later = self._values(self.critic_targets, reached)[:, rows, best]
            expected = ahead + rest[:, None] * later
            mask = (reach > 0).float()
        values = self._values(self.critics, first)[:, rows, batch.actions[:, 0].argmax(-1)]
        errors = (values - expected).square().sum(-1).mean(0) * mask
        return errors.sum() / mask.sum().clamp_min(1)


def agree(learner: Learner, hand: Handwritten) -> None:
    """Compares the losses of both on one batch, in float32 since bfloat16 rounds by the order of
    operations. Raises RuntimeError where they differ.
    """
    key = chance.keys(learner.seed, 1, learner.updates)
    ring = cast(Ring, learner.modules.memory)
    batch = _as_batch(ring.sample(BATCH, WINDOW, key), key, hand.heads)
    # The agent is not part of an update, and its gates cannot be copied.
    same = {id(learner.agent): learner.agent}
    exact_hand, exact_learner = copy.deepcopy(hand), copy.deepcopy(learner, same)
    exact_hand.autocast = exact_learner.autocast = False
    expected, losses = exact_hand.losses(batch), exact_learner.update()
    for name, loss in expected.items():
        if abs(float(loss.detach()) - losses[name]) > 1e-4 * max(1.0, abs(losses[name])):
            raise RuntimeError(
                f"bench learn: {name}: by hand {float(loss.detach()):.6g}, the learner "
                f"{losses[name]:.6g}; the two no longer do the same"
            )
    if missing := set(losses) - set(expected) - {"total", "gradient_norm"}:
        raise RuntimeError(f"bench learn: {missing} is not written by hand")


def _as_batch(experience: Experience, key: Tensor, heads: int) -> _Batch:
    """The windows of an experience, with the random numbers that the learner draws for them."""
    shift = chance.integers(key, "shift", 2 * SHIFT + 1, BATCH, 2)[0] - SHIFT
    noise = chance.normal(key, "intensity", BATCH)[0].clamp(-2, 2)
    member_weights = (chance.uniform(experience.indices, "bootstrap", heads) > 0.5).float() * 2
    if heads == 1:
        member_weights = torch.ones_like(member_weights)
    assert experience.frames is not None
    return _Batch(
        frames=experience.frames,
        actions=experience.actions,
        signals=experience.signals,
        terminated=experience.terminated,
        truncated=experience.truncated,
        valid=experience.mask,
        member_weights=member_weights,
        shift=shift,
        brightness=1 + INTENSITY * noise,
    )
