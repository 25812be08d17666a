"""The bench of plans counts every future and compares plans of equal candidates."""

import pytest

from agent.bench import plan


def test_every_future_of_every_candidate_is_counted():
    figures = plan.run(rounds=2, sizes={"tiny": plan.Size(latent=8, width=16, candidates=4)})
    assert set(figures) == {
        "tiny_1_calls", "tiny_1_ms", "tiny_8_calls", "tiny_8_ms", "tiny_ratio",
    }  # fmt: skip
    assert figures["tiny_1_calls"] == 4 * plan.HORIZON
    assert figures["tiny_8_calls"] == 8 * 4 * plan.HORIZON
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize("size", plan.SIZES.values(), ids=plan.SIZES.keys())
def test_an_agent_has_the_size(size):
    planned = plan.planning(size, 1)
    assert planned.plan(0) == size.candidates * plan.HORIZON
    planned.close()
