"""Processes that the program forks, and that are no workers.

They have the leaves as they were at the fork, as they would without shared memory: what they change in
them the program does not see. Arrays stay where they are; the memory under them becomes another. The
workers are not theirs.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from contextlib import contextmanager
from typing import Any, Iterator
from weakref import WeakSet

_memories: WeakSet[mmap.mmap] = WeakSet()
_told: WeakSet[Any] = WeakSet()
_forking = threading.local()


def private_in_forks(memory: mmap.mmap) -> None:
    """Give processes that are forked from now on a copy of this memory, which all would share."""
    _memories.add(memory)


def tell_forks(one: Any) -> None:
    """Call ``one.after_fork()`` in processes that are forked from now on, workers too."""
    _told.add(one)


@contextmanager
def workers_share() -> Iterator[None]:
    """A process that this thread forks in this block is a worker, and shares the memory."""
    _forking.worker = True
    try:
        yield
    finally:
        _forking.worker = False


def _before() -> None:
    own = not getattr(_forking, "worker", False)
    _forking.contents = [(memory, memory[:]) for memory in _memories] if own else []


def _after_in_parent() -> None:
    _forking.contents = []


def _after_in_child() -> None:
    for memory, content in _forking.contents:
        place = ctypes.c_char.from_buffer(memory)
        found = _map(ctypes.addressof(place), len(memory), mmap.PROT_READ | mmap.PROT_WRITE,
                     mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED, -1, 0)
        if found != ctypes.addressof(place):
            os._exit(1)                # it would change what is the program's
        memory[:] = content
    _forking.contents = []
    for one in [*_told]:
        one.after_fork()


if sys.platform.startswith("linux"):
    _MAP_FIXED = 16
    _map = ctypes.CDLL(None).mmap
    _map.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
    _map.restype = ctypes.c_void_p
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent,
                        after_in_child=_after_in_child)
