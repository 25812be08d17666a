"""JSON of this program has no NaN."""

import json
import math
import re

import numpy as np
import pytest

from agent.recording.plain_json import dumps
from tests.sources import sources


def test_numbers_that_are_not_finite_are_null_wherever_they_stand():
    value = {
        "a": math.nan,
        "b": [1.5, (math.inf, -math.inf)],
        "c": {"d": np.float64("nan"), "e": 1},
    }
    assert json.loads(dumps(value)) == {
        "a": None,
        "b": [1.5, [None, None]],
        "c": {"d": None, "e": 1},
    }


def test_options_are_those_of_json():
    assert dumps({"b": 1, "a": math.nan}, sort_keys=True, indent=1) == '{\n "a": null,\n "b": 1\n}'
    with pytest.raises(TypeError):
        dumps({"a": object()})


def test_only_this_file_writes_json():
    """And the ledger of the engines, a layer below, whose numbers are finite: seconds, retries."""
    writes = re.compile(r"json\.dumps?\(|from json import .*dump")
    files = [source.path for source in sources(("agent",)) if writes.search(source.text)]
    assert files == ["agent/engines/ledger.py", "agent/recording/plain_json.py"]
