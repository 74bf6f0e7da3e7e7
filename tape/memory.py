"""Freed memory is kept for the next step, rather than returned to the system."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3        # malloc.h
_TRIM, _MMAP = 2 ** 30, 2 ** 25                      # bytes; of the second 32 MiB is the most it takes


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory, rather than return it to the system.

    A step of a training allocates the arrays that the last one freed. To return their pages and to have
    new ones cleared takes a third of the time of a step (``tests/bench/LOG.md``). So importing `tape`
    calls this, for the whole process; ``TAPE_KEEP_FREED_MEMORY=0`` in the environment keeps it from
    doing so. What is kept is at most what was in use at one time, up to 1 GiB at the end of the heap.

    It works with glibc; elsewhere it does nothing. Returns whether it worked.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_M_TRIM_THRESHOLD, _TRIM)
                    & libc.mallopt(_M_MMAP_THRESHOLD, _MMAP))
    except (OSError, AttributeError):
        return False


if os.environ.get("TAPE_KEEP_FREED_MEMORY", "1") not in ("", "0"):
    keep_freed_memory()
