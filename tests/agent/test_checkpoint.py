"""A checkpoint is whole or absent, and comes back bit for bit."""

import pytest
import torch

from agent.checkpoint import Checkpoint, load, newest, save
from modules.messages import ConfigError


def some(step: int) -> Checkpoint:
    return Checkpoint(
        tensors={"weights": {"a.b": torch.randn(3, 4), "n": torch.tensor(step)}},
        blobs={"world": bytes(range(256))},
        facts={"steps": step},
    )


def test_comes_back_bit_for_bit(tmp_path):
    made = some(5)
    back = load(save(tmp_path, "5", made))
    assert back.tensors["weights"]["a.b"].equal(made.tensors["weights"]["a.b"])
    assert back.blobs == made.blobs
    assert back.facts == made.facts


def test_keeps_the_newest_three(tmp_path):
    for step in (2, 10, 9, 100):
        save(tmp_path, str(step), some(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "100", "9"]


def test_damage_is_refused_and_passed_over(tmp_path):
    save(tmp_path, "1", some(1))
    place = save(tmp_path, "2", some(2))
    data = bytearray((place / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "weights.safetensors").write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        load(place)
    found = newest(tmp_path)
    assert found is not None
    assert found[1].facts["steps"] == 1


def test_a_half_written_one_does_not_count(tmp_path):
    save(tmp_path, "1", some(1))
    (tmp_path / ".2.partial").mkdir()
    (tmp_path / ".2.partial" / "facts.json").write_text("{}")
    (tmp_path / "3").mkdir()
    found = newest(tmp_path)
    assert found is not None
    assert found[0].name == "1"
    assert newest(tmp_path / "none") is None
