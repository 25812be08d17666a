"""A configurator with a small trained network from situation to directive.

How a configurator learns is left open in the paper (LeCun 2022, §6, §8.1). This one is trained on
return minus a price per model call, by evolution or from recorded runs (`agent.tuning`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.configurator.base_directive import BaseDirective, replanned
from modules.configurator.running_stats import STATE, planning_stats
from modules.messages import ConfigError, Directive, Frozen, Situation
from modules.strange_files import TEXT_BYTES, plain_json, read_file
from modules.tensor_file import unpacked

FEATURES = ("surprise", "disagreement", "novelty", "energy now", "critic value", "uncertainty",
            "episode step", "steps since planning", "plan under way", "steps left of it",
            "its energy", "its importance", "model calls")  # fmt: skip
"""Inputs of the network, each about -1 to 1; a projection of the latent may follow."""

OUTPUTS = ("plan", "replan", "commit", "calls")
"""Outputs: log odds of planning where no plan is under way and of replanning where one is; log2 of
commitment and budget against their settings, squashed.
"""

_MOST_BYTES = 1 << 24
"""The largest file of weights that is read."""

PRIOR = (2.0, -2.0, 0.0, 0.0)
"""Added to the outputs: untrained, it plans whenever no plan is under way, carries a plan out for
`commit_steps` and spends `model_calls` on it, as `fixed` does in Mode-2.
"""

WEIGHTS = "weights.safetensors"
"""The file of weights in a folder that `sextet tune` wrote."""


class Learned:
    """A network of one hidden tanh layer decides when to plan, for how many steps and at what cost.

    A row plans where the odds are even or better; nothing is drawn. Commitment: `commit_steps`
    times 1/8 to 8; budget: `model_calls` times 1/4 to 4. Without `weights` it is its prior `PRIOR`.
    """

    class Config(Frozen):
        """The network.

        `weights`: a folder that `sextet tune` wrote, or a safetensors file; None: untrained.
        `width`: of its hidden layer. `latent_features`: size of a fixed random projection of the
        latent that it has as input.
        """

        weights: str | None = None
        width: int = Field(8, ge=1, le=1024)
        latent_features: int = Field(0, ge=0, le=256)

    def __init__(self, *, config: Config, base: BaseDirective) -> None:
        self.config, self.base = config, base
        num_inputs = len(FEATURES) + config.latent_features
        # The hidden layer is the same for every seed of a run, and the outputs ignore it at first.
        drawn = chance.normal(chance.keys(0, config.width, 0), "learned configurator", num_inputs)
        self.weights: dict[str, Tensor] = {
            "hidden.weight": drawn / num_inputs**0.5,
            "hidden.bias": torch.zeros(config.width),
            "heads.weight": torch.zeros(len(OUTPUTS), config.width),
            "heads.bias": torch.zeros(len(OUTPUTS)),
        }
        self._projection: Tensor | None = None
        if config.weights is not None:
            self.load_weights(*_read(Path(config.weights)))

    def load_weights(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Takes over `weights`, read at `where`. Raises ConfigError where shapes differ."""
        for name in sorted(self.weights.keys() | weights.keys()):
            shape = tuple(weights[name].shape) if name in weights else "none"
            expected = tuple(self.weights[name].shape) if name in self.weights else "none"
            if shape != expected:
                raise ConfigError(
                    f"config configurator.weights: {where}: {name}: expected {expected}, got "
                    f"{shape}; use the width and latent_features it was trained with"
                )
        for name, tensor in weights.items():
            if not bool(tensor.isfinite().all()):
                raise ConfigError(
                    f"config configurator.weights: {where}: {name}: expected finite numbers, got "
                    "others; tune again"
                )
        self.weights = {name: weights[name].detach().float().clone() for name in self.weights}

    @property
    def vector(self) -> Tensor:
        """All weights as one vector, [N]."""
        return torch.cat([tensor.flatten() for tensor in self.weights.values()])

    @vector.setter
    def vector(self, values: Tensor) -> None:
        sizes = [tensor.numel() for tensor in self.weights.values()]
        parts = torch.split(values.detach().float(), sizes)
        self.weights = {
            name: part.view(tensor.shape).clone()
            for (name, tensor), part in zip(self.weights.items(), parts, strict=True)
        }

    def initial(self, rows: int) -> Directive:
        """Mode-2: nothing is known of an episode that begins."""
        return self.base.uniform(rows, 2, len(STATE), "an episode begins")

    def features(self, situation: Situation) -> tuple[Tensor, Tensor]:
        """The inputs of the network, [B F] (`FEATURES`), and the next state, [B Q]."""
        base, previous, stats = self.base, situation.previous, planning_stats(situation)
        scores = stats.scores / 3
        energy = (situation.energies.intrinsic @ base.u).tanh().numpy()
        value = situation.energies.critic_value(
            previous.directive.replace(v=base.v.repeat(situation.batch, 1))
        )
        left, step = previous.plan.remaining_commit.numpy(), situation.episode_step.numpy()
        columns = [
            scores[:, 0],
            scores[:, 1],
            situation.recollection.novelty.numpy(),
            energy,
            value.detach().tanh().numpy(),
            np.tanh(previous.expected.uncertainty.numpy()),
            step / (step + 200),
            stats.idle_steps / (stats.idle_steps + 8),
            left > 0,
            left / (left + 8),
            np.tanh(previous.plan.energy.numpy()),
            np.tanh(np.log((stats.importance + 1e-6) / (stats.mean_importance + 1e-6))),
            np.tanh(
                situation.episode_model_calls.numpy()
                / (step.clip(0) + 1)
                / max(base.settings.model_calls, 1)
            ),
        ]
        features = torch.from_numpy(np.stack(columns, -1).astype(np.float32))
        if self.config.latent_features:
            features = torch.cat([features, self._projected(situation.state.latent)], -1)
        return features, torch.from_numpy(stats.state)

    def _projected(self, latent: Tensor) -> Tensor:
        """A random projection of the unit vector along the latent [B D], [B latent_features]."""
        if self._projection is None:
            size = latent.shape[-1]
            keys = chance.keys(1, self.config.latent_features, 0)
            self._projection = chance.normal(keys, "learned configurator", size)
        unit = latent / latent.norm(dim=-1, keepdim=True).clamp_min(1e-8)
        projected: Tensor = (unit @ self._projection.T).tanh()
        return projected

    def outputs(self, features: Tensor) -> Tensor:
        """The outputs for features [... F], prior included: [... 4] (`OUTPUTS`).

        Differentiable in `weights`.
        """
        w = self.weights
        hidden = (features @ w["hidden.weight"].T + w["hidden.bias"]).tanh()
        outputs: Tensor = (
            hidden @ w["heads.weight"].T + w["heads.bias"] + features.new_tensor(PRIOR)
        )
        return outputs

    def configure(self, situation: Situation) -> Directive:
        """Mode, budget, commitment and reason of each row."""
        features, state = self.features(situation)
        plan, replan, commit, calls = self.outputs(features).unbind(-1)
        settings, left = self.base.settings, situation.previous.plan.remaining_commit
        under_way = left > 0
        log_odds = torch.where(under_way, replan, plan)
        plans = log_odds >= 0
        model_calls = (settings.model_calls * 2 ** (2 * calls.tanh())).round().long()
        commit_steps = (settings.commit_steps * 2 ** (3 * commit.tanh())).round().long()
        commit_steps = commit_steps.clamp(1, settings.horizon_steps)
        # A plan under way is carried out; where the actor replans by itself after a surprise, the
        # new plan has the usual length.
        commit_steps = torch.where(plans, commit_steps, commit_steps.maximum(left + 1))
        directive = self.base.directive(
            torch.where(plans | under_way, 2, 1),
            state,
            tuple(
                _reason(*row)
                for row in zip(
                    plans.tolist(), log_odds.sigmoid().tolist(), left.tolist(),
                    commit_steps.tolist(), model_calls.tolist(), strict=True,
                )
            ),
        ).replace(model_calls=model_calls, commit_steps=commit_steps)  # fmt: skip
        return replanned(directive, situation, plans & under_way)


