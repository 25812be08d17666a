"""A configurator that was taught when to think: a small network from situation to directive.

How a configurator learns is left open in the paper (LeCun 2022, §6, §8.1). This one is trained on
return minus a price per model call, by evolution or from recorded runs (`agent.tuning`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from modules import chance
from modules.configurator.base_directive import BaseDirective, Settings, rethink
from modules.configurator.running_stats import (
    LEAST,
    MEMORY_STEPS,
    WARM_STEPS,
    deviations,
    follow,
    stakes,
)
from modules.messages import ConfigError, Directive, Situation

FEATURES = ("surprise", "disagreement", "novelty", "energy now", "energy to come", "uncertainty",
            "age", "steps since thinking", "plan under way", "plan left", "foreseen energy",
            "stake", "spent")  # fmt: skip
"""What the network hears, each about -1 to 1; a projection of the latent may follow."""

HEADS = ("think", "again", "commit", "effort")
"""What it says: the log odds of thinking where no plan is under way and of thinking anew where one
is; how long to carry a plan out and what to spend on it, against the settings."""

PRIOR = (2.0, -2.0, 0.0, 0.0)
"""Added to what it says. Untaught, it thinks whenever no plan is under way, carries a plan out for
`commit_steps` and spends `model_calls` on it: what `fixed` does in Mode-2."""

CARRIED = ("surprise mean", "surprise variance", "disagreement mean", "disagreement variance",
           "steps felt", "steps since thinking", "stake", "stake mean", "stakes felt")  # fmt: skip
"""The columns of its carry [B Q]."""

WEIGHTS = "weights.safetensors"
"""The file of a tutored folder that holds its weights."""


class Learned:
    """Asks a small network when to think, for how long a plan holds, and what it may cost.

    One hidden layer of tanh. Where the odds of thinking are even or better a row thinks: chance
    has no part in it. A commitment is `commit_steps` times 1/8 to 8, a budget `model_calls` times
    1/4 to 4. Without `weights` it is its prior, see `PRIOR`.
    """

    class Config(Settings):
        """A network that directs.

        `weights`: the folder that `sextet tutor` wrote, or a safetensors file; None: untaught.
        `width`: of its hidden layer. `latent_features`: how many numbers of the latent it hears,
        by a fixed random projection.
        """

        kind: Literal["learned"] = "learned"
        weights: str | None = None
        width: int = Field(8, ge=1, le=1024)
        latent_features: int = Field(0, ge=0, le=256)

    def __init__(
        self,
        *,
        standing: BaseDirective,
        weights: str | None = None,
        width: int = 8,
        latent_features: int = 0,
    ) -> None:
        self.standing = standing
        self.model_calls, self.commit_steps = standing.model_calls, standing.commit_steps
        self.horizon_steps, self.latent_features = standing.horizon_steps, latent_features
        hears = len(FEATURES) + latent_features
        # The hidden layer begins the same whatever the seed of the run, and nothing hears it yet.
        drawn = chance.normal(chance.keys(0, width, 0), "learned configurator", hears)
        self.weights: dict[str, Tensor] = {
            "hidden.weight": drawn / hears**0.5,
            "hidden.bias": torch.zeros(width),
            "heads.weight": torch.zeros(len(HEADS), width),
            "heads.bias": torch.zeros(len(HEADS)),
        }
        self._projection: Tensor | None = None
        if weights is not None:
            self.give(*_read(Path(weights)))

    def give(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Takes over `weights`, found at `where`. Raises ConfigError where they do not fit."""
        for name in sorted(self.weights.keys() | weights.keys()):
            got = tuple(weights[name].shape) if name in weights else "none"
            wanted = tuple(self.weights[name].shape) if name in self.weights else "none"
            if got != wanted:
                raise ConfigError(
                    f"config configurator.weights: {where}: {name}: expected {wanted}, got {got}; "
                    "use the width and latent_features it was taught with"
                )
        self.weights = {name: weights[name].detach().float().clone() for name in self.weights}

    @property
    def vector(self) -> Tensor:
        """All its weights in a row, [N]."""
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
        """It thinks: nothing is known yet."""
        return self.standing.directive(
            torch.full((rows,), 2),
            torch.zeros(rows, len(CARRIED)),
            ("thinks: an episode begins",) * rows,
        )

    def hear(self, situation: Situation) -> tuple[Tensor, Tensor]:
        """The features of a situation, [B F], and the carry that follows, [B Q]."""
        before, configurator_state = (
            situation.previous,
            situation.previous.directive.configurator_state.numpy(),
        )
        begun = situation.episode_step.numpy() > 0
        mean, variance, count = (
            configurator_state[:, 0:4:2],
            configurator_state[:, 1:4:2],
            configurator_state[:, 4],
        )
        felt = np.stack([situation.surprise.numpy(), situation.energies.disagreement.numpy()], -1)
        above = deviations(felt, mean, variance, LEAST) / 3
        above = np.where((count >= WARM_STEPS)[:, None], above, 0)
        stake, usual, thoughts = stakes(before.plan, configurator_state[:, 6:]).T
        # Whoever it was that made the row think: it has not since then.
        idle = np.where(before.plan.model_calls.numpy() > 0, 0, configurator_state[:, 5]) + 1

        new = np.empty_like(configurator_state)
        new[:, 0:4:2], new[:, 1:4:2] = follow(mean, variance, count, felt, begun, MEMORY_STEPS)
        new[:, 4], new[:, 5] = count + begun, idle
        new[:, 6], new[:, 7], new[:, 8] = stake, usual, thoughts

        standing = self.standing
        now = (situation.energies.intrinsic @ standing.u).tanh().numpy()
        rows = situation.batch
        to_come = situation.energies.critic_value(
            before.directive.replace(v=standing.v.repeat(rows, 1))
        )
        left, age = before.plan.remaining_commit.numpy(), situation.episode_step.numpy()
        heard = np.stack(
            [
                above[:, 0],
                above[:, 1],
                situation.recollection.novelty.numpy(),
                now,
                to_come.detach().tanh().numpy(),
                np.tanh(before.expected.uncertainty.numpy()),
                age / (age + 200),
                idle / (idle + 8),
                left > 0,
                left / (left + 8),
                np.tanh(before.plan.energy.numpy()),
                np.tanh(np.log((stake + 1e-6) / (usual + 1e-6))),
                np.tanh(
                    situation.episode_model_calls.numpy()
                    / (age.clip(0) + 1)
                    / max(self.model_calls, 1)
                ),
            ],
            -1,
        ).astype(np.float32)
        features = torch.from_numpy(heard)
        if self.latent_features:
            features = torch.cat([features, self._looks(situation.state.latent)], -1)
        return features, torch.from_numpy(new)

    def _looks(self, latent: Tensor) -> Tensor:
        """A projection of the latent [B D], [B latent_features], whatever its scale."""
        if self._projection is None:
            size = latent.shape[-1]
            keys = chance.keys(1, self.latent_features, 0)
            self._projection = chance.normal(keys, "learned configurator", size)
        unit = latent / latent.norm(dim=-1, keepdim=True).clamp_min(1e-8)
        looks: Tensor = (unit @ self._projection.T).tanh()
        return looks

    def say(self, features: Tensor) -> Tensor:
        """What the network says of features [... F], prior included: [... 4], see `HEADS`.

        Differentiable in `weights`.
        """
        w = self.weights
        hidden = (features @ w["hidden.weight"].T + w["hidden.bias"]).tanh()
        said: Tensor = hidden @ w["heads.weight"].T + w["heads.bias"] + features.new_tensor(PRIOR)
        return said

    def configure(self, situation: Situation) -> Directive:
        """Mode, budget, commitment and reason of each row."""
        features, configurator_state = self.hear(situation)
        think, again, commit, effort = self.say(features).unbind(-1)
        left = situation.previous.plan.remaining_commit
        under_way = left > 0
        begins = torch.where(under_way, again, think) >= 0
        lasts = (self.commit_steps * 2 ** (3 * commit.tanh())).round().long()
        calls = (self.model_calls * 2 ** (2 * effort.tanh())).round().long()
        # A plan under way stands; one made anew of itself, by a surprise, lasts as any other.
        lasts = lasts.clamp(1, self.horizon_steps)
        lasts = torch.where(begins, lasts, lasts.maximum(left + 1))
        odds = torch.where(under_way, again, think).sigmoid()
        said = self.standing.directive(
            torch.where(begins | under_way, 2, 1),
            configurator_state,
            tuple(
                _why(*row)
                for row in zip(
                    begins.tolist(), odds.tolist(), left.tolist(), lasts.tolist(), calls.tolist(),
                    strict=True,
                )
            ),
        ).replace(model_calls=calls, commit_steps=lasts)  # fmt: skip
        return rethink(said, situation, begins & under_way)


