"""A file is replaced whole or stays as it is."""

import pytest

from agent.recording.atomic import new_file, write_json, write_text
from modules.messages import ConfigError


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    write_text(tmp_path / "a.txt", "first")
    write_text(tmp_path / "a.txt", "ä")
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ä"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    place = tmp_path / "a.txt"
    place.write_text("old")
    with pytest.raises(TypeError), new_file(place) as out:
        out.writelines([b"ne", None])
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert place.read_text() == "old"


def test_a_place_that_cannot_be_written_raises_before_the_block(tmp_path):
    with pytest.raises(ConfigError, match="No such file"), new_file(tmp_path / "none" / "a"):
        pytest.fail("the block ran")
