"""The bench of futures counts every one and compares plans of equal candidates."""

import pytest

from agent.bench import futures


def test_every_future_of_every_candidate_is_counted():
    figures = futures.run(rounds=2, sizes={"tiny": futures.Size(latent=8, width=16, candidates=4)})
    assert set(figures) == {
        "tiny_1_calls", "tiny_1_ms", "tiny_8_calls", "tiny_8_ms", "tiny_ratio",
    }  # fmt: skip
    assert figures["tiny_1_calls"] == 4 * futures.HORIZON
    assert figures["tiny_8_calls"] == 8 * 4 * futures.HORIZON
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize("size", futures.SIZES.values(), ids=futures.SIZES.keys())
def test_an_agent_has_the_size(size):
    planned = futures.planning(size, 1)
    assert planned.plan(0) == size.candidates * futures.HORIZON
    planned.close()
