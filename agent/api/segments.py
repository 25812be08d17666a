"""The segments of a training with workers: each worker steps whole blocks of environments."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.merge import ConfigTree, merge
from agent.engines.engine import Engine, Job, Report
from agent.learning.blocks import BLOCK, block_seed
from agent.learning.segmented_training import Segment, as_tensor, from_bytes, to_bytes
from agent.recording.atomic import write_json
from agent.recording.run_folder import RunFolder
from agent.recording.weights import load_weights, parametric_modules
from modules.messages import ConfigError, Observation

WORKERS = "workers.json"
"""In the folder of a run: host and processor of the workers that carried out its segments."""

_CAPACITY = 1000
"""Steps in the memory of a block, which stores no experience: the learner's memory does."""


class RowBlock(NamedTuple):
    """A block of environments: its number, how many they are, its seed."""

    number: int
    size: int
    seed: int


class SegmentOrder(NamedTuple):
    """What a worker is given: blocks and their states, the weights, and the number of turns."""

    key: str
    tree: ConfigTree
    plugins: tuple[str, ...]
    blocks: tuple[RowBlock, ...]
    states: tuple[bytes, ...]
    weights: bytes
    segment: int
    turns: int


@dataclass
class _Life:
    """Agent and world of a block after segment `segment`, which showed `observation` last."""

    assembly: Assembly
    segment: int
    observation: Observation


_LIVES: dict[tuple[str, int], _Life] = {}
"""Of this process. A worker that has the block of a segment at hand need not restore its state."""


class Workers:
    """Carries out segments on an engine, `workers` of them side by side.

    Raises ConfigError where the world cannot be restored or the memory has weights.
    """

    def __init__(
        self, engine: Engine, assembly: Assembly, plugins: Sequence[str], folder: RunFolder
    ) -> None:
        settings = assembly.config.settings
        self.engine, self.folder, self.plugins = engine, folder, tuple(plugins)
        self.config, rows = settings.training, assembly.world.num_envs
        if "memory" in parametric_modules(assembly.agent.modules):
            raise ConfigError(
                "config training.workers: expected 0 where the memory has weights to train, got "
                f"{self.config.workers}"
            )
        if (fault := assembly.world.rehearse()) is not None:
            raise ConfigError(
                f"config training.workers: expected 0 in a world that replay does not restore "
                f"({fault}), got {self.config.workers}"
            )
        self.tree, self.key = assembly.config.tree(), uuid.uuid4().hex
        self.blocks = [
            RowBlock(number, min(BLOCK, rows - start), block_seed(settings.seed, number))
            for number, start in enumerate(range(0, rows, BLOCK))
        ]
        self._seen: dict[str, str] = {}

    def live(self, index: int, states: list[bytes], weights: bytes) -> Segment:
        """Carries out a segment: a job for each worker, with every n-th block."""
        jobs, count = list[Job](), min(self.config.workers, len(self.blocks))
        for worker in range(count):
            part = SegmentOrder(
                self.key, self.tree, self.plugins, tuple(self.blocks[worker::count]),
                tuple(states[worker::count]), weights, index, self.config.segment_steps,
            )  # fmt: skip
            jobs.append(Job(f"worker {worker}", functools.partial(_carry_out, part)))
        by_block: dict[int, tuple[list[bytes], bytes]] = {}
        for result in self.engine.map(jobs):
            by_block |= result.value
            self._record(result.job.name, f"{result.where.host}: {result.where.processor}")
        done = [by_block[block.number] for block in self.blocks]
        return Segment([moments for moments, _ in done], [state for _, state in done])

    def _record(self, worker: str, where: str) -> None:
        if self._seen.get(worker) != where:
            self._seen[worker] = where
            write_json(self.folder.path / WORKERS, self._seen)


def _carry_out(part: SegmentOrder, _: None, report: Report) -> dict[int, tuple[list[bytes], bytes]]:
    """A job: of each block its moments and its state at the end of the segment."""
    for key in [key for key in _LIVES if key[0] != part.key]:
        _LIVES.pop(key).assembly.world.close()
    weights = from_bytes(part.weights)
    done = {}
    for block, state in zip(part.blocks, part.states, strict=True):
        life = _life(part, block, state)
        agent, world = life.assembly.agent, life.assembly.world
        load_weights(agent.modules, weights, "training.workers")
        moments, observation = list[bytes](), life.observation
        for _turn in range(part.turns):
            moment = agent.step(observation)
            moments.append(moment.to_bytes())
            observation = world.step(moment.plan.action)
        life.observation, life.segment = observation, part.segment
        done[block.number] = moments, _state(life)
    return done


def _life(part: SegmentOrder, block: RowBlock, state: bytes) -> _Life:
    """Agent and world of a block at the end of the segment before, at hand or restored."""
    key = part.key, block.number
    life = _LIVES.pop(key, None)
    if life is None or life.segment != part.segment - 1:
        assembly = _assembled(part, block) if life is None else life.assembly
        life = _Life(assembly, part.segment - 1, _restored(assembly, block, state))
    _LIVES[key] = life
    return life


def _assembled(part: SegmentOrder, block: RowBlock) -> Assembly:
    capacity = min(_CAPACITY, part.tree.get("memory", {}).get("capacity", _CAPACITY))
    own = {"world": {"num_envs": block.size}, "memory": {"capacity": capacity}}
    return assemble(merge(part.tree, own), known_kinds(part.plugins), training=True)


def _restored(assembly: Assembly, block: RowBlock, state: bytes) -> Observation:
    """The observation that comes next after a state; without one, that of the first episodes."""
    agent, world = assembly.agent, assembly.world
    agent.reset(block.size, block.seed)
    if not state:
        return world.reset(block.seed)
    tensors = from_bytes(state)
    agent.steps_done = int(tensors.pop("steps"))
    snapshot = tensors.pop("world").numpy().tobytes()
    memory: Any = agent.modules.memory
    memory.load_acting(tensors)
    return world.restore(snapshot)


def _state(life: _Life) -> bytes:
    """What `_restored` needs."""
    agent, memory = life.assembly.agent, life.assembly.agent.modules.memory
    acting: Any = memory
    tensors = dict(acting.acting_tensors())
    tensors |= {
        "steps": torch.tensor(agent.steps_done),
        "world": as_tensor(life.assembly.world.snapshot()),
    }
    return to_bytes(tensors)
