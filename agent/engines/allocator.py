"""How the C library of this process treats freed memory."""

from __future__ import annotations

import ctypes


def keep_freed_memory() -> None:
    """Asks glibc to reuse the memory of freed tensors; does nothing with another C library.

    By default glibc returns tensors of more than 128 KiB to the system and the kernel clears each
    page anew: a third of an update on pixels, a seventh of one on vectors (docs/LOG.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # as <malloc.h> numbers them
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 1 << 26)
