"""The folder of a job: written under a partial name, renamed when it is whole, sent in pieces."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.engines.engine import Job
from modules.messages import SextetError

PARTIAL = ".part-"
"""Begins the name of a folder that is not whole. Such a folder never counts as done."""

_OLD = ".old-"

PIECE_BYTES = 4 * 2**20

Piece = tuple[str, bytes | None]
"""A path inside a folder and bytes to append to that file; None: it is a folder."""


class JobFolderError(SextetError):
    """The folder of a job cannot be written."""

    exit_code = 1


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Raises JobFolderError, one line that names the `folder`, where the block cannot write."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise JobFolderError(
            f"{folder}: expected a writable disk, got: {reason}; free some space or write elsewhere"
        ) from None


def partial(folder: Path, attempt: str = "") -> Path:
    """Where `folder` is written until it is whole; `attempt` tells writers apart."""
    return folder.with_name(f"{PARTIAL}{folder.name}{attempt and '.'}{attempt}")


@contextmanager
def in_folder(job: Job, attempt: str = "") -> Iterator[Path | None]:
    """The folder that the work of a job is given on a disk where `job.folder` can be reached.

    It becomes `job.folder` after the block; where the block raises, it stays as it is.
    """
    if job.folder is None:
        yield None
        return
    part = job.folder if job.resumes else partial(job.folder, attempt)
    with _written(job.folder):
        recover(job.folder)
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        if not job.resumes:
            shutil.rmtree(part, ignore_errors=True)
    yield part
    if not job.resumes:
        complete(part, job.folder)


def complete(part: Path, folder: Path) -> None:
    """Renames a whole `part` to `folder`, unless another attempt has done so: `part` then goes."""
    with _written(folder):
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if folder.exists():
            shutil.rmtree(part)
        else:
            os.rename(part, folder)


def replace(part: Path, folder: Path) -> None:
    """Puts a whole `part` where a `folder` may be; `recover` undoes half of it."""
    old = folder.with_name(f"{_OLD}{folder.name}")
    with _written(folder):
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(part, folder)
        shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Ends what a `replace` that was killed had begun: the `folder` is the old one again."""
    old = folder.with_name(f"{_OLD}{folder.name}")
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)


def pieces(folder: Path) -> Iterator[Piece]:
    """All that is in a folder, files in pieces of at most `PIECE_BYTES`."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            yield name, None
            continue
        with open(path, "rb") as file:
            yield name, file.read(PIECE_BYTES)
            while data := file.read(PIECE_BYTES):
                yield name, data


def put_together(received: Iterable[Piece], folder: Path) -> None:
    """Writes pieces, in their order, into a folder. Raises JobFolderError."""
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in received:
            place = folder / name
            if data is None:
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place, "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
