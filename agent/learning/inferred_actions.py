"""Actions of recordings that lack them, inferred from what changed between two observations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot, silu

from agent.recording.readers import Episode, Form, OfEpisodes, RecordedEpisodes
from modules.messages import TraceError, WorldSpec
from modules.nets.mlp import MLP

BATCH, CHUNK = 64, 256
"""Steps of an update, and steps that are asked about at once."""

HELD_OUT = 10
"""One in so many known steps is not learned from, but tells how good the inferred actions are."""


class ActionReader(nn.Module):
    """Two successive observations → the action between them: inverse dynamics of what is seen.

    Of frames: convolutions over both, then the maximum over the picture in each channel. A change
    looks the same wherever it takes place, so a few known actions are enough (in TwoRooms 600 for
    R² .96, where a network that reads two latents needs more than 12,000). Of vectors: an MLP of
    the observation and its change.
    """

    def __init__(self, world: WorldSpec, width: int = 32) -> None:
        super().__init__()
        self.discrete, outputs = world.actions.discrete, world.actions.size
        self.frames: nn.ModuleList | None = None
        if world.pixels is None:
            assert world.vector is not None  # a world shows frames or numbers
            self.head: nn.Module = MLP(2 * world.vector, 8 * width, outputs)
            return
        sizes = ((2 * world.pixels[2], width // 2, 5, 2), (width // 2, width, 3, 1),
                 (width, width, 3, 2), (width, width, 1, 1))  # fmt: skip
        self.frames = nn.ModuleList(
            nn.Conv2d(before, after, side, stride, side // 2)
            for before, after, side, stride in sizes
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Observations [M H Y C] uint8 or [M N] → actions [M A], or logits of discrete ones."""
        if self.frames is None:
            output: Tensor = self.head(torch.cat([before, after - before], 1))
            return output
        hidden = torch.cat([before, after], 3).movedim(3, 1).float() / 255
        for number, layer in enumerate(self.frames):
            hidden = layer(hidden) if number == 0 else layer(silu(hidden))
        output = self.head(hidden.amax((2, 3)))
        return output

    def loss(self, output: Tensor, actions: Tensor) -> Tensor:
        """The mean cross entropy of discrete actions [M A], the mean squared error of others."""
        return (cross_entropy if self.discrete else mse_loss)(output, actions)

    def share(self, output: Tensor, actions: Tensor) -> float:
        """The share of discrete actions [M A] that is right; of others the share of the variance
        that is explained, R², the mean over their numbers.
        """
        if self.discrete:
            return float((output.argmax(1) == actions.argmax(1)).float().mean())
        total = (actions - actions.mean(0)).square().sum(0).clamp_min(1e-12)
        return float((1 - (output - actions).square().sum(0) / total).mean())

    @torch.no_grad()
    def actions(self, observations: Tensor) -> Tensor:
        """The encoded actions [T-1 A] between T observations."""
        before, after = observations[:-1], observations[1:]
        parts = [
            self(before[start : start + CHUNK], after[start : start + CHUNK])
            for start in range(0, len(before), CHUNK)
        ]
        output = torch.cat(parts)
        if self.discrete:
            return one_hot(output.argmax(1), output.shape[1]).float()
        return output.clamp(-1, 1)


class WithInferredActions(OfEpisodes):
    """A recording, with the actions of those of its episodes that lack them."""

    def __init__(self, recording: RecordedEpisodes, reader: ActionReader) -> None:
        self.recording, self.reader = recording, reader
        self.path: Path = recording.path
        self.steps, self.episodes, self.world = recording.steps, recording.episodes, recording.world
        self.lacks = tuple(word for word in recording.lacks if word != "actions")

    def require(self, form: Form) -> None:
        """As of the recording."""
        self.recording.require(form)

    def episodes_in(self, form: Form) -> Iterator[Episode]:
        """Its episodes; each without actions is read as a whole."""
        for episode in self.recording.episodes_in(form):
            if episode.actions is not None or episode.steps < 2:
                yield episode
                continue
            seen = list(episode.observations)
            yield replace(episode, observations=seen, actions=self.reader.actions(_stacked(seen)))


class Inferred(NamedTuple):
    """Recordings, each with whether it is an expert's, and a line on their actions."""

    recordings: list[tuple[RecordedEpisodes, bool]]
    line: str


def with_inferred_actions(
    recordings: Sequence[tuple[RecordedEpisodes, bool]], form: Form, updates: int, seed: int
) -> Inferred:
    """The recordings, with actions where they lack them, read by an `ActionReader` that was trained
    on the steps whose action is known.

    Raises TraceError, one line, where no action is known, or none is missing.
    """
    known, missing = list[tuple[Tensor, Tensor]](), 0
    for recording, _ in recordings:
        for episode in recording.episodes_in(form):
            if episode.actions is None:
                missing += max(episode.steps - 1, 0)
            elif episode.steps > 1:
                seen = _stacked(list(episode.observations))
                known.append((seen, episode.actions[: episode.steps - 1].float()))
    paths = ", ".join(str(recording.path) for recording, _ in recordings)
    if sum(len(actions) for _, actions in known) < 2 * HELD_OUT or not missing:
        got = "too few" if missing else "all of them"
        raise TraceError(
            f"recording {paths}: training.infer_actions: expected some steps whose action is known "
            f"({2 * HELD_OUT} or more) and others whose is not, got {got}; leave the setting out, "
            "or add a recording"
        )
    with torch.random.fork_rng(devices=()):  # initial weights of the agent stay what they were
        torch.manual_seed(seed)
        reader, share, count = _trained(known, form.world, updates)
    quality = f"{'right in' if reader.discrete else 'R²'} {share:.2f} of held-out ones"
    line = f"{'actions':<9} {missing} inferred from {count} that are known: {quality}"
    inferred = [
        (WithInferredActions(recording, reader), expert) for recording, expert in recordings
    ]
    return Inferred([*inferred], line)


def _trained(
    known: Sequence[tuple[Tensor, Tensor]], world: WorldSpec, updates: int
) -> tuple[ActionReader, float, int]:
    """A reader, what it is right about on held-out steps, and the number of known steps."""
    before = torch.cat([seen[:-1] for seen, _ in known])
    after = torch.cat([seen[1:] for seen, _ in known])
    actions = torch.cat([taken for _, taken in known])
    order = torch.randperm(len(actions))
    held, own = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
    reader = ActionReader(world)
    optimiser = torch.optim.AdamW(reader.parameters(), 0.002, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(updates, 1))
    for _ in range(updates):
        chosen = own[torch.randint(len(own), (BATCH,))]
        optimiser.zero_grad()
        loss = reader.loss(reader(before[chosen], after[chosen]), actions[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        share = reader.share(reader(before[held], after[held]), actions[held])
    return reader, share, len(actions)


def _stacked(observations: Sequence[NDArray[Any]]) -> Tensor:
    """Observations [T ...]: frames as bytes, others as float32."""
    stacked = np.stack(observations)
    return torch.from_numpy(stacked if stacked.dtype == np.uint8 else stacked.astype(np.float32))