def _reason(plans: bool, probability: float, left: int, commit_steps: int, calls: int) -> str:
    """The reason of one row, with its numbers."""
    if plans:
        again = " anew" if left else ""
        return (
            f"thinks{again}: probability {probability:.2f}, {commit_steps} steps of it, {calls} "
            "calls at most"
        )
    if left:
        return (
            f"thinks: a plan is under way, {left} more to do, anew with probability "
            f"{probability:.2f}"
        )
    return f"acts: probability of thinking {probability:.2f}"


def _read(place: Path) -> tuple[dict[str, Tensor], str]:
    """The weights in a tuned folder or a safetensors file, and the path of the file."""
    files = (place / "best" / WEIGHTS, place / WEIGHTS, place)
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        what = f"has no {WEIGHTS}" if place.is_dir() else "is not there"
        raise ConfigError(
            f"config configurator.weights: '{place}' {what}; expected the folder that "
            "`sextet tune` wrote"
        )
    try:
        data = read_file(path, _MOST_BYTES, links=True)
        manifest = path.parent / "manifest.json"
        if manifest.is_file():
            recorded = plain_json(read_file(manifest, TEXT_BYTES))["sha256"].get(path.name)
            if recorded is not None and hashlib.sha256(data).hexdigest() != recorded:
                raise ConfigError(
                    f"config configurator.weights: '{path}' is damaged (its SHA-256 differs)"
                )
        return unpacked(data), str(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(
            f"config configurator.weights: '{path}' is not readable ({line})"
        ) from None
