"""A function with its state, as a model with what it holds, as bytes for another process."""

from __future__ import annotations

import io
import pickle
import sys
import types
from typing import Any, Callable, Sequence

from tape.tensor import Tensor


class Inherited:
    """Functions and classes that have no name in a module, which a process has since it was started."""

    def __init__(self) -> None:
        self.objects: list = []
        self._numbers: dict[int, int] = {}

    def number(self, value: Any) -> int:
        """Its place in the list; where it is new, processes must be started anew to know it."""
        _check_closures(value)
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self._numbers[id(value)]


# In a worker: what numbers in a snapshot stand for.
leaves_here: Sequence = ()
inherited_here: Sequence = ()


def _leaf(number: int, requires_grad: bool, attributes: dict | None) -> Tensor:
    leaf = leaves_here[number]
    leaf._requires_grad = requires_grad
    if attributes is not None:                   # of a subclass
        vars(leaf).clear()
        vars(leaf).update(attributes)
    return leaf


def _inherited(number: int) -> Any:
    return inherited_here[number]


class _Pickler(pickle.Pickler):
    """Leaves that are shared, and what processes inherit, go by their numbers."""

    def __init__(self, file: Any, leaves: Sequence, inherited: Inherited):
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._numbers = {id(leaf): i for i, leaf in enumerate(leaves)}
        self._inherited = inherited

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            number = self._numbers.get(id(value))
            if number is not None:
                return _leaf, (number, value._requires_grad, getattr(value, "__dict__", None))
            if value._requires_grad:
                raise ValueError(
                    f"a Tensor of shape {value.shape} that wants a gradient is not among the leaves "
                    f"that are shared, as the parameters of a model, so its gradient would be lost")
        elif isinstance(value, (types.FunctionType, type)) and not _has_name(value):
            return _inherited, (self._inherited.number(value),)
        return NotImplemented


# What pickle raises of its own; a signal's handler may raise anything else meanwhile.
PICKLE_ERRORS = (pickle.PickleError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError)


def _has_name(value: Any) -> bool:
    """Whether it is what its module has under its name."""
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def _check_closures(value: Any) -> None:
    """Refuse what uses variables of the function around it."""
    values = [value]
    if isinstance(value, type):
        values = [getattr(item, "__func__", item) for kind in value.__mro__ if not _has_name(kind)
                  for item in vars(kind).values()]
    for function in values:
        names = {*getattr(getattr(function, "__code__", None), "co_freevars", ())} - {"__class__"}
        if names:
            raise ValueError(
                f"{function.__qualname__} uses {', '.join(sorted(names))} of the function around it, "
                f"whose changes another process would not see. Keep it in an attribute")


def dump(function: Callable, leaves: Sequence, inherited: Inherited) -> bytes:
    """The function as bytes.

    Raises
    ------
    TypeError
        Something in it cannot be sent to another process.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, leaves, inherited).dump(function)
    except PICKLE_ERRORS as error:
        raise TypeError(f"WorkerProcesses: what the function holds must be of a kind that can be sent "
                        f"to another process: {error}. Or compute in threads, processes=False"
                        ) from error
    return file.getvalue()


def load(data: bytes) -> Callable:
    """In a worker: the function."""
    return pickle.loads(data)
