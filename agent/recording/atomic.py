"""Files and folders that are written whole or not at all.

Each is written beside its place under a hidden name, flushed to the disk and renamed. A disk that
cannot be written is WriteError, one line; a place where nothing can be is ConfigError.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from agent.recording.plain_json import dumps
from modules.messages import ConfigError, SextetError

_MISPLACED = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EEXIST,
    errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
"""Errors of a path rather than of a disk."""

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, sqlite3.SQLITE_FULL), "free some space"),
    **dict.fromkeys((errno.EROFS, sqlite3.SQLITE_READONLY), "write elsewhere"),
}


class WriteError(SextetError):
    """A disk that is full, read-only or faulty; what stood in the place is as it was."""

    exit_code = 1


@contextmanager
def writing(place: Path | str) -> Iterator[None]:
    """Raises WriteError or ConfigError, one line that names `place`, where the block cannot write.

    Errors of the operating system and of SQLite are known.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        if isinstance(error, OSError) and error.errno in _MISPLACED:
            raise ConfigError(f"{place}: expected a writable place, got: {reason}") from None
        # The lowest byte of SQLite's code is that of its documentation.
        code = error.errno if isinstance(error, OSError) else _sqlite_code(error)
        advice = _ADVICE.get(code or 0, "check the disk")
        raise WriteError(f"{place}: expected a writable disk, got: {reason}; {advice}") from None


def _sqlite_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextmanager
def new_file(place: Path) -> Iterator[BinaryIO]:
    """An open file that replaces the one at `place` when the block ends, unless it raises.

    Raises as `writing`, at once where no file can be written there.
    """
    partial = _partial(place)
    try:
        with writing(place):
            with open(partial, "wb") as out:
                yield out
                sync(out)
            partial.replace(place)
            sync_folder(place.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A hidden folder that is renamed to `place` when the block ends, unless it raises.

    Folders above it are made, and removed again where the block raises. Raises as `writing`.
    """
    partial = _partial(place)
    above = [folder for folder in place.parents if not folder.exists()]
    try:
        with writing(place):
            remove_left(place.parent, place.name[:60])
            partial.mkdir(parents=True)
        yield partial
        with writing(place):
            sync_folder(partial)
            partial.rename(place)
            sync_folder(place.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in above:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, WriteError | ConfigError):
            # The reader of the message knows the folder by its name.
            raise type(error)(str(error).replace(str(partial), str(place))) from None
        raise


def write_bytes(place: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    with new_file(place) as out:
        out.write(data)


def write_text(place: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    write_bytes(place, text.encode())


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


def _partial(place: Path) -> Path:
    # Cut, as a name may have 255 bytes in all.
    return place.with_name(f".{place.name[:60]}.{os.getpid()}.partial")


def remove_left(folder: Path, name: str = "") -> None:
    """Removes from `folder` what killed processes had begun to write there, for `name` or all."""
    for left in folder.glob(".*.partial"):
        *words, number, _ = left.name.split(".")
        begun = name in ("", ".".join(words[1:]))
        if begun and number.isdigit() and not Path("/proc", number).exists():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
