"""Folders of numbered pictures as recordings, with what stands beside them.

    RECORDING/000.png 001.png …            one episode, or
    RECORDING/EPISODE/000.png 001.png …    one a folder, in the order of their names

A picture is a .png, .jpg, .jpeg, or a .npy of bytes [H Y C] or [H Y]. Beside the pictures of an
episode may stand `actions.npy`, `rewards.npy`, as many as pictures or one less (the one at t leads
to picture t+1), and `terminated.npy`, a truth value: whether the episode ended with the last
picture.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.recording.readers.pictures import Picture, PictureReader
from agent.recording.readers.recording import (
    Episode,
    Form,
    OfEpisodes,
    encoded_actions,
    signals_of,
)
from modules.messages import ConfigError, TraceError
from modules.strange_files import read_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".npy")
BESIDE = ("actions", "rewards", "terminated")
"""Arrays that may stand beside the pictures of an episode, as .npy."""

_NUMBERED = re.compile(r"\D*(\d+)")
_MOST_BYTES = 1 << 30


class Folder(NamedTuple):
    """One episode: its pictures in order, and the arrays beside them by name."""

    pictures: list[Path]
    beside: dict[str, Path]


class FramesRecording(OfEpisodes):
    """A folder of pictures, or of folders of pictures."""

    world: tuple[str, str | None] | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        inner = sorted(one for one in path.iterdir() if one.is_dir())
        folders = [_folder(one) for one in ([path, *inner] if inner else [path])]
        self.folders = [folder for folder in folders if folder.pictures]
        if not self.folders:
            raise TraceError(
                f"recording {path}: expected numbered pictures ({', '.join(SUFFIXES)}), a run "
                "folder, or a Minari dataset, got none of them"
            )
        self.episodes = len(self.folders)
        self.steps = sum(len(folder.pictures) for folder in self.folders)
        names = {"actions": "actions", "rewards": "rewards", "terminated": "ends"}
        self.lacks = tuple(
            word
            for name, word in names.items()
            if not any(name in folder.beside for folder in self.folders)
        )

    def require(self, form: Form) -> None:
        """Raises TraceError, one line, where a file cannot be read or has another form."""
        reader = PictureReader(form, self.path)
        for folder in self.folders:
            sizes = {}
            for picture in folder.pictures:
                array = _picture(picture)
                sizes[array.shape] = picture
                if len(sizes) > 1:
                    one, other = ("×".join(map(str, size)) for size in sizes)
                    raise TraceError(
                        f"recording {picture}: expected {one} as the pictures before it, got "
                        f"{other}; an episode has pictures of one size"
                    )
                reader.read(array, picture.name)
            _arrays(folder, form)

    def episodes_in(self, form: Form) -> Iterator[Episode]:
        """The episodes in the order of their folders."""
        reader = PictureReader(form, self.path)
        for folder in self.folders:
            yield self._episode(folder, form, reader)

    @staticmethod
    def _episode(folder: Folder, form: Form, reader: PictureReader) -> Episode:
        arrays, steps = _arrays(folder, form), len(folder.pictures)
        frames = (reader.read(_picture(one), one.name) for one in folder.pictures)
        signals, known = signals_of(form.world, steps, *arrays)
        ends = arrays.terminated
        cut = None if ends is None else False
        return Episode(frames, steps, signals, known, arrays.actions, ends, cut)


class _Arrays(NamedTuple):
    """Rewards [T-1], encoded actions [T-1 A], and whether the episode ended; None: unknown."""

    rewards: Tensor | None
    actions: Tensor | None
    terminated: bool | None


def _folder(path: Path) -> Folder:
    """The pictures of a folder in the order of their numbers. Raises TraceError where one is
    missing.
    """
    numbered: dict[int, Path] = {}
    beside = {name: path / f"{name}.npy" for name in BESIDE if (path / f"{name}.npy").is_file()}
    for file in path.iterdir():
        if file.suffix.lower() not in SUFFIXES or file.stem in BESIDE:
            continue
        if (match := _NUMBERED.fullmatch(file.stem)) is None:
            raise TraceError(
                f"recording {file}: expected a number at the end of its name, as in 0007.png"
            )
        if (other := numbered.get(int(match[1]))) is not None:
            raise TraceError(f"recording {file}: has the number of {other.name}; remove one")
        numbered[int(match[1])] = file
    order = sorted(numbered)
    for before, after in pairwise(order):
        if after != before + 1:
            raise TraceError(
                f"recording {path}: expected picture {before + 1} after {numbered[before].name}, "
                f"got {numbered[after].name}; pictures are missing"
            )
    if len(order) == 1:
        raise TraceError(f"recording {path}: expected at least 2 pictures, got 1")
    return Folder([numbered[number] for number in order], beside)


def _picture(path: Path) -> Picture:
    """The picture [H Y C] of a file: grey ones have one channel, an alpha channel is dropped."""
    array = _array(path) if path.suffix.lower() == ".npy" else _decoded(path)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3:
        raise TraceError(
            f"recording {path}: expected bytes [H Y C], got {array.dtype} {list(array.shape)}"
        )
    return array


def _decoded(path: Path) -> NDArray[Any]:
    try:
        data = np.frombuffer(read_file(path, _MOST_BYTES, links=True), np.uint8)
        array = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    except (OSError, ConfigError, cv2.error) as error:
        raise TraceError(f"recording {path}: {' '.join(str(error).split())}") from None
    if array is None:
        raise TraceError(f"recording {path}: expected a picture, got a file that is none")
    return np.asarray(array if array.ndim == 2 else array[..., :3][..., ::-1])


def _array(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(
            np.load(io.BytesIO(read_file(path, _MOST_BYTES, links=True)), allow_pickle=False)
        )
    except (OSError, ValueError, EOFError, ConfigError) as error:
        line = " ".join(str(error).split())[:160]
        raise TraceError(f"recording {path}: expected an array, got {line}") from None


def _arrays(folder: Folder, form: Form) -> _Arrays:
    """What stands beside the pictures of an episode. Raises TraceError, one line, where it does not
    fit them or the world.
    """
    steps = len(folder.pictures)
    rewards = actions = None
    if (path := folder.beside.get("rewards")) is not None:
        values = _of_steps(path, steps)
        if values.ndim != 1 or values.dtype.kind not in "fiub" or not np.isfinite(values).all():
            raise TraceError(f"recording {path}: expected finite numbers [{steps - 1}]")
        rewards = torch.from_numpy(values.astype(np.float32))
    if (path := folder.beside.get("actions")) is not None:
        actions = encoded_actions(_of_steps(path, steps), form.world.actions, str(path))
    if (path := folder.beside.get("terminated")) is None:
        return _Arrays(rewards, actions, None)
    ends = _array(path)
    if ends.size != 1 or ends.dtype.kind not in "biu":
        raise TraceError(f"recording {path}: expected one truth value, got {list(ends.shape)}")
    return _Arrays(rewards, actions, bool(ends.item()))


def _of_steps(path: Path, steps: int) -> NDArray[Any]:
    """The first T-1 entries of an array that has T or T-1."""
    values = _array(path)
    if values.ndim == 0 or len(values) not in (steps, steps - 1):
        raise TraceError(
            f"recording {path}: expected {steps - 1} or {steps} entries beside {steps} pictures, "
            f"got {len(values) if values.ndim else 'a single number'}"
        )
    return values[: steps - 1]
