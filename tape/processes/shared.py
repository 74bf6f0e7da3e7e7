"""Arrays in memory that a process shares with those that it starts later."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import weakref
from contextlib import contextmanager
from typing import Any, Iterator, Sequence

import numpy as np

from tape.mutation import known_elsewhere

_memories: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_forking = threading.local()
_LINE = 64           # bytes: arrays begin where a line of the cache does


class SharedArrays:
    """Arrays of some shapes and dtypes, one behind the other in one piece of shared memory."""

    def __init__(self, likes: Sequence):
        self.likes = [(like.shape, like.dtype) for like in likes]
        sizes = [-(-like.dtype.itemsize * like.size // _LINE) * _LINE for like in likes]
        self._starts = np.cumsum([0, *sizes]).tolist()
        self.memory = mmap.mmap(-1, max(self._starts[-1], 1))

    def __getitem__(self, i: int) -> np.ndarray:
        """Array i; the object is made anew, so that the caller alone refers to it."""
        shape, dtype = self.likes[i]
        return np.ndarray(shape, dtype, self.memory, self._starts[i])


class SharedLeaves:
    """Leaves whose values other processes see.

    A leaf gets an array in shared memory in the place of its own, so that an update in place is seen at
    once. As long as somebody else has its array (by ``t.data``, or a record that saved it), and could
    change it, the leaf keeps that, and it is copied for each call.
    """

    def __init__(self, leaves: Sequence):
        self.leaves = [*leaves]
        self._arrays = SharedArrays([leaf._data for leaf in leaves])
        _memories.add(self._arrays.memory)
        self._given: list[Any] = [lambda: None] * len(leaves)     # weak: references are counted

    def fits(self, leaves: Sequence) -> bool:
        """Whether the leaves are these, with the shapes and dtypes for which there is memory."""
        return len(leaves) == len(self.leaves) and all(
            leaf is own and (leaf._data.shape, leaf._data.dtype) == like
            for leaf, own, like in zip(leaves, self.leaves, self._arrays.likes))

    def held(self) -> bool:
        """Whether somebody still has an array in the shared memory that is the leaf's no more.

        As the values of before that a program goes back to later, or a record that saved them.
        """
        return any(given() is not None and given() is not leaf._data
                   for given, leaf in zip(self._given, self.leaves))

    def differs(self) -> bool:
        """Whether the shared memory has not yet the values of the leaves."""
        return any(given() is not leaf._data and not np.array_equal(self._arrays[i], leaf._data)
                   for i, (given, leaf) in enumerate(zip(self._given, self.leaves)))

    def bring_up_to_date(self) -> None:
        """See to it that the shared memory has the values of the leaves."""
        for i, leaf in enumerate(self.leaves):
            if self._given[i]() is leaf._data:
                continue
            array = self._arrays[i]
            array[...] = leaf._data
            if not known_elsewhere(leaf):
                leaf._own(array)
                self._given[i] = weakref.ref(array)

    def take_over(self) -> None:
        """In a process that was just started: the leaves have the shared arrays."""
        for i, leaf in enumerate(self.leaves):
            leaf._own(self._arrays[i])
            leaf._grad = None


# --- processes that the program forks, and that are no workers ---

# They have the leaves as they were at the fork, as they would without shared memory, and what they
# change in them the program does not see. Arrays stay where they are; the memory under them becomes
# another.

@contextmanager
def forks_share() -> Iterator[None]:
    """A process that this thread forks in this block shares the memory."""
    _forking.workers = True
    try:
        yield
    finally:
        _forking.workers = False


def _before_fork() -> None:
    own = not getattr(_forking, "workers", False)
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


if sys.platform.startswith("linux"):
    _MAP_FIXED = 16
    _map = ctypes.CDLL(None).mmap
    _map.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
    _map.restype = ctypes.c_void_p
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent,
                        after_in_child=_after_in_child)
