"""Runs 100 000 steps of Atari with a learner: peak memory, and the cost of checkpoints.

    python examples/benchmarks/replay.py --json

The agent is the one `sextet train ALE/Boxing-v5 --protocol 100k` trains, its memory filled to the
last step; it learns 200 times only, since how much memory learning takes does not
depend on how often. `rss_gb` is the peak of the whole process; `checkpoint_s` the seconds each
checkpoint took, the last one of a full memory; `disk_ratio` the room of all stored ones (three, and
the best) on the disk, over that of the newest alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.api.training import training_config
from agent.assembly.build import assemble, known_kinds
from agent.assembly.load import RunRequest
from agent.engines.allocator import keep_freed_memory
from agent.learning.learner import Learner
from agent.learning.training import Training
from agent.recording import checkpoint


class Timed(Training):
    """A training that records the time of each checkpoint."""

    def save(self, name: str, whole: bool = True) -> Path:
        began = time.perf_counter()
        place = super().save(name, whole)
        if whole:
            self.spent = [*getattr(self, "spent", []), round(time.perf_counter() - began, 2)]
        return place


def peak_gb() -> float:
    """Peak resident memory of this process, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def disk_bytes(folder: Path) -> int:
    """The room of all files under a folder; a file that several folders share counts once."""
    sizes = {f.stat().st_ino: f.stat().st_size for f in folder.rglob("*") if f.is_file()}
    return sum(sizes.values())


def run(world: str, steps: int, rows: int, folder: Path) -> dict[str, Any]:
    """Collects steps, learns a little, writes ten checkpoints, and loads the last one."""
    keep_freed_memory()
    overrides = (f"memory.capacity={steps}", "learner.replay_ratio=0.002")
    tree = training_config(
        RunRequest(agent=world, overrides=overrides, flags={"protocol": "100k", "num_envs": rows})
    )
    assembly = assemble(tree, known_kinds(), training=True)
    settings = assembly.config.settings
    learner = Learner(assembly.agent, config=settings.learner, seed=0)
    schedule = Training.Config(
        steps=steps, report_every=5_000, evaluate_every=0, checkpoint_every=steps // 10
    )
    training = Timed(
        assembly.agent, assembly.world, learner, folder, schedule, lambda: [0.0], seed=0
    )
    began = time.perf_counter()
    for _ in training.run():
        pass
    elapsed = time.perf_counter() - began
    newest = checkpoint.newest(folder / "checkpoints", only=("memory",))
    assert newest is not None
    size = sum(tensor.nbytes for tensor in newest[1].tensors["memory"].values())
    assembly.world.close()
    return {
        "world": world,
        "steps": steps,
        "rows": rows,
        "updates": learner.updates,
        "seconds": round(elapsed, 1),
        "rss_gb": round(peak_gb(), 3),
        "replay_gb": round(size / 1e9, 3),
        "disk_ratio": round(disk_bytes(folder) / disk_bytes(newest[0]), 3),
        "checkpoint_s": training.spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="ALE/Boxing-v5")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(options.world, options.steps, options.rows, Path(folder))
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<14} {value}")


if __name__ == "__main__":
    main()
