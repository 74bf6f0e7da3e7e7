"""NumPy's functions on Tensors: ``np.exp(t)``, ``np.sum(t)``, ``array * t``.

NumPy hands every call that involves a Tensor to the two functions below (its protocols
``__array_ufunc__``, NEP 13, and ``__array_function__``, NEP 18). What we have a derivative for is
recorded; what has none by nature (comparisons, argmax, shapes) is computed on the array; the rest
is refused by name, since silently losing a gradient is worse.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from tape import ops
from tape.errors import nearest
from tape.primitive import NUMPY_FUNCTIONS, Comparison
from tape.promotion import plain

# Functions of the values alone: no derivative to lose, so they work on the array.
_PLAIN: set[Any] = {
    np.shape, np.ndim, np.size, np.argmax, np.argmin, np.argsort, np.argwhere, np.nonzero,
    np.flatnonzero, np.count_nonzero, np.any, np.all, np.array_equal, np.allclose, np.isclose,
    np.zeros_like, np.ones_like, np.full_like, np.empty_like, np.result_type, np.can_cast,
    np.array_repr, np.array_str, np.array2string, np.shares_memory, np.may_share_memory,
    np.iscomplexobj, np.isrealobj,
    np.floor, np.ceil, np.rint, np.floor_divide,
    np.einsum_path, np.linalg.matrix_rank,
} | {function for function, ours in NUMPY_FUNCTIONS.items() if isinstance(ours, Comparison)}


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple, kwargs: dict) -> Any:
    """What a NumPy ufunc does when one of its operands is a Tensor."""
    if kwargs.get("out") is not None:
        raise TypeError(f"{ufunc.__name__}: a tensor's result cannot be written into an array, the "
                        f"record would be lost. Write x = x + t for x += t.")
    if method == "reduce" and ufunc in _REDUCTIONS:
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
        kwargs.setdefault("axis", 0)
        return _REDUCTIONS[ufunc](*inputs, **kwargs)
    if method != "__call__":
        raise TypeError(f"{ufunc.__name__}.{method}: not recorded for tensors. "
                        f"{advice(ufunc.__name__)}")
    return call_function(ufunc, inputs, kwargs)


def call_function(function: Callable, args: tuple, kwargs: dict) -> Any:
    """What any other NumPy function does when one of its arguments is a Tensor."""
    if function in _PLAIN:
        return function(*map(_unwrap, args), **{k: _unwrap(v) for k, v in kwargs.items()})
    if function not in NUMPY_FUNCTIONS:
        raise TypeError(f"numpy.{function.__name__} has no derivative rule here. "
                        f"{advice(function.__name__)}")
    return NUMPY_FUNCTIONS[function](*args, **kwargs)


_REDUCTIONS = {np.add: ops.sum, np.maximum: ops.max, np.minimum: ops.min}


def advice(name: str, plain_values: str = "t.numpy()") -> str:
    """What to write instead of a NumPy function that has no operator."""
    near = nearest(name, ops.__all__, cutoff=0.5)
    ours = f"The nearest of ours is tape.{near}. " if near else ""
    return (f"{ours}On plain values: {plain_values}. To add a rule: tape.primitive(forward, "
            f"derivative).")


def _unwrap(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_unwrap, value))
    return plain(value)
