"""What world models with and without a latent variable z learn of a step that branches.

`examples/fork.py` prints and draws it. The rows of a fixed encoder have the states themselves for
latents; those of a learned one an encoder that VICReg trains with the model. In the second half of
its training the gradient of a prediction's error also reaches the encoding of what is predicted
(`target_grad_scale`), by which the encoder can drop it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from branching_step import (
    BRANCHES,
    PLACES,
    RATES,
    SIZE,
    SYNTHETIC,
    Space,
    fit,
    jepa,
    state_of,
    world_space,
)
from command_line import mean_of, table
from modules.measures.branches import branch_coverage
from modules.measures.probes import linear_probe
from modules.messages import State
from modules.nets.conv import TinyCNN
from modules.nets.mlp import MLP
from modules.objectives.vicreg import VICReg
from modules.world_model.jepa import JEPA
from modules.world_model.latent_jepa import LatentJEPA
from modules.world_model.latents.categorical import CategoricalLatent
from modules.world_model.latents.continuous import GaussianLatent, SparseLatent

MIDDLE = float((RATES @ BRANCHES - BRANCHES).norm(dim=1).min())
"""Distance from the mean of the synthetic branches to the nearest one, .436 of their distance."""

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "none": (None, {}),
    "categorical": (CategoricalLatent, {}),
    "gaussian": (GaussianLatent, {}),
    "sparse": (SparseLatent, {}),
    "gaussian, 1 component": (GaussianLatent, {"components": 1}),
}

ENCODERS = ("fixed", "learned", "state", "pixels")
"""The states of the synthetic space themselves; an encoder of them; an encoder of the vectors of
`sextet/Fork-v0`; one of its frames.
"""

ROWS = (
    *((kind, "fixed") for kind in KINDS),
    *((kind, encoder) for encoder in ENCODERS[1:] for kind in ("none", "categorical")),
)
"""The trainings of a seed: kind of z and encoder."""

TARGET_GRAD_SCALE = 0.3
"""In the second half of a training, of the gradient into the encoding of what is predicted."""


@cache
def space_of(encoder: str) -> Space:
    """The steps that an encoder sees."""
    return SYNTHETIC if encoder in ("fixed", "learned") else world_space(encoder == "pixels")


class Frames(nn.Module):
    """The numbers [M] of frames [N 64 64 3] uint8 to latents [M 6]; each frame is encoded once."""

    def __init__(self, frames: Tensor) -> None:
        super().__init__()
        pixels = frames.permute(0, 3, 1, 2).float()
        # What all frames share would be nearly all of a latent.
        self.pixels = (pixels - pixels.mean(0)) / pixels.var(0, correction=0).mean().sqrt()
        self.convolutions = TinyCNN(3, 64, 64, (0, 0), 1)
        self.project = MLP(self.convolutions.features, 64, SIZE)

    def forward(self, numbers: Tensor) -> Tensor:
        """The latents of the frames with these numbers."""
        latents: Tensor = self.project(self.convolutions(self.pixels, None))
        return latents[numbers]


class Trained(NamedTuple):
    """A world model, and the encoder of the states that it predicts."""

    model: JEPA
    encode: Callable[[Tensor], Tensor]

    def state(self, observed: Tensor) -> State:
        """The state of observations [M ...]."""
        return state_of(self.encode(observed))


def trained(kind: str, encoder: str, seed: int, updates: int) -> Trained:
    """A world model with that kind of z, and its encoder, one of ENCODERS."""
    torch.manual_seed(seed)
    encode: nn.Module = nn.Identity()
    space, objective = space_of(encoder), None
    config: dict[str, float] = {}
    if encoder != "fixed":
        encode = MLP(SIZE, 64, SIZE) if space.frames is None else Frames(space.frames)
        config = {"prediction_weight": 25.0}
        objective = VICReg(config=VICReg.Config(std_coeff=25.0, cov_coeff=1.0))
    variable, settings = KINDS[kind]
    if variable is CategoricalLatent:
        settings = {"anneal_updates": int(0.4 * updates)}
    model = jepa(variable, settings, objective=objective, **config)
    scale = 0.0 if encoder == "fixed" else TARGET_GRAD_SCALE
    fit(model, updates, seed, space=space, encoder=encode, target_grad_scale=scale)
    return Trained(model, encode)


# -- what a model learned ------------------------------------------------------------------------

STATES, FUTURES, HELD_OUT = 40, 256, 2000
"""Fork states, futures drawn from the prior in each, and steps of each kind that judge a model."""


@dataclass(frozen=True)
class Row:
    """What one training learned; None where a model has no such figure.

    separation: the distance of the branches in latent space over the total standard deviation of
    latents. nearest: from the most likely prediction to the nearest branch, over the distance of
    branches. rates: shares of the futures on each branch; off: on none. log_likelihood of the
    branch under p(z | s, a), nats: the share of the futures on it. inferred: share of steps whose
    branch is the nearest one to the prediction under argmin_z E. divergence_fork, divergence_off:
    KL(q || p), nats, at forks and off them. r2: of where the state is, read linearly from z.
    """

    kind: str
    encoder: str
    seed: int
    separation: float
    nearest: float
    rates: list[float] | None = None
    off: float | None = None
    log_likelihood: float | None = None
    inferred: float | None = None
    divergence_fork: float | None = None
    divergence_off: float | None = None
    r2: float | None = None

    @property
    def off_by(self) -> float:
        """The largest error of a rate."""
        return float((torch.tensor(self.rates) - space_of(self.encoder).rates).abs().max())

    @property
    def surplus(self) -> float:
        """How much less likely the branches are than by their rates, as a share of the entropy."""
        entropy = space_of(self.encoder).entropy
        return abs(cast(float, self.log_likelihood) + entropy) / entropy


@torch.no_grad()
def row_of(result: Trained, kind: str, encoder: str, seed: int) -> tuple[Row, Tensor]:
    """What a model learned, on steps drawn anew, in the world from the same episodes; and where its
    futures of one fork lie among the branches, [K 2], where the encoder is fixed.
    """
    (model, encode), space = result, space_of(encoder)
    luck = torch.Generator().manual_seed(10_000 + seed)
    steps, seen = space.steps(HELD_OUT, luck, True), space.steps(HELD_OUT, luck, None)
    latents = encode(torch.cat([seen.state, seen.after]))
    ends = encode(steps.ends.flatten(0, 1)).unflatten(0, (-1, 3))
    apart = torch.stack([torch.pdist(each).min() for each in ends[:STATES]]).mean()
    state = result.state(steps.state)

    def distances(predicted: Tensor) -> Tensor:
        return torch.cdist(predicted.unsqueeze(1), ends).squeeze(1)

    likeliest = model.step(state, steps.action)
    row: dict[str, Any] = {
        "separation": float(apart / latents.var(0, correction=0).sum().sqrt()),
        "nearest": float((distances(likeliest.latent).amin(1) / apart).mean()),
    }
    if not isinstance(model, LatentJEPA):
        return Row(kind, encoder, seed, **row), _places(likeliest)[:1]
    shares, off, futures = [], [], torch.zeros(0, 2)
    for number in range(STATES):
        index = torch.full((FUTURES,), number)
        here, action = state.select(index), steps.action[index]
        uniform = torch.rand(FUTURES, model.latent.luck, generator=luck)
        z = model.sample_latent(here, action, uniform, torch.ones(FUTURES))
        after = model.step(here, action, z)
        futures = _places(after) if number == 0 else futures
        coverage = branch_coverage(after.latent, ends[number])
        shares.append(coverage.rates)
        off.append(coverage.off)
    rates = torch.stack(shares)
    # Half a future is added to each branch: the logarithm of a share of 0 has no bound.
    likelihood = ((rates * FUTURES + 0.5) / (FUTURES + 1.5)).log() @ space.rates
    z, _ = model.infer_latent(state, steps.action, result.state(steps.after))
    reached = distances(model.step(state, steps.action, z).latent).argmin(1)
    row |= {
        "rates": rates.mean(0).tolist(),
        "off": sum(off) / STATES,
        "log_likelihood": float(likelihood.mean()),
        "inferred": float((reached == steps.branch).float().mean()),
    }
    if kind == "categorical":
        certain = space.steps(HELD_OUT, luck, False)
        for name, of in (("divergence_off", certain), ("divergence_fork", steps)):
            log_q, log_p = model.posterior(
                result.state(of.state), of.action, result.state(of.after)
            )
            row[name] = float((log_q.exp() * (log_q - log_p)).sum(1).mean())
        z = torch.eye(log_q.shape[1])[torch.multinomial(log_q.exp(), 1, generator=luck)[:, 0]]
    row["r2"] = float(linear_probe(z, steps.place).amax())
    return Row(kind, encoder, seed, **row), futures


def _places(state: State) -> Tensor:
    """Where a synthetic state lies among the branches, [M 2]."""
    return state.latent[:, PLACES : PLACES + 2]


# -- output --------------------------------------------------------------------------------------


def named(rows: list[Row], kind: str, encoder: str) -> list[Row]:
    """The trainings of one kind."""
    return [row for row in rows if (row.kind, row.encoder) == (kind, encoder)]


def median(rows: list[Row], name: str) -> float:
    """The median over trainings."""
    return float(torch.tensor([getattr(row, name) for row in rows]).double().median())


def _most(met: list[bool]) -> bool:
    """Whether four fifths are met."""
    return sum(met) >= 0.8 * len(met)


def bars_of(rows: list[Row]) -> dict[str, bool]:
    """What the table must show, and whether it does."""
    fixed = {kind: named(rows, kind, "fixed") for kind in KINDS}
    bars = {
        "without z the average is predicted, at .9 of its distance or more": all(
            row.nearest >= 0.9 * MIDDLE for row in fixed["none"]
        )
    }
    for kind, most in (("categorical", 0.05), ("gaussian", 0.1), ("sparse", 0.1)):
        bars |= _bars_of_futures(kind, most, fixed[kind])
    bars["a prior of one normal distribution falls short"] = (
        median(fixed["gaussian, 1 component"], "off") > 0.1
    )
    for encoder in ENCODERS:
        held = named(rows, "categorical", encoder)
        if encoder != "fixed":
            bars |= {
                f"{encoder}: without z branches are at .2 deviations or less (median)": median(
                    named(rows, "none", encoder), "separation"
                )
                <= 0.2,
                f"{encoder}: with z at .5 or more (median)": median(held, "separation") >= 0.5,
                **_bars_of_futures(f"categorical, {encoder}", 0.05, held),
            }
        entropy = space_of(encoder).entropy
        bars |= {
            f"{encoder}: z says the branch at forks and nothing off them (median)": median(
                held, "divergence_fork"
            )
            <= entropy + 0.05
            and median(held, "divergence_off") <= 0.05,
            f"{encoder}: a categorical z does not say where the state is (median)": median(
                held, "r2"
            )
            <= 0.02,
        }
        if encoder == "fixed":
            exact = min(cast(float, row.inferred) for row in held)
            bars["fixed: the branch is inferred in 99 % of the steps"] = exact >= 0.99
        else:
            likely = median(held, "inferred") >= 0.97
            bars[f"{encoder}: the branch is inferred in 97 % of the steps (median)"] = likely
    return bars


def _bars_of_futures(name: str, most: float, rows: list[Row]) -> dict[str, bool]:
    """Those of the futures that are drawn: `most` of them may be on no branch."""
    return {
        f"{name}: rates within .05": _most([row.off_by <= 0.05 for row in rows]),
        f"{name}: at most {most} of the futures on no branch": _most(
            [cast(float, row.off) <= most for row in rows]
        ),
        f"{name}: log-likelihood within 5 % of the entropy (median)": median(rows, "surplus")
        <= 0.05,
    }


FIGURES = (
    "separation", "nearest", "off_by", "off", "log_likelihood", "inferred", "divergence_fork",
    "divergence_off", "r2",
)  # fmt: skip


def table_of(rows: list[Row]) -> str:
    """A line for each kind of z and encoder: means over trainings."""
    lines = []
    for kind, encoder in ROWS:
        cells = []
        for name in FIGURES:
            values = [
                getattr(row, name)
                for row in named(rows, kind, encoder)
                if name != "off_by" or row.rates is not None
            ]
            cells.append(mean_of(values) if values and values[0] is not None else "")
        lines.append([kind, encoder, *cells])
    return table(["z", "encoder", *FIGURES], lines)
