"""The loop's bench: by hand, checked and traced do the same work."""

import pytest
import torch

from agent.bench import loop


def test_the_three_ways_choose_the_same_actions():
    result = loop.compare(loop._agent, rows=2, steps=24, piece=6)
    assert set(result) == {"by_hand_ms", "checked_ms", "traced_ms", "ratio", "ratio_trace"}
    assert all(value > 0 for value in result.values())


def test_other_work_is_noticed(monkeypatch):
    step = loop.ByHand.step
    monkeypatch.setattr(loop.ByHand, "step", lambda self, seen: torch.roll(step(self, seen), 1, -1))
    with pytest.raises(AssertionError, match="expected equal actions"):
        loop.compare(loop._agent, rows=1, steps=4, piece=2)
