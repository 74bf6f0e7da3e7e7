"""Whether what the tape keeps is still what it was.

A derivative rule runs long after its operator, on arrays that were kept for it. Three things stand
between it and a wrong number:

* What was computed cannot be written to: ``t.data`` and ``np.asarray(t)`` are read-only there.
* What the caller gave as an operand and what a rule asks for is copied.
* A leaf's own array must stay writable, since that is how an optimiser works, and is too large to be
  copied at every use. Of it the tape keeps a checksum, taken when the array is kept and compared when
  it is used. So it does not matter how the array was reached: ``t.data -= step``, ``t.data[0] = 1``,
  ``out=``, or another name for it that is older than the tape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tape.engine import Record

_BLOCK = 4096
# Odd, so that a change of any one word changes the sum; a row for each level of blocks in blocks, so
# that no two words can change places unnoticed.
_WEIGHTS = np.random.default_rng(0).integers(0, 2**63, (3, _BLOCK), dtype=np.uint64) * 2 + 1


class Guard(NamedTuple):
    """An array that a record keeps, and what it was then."""

    name: str              # of the operand, in the operator's signature
    array: np.ndarray
    shape: tuple           # an array's shape and dtype can be assigned to
    dtype: np.dtype
    checksum: Any


def guarded(name: str, array: np.ndarray) -> Guard:
    """A `Guard` on an array as it is now."""
    return Guard(name, array, array.shape, array.dtype, checksum(array))


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
    for name, array, shape, dtype, before in record.guards or ():
        if array.shape != shape or array.dtype != dtype or checksum(array) != before:
            place = f" (recorded at {record.line})" if record.line else ""
            raise RuntimeError(
                f"{record.name}{place}: its {name}, of shape {shape}, was changed in place after this "
                f"operation recorded it, so its gradient would be wrong. Call backward() before the "
                f"update, or give the tensor a new array: t.data = t.data + change.")


def guards_of(named: Iterable[tuple[str, Any]]) -> tuple[Guard, ...]:
    """Guards on those values that are arrays; a NumPy scalar cannot be changed."""
    return tuple(guarded(name, value) for name, value in named if type(value) is np.ndarray)
