"""The form of tensors is known, and checked, before their data is read."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from modules.messages import ConfigError
from modules.strange_files import plain_json, read_file
from modules.tensor_file import difference, forms_in, unpacked

NAMED = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.int64)}


def test_forms_are_those_of_the_tensors_without_memory(tmp_path: Path):
    (tmp_path / "t").write_bytes(save(NAMED))
    forms = forms_in(tmp_path / "t")
    assert all(form.is_meta for form in forms.values())
    assert difference(NAMED, forms) is None
    assert torch.equal(unpacked(save(NAMED))["a"], NAMED["a"])


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"a": NAMED["a"]}, "b: expected"),
        ({**NAMED, "c": NAMED["a"]}, "c: expected none"),
        ({**NAMED, "a": NAMED["a"].t()}, r"a: expected \(2, 3\) of float32, got \(3, 2\)"),
        ({**NAMED, "b": NAMED["b"].float()}, "b: expected"),
    ],
)
def test_the_first_difference_is_named(other: dict[str, torch.Tensor], line: str):
    with pytest.raises(AssertionError, match=line):
        raise AssertionError(difference(NAMED, other))


def test_half_precision_fits():
    assert difference(NAMED, {**NAMED, "a": NAMED["a"].half()}) is None


def with_entry(**changes: object) -> bytes:
    data = save({"a": NAMED["a"]})
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["a"].update(changes)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 7, struct.pack("<Q", 1 << 60) + b"{}", save(NAMED)[:-1], save(NAMED) + b"x",
        with_entry(shape=[3, 3]), with_entry(shape=[-2, -3]), with_entry(shape=[1 << 62, 4]),
        with_entry(dtype="F64"), with_entry(dtype="X"), with_entry(data_offsets=[0, 20]),
        with_entry(data_offsets=[4, 28]), with_entry(shape="x"), with_entry(more=1),
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(ValueError):  # noqa: PT011
        forms_in(tmp_path / "t")
    with pytest.raises(ValueError):  # noqa: PT011
        unpacked(data)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_file(tmp_path / "file", 5) == b"12345"
    assert read_file(tmp_path / "link", 5, links=True) == b"12345"
    with pytest.raises(ConfigError, match="at most 4 bytes, got 5"):
        read_file(tmp_path / "file", 4)
    with pytest.raises(ConfigError, match="got a link"):
        read_file(tmp_path / "link", 5)
    with pytest.raises(ConfigError, match="got a folder"):
        read_file(tmp_path, 5)
    with pytest.raises(ConfigError, match="got a device"):
        read_file(Path("/dev/zero"), 5)


@pytest.mark.parametrize("text", ["NaN", "[1e999]", "9" * 30, "[" * 10**5, "-Infinity", "{"])
def test_json_without_pitfalls(text: str):
    assert plain_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError):  # noqa: PT011
        plain_json(text)
