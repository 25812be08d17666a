"""Checkpoints: everything a run needs to go on bit for bit, in files anyone may open.

A checkpoint is a folder `checkpoints/<steps>/` of safetensors (weights, optimiser, memory), JSON
(counters) and raw bytes (the world, the last moment), with the SHA-256 of each in `manifest.json`.
It is written beside its place and renamed into it, so a killed run leaves whole checkpoints only.
Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from modules.messages import ConfigError

FORMAT = 1
KEPT = 3


@dataclass
class Checkpoint:
    """The parts of a checkpoint, by name.

    `tensors` are groups of named tensors (`weights`, `optimiser`, `memory`), `blobs` raw bytes
    (`world`, `moment`), `facts` whatever JSON can say (steps, seed, best score).
    """

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, name: str, checkpoint: Checkpoint, keep: int = KEPT) -> Path:
    """Writes `folder/name` atomically and removes all but the `keep` newest numbered ones."""
    files = {f"{group}.safetensors": _packed(named) for group, named in checkpoint.tensors.items()}
    files |= {f"{blob}.bin": data for blob, data in checkpoint.blobs.items()}
    files["facts.json"] = json.dumps(checkpoint.facts, indent=1, sort_keys=True).encode()
    manifest = {
        "format": FORMAT,
        "sha256": {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
    }
    files["manifest.json"] = json.dumps(manifest, indent=1).encode()
    folder.mkdir(parents=True, exist_ok=True)
    being_written, place = folder / f".{name}.partial", folder / name
    shutil.rmtree(being_written, ignore_errors=True)
    being_written.mkdir()
    for file, data in files.items():
        with open(being_written / file, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    _sync_folder(being_written)
    shutil.rmtree(place, ignore_errors=True)
    being_written.rename(place)
    _sync_folder(folder)
    for old in _numbered(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def load(place: Path) -> Checkpoint:
    """The checkpoint at `place`. Raises ConfigError, one line, where it is damaged or newer."""
    try:
        manifest = json.loads((place / "manifest.json").read_bytes())
        if manifest["format"] > FORMAT:
            raise ConfigError(
                f"checkpoint {place}: format {manifest['format']} is newer than {FORMAT}, which "
                "this version reads; update sextet"
            )
        made = Checkpoint()
        for file, wanted in manifest["sha256"].items():
            data = (place / file).read_bytes()
            if hashlib.sha256(data).hexdigest() != wanted:
                raise ConfigError(f"checkpoint {place}: {file} is damaged (its SHA-256 differs)")
            stem, _, suffix = file.rpartition(".")
            if suffix == "safetensors":
                made.tensors[stem] = load_tensors(data)
            elif suffix == "bin":
                made.blobs[stem] = data
            else:
                made.facts = json.loads(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"checkpoint {place}: unreadable ({error})") from None
    return made


def newest(folder: Path) -> tuple[Path, Checkpoint] | None:
    """The newest checkpoint under `folder` that is whole, or None; a damaged one is passed over."""
    for place in reversed(_numbered(folder)):
        try:
            return place, load(place)
        except ConfigError:
            continue
    return None


def _numbered(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def _packed(named: Mapping[str, Tensor]) -> bytes:
    return save_tensors({name: tensor.detach().contiguous() for name, tensor in named.items()})


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
