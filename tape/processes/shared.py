"""Arrays in memory that a process shares with those that it starts later."""

from __future__ import annotations

import mmap
import weakref
from typing import Any, Sequence

import numpy as np

from tape.mutation import known_elsewhere
from tape.processes.forks import private_in_forks

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
        private_in_forks(self._arrays.memory)
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
