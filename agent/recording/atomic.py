"""Files that are written whole or not at all: beside their place, flushed, and renamed into it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from agent.recording.plain_json import dumps


@contextmanager
def new_file(place: Path) -> Iterator[BinaryIO]:
    """An open file that replaces the one at `place` when the block ends, unless it raises.

    Raises OSError at once where no file can be written there.
    """
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as out:
            yield out
            sync(out)
        partial.replace(place)
        sync_folder(place.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(place: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with new_file(place) as out:
        out.write(text.encode())


def write_json(place: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON whole or not at all."""
    write_text(place, dumps(values, indent=1))


def sync(file: BinaryIO) -> None:
    """Flushes what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
