"""The harness of the tortures: cases run once, in parts, and their faults are counted."""

import sys
from types import SimpleNamespace

from tests.torture.harness import Outcome, read_log, run_case, tally


def test_a_case_that_raises_is_a_fault(monkeypatch):
    def case(number, seed):
        if number:
            raise ValueError("broken")
        return Outcome("sort", "right", figures={"steps": 2})

    monkeypatch.setitem(sys.modules, "tests.torture.example", SimpleNamespace(case=case, CASES=2))
    outcomes = [run_case("example", number, 0) for number in range(2)]
    told = tally("example", 2, 0, outcomes)
    assert told["faults"] == 1
    assert told["figures"] == {"steps": 2}
    assert "ValueError: broken" in told["faulty"][0]


def test_a_log_that_was_cut_off_is_read(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"case": 1, "seed": 0}\n{"case": 1, "seed": 0, "fault": ""}\n{"ca')
    assert read_log(log) == [{"case": 1, "seed": 0, "fault": ""}]
