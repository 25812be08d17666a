"""Fixtures of a small life, put together by hand so that every field of it is known."""

from collections.abc import Callable

import pytest

from modules.messages import Moment, WorldSpec
from tests.agent.by_hand import PONG, moment


@pytest.fixture
def pong() -> WorldSpec:
    return PONG


@pytest.fixture
def life() -> Callable[..., list[Moment]]:
    """Makes `steps` moments of `rows` rows: `life(steps, rows=2, pixels=(40, 32, 3), seed=0)`."""

    def made(
        steps: int,
        rows: int = 2,
        pixels: tuple[int, int, int] | None = (40, 32, 3),
        seed: int = 0,
    ) -> list[Moment]:
        return [moment(step, rows, pixels, seed) for step in range(steps)]

    return made
