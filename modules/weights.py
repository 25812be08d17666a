"""The weights u and v of eqs. 2 and 3 (LeCun 2022, §3.2), from settings by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from modules.messages import ConfigError

STANDARD: Mapping[str, float] = MappingProxyType({"score": 1.0, "pain": 1.0, "goal": 1.0})
"""How much each drive counts where nobody says otherwise; one not named here counts 0."""


def weights(
    named: Mapping[str, float],
    names: Sequence[str],
    where: str,
    over: Mapping[str, float] = STANDARD,
) -> Tensor:
    """The weight of each of `names`, [len(names)]: as `named` says, else as `over` does, else 0.

    Raises ConfigError, beginning with `where`, if `named` has a name that is none of `names`.
    """
    known(named, names, where)
    return torch.tensor([float(named.get(name, over.get(name, 0.0))) for name in names])


def known(given: Iterable[str], names: Sequence[str], where: str) -> None:
    """Raises ConfigError, beginning with `where`, for the first `given` that is none of `names`."""
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"config {where}: {name!r} is not one of {', '.join(names)}{hint}")


def subgoals(heads: Sequence[str]) -> list[bool]:
    """Which heads are those of sub-goals."""
    named = {subgoal(task) for task in range(len(heads))}
    return [head in named for head in heads]


def subgoal(task: int) -> str:
    """The name of the critic's head for a task: what a critic calls it, a configurator weighs."""
    return f"subgoal {task}"
