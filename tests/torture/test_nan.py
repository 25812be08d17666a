"""A handful of the cases of the torture `nan`: some kinds of learning, and wrong directives."""

import pytest

from agent.api.failure import RunFailedError
from agent.api.play import play
from tests.torture import nan


@pytest.mark.parametrize("kind", ["experience", "loss", "gradient", "imagined"])
def test_a_wrong_number_in_learning_stops_before_the_step_and_is_named(kind):
    number = max(n for n, fault in enumerate(nan.FAULTS) if fault.kind == kind)
    outcome = nan.case(number, seed=0)
    assert (outcome.verdict, outcome.fault) == ("stopped", "")


WRONG = [
    ("configurator", "configure", "mode", 7, "from 1 to 2, got 7"),
    ("configurator", "configure", "horizon_steps", 1e6, "from 1 to 1000, got 1e+06"),
    ("configurator", "configure", "model_calls", -5, "from 0 to 10000000, got -5"),
    ("memory", "recall", "novelty", 3, "from 0 to 1, got 3"),
    ("actor", "act", "actions", float("nan"), "from -1 to 1, got nan"),
]


@pytest.mark.parametrize(("port", "method", "field", "value", "says"), WRONG)
def test_a_wrong_message_in_playing_is_named(tmp_path, port, method, field, value, says):
    fault = nan.Fault("output", "reacts", port, method, field, value)
    world, settings = nan.PRESETS[fault.preset]
    with nan.at_fault(fault, seed=0), pytest.raises(RunFailedError) as stopped:
        play(world, *settings, steps=120, run=tmp_path / "run")
    assert stopped.value.exit_code == 1
    assert f"module {port} (" in str(stopped.value)
    assert says in str(stopped.value)
