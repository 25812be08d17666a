"""Some of the faults of `make torture-worlds`, and that the check of a replay can fail."""

import pytest

from tests.torture.harness import run_case


@pytest.mark.parametrize("number", [0, 3, 6, 7])
def test_a_fault_of_a_world_ends_a_training_in_one_line(number):
    outcome = run_case("worlds", number, 0)
    assert not outcome["fault"], outcome
    assert not outcome["kind"].startswith("isolated")


@pytest.mark.slow
def test_a_process_that_dies(monkeypatch):
    outcome = run_case("worlds", 10, 0)
    assert outcome["kind"].startswith("isolated")
    assert not outcome["fault"], outcome


def test_a_transition_that_never_was_is_found(monkeypatch):
    """Without the cut, the new episodes after a resume seem to continue the old ones."""
    monkeypatch.setattr("modules.memory.ring.Ring.cut_episodes", lambda self: None)
    faults = [run_case("worlds", number, 0)["fault"] for number in (0, 3)]
    assert any("is followed by" in fault for fault in faults)


def test_a_line_without_the_row_is_found(monkeypatch):
    monkeypatch.setattr("worlds.edge.GuardedEnv._place", "somewhere")
    assert "expected 'row" in run_case("worlds", 6, 0)["fault"]
