"""A handful of the kills of `kill.py`, one of each kind."""

import shutil

import pytest

from tests.torture import kill
from tests.torture.launcher import Ended, launcher

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="fault.c needs a compiler")

KINDS = list(kill.KINDS)
FIRST = {kind: sum(n for n, _, _ in list(kill.KINDS.values())[:i]) for i, kind in enumerate(KINDS)}


@pytest.fixture(scope="module", autouse=True)
def warm():
    yield
    launcher().close()
    launcher.cache_clear()


@pytest.mark.parametrize(
    "kind", ["inside a save, at a line", "while the folder is made", "while a trace is written"]
)
def test_what_is_killed_goes_on(kind):
    outcome = kill.case(FIRST[kind] + 1, 0)
    assert not outcome.fault


def test_a_run_that_differs_is_a_fault(tmp_path):
    whole = kill.undisturbed(kill.TRAIN)[1]
    other = (*kill.TRAIN, "--learner.learning_rate=0.5")
    assert launcher().run(other, tmp_path).code == 0
    assert kill.held(tmp_path / "r") != whole
    verdict, fault = kill.played(tmp_path, kill.PLAY, Ended(-9, "", "", {"step": 100}))
    assert (verdict, fault) == ("no trace", "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_goes_on(kind):
    assert not kill.case(FIRST[kind], 0).fault
