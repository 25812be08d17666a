"""The learner: one optimiser descends the sum of all modules' losses."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from agent.agent import Agent
from agent.learning.averaged_weights import AveragedWeights
from agent.learning.imagined_experience import ImaginedExperience, begun_at, first_moment
from agent.modules import Modules
from agent.recording.weights import named_weights, parametric_modules, under
from modules import chance
from modules.messages import ConfigError, Experience, MessageError, latents_of
from modules.ports import (
    LEARNING_METHODS,
    Batch,
    LatentVariableModel,
    Learnable,
    Perception,
    WritableMemory,
    encoded_states,
    gate,
    module_name,
)
from modules.tensor_file import difference
from modules.weights import known, subgoals


class Learner:
    """Trains the modules of an agent on experience sampled from its memory.

    An update samples B windows, encodes them, collects the named losses of each trained module and
    takes one AdamW step on their sum, with a parameter group per module. No module knows another's
    loss.

    `online_modules` are trained; `ema` are their exponential moving averages, which encode the
    targets, are evaluated and saved (at `ema_rate` 1 they are the online modules themselves). The
    online encoder encodes the first `online_steps` with gradient; the EMA encoder encodes, without
    gradient, the steps that some loss reads. `inference_modules` are those the agent acts with: the
    online modules, or, with a `device`, the modules of which these are copies; weights are copied
    back after each `learn`.

    Random numbers of an update derive from (seed, index of the update), so a resumed training
    equals an uninterrupted one.

    A module of any port is trained that has parameters and is `modules.ports.Learnable`. A memory
    has no average: it would be a copy of all experience.
    """

    class Config(BaseModel):
        """Settings of learning.

        train_modules: ports whose modules are trained; empty: all. batch: windows per update, B.
        online_steps: steps of a window that the online encoder encodes. learning_rate,
        weight_decay, epsilon: of AdamW. decay_updates: updates over which the learning rate falls
        linearly to `final_learning_rate`, where it stays; 0: it is constant. max_grad_norm: the
        gradient is rescaled to at most this norm. ema_rate: the average moves this fraction of the
        way per update. average_share: the share of the updates so far over which the weights that
        are evaluated and stored are averaged, about; 0: they are the average of ema_rate.
        precision: of the encoders in training; bfloat16 is up to twice as fast where the processor
        computes in it, elsewhere float32 is used. replay_ratio: updates per step, may be below 1.
        warmup_steps: steps before the first update. reset_every: updates between resets, 0: never.
        shrink_perturb_alpha: fraction of their weights that perception and world model retain in a
        reset. imagination_horizon: steps of the imagined rollouts that the critic also learns from,
        0: none. rollouts_per_state: rollouts from each state. imagination_weight: of that loss.
        critic_unroll_steps: steps that the world model predicts from the first state, each
        prediction a state the critic also learns from, 0: none. critic_unroll_weight: of that loss.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        train_modules: tuple[str, ...] = ()
        batch: int = Field(default=32, ge=1, le=65_536)
        online_steps: int = Field(default=1, ge=1, le=1024)
        learning_rate: float = Field(default=1e-3, gt=0, le=1000)
        decay_updates: int = Field(default=0, ge=0)
        final_learning_rate: float = Field(default=0.0, ge=0, le=1000)
        weight_decay: float = Field(default=0.0, ge=0, le=1000)
        epsilon: float = Field(default=1e-8, gt=0, le=1)
        max_grad_norm: float = Field(default=10.0, gt=0)
        ema_rate: float = Field(default=1.0, gt=0, le=1)
        average_share: float = Field(default=0.0, ge=0, le=1)
        precision: Literal["float32", "bfloat16"] = "float32"
        replay_ratio: float = Field(default=1.0, ge=0, le=1024)
        warmup_steps: int = Field(default=500, ge=2)
        reset_every: int = Field(default=0, ge=0)
        shrink_perturb_alpha: float = Field(default=0.5, ge=0, le=1)
        imagination_horizon: int = Field(default=0, ge=0, le=100)
        rollouts_per_state: int = Field(default=1, ge=1, le=64)
        imagination_weight: float = Field(default=1.0, ge=0)
        critic_unroll_steps: int = Field(default=0, ge=0, le=100)
        critic_unroll_weight: float = Field(default=1.0, ge=0)

    def __init__(
        self, agent: Agent, *, config: Config, seed: int, device: torch.device | None = None
    ) -> None:
        self.agent, self.config, self.seed, self.device = agent, config, seed, device
        self.inference_modules = parametric_modules(agent.modules)
        self.trained_ports = _trained_ports(config, tuple(self.inference_modules))
        self.online_modules = self.inference_modules
        if device is not None:
            if config.imagination_horizon:
                raise ConfigError(
                    "config learner.imagination_horizon: expected 0 where learning has a device of "
                    f"its own, got {config.imagination_horizon}; use --device cpu"
                )
            if "memory" in self.inference_modules:
                raise ConfigError(
                    "config device: expected cpu where the memory has weights to train, got "
                    f"{device}; its contents cannot be on two devices"
                )
            self.online_modules = _copies(self.inference_modules, device)
        self.modules = self._agent_modules(self.online_modules)
        self.memory = gate("memory", self.modules.memory, {}, LEARNING_METHODS)
        written = hasattr(self.modules.memory, "write_pairs")
        self.written_memory = cast(WritableMemory, self.modules.memory) if written else None
        self.autocast = config.precision == "bfloat16" and _computes_in_bfloat16(device)
        self.updates, self.pending_updates = 0, 0.0
        self.ema = self.online_modules
        if config.ema_rate < 1:
            self.ema = _copies(self.online_modules)
            for port in self.ema.keys() - {"memory"}:
                self.ema[port].requires_grad_(False)
        # Resolved once: an isinstance check of a protocol per update took as long as an optimiser
        # step.
        learnable = {
            port: module
            for port, module in self.online_modules.items()
            if isinstance(module, Learnable)
        }
        self.trainable = {p: module for p, module in learnable.items() if p in self.trained_ports}
        if not self.trainable:
            raise ConfigError(
                "config learner.train_modules: expected one that has losses "
                f"({', '.join(learnable) or 'none'} here), got {list(self.trained_ports)}, and "
                "there is nothing to learn"
            )
        self._ema_pairs = [
            pair
            for port, module in self.online_modules.items()
            if self.ema[port] is not module
            for pair in zip(_tensors(self.ema[port]), _tensors(module), strict=True)
        ]
        self.averaged: AveragedWeights | None = None
        if config.average_share:
            self.averaged = AveragedWeights(
                named_weights(self.online_modules), config.average_share
            )
        self.imagined_experience: ImaginedExperience | None = None
        if config.imagination_horizon:
            _require_task_free_heads(config, agent)
            averaged = self._agent_modules(self.ema)
            self.imagined_experience = ImaginedExperience(
                agent, averaged, config.imagination_horizon, config.rollouts_per_state
            )
        # A reset returns to the initial weights, which derive from the run's seed.
        self._initial_weights = {
            port: [p.detach().clone() for p in module.parameters()]
            for port, module in self.online_modules.items()
            if config.reset_every and port in self.trained_ports
        }
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in module.parameters() if p.requires_grad], "name": port}
                for port, module in self.online_modules.items()
                if port in self.trained_ports
            ],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            eps=config.epsilon,
            fused=True,
        )

    def _agent_modules(self, by_port: dict[str, nn.Module]) -> Modules:
        """The agent's six modules with those `by_port` in place of the ones it acts with. A
        configurator under interventions stays as it is.
        """
        modules, acting = self.agent.modules, self.inference_modules
        replaced = {p: m for p, m in by_port.items() if getattr(modules, p) is acting[p]}
        return dataclasses.replace(modules, **cast(Any, replaced))

    def learn(self, steps: int, steps_done: int) -> Iterator[dict[str, float]]:
        """Yields the losses of the updates due for `steps` more steps, `steps_done` in all."""
        if steps_done < self.config.warmup_steps:
            return
        self.pending_updates += steps * self.config.replay_ratio
        due = self.pending_updates >= 1
        while self.pending_updates >= 1:
            self.pending_updates -= 1
            yield self.update()
        if due:
            self._copy_to_inference()

    def updates_within(self, steps: int, rows: int) -> int:
        """Updates that are due within `steps` of a training that takes `rows` at a time."""
        turns = -(-steps // rows) + 1 - max(1, -(-self.config.warmup_steps // rows))
        return int(max(0, turns) * rows * self.config.replay_ratio)

    def update(self) -> dict[str, float]:
        """One optimiser step. Returns each loss as `port/name`, their sum `total` and
        `gradient_norm`.

        Raises MessageError, naming update and module, before anything is changed, where experience,
        states, losses, priorities or gradients are not finite.
        """
        try:
            return self._descend()
        except MessageError as error:
            error.update = self.updates
            raise

    def _descend(self) -> dict[str, float]:
        key = chance.keys(self.seed, 1, self.updates)
        memory, cost = self.memory, self.trainable.get("cost")
        batch = self.encode(memory.sample(self.config.batch, self.window_steps(), key), key)
        losses: dict[str, Tensor] = {}
        priorities: dict[str, Tensor] = {}
        states = {
            "perception/states.online": latents_of(batch.states).sum(),
            "perception/states.target": latents_of(batch.targets).sum(),
        }
        try:
            for port, module in self.trainable.items():
                named, of_module = module.losses(batch, key)
                losses |= {f"{port}/{name}": loss for name, loss in named.items()}
                if of_module is not None:
                    priorities[port] = of_module.detach()
            if cost is not None and self.imagined_experience is not None:
                rollout = self.imagined_experience.rollout(batch.experience, batch.states[0], key)
                named, _ = cost.losses(rollout, key)
                weight = self.config.imagination_weight
                losses |= {f"cost/imagined {name}": weight * loss for name, loss in named.items()}
            if cost is not None and self.config.critic_unroll_steps:
                loss = self._unrolled_critic_loss(batch, cost, key)
                losses["cost/unrolled critic"] = self.config.critic_unroll_weight * loss
        except Exception:
            # Numbers that are not finite make other modules fail.
            self._finite(states | losses)
            raise
        total = torch.stack(list(losses.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        if total.requires_grad:  # False where the batch has no step that any loss counts
            total.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = _gradient_norm(parameters)
        sums = {f"{port}/priorities.sum": value.sum() for port, value in priorities.items()}
        # All at once: a device is waited for a single time.
        figures = self._finite(states | losses | sums | {"total": total, "gradient.norm": norm})
        nn.utils.clip_grads_with_norm_(parameters, self.config.max_grad_norm, norm)
        rate = self.learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        if priorities:
            combined = combined_priorities(list(priorities.values()))
            memory.update_priorities(batch.experience.indices.cpu(), combined.cpu())
        for module in self.trainable.values():
            module.on_update()
        self._update_ema()
        self.updates += 1
        if self.averaged is not None:
            reset_every = self.config.reset_every
            # From its beginning, or from the last reset on.
            since = (self.updates - 1) % reset_every + 1 if reset_every else self.updates
            self.averaged.update(since)
        if self.config.reset_every and self.updates % self.config.reset_every == 0:
            self.reset()
        reported = {name: figures[name] for name in (*losses, "total")}
        return reported | {"gradient_norm": figures["gradient.norm"]}

    def _finite(self, named: dict[str, Tensor]) -> dict[str, float]:
        """Scalars by `port/name` as floats. Raises MessageError, naming the module and its figure,
        where one is not finite: the optimiser step would destroy all weights.
        """
        values = torch.stack([value.detach().float() for value in named.values()])
        figures = dict(zip(named, values.tolist(), strict=True))
        for name, value in figures.items():
            if math.isfinite(value):
                continue
            port, _, own = name.rpartition("/")
            message, _, field = (own if "." in own else f"losses.{own}").partition(".")
            error = MessageError(message, field, "a finite number", f"{value}")
            if port := port or self._port_of_gradient():
                error.module = module_name(port, getattr(self.modules, port))
            raise error
        return figures

    def _port_of_gradient(self) -> str:
        """The port whose gradient is not finite; of several the last, because a gradient flows
        from a module to those whose output it reads.
        """
        ports = [
            group["name"]
            for group in self.optimiser.param_groups
            if not bool(_gradient_norm(group["params"]).isfinite())
        ]
        return ports[-1] if ports else ""

    def learning_rate(self) -> float:
        """Of the next update."""
        first, last = self.config.learning_rate, self.config.final_learning_rate
        if not self.config.decay_updates:
            return first
        return first + (last - first) * min(1.0, self.updates / self.config.decay_updates)

    def window_steps(self) -> int:
        """Steps of a window that the next update reads: the largest any trained module reads."""
        return max([2, *(module.window_steps() for module in self.trainable.values())])

    @torch.no_grad()
    def reset(self) -> None:
        """Shrinks the weights of perception and world model towards their initial values, of which
        `shrink_perturb_alpha` of the present ones remains, sets those of other modules to their
        initial values, and clears the optimiser (Nikishin et al. 2022; Schwarzer et al. 2023).
        """
        for port, initial in self._initial_weights.items():
            shrinks = port in ("perception", "world_model")
            retained = self.config.shrink_perturb_alpha if shrinks else 0.0
            module = self.online_modules[port]
            for weight, first in zip(module.parameters(), initial, strict=True):
                weight.lerp_(first, 1 - retained)
            if isinstance(module, Learnable):
                module.on_reset()
            self.ema[port].load_state_dict(module.state_dict())
        self.optimiser.state.clear()

    def encode(self, experience: Experience, key: Tensor) -> Batch:
        """Sampled `experience`, the online states of its first steps and the target states of all W
        steps, on the learner's device. A target that no loss reads has latent 0.

        The target of step 0 is another augmentation (invariance); later targets share step 0's
        augmentation, so the predictor learns dynamics and not augmentation noise. A perception that
        is not trained encodes everything as in acting, without augmentation.
        """
        perception = self.modules.perception
        first = min(self.config.online_steps, experience.mask.shape[1])
        read = torch.zeros_like(experience.mask)
        for module in self.trainable.values():
            read |= module.target_mask(experience, first)
        # Read on the CPU, where it waits for no queue of a GPU.
        reads_first = bool(read[:, 0].any())
        if self.device is not None:
            experience, read = experience.to(self.device), read.to(self.device)
        beginning = experience.slice_steps(0, first)
        if "perception" not in self.trained_ports:
            with torch.no_grad():
                online = perception.encode_windows(beginning, beginning.tokens, None)
                target = perception.encode_windows(experience, experience.tokens, None, read)
            return self._batch(experience, online, target)
        with torch.autocast(read.device.type, torch.bfloat16, self.autocast):
            online = perception.encode_windows(beginning, beginning.tokens, key)
            with torch.no_grad():
                encoder = cast(Perception, self.ema.get("perception", perception))
                later = read.clone()
                later[:, 0] = False
                target = encoder.encode_windows(experience, experience.tokens, key, later)
                if reads_first:
                    step = experience.slice_steps(0, 1)
                    other = encoder.encode_windows(step, step.tokens, key + 1, read[:, :1])
                    target = torch.cat([other, target[:, 1:]], 1)
        return self._batch(experience, online, target)

    def _batch(self, experience: Experience, online: Tensor, target: Tensor) -> Batch:
        """The states of latents [B T D] and [B W D], with what memory returns of them: a memory
        whose reading is trained reads again what it held then.
        """
        readouts: tuple[Tensor | None, Tensor | None] = None, None
        if (memory := self.written_memory) is not None:
            with torch.no_grad():
                later = memory.reread(experience, target)
            readouts = memory.reread(experience, online), later
        return Batch(
            experience,
            encoded_states(experience, online, readouts[0]),
            encoded_states(experience, target, readouts[1]),
        )

    def _unrolled_critic_loss(self, batch: Batch, cost: Learnable, key: Tensor) -> Tensor:
        """The mean loss of the critic at the states that the world model predicts 1, 2, ... steps
        after the first under the recorded actions, a scalar; 0 where the critic's window has no
        room for one step.

        Its gradient also reaches the world model: it learns to predict what the critic needs, and
        the critic learns on the states that planning visits (Schrittwieser et al. 2020; Hansen et
        al. 2024). The bootstrap states are those of step 0's loss, so nothing more is encoded.
        """
        experience, (state, *_), targets = batch
        if experience.action_mask is not None:
            # A state after an unknown action cannot be predicted.
            acted = experience.action_mask[:, : self.config.critic_unroll_steps]
            chosen = acted.all(1).nonzero()[:, 0]
            if not len(chosen):
                return state.latent.new_zeros(())
            experience, state = experience.select(chosen), state.select(chosen)
            targets = [target.select(chosen) for target in targets]
        rows, model = len(state.latent), self.modules.world_model
        directive = self.modules.configurator.initial(rows)
        tokens = directive.tokens.to(state.latent.device)
        if experience.tokens is not None:
            tokens = experience.tokens[:, 1]
        previous, row_keys = first_moment(self.agent, state), chance.keys(int(key), rows, 0)
        situation = begun_at(state, self.modules, previous, row_keys)
        state = model.start(situation, directive.replace(tokens=tokens))
        stop = cost.window_steps()
        losses: list[Tensor] = []
        for t in range(1, min(self.config.critic_unroll_steps, stop - 2) + 1):
            action, z = experience.actions[:, t - 1], None
            if model.latent is not None:
                # What is imagined must be what was recorded, not another branch.
                outcome = targets[t].replace(signals=experience.signals[:, t])
                z, _ = cast(LatentVariableModel, model).infer_latent(state, action, outcome)
            state = model.complete(model.step(state, action, z))
            named, _ = cost.losses(
                Batch(experience.slice_steps(t, stop), [state], targets[t:stop]), key
            )
            losses += named.values()
        return torch.stack(losses).mean() if losses else state.latent.new_zeros(())

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Moves the averages by `ema_rate`, and by 1/n at update n while that is larger: a plain
        average at first, in which the untrained statistics do not linger.
        """
        floating = [pair for pair in self._ema_pairs if pair[1].is_floating_point()]
        if floating:
            averages, weights = map(list, zip(*floating, strict=True))
            rate = max(self.config.ema_rate, 1 / (self.updates + 1))
            torch._foreach_lerp_(averages, weights, rate)
        for average, value in self._ema_pairs:
            if not value.is_floating_point():
                average.copy_(value)

    @torch.no_grad()
    def _copy_to_inference(self) -> None:
        """Copies the weights trained on another device to the modules that act."""
        if self.device is not None:
            for trained, acting in zip(
                named_weights(self.online_modules).values(),
                named_weights(self.inference_modules).values(),
                strict=True,
            ):
                acting.copy_(trained)

    # -- checkpoints ------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """Each weight and buffer of the averages as `port/name`: what an agent needs to act."""
        averaged = named_weights(self.ema) if self.averaged is None else self.averaged.average
        return _on_cpu(averaged)

    def tensors(self) -> dict[str, Tensor]:
        """What continuing needs besides `weights`: the online modules as `now/port/name`, where
        `weights` are others the averages of `ema_rate` as `ema/port/name`, AdamW's moments as
        `adam/number/name`, the initial weights as `first/port/number`.
        """
        named: dict[str, Tensor] = {}
        for prefix, modules in self._beside_weights().items():
            named |= {f"{prefix}/{name}": t for name, t in named_weights(modules).items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            named |= {f"adam/{number}/{name}": value for name, value in state.items()}
        for port, initial in self._initial_weights.items():
            named |= {f"first/{port}/{number}": value for number, value in enumerate(initial)}
        return _on_cpu(named)

    def _beside_weights(self) -> dict[str, dict[str, nn.Module]]:
        """The modules whose weights a checkpoint holds besides `weights`, by their prefix."""
        modules = {"now": self.online_modules}
        if self.averaged is not None:
            # A memory has one set of weights, and no tensor is stored twice.
            modules["ema"] = {
                port: module
                for port, module in self.ema.items()
                if module is not self.online_modules[port]
            }
        elif self.ema is self.online_modules:
            return {}
        return modules

    def load(self, weights: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
        """Continues from what `weights` and `tensors` returned.

        Raises ConfigError where they are not those of this learner; nothing is then changed.
        """
        self.require(weights, tensors)
        online, ema = under(tensors, "now") or weights, under(tensors, "ema") or weights
        for port, module in self.online_modules.items():
            self.ema[port].load_state_dict(under(ema, port) or under(online, port))
            module.load_state_dict(under(online, port))
        if self.averaged is not None:
            self.averaged.load(weights)
        self._copy_to_inference()
        stored = under(tensors, "first")
        for port, initial in self._initial_weights.items():
            for i, value in enumerate(initial):
                value.copy_(stored.get(f"{port}/{i}", value))
        state = self.optimiser.state_dict()
        state["state"] = {}
        for name, value in under(tensors, "adam").items():
            number, _, moment = name.partition("/")
            state["state"].setdefault(int(number), {})[moment] = value
        self.optimiser.load_state_dict(state)

    def require(self, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Raises ConfigError for the first tensor whose name, shape or type is not that of this
        learner's own, or that is not finite.
        """
        self.require_weights(weights)
        self.require_state(tensors)

    def require_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As `require`, of what continuing needs besides the weights; forms suffice
        (`modules.tensor_file`). An optimiser that is given another shape reads beyond its memory.
        """
        expected, own = dict[str, Tensor](), named_weights(self.online_modules)
        if under(tensors, "now"):
            expected = {f"now/{name}": tensor for name, tensor in own.items()}
        ports = {name.partition("/")[0] for name in under(tensors, "ema")}
        expected |= {
            f"ema/{name}": tensor for name, tensor in own.items() if name.partition("/")[0] in ports
        }
        if under(tensors, "first"):
            expected |= {
                f"first/{port}/{number}": value
                for port, initial in self._initial_weights.items()
                for number, value in enumerate(initial)
            }
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        # A parameter that no loss has reached has no moments yet, any other one has all three.
        for number in {name.split("/")[1] for name in tensors if name.startswith("adam/")}:
            if number.isdecimal() and int(number) < len(parameters) and len(number) < 10:
                parameter, place = parameters[int(number)], f"adam/{int(number)}"
                expected |= {f"{place}/exp_avg": parameter, f"{place}/exp_avg_sq": parameter}
                expected[f"{place}/step"] = parameter.new_zeros(())
        self._require(expected, tensors)

    def require_weights(self, weights: Mapping[str, Tensor]) -> None:
        """As `require`, of the weights alone; forms suffice."""
        prefixed = {f"weights/{name}": tensor for name, tensor in weights.items()}
        own = named_weights(self.online_modules)
        self._require({f"weights/{name}": tensor for name, tensor in own.items()}, prefixed)

    def _require(self, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
        if differing := difference(expected, got):
            raise ConfigError(
                f"checkpoint: {differing}; resume with the settings it was written with"
            )
        for name, tensor in got.items():
            if not tensor.is_meta and not bool(tensor.isfinite().all()):
                raise ConfigError(
                    f"checkpoint: {name}: expected finite numbers, got others; take an older one"
                )


def _gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """The norm of the gradients of `parameters`, a scalar; 0 without gradients."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def combined_priorities(priorities: Sequence[Tensor]) -> Tensor:
    """The priorities [B] >= 0 of a batch's windows, from those [B] of each of n >= 1 modules.

    Those of one module are used as they are. Those of several are divided by their mean over the
    batch, because modules measure errors in units of their own, and averaged: a window is replayed
    as often as the modules on average have to learn from it.
    """
    if len(priorities) == 1:
        return priorities[0]
    relative = [own / own.mean().clamp_min(1e-12) for own in priorities]
    return torch.stack(relative).mean(0)


def _trained_ports(config: Learner.Config, ports: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `ports` that are trained. Raises ConfigError for a name that is none of them."""
    known(config.train_modules, ports, "learner.train_modules")
    return tuple(p for p in ports if p in config.train_modules or not config.train_modules)


def _require_task_free_heads(config: Learner.Config, agent: Agent) -> None:
    """Raises ConfigError where an imagined rollout would act on no critic head: rollouts have no
    task, and where sub-goals have heads of their own the reward is in those alone.
    """
    modules = agent.modules
    v = modules.configurator.initial(1).v[0]
    of_tasks = torch.tensor(subgoals(modules.cost.heads))
    if not bool((v[of_tasks] if bool(of_tasks.any()) else v).any()):
        raise ConfigError(
            "config learner.imagination_horizon: expected 0 where no head of the critic counts, or "
            f"none without a task, got {config.imagination_horizon}: imagined rollouts have no task"
        )


def _computes_in_bfloat16(device: torch.device | None) -> bool:
    """Whether the hardware multiplies in bfloat16. With AVX-512 alone PyTorch reports support but
    emulates it in float32, which is slower than float32.
    """
    if device is not None:
        return bool(torch.cuda.is_bf16_supported())
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def _on_cpu(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the CPU; those already there are not copied."""
    return {name: tensor.cpu() for name, tensor in named.items()}


def _copies(
    modules: dict[str, nn.Module], device: torch.device | None = None
) -> dict[str, nn.Module]:
    """Copies of modules by port, on `device`. A memory is not copied: it holds the experience."""
    return {
        port: module if port == "memory" else copy.deepcopy(module).to(device)
        for port, module in modules.items()
    }


def _tensors(module: nn.Module) -> list[Tensor]:
    """Each weight and buffer of a state dict: the tensors themselves, no detached views."""
    return list(module.state_dict(keep_vars=True).values())
