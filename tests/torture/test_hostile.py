"""A few cases of the tortures of strange files, in every run of the tests."""

import pytest

from tests.torture import checkpoints, command, configs, hostile, traces
from tests.torture.harness import run_case

QUICK = {
    "yaml: bomb of merge keys", "config: fifo", "config: plugin", "config: world of a package",
    "seeds: plugin of a training of several", "study: plugin of a study's folder",
    "checkpoint: pickle as weights", "checkpoint: path outside", "checkpoint: data of gigabytes",
    "checkpoint: moments in another shape", "checkpoint: updates without end",
    "checkpoint: all weights damaged", "trace: view without end", "trace: computed gigabytes",
    "trace: gigabytes in keyframes", "trace: world of a package",
}  # fmt: skip


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch):
    """A whole torture bounds the time of a refusal; a test on a busy machine does not."""
    monkeypatch.setattr(command, "MOST_SECONDS", command.HANGS_S)


NUMBERS = [number for number, (name, *_) in enumerate(hostile.HOSTILE) if name in QUICK]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: hostile.HOSTILE[number][0])
def test_a_hostile_file_is_refused_and_nothing_is_executed(number: int):
    assert run_case("hostile", number, 0)["fault"] == ""


def test_all_quick_cases_are_there():
    assert len(NUMBERS) == len(QUICK)
    assert hostile.CASES >= 50


# Memories that are not finite, which a whole torture found, and a few of each change.
CHECKPOINTS = [(6, 0), (1126, 0), *((n, 1) for n in range(1, 2 * len(checkpoints.CHANGES), 5))]


@pytest.mark.parametrize(("number", "seed"), CHECKPOINTS)
def test_a_changed_checkpoint_is_refused_or_valid(number: int, seed: int):
    assert run_case("checkpoints", number, seed)["fault"] == ""


# A schema that is no text, which a whole torture found, and one of each change.
TRACES = [(2483, 0), *((number, 1) for number in range(1, len(traces.CHANGES)))]


@pytest.mark.parametrize(("number", "seed"), TRACES)
def test_a_changed_trace_is_refused_or_read(number: int, seed: int):
    assert run_case("traces", number, seed)["fault"] == ""


@pytest.mark.parametrize("number", range(2, 10))
def test_a_changed_configuration_is_refused_or_plays(number: int):
    assert configs.CASES > 100
    assert run_case("configs", number, 1)["fault"] == ""
