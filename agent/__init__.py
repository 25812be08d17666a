"""Agents of six modules.

>>> from agent import load, live
>>> player = load("showpiece")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.live import live

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.assembly.load import load

__all__ = ["Agent", "live", "load"]


def __getattr__(name: str) -> Any:
    # Looked up when first wanted, so that `sextet --help` need not import torch.
    if name == "Agent":
        from agent.agent import Agent

        return Agent
    if name == "load":
        from agent.assembly.load import load

        return load
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