def _why(begins: bool, odds: float, left: int, lasts: int, calls: int) -> str:
    """The reason of one row, with its numbers."""
    if begins:
        anew = " anew" if left else ""
        return f"thinks{anew}: probability {odds:.2f}, {lasts} steps of it, {calls} calls at most"
    if left:
        return f"thinks: a plan is under way, {left} more to do, anew with probability {odds:.2f}"
    return f"acts: probability of thinking {odds:.2f}"


def _read(place: Path) -> tuple[dict[str, Tensor], str]:
    """The weights in a tutored folder or a safetensors file, and where they were."""
    found = next(
        (p for p in (place / "best" / WEIGHTS, place / WEIGHTS, place) if p.is_file()), None
    )
    if found is None:
        what = f"has no {WEIGHTS}" if place.is_dir() else "is not there"
        raise ConfigError(
            f"config configurator.weights: '{place}' {what}; expected the folder that "
            "`sextet tutor` wrote"
        )
    try:
        data = found.read_bytes()
        manifest = found.parent / "manifest.json"
        if manifest.is_file():
            wanted = json.loads(manifest.read_bytes())["sha256"].get(found.name)
            if wanted is not None and hashlib.sha256(data).hexdigest() != wanted:
                raise ConfigError(
                    f"config configurator.weights: '{found}' is damaged (its SHA-256 differs)"
                )
        return load_tensors(data), str(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(
            f"config configurator.weights: '{found}' is not readable ({line})"
        ) from None
