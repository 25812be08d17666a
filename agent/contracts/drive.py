"""Promises of a drive: a pure function of the signals that it names (LeCun 2022, §3.2, eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agent.contracts.promises import promises_in, require
from modules.cost.drives import PROBE_RANGE, PROBES, Drive, register


def _signals(drive: Drive, rows: int = PROBES) -> list[Tensor]:
    """Signals [rows] within ±PROBE_RANGE."""
    generator = torch.Generator().manual_seed(0)
    shape = len(drive.signals), rows
    return list((torch.rand(shape, generator=generator) * 2 - 1) * PROBE_RANGE)


def can_be_registered(drive: Drive) -> None:
    """Its class is constructed without arguments and maps signals [M] to finite energies [M]."""
    register(type(drive).__name__, type(drive))


def takes_any_number_of_rows(drive: Drive) -> None:
    """Energies have the shape [M], also for M = 1 and M = 0."""
    for rows in (1, 0):
        energy = drive.energy(*_signals(drive, rows))
        require(energy.shape == (rows,), f"expected energies [{rows}], got {[*energy.shape]}")


def is_a_pure_function(drive: Drive) -> None:
    """Equal signals have equal energies, and the signals are not written to."""
    signals = _signals(drive)
    first, second = drive.energy(*signals), drive.energy(*signals)
    require(torch.equal(first, second), "a second call with the same signals differs")
    unchanged = all(map(torch.equal, signals, _signals(drive)))
    require(unchanged, "it changed the signals")


def treats_rows_independently(drive: Drive) -> None:
    """The energy of a row does not depend on the other rows."""
    signals = _signals(drive)
    whole = drive.energy(*signals)
    reverse = drive.energy(*(values.flip(0) for values in signals)).flip(0)
    require(torch.allclose(whole, reverse), "the order of the rows matters")
    alone = drive.energy(*(values[:1] for values in signals))
    require(torch.allclose(whole[:1], alone), "row 0 alone has another energy")


def has_no_parameters(drive: Drive) -> None:
    """A drive is immutable: it holds no parameters and no buffers."""
    if isinstance(drive, nn.Module):
        require(not drive.state_dict(), f"it holds {', '.join(drive.state_dict())}")


def gradients_reach_a_signal(drive: Drive) -> None:
    """Its energy is differentiable in the signals, so that planners can follow the gradient."""
    signals = [values.requires_grad_() for values in _signals(drive)]
    with torch.enable_grad():
        energy = drive.energy(*signals)
    require(energy.requires_grad, "energies carry no gradient to the signals")


PROMISES = promises_in(globals())
