"""Learning is one sum: every module says what it would have less of, one optimiser descends."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from agent.learning.imagined_experience import ImaginedExperience
from agent.modules import Modules
from agent.recording.weights import named_weights, trainable, under
from modules import chance
from modules.messages import ConfigError, Experience, MessageError, Situation, State
from modules.ports import Batch, Learnable, Perception
from modules.weights import known, subgoals


class Learner:
    """Turns experience into better modules (no module knows another's loss).

    Beside the modules stand their `averages`, which follow them at `ema_rate` (1: they are the
    modules themselves). A batch is encoded once: its first `online_steps` by the perception that
    learns, the steps that modules read of what followed by the average one, without gradient,
    both in `precision` where there are means for it, else in float32. The averages are also what
    is evaluated and kept to play: they swing less.
    Each module that is to learn (`ports`; all, where none is named) then gives named losses; their
    sum is descended by AdamW with a group a module. The others stay as they are.
    `taught` are those that have losses and are to learn, by port.
    With a `device` of its own it learns copies there, and the modules that act follow after every
    turn; without one they are the same.
    What an update draws at random derives from (seed, number of the update), so a resumed
    learner goes on as if never stopped.
    """

    def __init__(
        self,
        modules: Modules,
        *,
        seed: int,
        train_modules: Sequence[str],
        batch: int,
        online_steps: int,
        learning_rate: float,
        weight_decay: float,
        epsilon: float,
        max_grad_norm: float,
        ema_rate: float,
        precision: str,
        replay_ratio: float,
        warmup_steps: int,
        reset_every: int,
        shrink_perturb_alpha: float,
        imagination_horizon: int,
        rollouts_per_state: int,
        imagination_weight: float,
        critic_unroll_steps: int,
        critic_unroll_weight: float,
        device: torch.device | None = None,
    ) -> None:
        self.seed, self.device, self.acting = seed, device, trainable(modules)
        self.ports = _named_ports(train_modules, tuple(self.acting))
        self.learners = self.acting
        if device is not None:
            if imagination_horizon:
                raise ConfigError(
                    "config learner.imagination_horizon: expected 0 where "
                    "learning has a device of its "
                    f"own, got {imagination_horizon}; use --device cpu"
                )
            self.learners = {p: copy.deepcopy(m).to(device) for p, m in self.acting.items()}
        self.modules = dataclasses.replace(modules, **cast(dict[str, Any], self.learners))
        self.batch, self.online_steps = batch, online_steps
        self.reset_every, self.shrink_perturb_alpha = reset_every, shrink_perturb_alpha
        self.imagination_weight = imagination_weight
        self.critic_unroll_steps, self.critic_unroll_weight = (
            critic_unroll_steps,
            critic_unroll_weight,
        )
        self.max_grad_norm, self.ema_rate = max_grad_norm, ema_rate
        self.halved = precision == "bfloat16" and _has_bfloat16(device)
        self.replay_ratio, self.warmup_steps = replay_ratio, warmup_steps
        self.updates, self.owed = 0, 0.0
        self.averages = self.learners
        if ema_rate < 1:
            self.averages = {
                port: copy.deepcopy(module).requires_grad_(False)
                for port, module in self.learners.items()
            }
        if not any(isinstance(self.learners[port], Learnable) for port in self.ports):
            able = [port for port, module in self.learners.items() if isinstance(module, Learnable)]
            raise ConfigError(
                "config learner.train_modules: expected one that has losses "
                f"({', '.join(able) or 'none'} "
                f"here), got {list(self.ports)}, and there is nothing to learn"
            )
        # Looked up once: at every update that took as long as the optimiser's step.
        self.taught: list[tuple[str, Learnable]] = [
            (port, module)
            for port in self.ports
            if isinstance(module := self.learners[port], Learnable)
        ]
        self._followed = list(
            zip(_tensors(self.averages), _tensors(self.learners), strict=True)
            if self.averages is not self.learners
            else ()
        )
        self.dreamer = None
        if imagination_horizon:
            heads, v = modules.cost.heads, modules.configurator.initial(1).v[0]
            # Where tasks have heads of their own, score is in those and not in what else counts.
            told = torch.tensor(subgoals(heads))
            if not bool((v[told] if bool(told.any()) else v).any()):
                raise ConfigError(
                    "config learner.imagination_horizon: expected 0 where no "
                    "head of the critic counts, "
                    f"or none without a task, got {imagination_horizon}; a dream has no task"
                )
            average = dataclasses.replace(modules, **cast(dict[str, Any], self.averages))
            self.dreamer = ImaginedExperience(average, imagination_horizon, rollouts_per_state)
        # A reset goes back to how the weights began, which the run's seed decides.
        self._first = {
            port: [p.detach().clone() for p in module.parameters()]
            for port, module in self.learners.items()
            if reset_every and port in self.ports
        }
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in module.parameters() if p.requires_grad], "name": port}
                for port, module in self.learners.items()
                if port in self.ports
            ],
            lr=learning_rate,
            weight_decay=weight_decay,
            eps=epsilon,
            fused=True,
        )

    def learn(self, steps: int, steps_done: int) -> Iterator[dict[str, float]]:
        """The updates owed for `steps` more steps of life, `steps_done` in all: their losses."""
        if steps_done < self.warmup_steps:
            return
        self.owed += steps * self.replay_ratio
        behind = self.owed >= 1
        while self.owed >= 1:
            self.owed -= 1
            yield self.update()
        if behind:
            self._hand_over()

    def update(self) -> dict[str, float]:
        """One step downhill: each loss by `port/name`, their sum `total`, the gradient's norm."""
        key = chance.keys(self.seed, 1, self.updates)
        memory = self.modules.memory
        experience = memory.sample(self.batch, self.window_steps(), key)
        if self.device is not None:
            experience = experience.to(self.device)
        states, targets = self.encode(experience, key)
        named: dict[str, Tensor] = {}
        priorities: Tensor | None = None
        for port, module in self.taught:
            losses, urgent = module.losses(Batch(experience, states, targets), key)
            named |= {f"{port}/{name}": loss for name, loss in losses.items()}
            priorities = priorities if urgent is None else urgent
        cost = self.modules.cost
        if self.dreamer is not None and isinstance(cost, Learnable) and "cost" in self.ports:
            losses, _ = cost.losses(self.dreamer.dream(experience, states[0], key), key)
            named |= {
                f"cost/imagined {name}": self.imagination_weight * loss
                for name, loss in losses.items()
            }
        if self.critic_unroll_steps and isinstance(cost, Learnable) and "cost" in self.ports:
            loss = self._foretold(experience, states[0], targets, cost, key)
            named["cost/foretold critic"] = self.critic_unroll_weight * loss
        total = torch.stack(list(named.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        if total.requires_grad:  # not where all there was to learn from is missing in the batch
            total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            [p for group in self.optimiser.param_groups for p in group["params"]],
            self.max_grad_norm,
        )
        reported = self._reported(named, total, norm)
        self.optimiser.step()
        if priorities is not None:
            memory.update_priorities(experience.indices.cpu(), priorities.detach().cpu())
        for _, module in self.taught:
            module.on_update()
        self._follow()
        self.updates += 1
        if self.reset_every and self.updates % self.reset_every == 0:
            self.reset()
        return reported

    def _reported(self, named: dict[str, Tensor], total: Tensor, norm: Tensor) -> dict[str, float]:
        """What an update says of itself. Raises MessageError, naming the module and its loss, where
        one is no number: a step along that would undo all that was learned.
        """
        values = torch.stack([*(loss.detach() for loss in named.values()), total.detach(), norm])
        said = dict(zip([*named, "total", "gradient_norm"], values.tolist(), strict=True))
        for name, value in said.items():
            if not math.isfinite(value):
                port, _, own = name.rpartition("/")
                where = f"update {self.updates}: losses"
                error = MessageError(where, own, "a finite number", f"{value}")
                error.module = port or None
                raise error
        return said

    def window_steps(self) -> int:
        """Steps of experience that the next update looks at: the most any module asks for."""
        return max([2, *(module.window_steps() for _, module in self.taught)])

    @torch.no_grad()
    def reset(self) -> None:
        """Perception and world model go back to how they began but for `shrink_perturb_alpha` of
        what they are, all else wholly; the optimiser forgets (Nikishin et al. 2022; Schwarzer et
        al. 2023).
        """
        for port, first in self._first.items():
            keep = self.shrink_perturb_alpha if port in ("perception", "world_model") else 0.0
            module = self.learners[port]
            for now, began in zip(module.parameters(), first, strict=True):
                now.lerp_(began, 1 - keep)
            if isinstance(module, Learnable):
                module.on_reset()
            self.averages[port].load_state_dict(module.state_dict())
        self.optimiser.state.clear()

    def encode(self, experience: Experience, key: Tensor) -> tuple[list[State], list[State]]:
        """The batch's first steps as the perception sees them; as the target does, all W steps
        that a module reads (latents of others are 0).

        Of the very first step the target sees another view than the perception, later ones in the
        same view: what differs between views is to be forgotten, what changes with time foretold.
        Foretelling other views, a model learns to shrink towards what they have in common.
        """
        perception = self.modules.perception
        first = min(self.online_steps, experience.mask.shape[1])
        beginning = experience.slice_steps(0, first)
        read = torch.zeros_like(experience.mask)
        for _, module in self.taught:
            read |= module.target_mask(experience, first)
        if "perception" not in self.ports:
            return self._as_seen(experience, beginning, read)
        with torch.autocast(read.device.type, torch.bfloat16, self.halved):
            online = perception.encode_windows(beginning, beginning.tokens, key)
            with torch.no_grad():
                target = cast(Perception, self.averages.get("perception", perception))
                later = read.clone()
                later[:, 0] = False
                seen = target.encode_windows(experience, experience.tokens, key, later)
                if bool(read[:, 0].any()):
                    one = experience.slice_steps(0, 1)
                    again = target.encode_windows(one, one.tokens, key + 1, read[:, :1])
                    seen = torch.cat([again, seen[:, 1:]], 1)
        return self._states(experience, online), self._states(experience, seen)

    @torch.no_grad()
    def _as_seen(
        self, experience: Experience, beginning: Experience, read: Tensor
    ) -> tuple[list[State], list[State]]:
        """`encode` by a perception that stays as it is: as in acting, nothing augmented."""
        perception = self.modules.perception
        online = perception.encode_windows(beginning, beginning.tokens, None)
        seen = perception.encode_windows(experience, experience.tokens, None, read)
        return self._states(experience, online), self._states(experience, seen)

    def _foretold(
        self,
        experience: Experience,
        state: State,
        targets: list[State],
        cost: Learnable,
        key: Tensor,
    ) -> Tensor:
        """How far off the critic is where the world model foretells to be after 1, 2, ... of the
        actions done since `state` [B ...], for what was then felt; the mean over these steps, a
        scalar, 0 where the critic looks no further than one step.

        Its gradient also reaches the model: that is to foretell what matters to the critic, and
        the critic to know its way among what is foretold, where plans are made (Schrittwieser et
        al. 2020; Hansen et al. 2024). What came is reckoned to the step that the critic of the
        first state looks at, so nothing more need be encoded.
        """
        rows, model = len(state.latent), self.modules.world_model
        directive = self.modules.configurator.initial(rows)
        primes = directive.tokens.to(state.latent.device)
        if experience.tokens is not None:
            primes = experience.tokens[:, 1]
        here = Situation.unchecked(state=state)
        state, stop = model.start(here, directive.replace(tokens=primes)), cost.window_steps()
        losses: list[Tensor] = []
        for t in range(1, min(self.critic_unroll_steps, stop - 2) + 1):
            state = model.complete(model.step(state, experience.actions[:, t - 1]))
            missed, _ = cost.losses(
                Batch(experience.slice_steps(t, stop), [state], targets[t:stop]), key
            )
            losses += missed.values()
        return torch.stack(losses).mean() if losses else state.latent.new_zeros(())

    def _states(self, experience: Experience, latents: Tensor) -> list[State]:
        return [
            State.unchecked(
                latent=latents[:, t],
                hidden=latents.new_zeros(len(latents), 0),
                signals=experience.signals[:, t],
                ended=(experience.terminated[:, t] | experience.truncated[:, t]).float(),
                uncertainty=latents.new_zeros(len(latents)),
                goal=None if experience.goals is None else experience.goals[:, t],
            )
            for t in range(latents.shape[1])
        ]

    @torch.no_grad()
    def _follow(self) -> None:
        """The averages come nearer: over the first 1/`ema_rate` updates all count alike, so
        that what is usual is no average with what it was before anything was seen.
        """
        drawn = [pair for pair in self._followed if pair[1].is_floating_point()]
        if drawn:
            theirs, mine = map(list, zip(*drawn, strict=True))
            torch._foreach_lerp_(theirs, mine, max(self.ema_rate, 1 / (self.updates + 1)))
        for average, now in self._followed:
            if not now.is_floating_point():
                average.copy_(now)

    @torch.no_grad()
    def _hand_over(self) -> None:
        """Gives what was learned elsewhere to the modules that act."""
        if self.device is not None:
            for mine, theirs in zip(
                named_weights(self.learners).values(),
                named_weights(self.acting).values(),
                strict=True,
            ):
                theirs.copy_(mine)

    # -- checkpoints ------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """Every weight and buffer of the averages as `port/name`: what an agent needs to act."""
        return _at_home(named_weights(self.averages))

    def tensors(self) -> dict[str, Tensor]:
        """What learning needs besides: the modules as they are now, Adam's moments, and what a
        reset goes back to.
        """
        named: dict[str, Tensor] = {}
        if self.averages is not self.learners:
            named |= {
                f"now/{name}": tensor for name, tensor in named_weights(self.learners).items()
            }
        for number, state in self.optimiser.state_dict()["state"].items():
            named |= {f"adam/{number}/{name}": value for name, value in state.items()}
        for port, first in self._first.items():
            named |= {f"first/{port}/{number}": value for number, value in enumerate(first)}
        return _at_home(named)

    def load(self, weights: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
        """Goes on from what `weights` and `tensors` gave."""
        now = under(tensors, "now") or weights
        for port, module in self.learners.items():
            module.load_state_dict(under(now, port))
            self.averages[port].load_state_dict(under(weights, port))
        self._hand_over()
        began = under(tensors, "first")
        for port, first in self._first.items():
            for at, value in enumerate(first):
                value.copy_(began.get(f"{port}/{at}", value))
        state = self.optimiser.state_dict()
        state["state"] = {}
        for name, value in under(tensors, "adam").items():
            number, _, moment = name.partition("/")
            state["state"].setdefault(int(number), {})[moment] = value
        self.optimiser.load_state_dict(state)


def _named_ports(wanted: Sequence[str], there: tuple[str, ...]) -> tuple[str, ...]:
    """The ports that are to learn: those `wanted`, all where none is named. Raises ConfigError."""
    known(wanted, there, "learner.train_modules")
    return tuple(port for port in there if port in wanted or not wanted)


def _has_bfloat16(device: torch.device | None) -> bool:
    """Whether networks compute in bfloat16 there, not in float32 made to look like it, which is
    slower than float32: so a processor with AVX-512 alone does, though it is said to support it.
    """
    if device is not None:
        return bool(torch.cuda.is_bf16_supported())
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def _at_home(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same on the CPU, where files are made; nothing is copied that is there."""
    return {name: tensor.cpu() for name, tensor in named.items()}


def _tensors(modules: dict[str, nn.Module]) -> list[Tensor]:
    """Every weight and buffer that a checkpoint keeps: the very tensors, no views of them."""
    return [t for m in modules.values() for t in m.state_dict(keep_vars=True).values()]
