"""Whether a saved array was changed in place before the backward pass needs it.

A derivative rule runs long after its operator, on arrays that were saved for it. If one of them was
changed in between, the gradient would be wrong. So:

* What was computed cannot be written to: ``t.data`` and ``np.asarray(t)`` are read-only there.
* What the caller gave as an operand and what a rule asks for is copied.
* A leaf's own array must stay writable, since that is how an optimiser works, and is too large to be
  copied at every use. It gets a `Version`. As long as the Tensor alone holds the array, nobody can
  change it. Before the caller gets it, by ``t.data`` or ``np.asarray(t)``, its checksum is taken, and
  compared before a rule uses it. So it does not matter how it is changed: ``t.data -= step``,
  ``t.data[0] = 1``, ``out=``. Where somebody else holds the array when it is recorded, by an older
  name or a view, the checksum is taken at once. (A version counter, as other engines have, would
  count only the changes that go through the engine.)

The forward and the rules of a user's operator are given read-only arrays. Not noticed are changes
through raw pointers, weak references to ``t.data``, and ``.base`` or ``flags.writeable = True`` of a
read-only array.

A training loop reads ``t.data`` after its backward, when no record is left, and so pays nothing.
"""

from __future__ import annotations

import functools
import sys
import threading
import zlib
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

import numpy as np

from tape.errors import place_of
from tape.hollow import copied, is_hollow

if TYPE_CHECKING:
    from tape.engine import Record

_SMALL = 4096        # bytes
_making = threading.Lock()


class Version:
    """What an array was when records saved it.

    Attributes
    ----------
    array : what is saved.
    state : its shape, strides, dtype and checksum while it was surely unchanged; None as long as
        nobody but its Tensor and the tape has it.
    """

    __slots__ = ("array", "state")

    def __init__(self, array: np.ndarray, known_elsewhere: bool):
        self.array = array
        self.state: tuple | None = None
        if known_elsewhere:
            self.note()

    def note(self) -> None:
        """Note what the array is, before the caller gets it."""
        if self.state is None:
            self.state = _state(self.array)

    def changed(self) -> bool:
        """Whether the array is no longer what it was."""
        return self.state is not None and self.state != _state(self.array)


def _state(array: np.ndarray) -> tuple:
    return array.shape, array.strides, array.dtype, checksum(array)     # the first three are settable


def version_of(tensor: Any, held: Sequence = ()) -> Version:
    """The version of a leaf's array, to which the caller refers as often as it stands in `held`.

    It is one for all records until the caller gets the array, in whichever thread they are made: of two
    the tensor would know one only, and note no change of the other. When no record is left, the tensor
    keeps it for the next, which asks anew who else has the array.
    """
    version = tensor._version
    if version is None:
        with _making:
            version = tensor._version
            if version is None:
                if _known_elsewhere(tensor, held, 0):
                    return Version(tensor._data, True)
                version = tensor._version = Version(tensor._data, False)
    elif sys.getrefcount(tensor._version) <= _IN_SLOT and _known_elsewhere(tensor, held, 1):
        return Version(tensor._data, True)
    return version


def _known_elsewhere(tensor: Any, held: Sequence, versions: int) -> bool:
    """Whether others refer to a leaf's array than the tensor, so many versions and `held`."""
    others = sys.getrefcount(tensor._data) - _ALONE - versions         # views refer to it too
    array = tensor._data
    for other in held[:12]:             # not all: too low a count costs a checksum, no more
        if other is array:
            others -= 1
    return others > 0


def known_elsewhere(tensor: Any) -> bool:
    """Whether others refer to a leaf's array than the leaf: views, records, who called ``t.data``."""
    return _known_elsewhere(tensor, (), tensor._version is not None)


def note(tensor: Any) -> None:
    """Note what a leaf's array is, if a record saved it, before the caller gets it."""
    version = tensor._version
    if version is not None and sys.getrefcount(tensor._version) > _IN_SLOT:
        tensor._version = None               # what is recorded from here on asks anew
        version.note()


class _Holder:
    def __init__(self) -> None:
        self._data = np.zeros(2)


# What the counts are where there is no other; they depend on the version of Python.
_holder = _Holder()
_ALONE = sys.getrefcount(_holder._data)
_IN_SLOT = _ALONE + 1                # and in a variable


def checksum(array: np.ndarray) -> Any:
    """Equal for equal bytes; different for different ones, but for a chance of 2^-32 in large arrays.

    A small array is its own checksum. A hollow one needs none: nobody can write to it.
    """
    if is_hollow(array):
        return None
    if 0 in array.strides:                           # each element once, however often it is repeated
        array = array[tuple(slice(None) if step else slice(1) for step in array.strides)]
    if array.nbytes <= _SMALL:
        return array.tobytes()
    return zlib.crc32(array.ravel("K").data)       # "K": in the order of memory, without a copy


def check(record: Record) -> None:
    """Refuse a record of which a saved array was changed since.

    Raises
    ------
    RuntimeError
    """
    for name, version in record.versions or ():
        if version.state is not None and version.changed():
            place = f" (recorded at {record.line})" if record.line else ""
            raise RuntimeError(
                f"{record.name}{place}: its {record.vjp.operator.input_name(name)}, of shape "
                f"{version.array.shape}, was changed in place after this operation recorded it, so its "
                f"gradient would be wrong. Call backward() before the update, or give the tensor a new "
                f"array: t.data = t.data + change.")


def versions_of(named: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Version], ...]:
    """Versions of those values that are arrays, with checksums; a NumPy scalar cannot be changed."""
    return tuple((name, Version(value, True)) for name, value in named if type(value) is np.ndarray)


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


def protected_rule(rule: Callable, operator: str) -> Callable:
    """A user's rule, which may write to its g, but not to what the tape saved."""
    @functools.wraps(rule)
    def call(g: Any, *args: Any) -> Any:
        try:
            return rule(np.array(g) if type(g) is np.ndarray else g, *read_only(args))
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise ValueError(
                f"{operator}: a derivative rule must not write to what the tape keeps for it; it "
                f"may write to its first parameter. The rules stand at "
                f"{place_of(rule, operator)}") from error
    return call


def references(array: np.ndarray) -> int:
    """How often an array is referred to, as seen from here."""
    return sys.getrefcount(array)


def _references_to_a_new_array() -> int:
    array = np.zeros(1)
    return references(array)


_NEW = _references_to_a_new_array() + 1         # and by the variable of who calls `copied_if_held`


def copied_if_held(out: np.ndarray) -> np.ndarray:
    """A result, copied if whoever made it may have kept it, or it is a view."""
    return copied(out) if out.base is not None or references(out) > _NEW else out


def copied_if_shared(out: np.ndarray, writable: Iterable[np.ndarray]) -> np.ndarray:
    """A result, copied if it may share memory with one of the arrays that others can write to."""
    for array in writable:
        if np.may_share_memory(out, array):
            return copied(out)
    return out
