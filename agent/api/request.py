"""The keywords that train, play and evaluate share, and the request that they make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from agent.assembly.load import RunRequest

AgentName = str | os.PathLike[str]
"""A bundled agent, a run folder, a world, or a run that the API returned."""


class AgentOptions(TypedDict, total=False):
    """Which agent and world, beside its name; None is the same as leaving an option out.

    `num_envs`: environments side by side. `config`: a YAML file of settings. `plugins`: packages
    whose modules may be used. `interventions`: laid around the configurator, as "clamp:mode=1".
    """

    seed: int | None
    steps: int | None
    num_envs: int | None
    protocol: str | None
    preset: str | None
    config: Path | None
    plugins: Sequence[str]
    interventions: Sequence[str]


def request_for(
    agent: AgentName | None,
    overrides: Sequence[str] = (),
    *,
    preset: str | None = None,
    config: Path | None = None,
    plugins: Sequence[str] = (),
    interventions: Sequence[str] = (),
    **flags: int | str | None,
) -> RunRequest:
    """A request; `overrides` are settings as "world_model.kind=fair". `flags`: see AgentOptions."""
    return RunRequest(
        agent=None if agent is None else os.fspath(agent),
        preset=preset,
        config=config,
        plugins=tuple(plugins),
        overrides=tuple(overrides),
        interventions=tuple(interventions),
        flags={name: value for name, value in flags.items() if value is not None},
    )
