"""Actions of recordings that lack them, inferred from what changed between two frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot, silu

from agent.recording.readers import Episode, Form, OfEpisodes, RecordedEpisodes
from modules.measures.probes import r_squared
from modules.messages import TraceError, WorldSpec

BATCH, CHUNK = 64, 256
"""Steps of an update, and steps of one pass through the network without a gradient."""

WIDTH = 32
"""Channels of the network."""

LEAST_KNOWN, HELD_OUT = 50, 10
"""The fewest steps with a known action that are learned from. The last one in HELD_OUT of the known
steps is not learned from: it shows how well the others were learned.
"""


class FrameInverseDynamics(nn.Module):
    """Two successive frames → the action between them.

    Four convolutions over both frames, then the maximum over the picture in each channel: a change
    looks the same wherever it takes place, so that few known actions are enough (Baker et al. 2022
    infer the actions of films in the same way, with a larger network).
    """

    def __init__(self, world: WorldSpec) -> None:
        super().__init__()
        assert world.pixels is not None  # asked only of worlds that show frames
        sizes = ((2 * world.pixels[2], WIDTH // 2, 5, 2), (WIDTH // 2, WIDTH, 3, 1),
                 (WIDTH, WIDTH, 3, 2), (WIDTH, WIDTH, 1, 1))  # fmt: skip
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, side, stride, side // 2)
            for before, after, side, stride in sizes
        )
        self.last = nn.Linear(WIDTH, world.actions.size)
        self.discrete = world.actions.discrete

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Frames [M H Y C] uint8 → actions [M A], or logits of discrete ones."""
        hidden = torch.cat([before, after], 3).movedim(3, 1).float() / 255
        for number, layer in enumerate(self.layers):
            hidden = layer(silu(hidden) if number else hidden)
        output: Tensor = self.last(hidden.amax((2, 3)))
        return output

    def loss(self, output: Tensor, actions: Tensor) -> Tensor:
        """The mean cross entropy of discrete actions [M A], the mean squared error of others."""
        return (cross_entropy if self.discrete else mse_loss)(output, actions)

    @torch.no_grad()
    def actions(self, before: Tensor, after: Tensor) -> Tensor:
        """Encoded actions [M A] between frames [M H Y C]."""
        parts = zip(before.split(CHUNK), after.split(CHUNK), strict=True)  # type: ignore[no-untyped-call]
        output = torch.cat([self(*part) for part in parts])
        if self.discrete:
            return one_hot(output.argmax(1), output.shape[1]).float()
        return output.clamp(-1, 1)


class WithInferredActions(OfEpisodes):
    """A recording, with the actions of those of its episodes that lack them. Their effort, a signal
    that an action would tell, stays unknown.
    """

    def __init__(self, recording: RecordedEpisodes, network: FrameInverseDynamics) -> None:
        self.recording, self.network = recording, network
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
            seen = np.stack(list(episode.observations))
            frames = torch.from_numpy(seen)
            yield replace(
                episode, observations=seen, actions=self.network.actions(frames[:-1], frames[1:])
            )


class _Known(NamedTuple):
    """Frames [N H Y C] of episodes, one after the other, the places [M] in it of those that a known
    action follows, and these actions [M A].
    """

    frames: Tensor
    places: Tensor
    actions: Tensor


def with_inferred_actions(
    recordings: Sequence[tuple[RecordedEpisodes, bool]], form: Form, updates: int, seed: int
) -> tuple[list[tuple[RecordedEpisodes, bool]], str]:
    """The recordings, each with whether it is an expert's and with the actions that it lacked, and
    a line on how well they are inferred. A network learns them in `updates` from the steps whose
    action is known; recordings that lack none stay what they are.

    Raises TraceError, one line, where the world shows no frames, or too few actions are known.
    """
    frames, places, actions = list[Tensor](), list[Tensor](), list[Tensor]()
    missing, count = list[int](), 0
    for recording, _ in recordings:
        missing.append(0)
        for episode in recording.episodes_in(form):
            if episode.actions is None:
                missing[-1] += episode.steps - 1
            elif episode.steps > 1 and form.world.pixels is not None:
                frames.append(torch.from_numpy(np.stack(list(episode.observations))))
                places.append(torch.arange(count, count + episode.steps - 1))
                actions.append(episode.actions[: episode.steps - 1].float())
                count += episode.steps
    known = sum(map(len, actions))
    if not sum(missing):
        return list(recordings), f"{'actions':<9} all known, none is inferred"
    if known < LEAST_KNOWN:
        paths = ", ".join(str(recording.path) for recording, _ in recordings)
        raise TraceError(
            f"recording {paths}: training.infer_actions: expected {LEAST_KNOWN} steps or more whose"
            f" action is known, in a world of frames, got {known}; add a recording of some steps "
            "with their actions"
        )
    with torch.random.fork_rng(devices=()):  # the random numbers of the agent stay the same
        torch.manual_seed(seed)
        network, quality = _trained(
            _Known(torch.cat(frames), torch.cat(places), torch.cat(actions)), form.world, updates
        )
    line = f"{'actions':<9} {sum(missing)} inferred from {known} that are known; {quality}"
    return [
        (WithInferredActions(recording, network) if lacking else recording, expert)
        for (recording, expert), lacking in zip(recordings, missing, strict=True)
    ], line


def _trained(known: _Known, world: WorldSpec, updates: int) -> tuple[FrameInverseDynamics, str]:
    """A trained network, and what it is right about in the last tenth of the known steps."""
    frames, places, actions = known
    learned = len(actions) - len(actions) // HELD_OUT
    network = FrameInverseDynamics(world)
    optimiser = torch.optim.AdamW(network.parameters(), 0.002, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for _ in range(updates):
        chosen = torch.randint(learned, (BATCH,))
        before = places[chosen]
        optimiser.zero_grad()
        loss = network.loss(network(frames[before], frames[before + 1]), actions[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    held = places[learned:]
    inferred, true = network.actions(frames[held], frames[held + 1]), actions[learned:]
    if network.discrete:
        right = float((inferred.argmax(1) == true.argmax(1)).float().mean())
        return network, f"of the last {len(held)} of these, held out, {right:.2f} are right"
    explained = float(r_squared(inferred, true).nanmean())
    return network, f"of the last {len(held)} of these, held out, R² {explained:.2f}"
