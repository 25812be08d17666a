"""The promises of a drive hold for a drive, and each is broken by a class that is none."""

import pytest
import torch
from torch import Tensor, nn

from agent.contracts import drive
from agent.contracts.promises import ContractError
from modules.messages import ConfigError


class Upright:
    """An example of a drive of one's own."""

    signals = ("observation_2",)

    def energy(self, angle: Tensor) -> Tensor:
        return angle.square()


@pytest.mark.parametrize("promise", drive.PROMISES)
def test_a_function_of_its_signals_keeps_every_promise(promise):
    promise(Upright())


class Infinite(Upright):
    def energy(self, angle):
        return angle / 0


class Fixed(Upright):
    def energy(self, angle):
        return torch.ones(64) + 0 * angle.sum()


class Counting(Upright):
    calls = 0

    def energy(self, angle):
        self.calls += 1
        return angle + self.calls


class Centered(Upright):
    def energy(self, angle):
        return angle - angle.mean()


class Buffered(nn.Module):
    signals = ("reward",)

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(1))

    def energy(self, reward):
        return reward * self.weight


class Flat(Upright):
    def energy(self, angle):
        return angle.detach().sign()


BROKEN = {
    drive.can_be_registered: Infinite(),
    drive.takes_any_number_of_rows: Fixed(),
    drive.is_a_pure_function: Counting(),
    drive.treats_rows_independently: Centered(),
    drive.has_no_parameters: Buffered(),
    drive.gradients_reach_a_signal: Flat(),
}


@pytest.mark.parametrize("promise", drive.PROMISES)
def test_each_promise_can_be_broken(promise):
    with pytest.raises((ContractError, ConfigError)):
        promise(BROKEN[promise])
