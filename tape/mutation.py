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

What an operator of a user's is given, forwards or backwards, is read-only. Raw pointers, weak
references to ``t.data``, and ``.base`` or ``flags.writeable = True`` of a read-only array are beyond
this.

A training loop reads ``t.data`` after its backward, when no record is left, and so pays nothing.
"""

from __future__ import annotations

import sys
import weakref
import zlib
from typing import TYPE_CHECKING, Any, Iterable

import numpy as np

if TYPE_CHECKING:
    from tape.engine import Record

_SMALL = 4096        # bytes


class Guard:
    """Tells whether an array that records keep was changed.

    Attributes
    ----------
    array : what is kept.
    before : its shape, strides, dtype and checksum when it was last surely unchanged; None while
        nobody but its Tensor and the tape has it.
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
    return array.shape, array.strides, array.dtype, checksum(array)     # the first three are settable


def guard_of(tensor: Any, here: int) -> Guard:
    """The guard of a leaf's array, to which the caller holds `here` references besides the Tensor's.

    It is one for all records until the array is handed out.
    """
    guard = None if tensor._guard is None else tensor._guard()
    if guard is None or guard.before is not None:
        known_elsewhere = _references(tensor) > _ALONE + here      # before there is one more
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
    """Equal for equal bytes; different for different ones, but for a chance of 2^-32 in large arrays.

    A small array is its own checksum.
    """
    if array.nbytes <= _SMALL:
        return array.tobytes()
    return zlib.crc32(array.ravel("K").data)       # "K": in the order of memory, without a copy


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
                f"{record.name}{place}: its {record.plan.operator.input_name(name)}, of shape "
                f"{guard.array.shape}, was changed in place after this operation recorded it, so its "
                f"gradient would be wrong. Call backward() before the update, or give the tensor a new "
                f"array: t.data = t.data + change.")


def guards_of(named: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Guard], ...]:
    """Sealed guards on those values that are arrays; a NumPy scalar cannot be changed."""
    return tuple((name, Guard(value, True)) for name, value in named if type(value) is np.ndarray)


def read_only(values: Iterable) -> list:
    """Values, of which arrays (also in tuples) become views that cannot be written to."""
    found = []
    for value in values:
        if type(value) is np.ndarray:
            value = value.view()
            value.flags.writeable = False
        elif isinstance(value, tuple):
            value = tuple(read_only(value))
        found.append(value)
    return found
