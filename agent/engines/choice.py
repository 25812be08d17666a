"""The engine that a command or a program asks for by name."""

from __future__ import annotations

import os

from agent.engines.engine import Engine
from modules.messages import ConfigError

ENGINES = ("serial", "processes", "ray")


def engine_for(
    name: str | Engine | None = None,
    jobs: int | None = None,
    address: str | None = None,
    *,
    usual_jobs: int | None = None,
    stop_timeout_s: float = 0.0,
) -> Engine:
    """An engine by name, or the one that is given; None: processes, or Ray where there is an
    address.

    `jobs`: at a time; None: `usual_jobs` in processes, or one a core, and all processors of a Ray
    cluster. `stop_timeout_s`: as of `ProcessEngine`. Raises ConfigError, one line. Ray is imported
    here alone, and only where it is asked for.
    """
    if name is not None and not isinstance(name, str):
        return name
    name = name or ("processes" if address is None else "ray")
    if name not in ENGINES:
        raise ConfigError(f"--engine: {name!r} is not one of {', '.join(ENGINES)}")
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs: expected at least 1, got {jobs}")
    if address is not None and name != "ray":
        raise ConfigError(f"--address: is that of a Ray cluster, got --engine {name}; use ray")
    if name == "ray":
        try:
            from agent.engines import ray_engine
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "ray":
                raise
            raise ConfigError(
                "--engine ray: Ray is not installed; try pip install -c constraints.txt -e .[ray]"
            ) from None

        if address is not None:
            ray_engine.require_reachable(address)
        return ray_engine.RayEngine(jobs, address)
    count = jobs or usual_jobs or len(os.sched_getaffinity(0))
    if name == "serial" and jobs is not None and jobs > 1:
        raise ConfigError(f"--jobs: expected 1 with --engine serial, got {jobs}")
    if name == "serial" or count == 1:
        from agent.engines.serial import SerialEngine

        return SerialEngine()
    from agent.engines.processes import ProcessEngine

    return ProcessEngine(count, stop_timeout_s)
