"""The soak of `soak.py`, for seconds, and what it would call a leak."""

import pytest

from tests.torture import soak
from tests.torture.soak import Usage, judged


@pytest.mark.parametrize(
    ("grows", "fault"),
    [
        (Usage(0, 0, 0), ""),
        (Usage(0.05, 0, 0), "memory grew"),
        (Usage(0, 0.1, 0), "handles"),
        (Usage(0, 0, 0.1), "threads"),
    ],
)
def test_a_leak_is_named(grows, fault):
    used = [Usage(100 + i * grows.rss, 9 + i * grows.handles, 3 + i * grows.threads)
            for i in range(90)]  # fmt: skip
    leak = judged(used, soak.GROWTH)[0]
    assert (fault in leak) if fault else not leak


@pytest.mark.slow
def test_a_training_and_a_page_for_half_a_minute():
    # Too short for the bar, but not for a process that ends or leaks handles.
    assert soak.soak(30, 0.5).fault == ""
