"""Agents of six modules.

>>> from agent import evaluate, train
>>> run = train("CartPole-v1", steps=30_000, seed=0)
>>> evaluate(run, episodes=20).mean_return
500.0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agent.live import live

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.api.evaluate import evaluate
    from agent.api.failure import RunFailedError, RunInterrupted
    from agent.api.play import play
    from agent.api.train import train
    from agent.assembly.load import load
    from agent.counterfactual.fork import fork
    from agent.studies.conduct import study
    from modules.messages import ConfigError, MessageError, SextetError, TraceError, WorldError

__all__ = [
    "Agent", "ConfigError", "MessageError", "RunFailedError", "RunInterrupted", "SextetError",
    "TraceError", "WorldError", "evaluate", "fork", "live", "load", "play", "study", "train",
]  # fmt: skip

_ORIGIN = {
    "Agent": "agent.agent",
    "evaluate": "agent.api.evaluate",
    "fork": "agent.counterfactual.fork",
    "load": "agent.assembly.load",
    "play": "agent.api.play",
    "study": "agent.studies.conduct",
    "train": "agent.api.train",
    **dict.fromkeys(("RunFailedError", "RunInterrupted"), "agent.api.failure"),
}
"""The module of each name that is imported on first use, other than `modules.messages`."""


def __getattr__(name: str) -> Any:
    # On first use, so that `sextet --help` need not import torch.
    if name in __all__:
        return getattr(import_module(_ORIGIN.get(name, "modules.messages")), name)
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
