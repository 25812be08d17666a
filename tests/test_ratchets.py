"""The ratchets themselves: a rise fails and lists its kinds, a fall asks for a lower number."""

from tests.ratchets import Offender, complaint, lowered

TWO = [Offender("a.py:1", "old"), Offender("b.py:2", "new")]


def test_an_equal_count_passes():
    assert complaint("words", TWO, {"old": 2}) is None


def test_a_rise_lists_only_the_kinds_that_rose():
    message = complaint("words", TWO, {"old": 1})
    assert message is not None
    assert "2 now, at most 1 allowed" in message
    assert "b.py:2 new" in message
    assert "a.py:1" not in message


def test_a_fall_asks_for_the_lower_number():
    assert "Lower the number to 2" in str(complaint("words", TWO, {"old": 3}))


def test_an_update_lowers_numbers_and_never_raises_one():
    numbers = {"rises": {"old": 1}, "falls": {"old": 3}, "gone": {"old": 1}}
    after = lowered({"rises": TWO, "falls": TWO, "fresh": TWO}, numbers)
    both = {"new": 1, "old": 1}
    assert after == {"falls": both, "fresh": both, "rises": {"old": 1}}
