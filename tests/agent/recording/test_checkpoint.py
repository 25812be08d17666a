"""A checkpoint is complete or absent, is loaded bit for bit, and shares unchanged pieces."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from agent.recording import checkpoint
from agent.recording.atomic import WriteError
from agent.recording.checkpoint import Checkpoint, load, newest, recover, save, set_aside
from modules.messages import ConfigError


def some(step: int) -> Checkpoint:
    return Checkpoint(
        tensors={"weights": {"a.b": torch.randn(3, 4), "n": torch.tensor(step)}},
        blobs={"world": bytes(range(256))},
        facts={"steps": step},
    )


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts tensors of at least 256 bytes into files of 64."""
    monkeypatch.setattr(checkpoint, "LARGE", 256)
    monkeypatch.setattr(checkpoint, "PIECE", 64)


def replay(steps: int) -> Checkpoint:
    frames = torch.arange(200).view(200, 1).repeat(1, 16).to(torch.uint8)[:steps]
    return Checkpoint(
        tensors={"memory": {"frames": frames.clone(), "now.steps": torch.tensor(steps)}},
        facts={"steps": steps},
    )


def test_is_loaded_bit_for_bit(tmp_path):
    saved = some(5)
    back = load(save(tmp_path, "5", saved))
    assert back.tensors["weights"]["a.b"].equal(saved.tensors["weights"]["a.b"])
    assert back.blobs == saved.blobs
    assert back.facts == saved.facts


def test_keeps_the_newest_three(tmp_path):
    for step in (2, 10, 9, 100):
        save(tmp_path, str(step), some(step), keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "100", "9"]


