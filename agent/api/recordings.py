"""Recordings as a training's experience: what they need, and what they are refused for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.assembly.build import Assembly, known_kinds, spec_of
from agent.learning.inferred_actions import with_inferred_actions
from agent.learning.learner import Learner
from agent.learning.offline_training import Sources
from agent.recording.readers import Form, RecordedEpisodes
from agent.recording.readers.minari import SCHEME, local_path
from agent.recording.readers.recording import described
from modules.messages import ConfigError, TraceError
from worlds.protocols import Sensor


def sources_of(recordings: Sequence[str | Path], experts: Sequence[str | Path]) -> Sources:
    """Recordings by name: a path, or `minari:ID` for a dataset in Minari's store."""
    return Sources(tuple(map(_path, recordings)), tuple(map(_path, experts)))


def _path(name: str | Path) -> Path:
    text = str(name)
    return local_path(text.removeprefix(SCHEME)) if text.startswith(SCHEME) else Path(name)


def world_of(recordings: Sequence[tuple[RecordedEpisodes, bool]]) -> tuple[str, str | None]:
    """The world and the protocol that a recording names. Raises ConfigError where none does."""
    for recording, _ in recordings:
        if recording.world is not None:
            return recording.world
    paths = ", ".join(str(recording.path) for recording, _ in recordings)
    raise ConfigError(
        f"train: expected a WORLD beside recordings that do not name theirs, got {paths} alone"
    )


def form_of(assembly: Assembly, plugins: Sequence[str] = ()) -> Form:
    """The form in which an agent stores steps of its world."""
    slot = assembly.config.slots["perception"]
    sensor: Any = getattr(slot.settings, "sensor", None)
    if sensor is not None and not isinstance(sensor, Sensor):
        sensor = Sensor.model_validate(sensor)
    shown = spec_of(assembly.config.tree(), known_kinds(tuple(plugins))).pixels
    return Form(assembly.world.spec, sensor, slot.reads, shown)


def opened_for(
    learner: Learner,
    sources: Sources,
    assembly: Assembly,
    plugins: Sequence[str],
    report: Callable[[str], object],
) -> list[tuple[RecordedEpisodes, bool]]:
    """The recordings of a training, each with whether it is an expert's; none where it acts. Where
    `training.infer_actions` is above 0, with the actions that they lack. `report` gets a line on
    each, what it lacks among them.

    Raises TraceError or ConfigError, one line, where one is of another form, or where nothing that
    learns can learn from them.
    """
    if not sources.paths:
        return []
    recordings, settings = sources.opened(), assembly.config.settings
    form, updates = form_of(assembly, plugins), settings.training.infer_actions
    for recording, _ in recordings:
        recording.require(form)
    lines = [f"{'recording':<9} {described(recording)}" for recording, _ in recordings]
    if updates:
        recordings, line = with_inferred_actions(recordings, form, updates, settings.seed)
        lines.append(line)
    _require_learnable(recordings, learner.trainable)
    for line in lines:
        report(line)
    return recordings


def _require_learnable(
    recordings: Sequence[tuple[RecordedEpisodes, bool]], trained: Mapping[str, Any]
) -> None:
    """Raises TraceError or ConfigError where no module that learns can learn from recordings."""
    acted = [recording for recording, _ in recordings if "actions" not in recording.lacks]
    if "world_model" in trained and not acted:
        model = trained["world_model"]
        if not getattr(model, "infers_actions", False):
            raise TraceError(
                f"recording {recordings[0][0].path}: expected actions, which the world model "
                f"({type(model).__name__}) learns the consequences of, got none in any recording; "
                "try world_model.kind=latent-action-jepa, or add one that has them; "
                "training.infer_actions=600 then infers the others"
            )
    experts = [recording for recording, expert in recordings if expert]
    if experts:
        _require_pupil(experts, trained)


def _require_pupil(experts: Sequence[RecordedEpisodes], trained: Any) -> None:
    """Raises ConfigError or TraceError where no module learns from an expert."""
    clones = getattr(trained.get("actor"), "clones", False)
    if getattr(trained.get("cost"), "infers_objective", False):
        return
    if not clones:
        raise ConfigError(
            "train --expert: expected a policy that learns (actor.policy.kind=categorical or "
            "gaussian, with actor in learner.train_modules), got none; leave the preset out, or "
            "try --from"
        )
    if all("actions" in recording.lacks for recording in experts):
        raise TraceError(
            f"recording {experts[0].path}: expected the actions of an expert, which a policy is to "
            "clone, got none in any recording; training.infer_actions=600 infers them beside a "
            "recording that has some"
        )
