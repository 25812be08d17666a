"""A handful of the faults of `faults.py`."""

import shutil

import pytest

from agent.recording import checkpoint
from tests.torture import faults
from tests.torture.launcher import Ended, launcher

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="fault.c needs a compiler")


@pytest.fixture(scope="module", autouse=True)
def warm():
    yield
    launcher().close()
    launcher.cache_clear()
    faults.prepared.cache_clear()


@pytest.mark.parametrize("number", [3 * 120, 3 * 400 + 1, 3 * (310 + 60 + 150 + 200 + 5) + 2])
def test_a_disk_that_fails_is_one_line(number):
    outcome = faults.case(number, 0)
    assert (outcome.verdict, outcome.fault) == ("one line", "")


def test_what_is_half_made_is_a_fault(tmp_path):
    run = tmp_path / "r"
    (run / "checkpoints").mkdir(parents=True)
    assert faults.broken(tmp_path, []) == ""
    checkpoint.save(run / "checkpoints", "5", checkpoint.Checkpoint(facts={"steps": 5}))
    assert faults.broken(tmp_path, [5]) == ""
    assert "became" in faults.broken(tmp_path, [4, 5])
    (run / "summary.png").write_bytes(b"half a picture")
    assert "summary.png" in faults.broken(tmp_path, [5])
    (run / "summary.png").unlink()
    (run / "checkpoints" / "5" / "facts.json").write_text("{")
    assert "checkpoints/5" in faults.broken(tmp_path, [5])
    line = Ended(1, "", "note      x\nsextet: a\nb", {})
    assert faults.judged("play", tmp_path, [], line)[0] == "not one line"
