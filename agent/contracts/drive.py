"""Promises of a drive: a pure function of the signals that it names (LeCun 2022, §3.2, eq. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agent.contracts.promises import promises_in, require
from modules import chance

Energies = Callable[[Mapping[str, Tensor]], Tensor]
"""Signals by name, each [M], to energies [M]; lower is better."""

_ROWS = 64


@dataclass(frozen=True)
class DriveSubject:
    """A drive under test and the names of the signals that it declares to read."""

    energy: Energies
    signals: tuple[str, ...]

    def probes(self, rows: int = _ROWS) -> dict[str, Tensor]:
        """Signals [rows] between -4 and 4, the same on every machine."""
        drawn = chance.uniform(torch.arange(rows), "drive", len(self.signals)) * 8 - 4
        return {name: drawn[:, i] for i, name in enumerate(self.signals)}


def returns_one_finite_energy_a_row(drive: DriveSubject) -> None:
    """Energies have the shape [M], also for M = 1 and M = 0, and are finite."""
    for rows in (_ROWS, 1, 0):
        energy = drive.energy(drive.probes(rows))
        require(energy.shape == (rows,), f"expected energies [{rows}], got {[*energy.shape]}")
        require(energy.isfinite().all(), "an energy is not finite")


def is_a_pure_function(drive: DriveSubject) -> None:
    """Equal signals have equal energies, and the signals are not written to."""
    signals, before = drive.probes(), drive.probes()
    first, second = drive.energy(signals), drive.energy(signals)
    require(torch.equal(first, second), "a second call with the same signals differs")
    unchanged = all(torch.equal(signals[name], value) for name, value in before.items())
    require(unchanged, "it changed the signals")


def treats_rows_independently(drive: DriveSubject) -> None:
    """The energy of a row does not depend on the other rows."""
    signals = drive.probes()
    reverse = drive.energy({name: value.flip(0) for name, value in signals.items()}).flip(0)
    require(torch.allclose(drive.energy(signals), reverse), "the order of the rows matters")
    first = drive.energy({name: value[:1] for name, value in signals.items()})
    require(torch.allclose(drive.energy(signals)[:1], first), "row 0 alone has another energy")


def reads_declared_signals_only(drive: DriveSubject) -> None:
    """It needs no signal besides those that it declares."""
    try:
        drive.energy(drive.probes())
    except KeyError as error:
        require(False, f"it reads {error}, which is not one of {', '.join(drive.signals)}")


def has_no_parameters(drive: DriveSubject) -> None:
    """A drive is immutable: it holds no parameters and no buffers."""
    if isinstance(drive.energy, nn.Module):
        require(not drive.energy.state_dict(), f"it holds {', '.join(drive.energy.state_dict())}")


def gradients_reach_a_signal(drive: DriveSubject) -> None:
    """Its energy is differentiable in the signals, so that planners can follow the gradient."""
    signals = {name: value.requires_grad_() for name, value in drive.probes().items()}
    with torch.enable_grad():
        require(drive.energy(signals).requires_grad, "energies carry no gradient to the signals")


PROMISES = promises_in(globals())
