"""Reads the run folders of trainings: their evaluations, training returns and final score."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from agent.assembly.settings import RunSettings
from agent.recording.plain_json import dumps
from agent.recording.run_folder import RunFolder
from agent.reporting.score_table import Played
from modules.messages import ConfigError
from modules.strange_files import LINES_BYTES, TEXT_BYTES, plain_json, read_file
from worlds.protocols import protocol_named

EVALUATION = "evaluation.json"
"""The output of `sextet eval RUN --json`, where it was saved in the run folder."""

_DEPTH = 3


class Point(NamedTuple):
    """A mean return after so many `steps` (`frames` emulated), with its interval where known."""

    steps: int
    frames: int
    value: float
    low: float | None = None
    high: float | None = None
    episodes: int = 0


@dataclass(frozen=True)
class TrainedRun:
    """One training. `evaluations` are on held-out seeds, `training_returns` are means of episodes
    that it learned from.

    `setting` is its configuration without the seed and the number of steps.
    """

    path: Path
    world: str
    protocol: str | None
    seed: int | None
    setting: str
    evaluations: tuple[Point, ...]
    training_returns: tuple[Point, ...]
    final: Played
    seconds: float | None


def setting_names(runs: Sequence[TrainedRun]) -> dict[str, str]:
    """A name for each setting of one world's runs: empty where there is one setting, else the
    shortest end of the path of its first run that no other setting shares.
    """
    first: dict[str, Path] = {}
    for run in runs:
        first.setdefault(run.setting, run.path.resolve())
    if len(first) == 1:
        return dict.fromkeys(first, "")
    # The runs of several seeds lie in a folder of their own.
    paths = [p.parent if p.name.startswith("seed-") else p for p in first.values()]
    if len(set(paths)) < len(paths):
        paths = list(first.values())
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return dict(zip(first, names, strict=True))


def results(runs: Sequence[TrainedRun]) -> list[Played]:
    """The final scores of runs, with names for settings where a world has several."""
    worlds = {run.world for run in runs}
    names = {world: setting_names([r for r in runs if r.world == world]) for world in worlds}
    return [run.final._replace(setting=names[run.world][run.setting]) for run in runs]


def find_runs(places: Iterable[Path]) -> list[TrainedRun]:
    """The trained runs at or below `places`, each once, in order of their paths.

    Raises ConfigError, one line, for a place that holds none, or a run without a figure.
    """
    runs: dict[Path, TrainedRun] = {}
    for place in places:
        below = _below(place, _DEPTH) if place.is_dir() else []
        if not below:
            raise ConfigError(
                "report: expected a training's run folder (config.yaml, "
                "metrics.jsonl), or a folder "
                f"of some, got '{place}'"
            )
        for path in below:
            runs.setdefault(path.resolve(), read_run(path))
    return list(runs.values())


def _below(place: Path, depth: int) -> list[Path]:
    if (place / "config.yaml").is_file() and (place / "metrics.jsonl").is_file():
        return [place]
    if depth == 0:
        return []
    children = sorted(child for child in place.iterdir() if child.is_dir())
    return [run for child in children for run in _below(child, depth - 1)]


def read_run(path: Path) -> TrainedRun:
    """The run in a folder. Raises ConfigError where its figures cannot be read or there are none.

    An incomplete last line, of a running or killed training, is left out.
    """
    tree = RunFolder.open(path).read_config()
    world = tree.get("world")
    if not isinstance(world, dict) or not isinstance(world.get("id"), str):
        raise ConfigError(f"report {path}: expected a config.yaml that names a world, got none")
    lines = _lines(path / "metrics.jsonl")
    evaluations = _points(lines, "evaluation")
    training_returns = _points(lines, "return")
    seed = tree.get("seed")
    seed = seed if isinstance(seed, int) else None
    return TrainedRun(
        path=path,
        world=world["id"],
        protocol=_protocol(world),
        seed=seed,
        setting=_setting(tree),
        evaluations=evaluations,
        training_returns=training_returns,
        final=_final(path, world, seed, evaluations or training_returns),
        seconds=_seconds(path),
    )


def _protocol(world: dict[str, Any]) -> str | None:
    """The protocol of a configured world: the default of Atari where none is named."""
    named = world.get("protocol")
    return protocol_named(named).name if world["id"].startswith("ALE/") else named


def _setting(tree: dict[str, Any]) -> str:
    """The configuration that runs of one curve share: all but its seed and its steps. Settings that
    the version of the run did not have get their defaults.
    """
    known = {key: value for key, value in tree.items() if key in RunSettings.model_fields}
    # A configuration of a newer version, or written by hand, is compared as it is.
    with suppress(ValidationError):
        tree = tree | RunSettings.model_validate(known).model_dump(mode="json")
    apart = {key: value for key, value in tree.items() if key != "seed"}
    if isinstance(training := apart.get("training"), dict):
        apart["training"] = {key: value for key, value in training.items() if key != "steps"}
    return dumps(apart, sort_keys=True, default=str)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = read_file(path, LINES_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"report {path}: expected JSON lines, got {error}") from None
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.strip():
            continue
        try:
            figures = json.loads(line)
        except ValueError:
            if not line.endswith("\n"):
                break  # being written, or never finished
            raise ConfigError(
                f"report {path}: line {number}: expected JSON, got {line.strip()!r:.60}"
            ) from None
        if not isinstance(figures, dict) or not isinstance(figures.get("steps"), int):
            raise ConfigError(
                f"report {path}: line {number}: expected an object with steps, got {line!r:.60}"
            )
        lines.append(figures)
    return lines


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _points(lines: Sequence[dict[str, Any]], name: str) -> tuple[Point, ...]:
    """The points of a figure by rising steps; of several lines for a step the last counts."""
    points: dict[int, Point] = {}
    for line in lines:
        if (value := _number(line.get(name))) is not None:
            low, high = (_number(line.get(f"{name}_{end}")) for end in ("low", "high"))
            steps = int(line["steps"])
            frames = int(_number(line.get("frames")) or steps)
            episodes = int(_number(line.get(f"{name}_episodes")) or 0)
            points[steps] = Point(steps, frames, value, low, high, episodes)
    return tuple(points[steps] for steps in sorted(points))


def _final(
    path: Path,
    world: dict[str, Any],
    seed: int | None,
    points: Sequence[Point],
) -> Played:
    """The final score: the saved evaluation of the run, else the last of its points."""
    saved = path / EVALUATION
    if saved.is_file():
        try:
            figures = plain_json(read_file(saved, TEXT_BYTES))
            return Played(
                world=str(figures["world"]),
                protocol=figures.get("protocol"),
                seed=seed,
                mean=float(figures["mean_return"]),
                returns=tuple(float(value) for value in figures.get("returns") or ()),
                episodes=int(figures["episodes"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"report {saved}: expected the output of `sextet eval --json`, got "
                f"{type(error).__name__}: {error}"
            ) from None
    if not points:
        raise ConfigError(
            f"report {path}: expected a run with an evaluation or a finished episode, got none yet"
        )
    last = points[-1]
    return Played(
        world["id"], _protocol(world), seed, last.value, (), last.low, last.high, last.episodes
    )


def _seconds(path: Path) -> float | None:
    """The seconds a finished training took."""
    try:
        result = plain_json(read_file(path / "result.json", TEXT_BYTES))
        return _number(result.get("seconds"))
    except (OSError, ValueError, AttributeError, ConfigError):
        return None
