"""The control of every counterfactual: forks with nothing changed must equal the recording.

    python examples/forks.py --forks 200 --steps 100

For each of RUNS it records a run, forks it at random steps with nothing changed, and counts the
forks that equal the recording bit for bit; then it forks with an action changed, which must differ.
Prints a JSON object a run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from agent.assembly.load import RunRequest, prepared
from agent.counterfactual.fork import Replay
from agent.live import live
from agent.recording.run_folder import RunFolder

KEYFRAME_EVERY = 20
"""Steps between keyframes: fewer than the default, since every fork replays from one."""
PLANNING = (
    "configurator.kind=surprise", "directive.model_calls=4", "directive.horizon_steps=2",
    "directive.commit_steps=2", "configurator.max_idle_steps=10", "configurator.warmup_steps=2",
)  # fmt: skip
RUNS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "breakout, surprise, fair": ("ALE/Breakout-v5", 1, ("world_model.kind=fair", *PLANNING)),
    "orchard, surprise, jepa": ("sextet/Orchard-v0", 1, PLANNING),
    "cartpole, surprise, jepa, 2 rows": ("CartPole-v1", 2, PLANNING),
    "pong, surprise, clairvoyant, 2 rows": (
        "ALE/Pong-v5", 2, ("world_model.kind=clairvoyant", *PLANNING)
    ),
    "freeway, Mode-1": ("ALE/Freeway-v5", 1, ("configurator.kind=fixed", "configurator.mode=1")),
}  # fmt: skip
"""Runs by name: world, rows, settings."""


def recorded(folder: Path, world: str, rows: int, settings: tuple[str, ...], steps: int) -> Path:
    """Records a run of `steps` turns in a new folder; its path."""
    flags = {"seed": 3, "num_envs": rows}
    assembly = prepared(RunRequest(agent=world, overrides=settings, flags=flags))
    place = RunFolder.create(folder, "fork")
    place.write_config(assembly.config.tree())
    with assembly.recorder(place) as recorder:
        recorder.trace.keyframe_every = KEYFRAME_EVERY
        for moment in live(assembly.agent, assembly.world, steps * rows, 3):
            recorder.add(moment)
    assembly.world.close()
    return place.path


def measure(run: Path, forks: int, steps: int, seed: int) -> dict[str, object]:
    """Forks a run at random steps, and counts the forks that equal the recording."""
    rng, identical, seconds = np.random.default_rng(seed), 0, []
    with Replay(run) as replay:
        last = replay.trace.steps - steps
        ends = replay.trace.series("observation.terminated")
        cut = replay.trace.series("observation.truncated")
        mode = replay.trace.series("mode")
        for at in rng.integers(0, last + 1, forks).tolist():
            began = time.perf_counter()
            fork = replay.fork(at, steps=steps)
            seconds.append(time.perf_counter() - began)
            same = fork.original.digest == fork.fork.digest
            identical += fork.identical and same and fork.compared == steps
            if len(seconds) % 20 == 0:
                print(f"{identical} of {len(seconds)} identical", file=sys.stderr, flush=True)
        at = int(rng.integers(0, last + 1))
        action = replay.trace.moment(at).plan.action[0]
        other = (int(action.argmax()) + 1) % len(action)
        changed = replay.fork(at, [f"plan.action={other}"], steps=steps, hold=0, row=0)
    return {
        "forks": forks,
        "identical": identical,
        "steps": steps,
        "recorded": last + steps,
        "episodes_ended": int((ends | cut).sum()),
        "mode2_share": float((mode == 2).mean()),
        "changed_differs": changed.original.digest != changed.fork.digest,
        "median_s": round(float(np.median(seconds)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forks", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--recorded", type=int, default=1000)
    parser.add_argument("--only", default="", help="Only runs whose names contain this.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for number, (name, (world, rows, settings)) in enumerate(RUNS.items()):
            if options.only not in name:
                continue
            run = recorded(Path(place) / str(number), world, rows, settings, options.recorded)
            figures = measure(run, options.forks, options.steps, seed=number)
            print(json.dumps({"life": name, **figures}), flush=True)


if __name__ == "__main__":
    main()
