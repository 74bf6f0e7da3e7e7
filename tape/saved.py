"""Whether what the tape keeps is still what it was.

A derivative rule runs long after its operator, on arrays that were kept for it. This stands between
it and a wrong number:

* What was computed cannot be written to: ``t.data`` and ``np.asarray(t)`` are read-only there.
* What the caller gave as an operand and what a rule asks for is copied.
* A leaf's own array must stay writable, since that is how an optimiser works, and is too large to be
  copied at every use. It gets a `Guard`. As long as the Tensor alone holds the array, nobody can
  change it. Before it is handed out, by ``t.data`` or ``np.asarray(t)``, its checksum is taken, and
  compared before a rule uses it. So it does not matter how it is changed: ``t.data -= step``,
  ``t.data[0] = 1``, ``out=``. Where somebody else holds the array when it is recorded, by an older
  name or a view, the checksum is taken at once.

A training loop reads ``t.data`` after its backward, when no record is left, and so pays nothing.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, Iterable

import numpy as np

if TYPE_CHECKING:
    from tape.engine import Record

_BLOCK = 4096
# Odd, so that a change of any one word changes the sum; a row for each level of blocks in blocks, so
# that no two words can change places unnoticed.
_WEIGHTS = np.random.default_rng(0).integers(0, 2**63, (3, _BLOCK), dtype=np.uint64) * 2 + 1


class Guard:
    """Tells whether an array that records keep was changed.

    Attributes
    ----------
    array : what is kept.
    before : its shape, dtype and checksum when it was last surely unchanged; None while nobody but
        its Tensor and the tape has it.
    """

    __slots__ = ("array", "before", "__weakref__")

    def __init__(self, array: np.ndarray, known_elsewhere: bool):
        self.array = array
        self.before: tuple | None = None
        if known_elsewhere:
            self.seal()

    def seal(self) -> None:
        """Note what the array is, before somebody gets hold of it."""
        if self.before is None:
            self.before = _state(self.array)

    def broken(self) -> bool:
        """Whether the array is no longer what it was."""
        return self.before is not None and self.before != _state(self.array)


def _state(array: np.ndarray) -> tuple:
    return array.shape, array.dtype, checksum(array)       # the first two can be assigned to


def guard_of(tensor: Any, names: int) -> Guard:
    """The guard of a leaf's array, whose references are its Tensor and `names` more of our own.

    It is one for all records until the array is handed out.
    """
    guard = None if tensor._guard is None else tensor._guard()
    if guard is None or guard.before is not None:
        known_elsewhere = _references(tensor) > _ALONE + names      # before there is one more
        guard = Guard(tensor._data, known_elsewhere)
        tensor._guard = weakref.ref(guard)
    return guard


def _references(holder: Any) -> int:
    """How many references there are to an array that an object holds. Views refer to it too."""
    return sys.getrefcount(holder._data)


class _Holder:
    def __init__(self) -> None:
        self._data = np.zeros(2)


# What the count is where there is no other; it depends on the version of Python.
_ALONE = _references(_Holder())


def checksum(array: np.ndarray) -> Any:
    """Equal for equal bytes, and different for different ones: surely if they differ in one word of 8
    bytes, and else but for a chance of about 2^-60.

    A small array is its own checksum. Of a larger one it is a weighted sum of its 64-bit words w_ij,
    word j of block i, modulo 2^64: sum_i b_i sum_j a_j w_ij, with fixed odd weights a and b. That
    takes one reading, at the speed of memory.
    """
    if array.nbytes <= _BLOCK:
        return array.tobytes()
    flat = array.ravel("K").view(np.uint8)       # "K": in the order of memory, without a copy
    whole = flat.size // 8 * 8
    return _weighted_sum(flat[:whole].view(np.uint64)), flat[whole:].tobytes()


def _weighted_sum(words: np.ndarray, level: int = 0) -> int:
    weights, whole = _WEIGHTS[level], words.size // _BLOCK * _BLOCK
    total = int(words[whole:] @ weights[:words.size - whole])
    if whole:
        total += _weighted_sum(words[:whole].reshape(-1, _BLOCK) @ weights, level + 1)
    return total % 2**64


def check(record: Record) -> None:
    """Refuse a record of which a kept array was changed since.

    Raises
    ------
    RuntimeError
    """
    for name, guard in record.guards or ():
        if guard.broken():
            place = f" (recorded at {record.line})" if record.line else ""
            raise RuntimeError(
                f"{record.name}{place}: its {name}, of shape {guard.array.shape}, was changed in place "
                f"after this operation recorded it, so its gradient would be wrong. Call backward() "
                f"before the update, or give the tensor a new array: t.data = t.data + change.")


def guards_of(named: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Guard], ...]:
    """Sealed guards on those values that are arrays; a NumPy scalar cannot be changed."""
    return tuple((name, Guard(value, True)) for name, value in named if type(value) is np.ndarray)
