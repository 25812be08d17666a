"""The bench of the ports times each verb."""

from agent.bench import ports
from modules.ports import ANSWERS


def test_every_verb_is_timed():
    figures = ports.run("CartPole-v1", 20)
    assert set(figures) == {f"{verb}_us" for verb in ANSWERS}
    assert all(value > 0 for value in figures.values())