def test_a_damaged_checkpoint_is_refused_and_an_older_one_is_used(tmp_path):
    save(tmp_path, "1", some(1))
    place = save(tmp_path, "2", some(2))
    data = bytearray((place / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "weights.safetensors").write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        load(place)
    warnings: list[str] = []
    latest = newest(tmp_path, warn=warnings.append)
    assert latest is not None
    assert latest[1].facts["steps"] == 1
    assert len(warnings) == 1
    assert "weights.safetensors is damaged" in warnings[0]


@pytest.mark.parametrize("file", ["manifest.json", "facts.json", "world.bin", "memory.safetensors"])
@pytest.mark.parametrize("how", ["cut", "gone", "noise"])
def test_any_file_may_be_damaged_in_any_way(tmp_path, file, how):
    saved = some(1)
    saved.tensors["memory"] = {"x": torch.randn(50)}
    save(tmp_path, "1", saved)
    place = save(tmp_path, "2", saved)
    if how == "gone":
        (place / file).unlink()
    else:
        data = (place / file).read_bytes()
        (place / file).write_bytes(data[: len(data) // 2] if how == "cut" else b"\0" * len(data))
    latest = newest(tmp_path)
    assert latest is not None
    assert latest[0].name == "1"


def test_a_half_written_one_does_not_count(tmp_path):
    save(tmp_path, "1", some(1))
    (tmp_path / ".2.partial").mkdir()
    (tmp_path / ".2.partial" / "facts.json").write_text("{}")
    (tmp_path / "3").mkdir()
    latest = newest(tmp_path)
    assert latest is not None
    assert latest[0].name == "1"
    assert newest(tmp_path / "none") is None


def test_what_a_killed_writer_left_is_removed_or_restored(tmp_path):
    save(tmp_path, "best", some(1))
    (tmp_path / "best").rename(tmp_path / ".best.old")  # killed before the new one was in place
    save(tmp_path, "7", some(7))
    shutil.copytree(tmp_path / "7", tmp_path / ".7.old")  # killed before the old one was removed
    (tmp_path / ".9.partial").mkdir()
    recover(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["7", "best"]
    assert load(tmp_path / "best").facts["steps"] == 1
    recover(tmp_path / "none")


def test_a_large_tensor_is_cut_and_only_new_pieces_are_written(tmp_path, small_pieces):
    first = save(tmp_path, "100", replay(100))
    second = save(tmp_path, "150", replay(150))
    pieces = sorted(path.name for path in second.glob("memory.0.*"))
    assert len(pieces) == -(-150 // 4)
    shared = [name for name in pieces if (second / name).stat().st_nlink == 2]
    assert len(shared) == 100 // 4
    assert all((first / name).samefile(second / name) for name in shared)
    back = load(second).tensors["memory"]
    assert back["frames"].equal(replay(150).tensors["memory"]["frames"])
    assert int(back["now.steps"]) == 150
    shutil.rmtree(first)
    assert load(second).tensors["memory"]["frames"].equal(back["frames"])


def test_pieces_that_changed_are_written_again(tmp_path, small_pieces):
    save(tmp_path, "100", replay(100))
    changed = replay(100)
    changed.tensors["memory"]["frames"][10] += 1  # a full ring overwrites its oldest
    place = save(tmp_path, "101", changed)
    alone = [p.name for p in sorted(place.glob("memory.0.*")) if p.stat().st_nlink == 1]
    assert alone == ["memory.0.00002.safetensors"]
    assert load(place).tensors["memory"]["frames"].equal(changed.tensors["memory"]["frames"])


def test_a_damaged_piece_is_refused(tmp_path, small_pieces):
    place = save(tmp_path, "100", replay(100))
    file = next(iter(sorted(place.glob("memory.0.*"))))
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        load(place)
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["sha256"].pop(manifest["pieces"][0]["files"].pop(0))
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="has 96 of 100 steps"):
        load(place)


def test_a_damaged_checkpoint_shares_no_piece_with_later_ones(tmp_path, small_pieces):
    first = save(tmp_path, "100", replay(100))
    broken = save(tmp_path, "150", replay(150))
    # Damaged in a piece that only the newer one has; the resumed run writes the same numbers.
    (broken / "memory.0.00030.safetensors").write_bytes(b"noise")
    latest = newest(tmp_path)
    assert latest is not None
    assert latest[0] == first
    for _ in range(2):
        set_aside(tmp_path, first)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["100", "150.damaged"]
    assert load(save(tmp_path, "150", replay(150))).facts["steps"] == 150
    later = load(save(tmp_path, "160", replay(160)))
    assert later.tensors["memory"]["frames"].equal(replay(160).tensors["memory"]["frames"])


def test_only_some_groups_are_read(tmp_path, small_pieces):
    saved = replay(100)
    saved.tensors["weights"] = {"a": torch.ones(2)}
    place = save(tmp_path, "100", saved)
    for file in place.glob("memory*"):
        file.unlink()
    back = load(place, only=("weights",))
    assert back.tensors.keys() == {"weights"}
    assert back.facts == {"steps": 100}
    with pytest.raises(ConfigError, match="unreadable"):
        load(place)


def test_a_manifest_cannot_reach_outside(tmp_path):
    place = save(tmp_path, "1", some(1))
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["sha256"]["../secret.bin"] = "0" * 64
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="elsewhere"):
        load(place)


def test_a_newer_format_is_not_skipped(tmp_path):
    save(tmp_path, "1", some(1))
    place = save(tmp_path, "2", some(2))
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ConfigError, match="update sextet"):
        newest(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    place = save(tmp_path, "1", some(1))
    manifest = json.loads((place / "manifest.json").read_text()) | {"format": 99}
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="newer"):
        load(place)


def test_a_failed_write_leaves_the_old_one_and_nothing_half_done(tmp_path, monkeypatch):
    save(tmp_path, "1", some(1))

    def full(file: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(WriteError, match="space"):
        save(tmp_path, "2", some(2))
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_nothing_written_is_a_pickle(tmp_path, small_pieces):
    saved = replay(100)
    saved.tensors["weights"] = {"a": torch.randn(40)}
    place = save(tmp_path, "1", saved)
    for file in place.iterdir():
        assert file.suffix in (".safetensors", ".json", ".bin")
        start = file.read_bytes()[:16]
        # A pickle begins with PROTO, a file of torch.save with the magic of a zip.
        assert start[:1] != b"\x80"
        assert start[:4] != b"PK\x03\x04"
        if file.suffix == ".safetensors":
            assert start[8:9] == b"{"
