"""The numbers of a message are within the range that its field declares."""

from __future__ import annotations

import math

import pytest
import torch

from modules.messages import Energy, MessageError, Shape, State
from modules.ports import gate


def state(**changes: torch.Tensor) -> State:
    fields = {
        "latent": torch.ones(2, 40),
        "hidden": torch.zeros(2, 0),
        "signals": torch.zeros(2, 6),
        "ended": torch.zeros(2),
        "uncertainty": torch.zeros(2),
    }
    return State(**{**fields, **changes})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(2, 3), (3, 40)])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_float_is_finite_whatever_its_type_and_number(dtype, size, wrong):
    value = torch.full(size, 300.0, dtype=dtype)  # its square is beyond float16
    assert Shape("B D").allows(value)
    value[1, 2] = wrong
    assert not Shape("B D").allows(value)
    assert Shape("B D", infinite=True).allows(value) == (not math.isnan(wrong))
    error = Shape("B D").refusal("State", "latent", value)
    assert str(error) == f"State.latent, row 1: expected finite numbers, got {wrong}"


def test_numbers_have_the_range_of_their_field():
    one = Shape("B", "int", least=1, most=2)
    assert one.allows(torch.tensor([1, 2]))
    assert not one.allows(torch.tensor([1, 7]))
    assert str(one.refusal("Plan", "mode", torch.tensor([1, 7]))) == (
        "Plan.mode, row 1: expected whole numbers from 1 to 2, got 7"
    )
    share = Shape("B V", least=0, most=1)
    assert share.allows(torch.tensor([[1.00001, 0.0]]))  # rounding
    assert not share.allows(torch.full((1, 30), 1.01))
    assert not Shape("B", least=0).allows(torch.tensor([-0.5]))
    assert Shape("B D").allows(torch.zeros(2, 0))
    assert Shape("B D").allows(torch.ones(2, 2, requires_grad=True))
    assert Shape("B R", "any").allows(torch.full((1, 4), 255, dtype=torch.uint8))


def test_a_tensor_that_was_changed_in_place_is_read_again():
    shape, value = Shape("B D"), torch.zeros(1, 40)
    assert shape.allows(value)
    value[0, 0] = math.nan
    assert not shape.allows(value)


def test_the_first_field_out_of_range_is_named_with_module_and_row():
    class Perception:
        def perceive(self) -> State:
            latent = torch.ones(2, 40)
            latent[1, 7] = math.nan
            return state(latent=latent)

    with pytest.raises(MessageError) as refused:
        gate("perception", Perception(), {"B": 2}).perceive()
    assert str(refused.value) == (
        "module perception (Perception): State.latent, row 1: expected finite numbers, got nan"
    )
    with pytest.raises(MessageError, match=r"^State.ended, row 0: expected numbers from 0 to 1"):
        state(ended=torch.tensor([1.5, 0.0])).check({})
    whole = Energy(intrinsic=torch.zeros(2, 1), critic=None, disagreement=torch.zeros(2))
    assert whole.check({"K": 1}) is whole
