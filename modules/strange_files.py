"""Files of unknown origin, checked before any byte of them is used.

A file must be regular: opening a fifo waits for ever, a device may have no end. Its size is bounded
before it is read. Its text is read as JSON without pitfalls: bounded depth and numbers.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from modules.messages import ConfigError

TEXT_BYTES = 1 << 22
"""The largest JSON that is read, 4 MB; it may take some ten times as much as Python objects."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}


def require_regular(path: Path, *, links: bool = False) -> int:
    """The size of a regular file, bytes. `links`: a link to one is accepted.

    Raises ConfigError for a file of another kind, OSError where there is none.
    """
    return _regular(path, os.stat(path, follow_symlinks=links))


def read_file(path: Path, most: int, *, links: bool = False) -> bytes:
    """The bytes of a regular file of at most `most` bytes. `links`: a link to one is followed.

    Raises ConfigError, one line, for another kind of file or a larger one; OSError where it cannot
    be read.
    """
    # Kind and size are those of the opened file: a name may lead to another one a moment later.
    require_regular(path, links=links)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        size = _regular(path, os.fstat(file.fileno()))
        if size > most:
            raise ConfigError(
                f"file {path}: expected at most {most:,} bytes, got {size:,}; it is not what it "
                "should be"
            )
        return file.read(size)


def plain_json(text: bytes | str) -> Any:
    """The values of a JSON text. Raises ValueError, one line, also where it is nested too deeply,
    too long, or holds NaN, an infinity or an integer beyond 64 bits.
    """
    if len(text) > TEXT_BYTES:
        raise ValueError(f"expected at most {TEXT_BYTES:,} bytes of JSON, got {len(text):,}")
    try:
        return json.loads(text, parse_constant=_refused, parse_int=_int, parse_float=_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refused(text: str) -> float:
    raise ValueError(f"expected a finite number, got {text}")


def _int(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"expected an integer of 64 bits, got {text:.20}…")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _refused(text[:20])


def _regular(path: Path, status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "none")
        raise ConfigError(f"file {path}: expected a regular file, got {kind}")
    return status.st_size
