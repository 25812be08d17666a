"""Time of one call of each port: a Breakout agent with default modules, one row, one thread."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from agent.assembly.load import prepared, request_for
from agent.engines.threads import one_thread
from agent.live import live
from modules.ports import CHECKED_METHODS


@one_thread()
def run(world: str = "ALE/Breakout-v5", steps: int = 300) -> dict[str, float]:
    """Medians over `steps` steps, microseconds: `perceive_us`, `configure_us` (of `surprise`), …"""
    assembly = prepared(request_for(world, seed=0, num_envs=1))
    spans = defaultdict[str, list[float]](list)

    def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            message = method(*arguments)
            spans[name].append(time.perf_counter() - start)
            return message

        return call

    try:
        for port, methods in CHECKED_METHODS.items():
            module = getattr(assembly.agent.modules, port)
            for name in methods:
                setattr(module, name, timed(name, getattr(module, name)))
        for _ in live(assembly.agent, assembly.world, steps, 0):
            pass
    finally:
        assembly.world.close()
    return {f"{name}_us": 1e6 * median(times) for name, times in spans.items()}
