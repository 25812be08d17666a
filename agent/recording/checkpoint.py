"""Checkpoints: everything from which a run resumes bit for bit, in files of open formats.

A checkpoint is a folder `checkpoints/<steps>/` of safetensors (weights, optimiser, memory), JSON
(counters) and raw bytes (the world), with the SHA-256 of each in `manifest.json`. The folder is
written under another name, flushed to the disk and renamed, so a killed run leaves only complete
checkpoints.

A tensor of at least `LARGE` bytes, such as the frames of a replay memory, is cut along its first
axis into files of `PIECE` bytes. A piece that equals that of the previous checkpoint is a hard link
to it. Three checkpoints of a full replay memory take little more room than one; damage to a shared
piece damages all checkpoints that share it. Smaller tensors are not shared.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from safetensors.torch import save as save_tensors
from torch import Tensor

from agent.recording.atomic import sync, sync_folder
from agent.recording.renames import current_weights
from modules.messages import ConfigError, Frozen
from modules.strange_files import TEXT_BYTES, plain_json, read_file
from modules.tensor_file import forms_in, unpacked
from modules.validation import validated

FORMAT = 2
CHECKPOINTS = 3
LARGE = 1 << 26
PIECE = 1 << 22
FACTS = "facts.json"
MOST_BLOB = 1 << 26
"""The largest snapshot of a world that is read, bytes."""
MOST_TENSORS = 1 << 34
"""The largest file of tensors that is read, bytes; their forms are checked before."""

Fits = Callable[[str, Mapping[str, Tensor]], None]
"""Checks the forms of a group of tensors; raises ConfigError."""

_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,180}\.(safetensors|bin|json)")


class _Piece(Frozen):
    """A tensor of `rows` rows that was cut into `files`."""

    group: str
    name: str
    rows: int = Field(ge=0, le=1 << 40)
    files: tuple[str, ...] = Field(min_length=1, max_length=100_000)


class _Manifest(BaseModel):
    """`manifest.json`: the SHA-256 of each file, in hexadecimal digits."""

    format: int = Field(ge=1)
    sha256: dict[str, str]
    pieces: tuple[_Piece, ...] = ()


@dataclass
class Checkpoint:
    """The parts of a checkpoint, by name.

    `tensors` are groups of named tensors (`weights`, `learner`, `memory`), `blobs` raw bytes
    (`world`), `facts` JSON values (steps, seed, best score).
    """

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class NewerError(ConfigError):
    """A checkpoint in a newer format than this version reads."""


def save(folder: Path, name: str, checkpoint: Checkpoint, keep: int = CHECKPOINTS) -> Path:
    """Writes `folder/name` atomically and removes all but the `keep` newest numbered ones."""
    folder.mkdir(parents=True, exist_ok=True)
    partial, place = folder / f".{name}.partial", folder / name
    # Without a numbered one, the one that is replaced.
    earlier = next(reversed(_numbered(folder)), place)
    known = _hashes(earlier)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        manifest: dict[str, Any] = {"format": FORMAT, "sha256": {}, "pieces": []}
        for file, data, piece in _files(checkpoint, manifest["pieces"]):
            digest = hashlib.sha256(data).hexdigest()
            manifest["sha256"][file] = digest
            unchanged = piece and known.get(file) == digest
            if not (unchanged and _linked(earlier / file, partial / file)):
                _write(partial / file, data)
        _write(partial / "manifest.json", json.dumps(manifest, indent=1).encode())
        sync_folder(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _put(partial, place)
    for old in _numbered(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def load(
    place: Path, only: Collection[str] | None = None, fits: Fits = lambda group, forms: None
) -> Checkpoint:
    """The checkpoint at `place`; with `only`, these groups of tensors and the facts alone.

    `fits` is called with each group and the forms of its tensors (`modules.tensor_file`) before any
    of them is read, and raises ConfigError where they are not what will be loaded into. Raises
    ConfigError, one line, where the checkpoint is damaged or newer.
    """
    try:
        manifest = _manifest(place)
        groups = {file.rpartition(".")[0] for file in manifest.sha256 if file != FACTS}
        groups = groups if only is None else groups & {*only}
        _require_forms(place, manifest, groups, fits)
        loaded = Checkpoint()
        within = {file for piece in manifest.pieces for file in piece.files}
        for file, digest in manifest.sha256.items():
            stem, _, suffix = file.rpartition(".")
            if file == FACTS:
                loaded.facts = _facts(_verified(place, file, digest, TEXT_BYTES))
            elif stem not in groups or file in within:
                continue
            elif suffix == "safetensors":
                loaded.tensors[stem] = unpacked(_verified(place, file, digest))
            else:
                loaded.blobs[stem] = _verified(place, file, digest, MOST_BLOB)
        for piece in manifest.pieces:
            if piece.group in groups:
                loaded.tensors[piece.group][piece.name] = _joined(place, manifest, piece)
    except ConfigError as error:
        line = str(error)
        if line.startswith("checkpoint "):
            raise
        raise ConfigError(f"checkpoint {place}: {line}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"checkpoint {place}: unreadable ({line:.300})") from None
    loaded.tensors = {group: current_weights(named) for group, named in loaded.tensors.items()}
    for name, tensor in loaded.tensors.get("weights", {}).items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ConfigError(
                f"checkpoint {place}: weights {name}: expected finite numbers, got others; take an "
                "older checkpoint"
            )
    return loaded


def newest(
    folder: Path,
    only: Collection[str] | None = None,
    warn: Callable[[str], None] = lambda why: None,
    fits: Fits = lambda group, forms: None,
) -> tuple[Path, Checkpoint] | None:
    """The newest undamaged checkpoint in `folder`, or None.

    `warn` is called with a line for each damaged one. `only` and `fits` as in `load`. Raises
    ConfigError for a checkpoint of a newer format: resuming from an older one would discard its
    progress.
    """
    for place in reversed(_numbered(folder)):
        try:
            return place, load(place, only, fits)
        except NewerError:
            raise
        except ConfigError as error:
            warn(str(error))
    return None


def set_aside(folder: Path, after: Path) -> None:
    """Renames the damaged checkpoints newer than `after` to `….damaged`, so that no later one
    shares a file with them.
    """
    for place in _numbered(folder):
        if int(place.name) > int(after.name):
            damaged = place.with_name(f"{place.name}.damaged")
            shutil.rmtree(damaged, ignore_errors=True)
            place.rename(damaged)


def recover(folder: Path) -> None:
    """Removes what a killed writer left behind; called before the next one writes.

    A checkpoint that was being replaced is restored where its successor is not in place.
    """
    for left in folder.glob(".*.old"):
        place = folder / left.name[1 : -len(".old")]
        if place.exists():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.rename(place)
    for left in folder.glob(".*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def _files(
    checkpoint: Checkpoint, pieces: list[dict[str, Any]]
) -> Iterator[tuple[str, bytes, bool]]:
    """Name and content of each file, and whether it is a piece; describes the pieces in `pieces`.

    Yields one file at a time, so that a large replay memory is not copied whole.
    """
    for group, named in checkpoint.tensors.items():
        large = {name for name, t in named.items() if t.dim() and t.nbytes >= LARGE}
        yield (
            f"{group}.safetensors",
            _packed({name: t for name, t in named.items() if name not in large}),
            False,
        )
        for number, name in enumerate(sorted(large)):
            tensor = named[name]
            rows = max(1, PIECE // tensor[0].nbytes)
            files = [
                f"{group}.{number}.{i:05d}.safetensors" for i in range(-(-len(tensor) // rows))
            ]
            pieces.append({"group": group, "name": name, "rows": len(tensor), "files": files})
            for i, file in enumerate(files):
                yield file, _packed({name: tensor[i * rows : (i + 1) * rows]}), True
    for blob, data in checkpoint.blobs.items():
        yield f"{blob}.bin", data, False
    yield "facts.json", json.dumps(checkpoint.facts, indent=1, sort_keys=True).encode(), False


def _manifest(place: Path) -> _Manifest:
    values = plain_json(read_file(place / "manifest.json", TEXT_BYTES))
    newer = values.get("format") if isinstance(values, dict) else None
    if type(newer) is int and newer > FORMAT:
        raise NewerError(
            f"checkpoint {place}: format {newer} is newer than {FORMAT}, which this version reads; "
            "update sextet"
        )
    if not isinstance(values, dict):
        raise ValueError("manifest.json: expected a mapping")
    manifest = validated(_Manifest, values, "manifest.json ")
    for file in (*manifest.sha256, *(file for piece in manifest.pieces for file in piece.files)):
        if not _FILE.fullmatch(file):
            raise ValueError(f"{file!r:.80} lies elsewhere, or is no file of a checkpoint")
    return manifest


def _facts(data: bytes) -> dict[str, Any]:
    facts = plain_json(data)
    if not isinstance(facts, dict):
        raise ValueError("facts.json: expected a mapping")
    drives = facts.get("drives", {})
    if not isinstance(drives, dict) or not all(isinstance(h, str) for h in drives.values()):
        raise ValueError("facts.json: drives: expected a hash for each name")
    return facts


def _require_forms(place: Path, manifest: _Manifest, groups: Collection[str], fits: Fits) -> None:
    """Reads the headers of all files of tensors in `groups` and has them checked by `fits`."""
    within = {file for piece in manifest.pieces for file in piece.files}
    forms: dict[str, dict[str, Tensor]] = {}
    for file in manifest.sha256:
        stem, _, suffix = file.rpartition(".")
        if suffix == "safetensors" and stem in groups and file not in within:
            forms[stem] = forms_in(place / file)
    for piece in manifest.pieces:
        if piece.group not in groups:
            continue
        parts = [forms_in(place / file) for file in piece.files]
        if any(part.keys() != {piece.name} for part in parts) or piece.name in forms[piece.group]:
            raise ValueError(f"{piece.name}: expected one tensor in each of its pieces")
        alike = {(part[piece.name].dtype, part[piece.name].shape[1:]) for part in parts}
        rows = sum(len(part[piece.name]) for part in parts)
        if len(alike) != 1 or rows != piece.rows:
            raise ValueError(
                f"{piece.name} has {rows} of {piece.rows} steps, or pieces that differ"
            )
        ((kind, shape),) = alike
        forms[piece.group][piece.name] = torch.empty(rows, *shape, dtype=kind, device="meta")
    for group, named in forms.items():
        fits(group, current_weights(named))


def _joined(place: Path, manifest: _Manifest, piece: _Piece) -> Tensor:
    """A tensor that was cut into pieces, whose forms were checked."""
    whole: Tensor | None = None
    at = 0
    for file in piece.files:
        part = unpacked(_verified(place, file, manifest.sha256[file]))[piece.name]
        if whole is None:
            whole = part.new_empty(piece.rows, *part.shape[1:])
        whole[at : at + len(part)] = part
        at += len(part)
    if whole is None or at != len(whole):
        raise ValueError(f"{piece.name} has {at} of {piece.rows} steps")
    return whole


def _verified(place: Path, file: str, digest: str, most: int = MOST_TENSORS) -> bytes:
    data = read_file(place / file, most)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ConfigError(f"checkpoint {place}: {file} is damaged (its SHA-256 differs)")
    return data


def _hashes(place: Path) -> dict[str, str]:
    try:
        hashes = plain_json(read_file(place / "manifest.json", TEXT_BYTES))["sha256"]
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return {}
    return hashes if isinstance(hashes, dict) else {}


def _linked(earlier: Path, file: Path) -> bool:
    """Whether the file of an `earlier` checkpoint could be linked as `file`."""
    try:
        os.link(earlier, file)
    except OSError:
        # Another file system, or one without hard links: the caller writes the file.
        return False
    return True


def _write(file: Path, data: bytes) -> None:
    with open(file, "wb") as out:
        out.write(data)
        sync(out)


def _put(partial: Path, place: Path) -> None:
    """Renames a complete folder to its place, and then removes the one that was there."""
    old = place.parent / f".{place.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    partial.rename(place)
    sync_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def _numbered(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("*") if p.name.isdigit()), key=lambda p: int(p.name))


def _packed(named: Mapping[str, Tensor]) -> bytes:
    return save_tensors({name: tensor.detach().contiguous() for name, tensor in named.items()})
