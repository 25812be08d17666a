"""The bench of the ports times each checked method."""

from agent.bench import ports
from modules.ports import CHECKED_METHODS


def test_every_checked_method_is_timed():
    figures = ports.run("CartPole-v1", 20)
    assert set(figures) == {
        f"{name}_us" for methods in CHECKED_METHODS.values() for name in methods
    }
    assert all(value > 0 for value in figures.values())
