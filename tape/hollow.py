"""Arrays that have a shape, a dtype and no memory: for a computation that is described, not run."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Memory(np.ndarray):
    """What a hollow array and its views have in common: sixteen zeros, in the place of `nbytes`."""

    nominal = 0

    @property
    def nbytes(self) -> int:
        return self.nominal


def hollow(shape: Any, dtype: Any = np.float32) -> np.ndarray:
    """A read-only array of this shape that takes no memory, however large the shape: it holds one zero.

    A Tensor made of one is as hollow. Within `tape.measure` an operator that is given one is not run:
    its result is hollow too, of the shape and dtype that it would have. Elsewhere it is an array of
    zeros like any other, whose results take memory.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype, optional
        Default float32.

    Examples
    --------
    >>> import tape
    >>> tape.Tensor(tape.hollow((1_000_000, 1_000_000))).shape
    (1000000, 1000000)
    """
    memory = Memory(16, np.uint8)
    memory.fill(0)
    array: np.ndarray = np.ndarray(shape, dtype, buffer=memory, strides=(0,) * np.size(shape))
    memory.nominal = array.nbytes
    array.flags.writeable = False
    return array


class Outline(NamedTuple):
    """A hollow array as it is pickled, and so copied: without zeros."""

    shape: tuple
    dtype: Any


def memory_of(array: Any) -> Any:
    """The array that owns the memory of a view."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array


def is_hollow(array: Any) -> bool:
    """Whether an array is a hollow one or a view of one."""
    return type(memory_of(array)) is Memory


def copied(array: np.ndarray) -> np.ndarray:
    """A copy in the same order of memory; of a hollow array another one."""
    return hollow(array.shape, array.dtype) if is_hollow(array) else np.array(array)
