"""What promises are written with: requirements that raise ContractError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor, nn

from modules.messages import Message


class ContractError(Exception):
    """A module broke a promise of its port; the message says what was expected."""


def promises_in(module: Mapping[str, Any]) -> tuple[Callable[[Any], None], ...]:
    """The public functions defined in a module, given its `globals()`, in order of definition."""
    return tuple(
        value
        for name, value in module.items()
        if isfunction(value) and value.__module__ == module["__name__"] and not name.startswith("_")
    )


def require(condition: bool | Tensor, why: str) -> None:
    """Raises ContractError, saying why, unless the condition holds."""
    if not bool(condition):
        raise ContractError(why)


def require_equal(one: Message, other: Message, exact: bool = True) -> None:
    """Requires equal tensors, or with `exact` False equal up to rounding."""
    for (name, first), (_, second) in zip(one.tensors(), other.tensors(), strict=True):
        if first is None or second is None:
            require(first is second, f"{name} is missing in one of them")
            continue
        same = first.shape == second.shape and (
            torch.equal(first, second)
            if exact
            else torch.allclose(first.double(), second.double(), rtol=1e-3, atol=1e-4)
        )
        require(same, f"{name} differs")


def parameters_of(module: object) -> list[nn.Parameter]:
    """The parameters of a module, none where it is no `nn.Module`."""
    return list(module.parameters()) if isinstance(module, nn.Module) else []


def require_finite(message: Message, but: tuple[str, ...] = ()) -> None:
    """Requires finite numbers in all fields except those named in `but`."""
    for name, tensor in message.tensors():
        if tensor is not None and tensor.dtype.is_floating_point and name not in but:
            require(tensor.isfinite().all(), f"{name} is not finite")


def shapes(message: Message) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a message."""
    return {name: tuple(t.shape) for name, t in message.tensors() if t is not None}
