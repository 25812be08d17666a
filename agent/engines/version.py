"""Whether two machines have the same program: equal results are promised only where they have."""

from __future__ import annotations

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_HOME = Path(__file__).parents[2]
_PACKAGES = ("agent", "modules", "worlds")
_KINDS = {".py", ".yaml", ".json", ".csv", ".j2"}
_LIBRARIES = ("torch", "numpy", "gymnasium", "ale-py")


@functools.cache
def digest() -> str:
    """A hash of the package's files and of the versions of the libraries that compute results."""
    total = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((_HOME / package).rglob("*")):
            if path.suffix in _KINDS and path.is_file():
                total.update(f"{path.relative_to(_HOME).as_posix()}\n".encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    for library in _LIBRARIES:
        try:
            # "2.13.0+cpu" and "2.13.0" are one version on processors.
            total.update(f"{library} {version(library).partition('+')[0]}\n".encode())
        except PackageNotFoundError:
            total.update(f"{library} none\n".encode())
    return total.hexdigest()[:16]
