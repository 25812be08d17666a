"""`sextet train --seeds`: the same training once for each seed, and what they amount to together.

One folder: `seeds.json` says which seeds and with what configuration, `seed-<n>/` is an ordinary
run for each, `summary.json` holds the result.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.assembly.merge import ConfigTree, merge
from agent.commands import train as one
from agent.commands.failure import RunFailedError
from agent.learning.evaluation import score
from agent.recording import checkpoint
from agent.recording.run_folder import RunFolder, write_json
from modules.messages import ConfigError

SEEDS = "seeds.json"


def is_several(place: Path) -> bool:
    """Whether a folder holds a training of several seeds."""
    return (place / SEEDS).is_file()


def begin(
    tree: ConfigTree,
    place: Path | None,
    seeds: Sequence[int],
    watching: one.Watching,
    jobs: int,
    plugins: tuple[str, ...],
    traces: Sequence[Path],
) -> dict[str, Any]:
    """Trains with each of `seeds`, `jobs` of them at a time; what they came to, and together."""
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"train --seeds: expected different seeds, got {list(seeds)}")
    # Whatever is wrong with the configuration is said before a folder is made.
    world = one.tried(tree, plugins)
    folder = RunFolder.create(place, f"train-{world}-seeds").path
    asked = {
        "seeds": list(seeds),
        "config": tree,
        "plugins": list(plugins),
        "traces": [str(path) for path in traces],
    }
    write_json(folder / SEEDS, asked)
    return go_on(folder, None, watching, jobs, None)


def go_on(
    place: Path, steps: int | None, watching: one.Watching, jobs: int, only: int | None
) -> dict[str, Any]:
    """Goes on with all seeds that are not finished, or with `only` one."""
    try:
        asked = json.loads((place / SEEDS).read_text(encoding="utf-8"))
        seeds: list[int] = asked["seeds"]
        tree: ConfigTree = asked["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"run {place}: {SEEDS} cannot be read ({error})") from None
    if steps is not None and only is None:
        for seed in seeds:
            found = checkpoint.newest(place / _name(seed) / "checkpoints", only=())
            if found is not None:
                one.enough(steps, tree, found[1])
        tree = asked["config"] = merge(tree, {"training": {"steps": steps}})
        write_json(place / SEEDS, asked)
    steps = steps or tree.get("training", {}).get("steps")
    if only is not None:
        return _one(place, only, tree, steps, watching, asked)
    results: dict[int, dict[str, Any]] = {}
    if jobs > 1:
        results = _side_by_side(place, seeds, steps, watching, jobs)
    else:
        for number, seed in enumerate(seeds, 1):
            titled = replace(
                watching, title=f"{place / _name(seed)}  seed {seed}, {number} of {len(seeds)}"
            )
            results[seed] = _one(place, seed, tree, steps, titled, asked)
            if results[seed]["stopped"]:
                break
    figures = _together(place, seeds, results)
    write_json(place / "summary.json", figures)
    _table(figures)
    return figures


def _name(seed: int) -> str:
    return f"seed-{seed}"


def _one(
    place: Path,
    seed: int,
    tree: ConfigTree,
    steps: int | None,
    watching: one.Watching,
    asked: dict[str, Any],
) -> dict[str, Any]:
    """The training of one seed: done before, gone on with, or begun."""
    folder = place / _name(seed)
    if steps is not None and (folder / "config.yaml").is_file():
        # One of them may have gone on by itself for longer.
        own = RunFolder.open(folder).read_config().get("training", {}).get("steps", steps)
        steps = max(steps, int(own))
    if (figures := one.finished(folder, steps)) is not None:
        return figures
    plugins = tuple(asked.get("plugins", ()))
    if checkpoint.newest(folder / "checkpoints", only=()) is not None:
        return one.go_on(folder, steps, watching, plugins)
    # Killed before its first checkpoint: there is nothing to go on from.
    shutil.rmtree(folder, ignore_errors=True)
    given = merge(tree, {"seed": seed})
    if steps is not None:
        given = merge(given, {"training": {"steps": steps}})
    traces = [Path(path) for path in asked.get("traces", ())]
    return one.begin(given, folder, watching, plugins, traces)


def _side_by_side(
    place: Path, seeds: Sequence[int], steps: int | None, watching: one.Watching, jobs: int
) -> dict[int, dict[str, Any]]:
    """A process for each seed, `jobs` at a time, their lines after each other on our output.

    Ctrl-C is passed on once, so that each keeps a checkpoint; a child whose parent is killed
    stops by itself.
    """
    waiting, under_way = list(seeds), dict[int, subprocess.Popen[str]]()
    failed, listeners = dict[int, str](), list[threading.Thread]()
    stopping, lock = False, threading.Lock()

    def listen(seed: int, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                with lock:
                    print(f"seed {seed:<4} {line.rstrip()}", flush=True)

    def start(seed: int) -> None:
        more = [] if steps is None else ["--steps", str(steps)]
        more += ["--tensorboard"] if watching.tensorboard else []
        child = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "train", "--resume", str(place),
             "--only", str(seed), "--parent", str(os.getpid()), "--no-live", *more],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        under_way[seed] = child
        listener = threading.Thread(target=listen, args=(seed, child), daemon=True)
        listener.start()
        listeners.append(listener)

    while waiting or under_way:
        try:
            while waiting and len(under_way) < jobs and not stopping:
                start(waiting.pop(0))
            for seed, child in list(under_way.items()):
                try:
                    code = child.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                del under_way[seed]
                if code:
                    failed[seed] = f"exit {code}"
        except KeyboardInterrupt:
            if stopping:
                for child in under_way.values():
                    child.kill()
                raise
            stopping, waiting = True, []
            for child in under_way.values():
                child.send_signal(signal.SIGINT)
    for listener in listeners:
        listener.join(timeout=5)
    if failed:
        said = ", ".join(f"seed {seed}: {why}" for seed, why in failed.items())
        raise RunFailedError(f"train --seeds: {said} (kept: {place})")
    found = {}
    for seed in seeds:
        result = place / _name(seed) / one.RESULT
        if result.is_file():
            found[seed] = json.loads(result.read_text(encoding="utf-8"))
    return found


def _together(
    place: Path, seeds: Sequence[int], results: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """Each seed's figures, and the mean of their last evaluations with its interval."""
    over = [r for r in results.values() if not r["stopped"] and r["evaluation"] is not None]
    joint = score([r["evaluation"] for r in over]) if over else None
    return {
        "world": next((r["world"] for r in results.values()), None),
        "seeds": list(seeds),
        "results": [results[seed] for seed in seeds if seed in results],
        "finished": len(over),
        "evaluation": None if joint is None else joint.mean,
        "interval": None if joint is None else [joint.low, joint.high],
        "stopped": len(over) < len(seeds),
        "run": str(place),
    }


def _table(figures: dict[str, Any]) -> None:
    print(
        f"{'seed':>6} {'steps':>9} {'evaluation':>11} {'interval':>20} {'best':>9} {'seconds':>9}"
    )
    for r in figures["results"]:
        value = "–" if r["evaluation"] is None else f"{r['evaluation']:.4g}"
        low, high = r["interval"] or (0.0, 0.0)
        interval = "–" if r["interval"] is None else f"[{low:.4g}, {high:.4g}]"
        best = "–" if r["best"] is None else f"{r['best']:.4g}"
        print(
            f"{r['seed']:>6} {r['steps']:>9} {value:>11} {interval:>20} {best:>9} "
            f"{r['seconds']:>9}{'  stopped' if r['stopped'] else ''}"
        )
    if figures["evaluation"] is not None:
        low, high = figures["interval"]
        print(
            f"mean      {figures['evaluation']:.4g} [{low:.4g}, {high:.4g}] over "
            f"{figures['finished']} of {len(figures['seeds'])} seeds (bootstrap, 95 %)"
        )
    print(f"run       {figures['run']}")
    if figures["stopped"]:
        print(f"go on     sextet train --resume {figures['run']}")
