"""The weights u and v of eqs. 2 and 3 (LeCun 2022, §3.2), from settings by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from modules.messages import ConfigError
from modules.suggest import not_one_of

DEFAULT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"score": 1.0, "pain": 1.0, "goal": 1.0, "effort": 0.0, "novelty": 0.0}
)
"""The weight of each shipped drive where no setting names it.

A signal and a drive of a plugin have weight 1: the agent has them only because `cost.drives` names
them. A sub-goal head has weight 0: it is set by the configurator.
"""


def weights(
    named: Mapping[str, float],
    names: Sequence[str],
    where: str,
    over: Mapping[str, float] = DEFAULT_WEIGHTS,
) -> Tensor:
    """The weight of each of `names`, [len(names)]: from `named`, else `over`, else the default.

    Raises ConfigError, beginning with `where`, if `named` has a name that is not in `names`.
    """
    known(named, names, where)
    other = [0.0 if is_subgoal else 1.0 for is_subgoal in subgoals(names)]
    pairs = zip(names, other, strict=True)
    return torch.tensor([float(named.get(name, over.get(name, weight))) for name, weight in pairs])


def known(names: Iterable[str], allowed: Sequence[str], where: str) -> None:
    """Raises ConfigError, beginning with `where`, for the first of `names` not in `allowed`."""
    for name in names:
        if name not in allowed:
            raise ConfigError(f"config {where}: {not_one_of(name, allowed)}")


def subgoals(heads: Sequence[str]) -> list[bool]:
    """Which critic heads are those of sub-goals."""
    named = {subgoal(task) for task in range(len(heads))}
    return [head in named for head in heads]


def subgoal(task: int) -> str:
    """The name of the critic's head for a task."""
    return f"subgoal {task}"
