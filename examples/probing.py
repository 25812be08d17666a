"""What the studies of representations share: trainings, linear read-outs, tables.

A training is that of `sextet train`, in a folder of its own; one that is there already is read and
not trained again. `latents_of` and `read_out` ask the representation of a trained agent for truths
of held-out episodes, in the present and as the world model predicts them.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent import load, train
from agent.learning.statistics import Estimate, mean
from command_line import print_results, table
from modules.measures.probes import fit_linear, r_squared, read_linear
from modules.messages import State

AHEAD_STEPS = 5
"""Steps after which a prediction is compared with what happened."""

Rows = dict[str, list[dict[str, float]]]
"""By the name of a row of a table its figures, a dictionary a seed."""


# -- trainings ---------------------------------------------------------------------------------


def trained(place: Path, world: str | Path, *overrides: str, **options: Any) -> dict[str, Any]:
    """The result of the training in the folder `place`, trained where it is not there, with the
    `overrides` and `options` of `agent.train`. One that was stopped or killed goes on from its last
    checkpoint.
    """
    file = place / "result.json"
    if not file.is_file() or json.loads(file.read_text())["stopped"]:
        print(f"{place}: training", file=sys.stderr, flush=True)
        if (place / "checkpoints").is_dir():
            train(resume=place)
        else:
            shutil.rmtree(place, ignore_errors=True)
            train(world, *overrides, run=place, **options)
    result: dict[str, Any] = json.loads(file.read_text())
    return result


# -- representations ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """Episodes of random actions that no training has seen, E of them, T steps.

    frames [E T H Y C] uint8; actions [E T], of which the one at t leads to t+1; truth: by name what
    a probe reads, [E T n], NaN in steps where there is nothing to read.
    """

    frames: Tensor
    actions: Tensor
    truth: dict[str, Tensor]


class Latents(NamedTuple):
    """Of held-out episodes the encoded latents [E T D], those [E T-5 D] that the model predicts
    AHEAD_STEPS later from them and the actions taken, and, where the model draws them, the frames
    [E T H Y C] of the encoded and [E T-5 H Y C] of the predicted latents.
    """

    encoded: Tensor
    predicted: Tensor
    redrawn: Tensor | None = None
    drawn: Tensor | None = None


@torch.no_grad()
def latents_of(run: Path, held: Held) -> Latents:
    """What perception and world model of a run make of held-out episodes."""
    player = load(run)
    with closing(player.world):
        modules, spec = player.agent.modules, player.world.spec
    perception: Any = modules.perception
    stack = perception.frame_stack
    first = held.frames[:, :1].expand(-1, stack - 1, -1, -1, -1)
    stacks = torch.cat([first, held.frames], 1).unfold(1, stack, 1).movedim(-1, 2)
    encoded = torch.stack([perception.encode(one.contiguous()) for one in stacks])
    tokens = modules.configurator.initial(1).tokens.flatten(1)
    begin = state_of(encoded[:, :-AHEAD_STEPS].flatten(0, 1), tokens, len(spec.signals))
    hot = torch.nn.functional.one_hot(held.actions, spec.actions.size).float()
    state = begin
    for t in range(AHEAD_STEPS):
        state = modules.world_model.step(state, hot[:, t : t - AHEAD_STEPS].flatten(0, 1))
    predicted = state.latent.view(*encoded[:, AHEAD_STEPS:].shape)
    decode = getattr(modules.world_model, "decode", None)
    if decode is None:
        return Latents(encoded, predicted)
    every = state_of(encoded.flatten(0, 1), tokens, len(spec.signals))
    redrawn = decode(every).view(held.frames.shape)
    return Latents(
        encoded, predicted, redrawn, decode(state).view(*held.frames[:, AHEAD_STEPS:].shape)
    )


def state_of(latent: Tensor, tokens: Tensor, signals: int) -> State:
    """The state [M ...] of latents [M D] under the directive's `tokens` [1 T·E]."""
    zeros = torch.zeros(len(latent))
    return State.unchecked(
        latent=latent,
        hidden=tokens.expand(len(latent), -1),
        signals=torch.zeros(len(latent), signals),
        ended=zeros,
        uncertainty=zeros,
        goal=None,
    )


class ReadOut(NamedTuple):
    """Mean R² over the numbers of a truth: read from encoded latents, by the same read-out from
    those predicted AHEAD_STEPS earlier, and from these by a read-out fitted to them.
    """

    now: float
    later: float
    later_own: float


def read_out(latents: Latents, truth: Tensor) -> ReadOut:
    """How well `truth` [E T n] is read linearly in the last quarter of the episodes; read-outs are
    fitted to the others.
    """
    cut = len(truth) - max(1, len(truth) // 4)
    ahead = truth[:, AHEAD_STEPS:]
    weights = fit_linear(*_known(latents.encoded[:cut], truth[:cut]))
    own = fit_linear(*_known(latents.predicted[:cut], ahead[:cut]))
    now, true_now = _known(latents.encoded[cut:], truth[cut:])
    later, true_later = _known(latents.predicted[cut:], ahead[cut:])
    scores = (
        r_squared(read_linear(weights, now), true_now),
        r_squared(read_linear(weights, later), true_later),
        r_squared(read_linear(own, later), true_later),
    )
    return ReadOut(*(float(score.mean()) for score in scores))


def _known(latents: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Latents [M D] and truths [M n] of the steps [E T] where there is something to read."""
    known = ~truth.isnan().any(-1)
    return latents[known], truth[known]


def prediction_error(latents: Latents) -> float:
    """The mean squared error of predicted latents over the variance of encoded ones; NaN where
    these do not vary.
    """
    error = (latents.predicted - latents.encoded[:, AHEAD_STEPS:]).square().mean()
    return float(error / latents.encoded.flatten(0, 1).var(0).mean())


# -- output ------------------------------------------------------------------------------------


def column(rows: Rows, row: str, name: str) -> NDArray[np.float64]:
    """A figure of each seed of a row, [S]."""
    return np.array([figures[name] for figures in rows[row]])


def shown(value: Estimate) -> str:
    """A mean with its interval, in three digits."""
    ends = "" if math.isnan(value.low) else f" [{value.low:.3g}, {value.high:.3g}]"
    return f"{value.mean:.3g}{ends}"


def table_of(rows: Rows) -> str:
    """A Markdown table of means with their 95 % intervals over seeds."""
    names = list(dict.fromkeys(name for one in rows.values() for name in one[0]))
    lines = []
    for row, seeds in rows.items():
        cells = [mean(column(rows, row, name)) if name in seeds[0] else None for name in names]
        lines.append([row, *("" if cell is None else shown(cell) for cell in cells)])
    return table(["", *names], lines)


def print_parts(
    parts: Mapping[str, Callable[[Path, Any], Rows]],
    options: argparse.Namespace,
    size: Any,
    bars_of: Callable[[Rows], Mapping[str, bool]],
) -> None:
    """Makes the rows of the part `--only`, or of all, at a `size`, a NamedTuple; prints a table of
    each, the bars of all rows, and with `--json` sizes and rows.
    """
    options.runs.mkdir(parents=True, exist_ok=True)
    names = (options.only,) if options.only else tuple(parts)
    tables = [parts[name](options.runs, size) for name in names]
    rows = {name: seeds for table in tables for name, seeds in table.items()}
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(table) for table in tables], bars_of(rows), figures)
