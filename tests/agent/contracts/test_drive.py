"""The promises of a drive hold for a drive, and each is broken by a function that is none."""

import pytest
import torch
from torch import nn

from agent.contracts import drive
from agent.contracts.drive import DriveSubject
from agent.contracts.promises import ContractError


def leaning(signals):
    return signals["angle"].abs() + signals["speed"].square()


@pytest.mark.parametrize("promise", drive.PROMISES)
def test_a_function_of_its_signals_keeps_every_promise(promise):
    promise(DriveSubject(leaning, ("angle", "speed")))


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, signals):
        return signals["angle"] * self.weight


class Counter:
    calls = 0

    def __call__(self, signals):
        self.calls += 1
        return signals["angle"] + self.calls


BROKEN = {
    drive.returns_one_finite_energy_a_row: lambda s: torch.stack([s["angle"]] * 2, -1),
    drive.is_a_pure_function: Counter(),
    drive.treats_rows_independently: lambda s: s["angle"] - s["angle"].sum() + s["angle"].cumsum(0),
    drive.reads_declared_signals_only: lambda s: s["reward"],
    drive.has_no_parameters: Learned(),
    drive.gradients_reach_a_signal: lambda s: s["angle"].sign().detach(),
}


@pytest.mark.parametrize("promise", drive.PROMISES)
def test_each_promise_can_be_broken(promise):
    with pytest.raises(ContractError):
        promise(DriveSubject(BROKEN[promise], ("angle",)))
