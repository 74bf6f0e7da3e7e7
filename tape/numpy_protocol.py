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
from tape.comparison import Comparison
from tape.numpy_hints import HINTS
from tape.primitive import NUMPY_FUNCTIONS
from tape.promotion import plain

_OF_THE_VALUES_ALONE: tuple[Any, ...] = (
    np.shape, np.ndim, np.size, np.argmax, np.argmin, np.nanargmax, np.nanargmin, np.argsort,
    np.argpartition, np.lexsort, np.argwhere, np.nonzero, np.flatnonzero, np.count_nonzero, np.any,
    np.all, np.array_equal, np.array_equiv, np.allclose, np.isclose, np.isin, np.searchsorted,
    np.digitize, np.isposinf, np.isneginf, np.isreal, np.iscomplex, np.iscomplexobj, np.isrealobj,
    np.zeros_like, np.ones_like, np.empty_like, np.result_type, np.can_cast, np.min_scalar_type,
    np.common_type, np.array_repr, np.array_str, np.array2string, np.shares_memory,
    np.may_share_memory, np.diag_indices_from, np.tril_indices_from, np.triu_indices_from, np.ix_,
    np.save, np.savez, np.savez_compressed, np.savetxt, np.linalg.matrix_rank, np.einsum_path,
    *([np.in1d] if hasattr(np, "in1d") else []),       # the older name of isin
    # of integers
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert, np.left_shift, np.right_shift,
    np.bitwise_count, np.gcd, np.lcm, np.packbits, np.unpackbits, np.ravel_multi_index,
    np.unravel_index, np.isnat,
    *(function for function, ours in NUMPY_FUNCTIONS.items() if isinstance(ours, Comparison)))

# Functions without a derivative to lose, which work on the array, unless `implements` has since been
# told otherwise: with what stood for each in NUMPY_FUNCTIONS, for Nodes.
CONSTANT: dict[Any, Any] = {f: NUMPY_FUNCTIONS.get(f) for f in _OF_THE_VALUES_ALONE}


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple, kwargs: dict) -> Any:
    """What a NumPy ufunc does when one of its operands is a Tensor."""
    if kwargs.get("out") is not None:
        raise TypeError(f"{ufunc.__name__}: a tensor's result cannot be written into an array, the "
                        f"record would be lost. Write x = x + t for x += t, and for x[i:] += t "
                        f"x = tape.concatenate([x[:i], x[i:] + t]).")
    kwargs = {name: value for name, value in kwargs.items() if name != "out"}
    if method == "__call__":
        return call_function(ufunc, inputs, kwargs)
    if method == "outer" and not kwargs:
        x, y = inputs
        return ufunc(x[(..., *(None,) * np.ndim(y))], y)
    if (ufunc, method) not in _METHODS:
        raise TypeError(f"{ufunc.__name__}.{method}: not recorded for tensors. "
                        f"{advice(ufunc)}")
    return _METHODS[ufunc, method](*inputs, **{"axis": 0, **kwargs})


def call_function(function: Any, args: tuple, kwargs: dict) -> Any:
    """What any other NumPy function does when one of its arguments is a Tensor."""
    ours = NUMPY_FUNCTIONS.get(function)
    if function in CONSTANT and CONSTANT[function] is ours:
        return function(*map(_unwrap, args), **{k: _unwrap(v) for k, v in kwargs.items()})
    if ours is None:
        raise TypeError(f"{full_name(function)} has no derivative rule here. {advice(function)}")
    return ours(*args, **kwargs)


_METHODS: dict[Any, Callable] = {
    (np.add, "reduce"): NUMPY_FUNCTIONS[np.sum], (np.add, "accumulate"): ops.cumsum,
    (np.multiply, "reduce"): NUMPY_FUNCTIONS[np.prod], (np.multiply, "accumulate"): ops.cumprod,
    (np.maximum, "reduce"): NUMPY_FUNCTIONS[np.max], (np.minimum, "reduce"): NUMPY_FUNCTIONS[np.min],
    (np.logaddexp, "reduce"): ops.logsumexp}


def full_name(function: Callable) -> str:
    """How a program calls a function: ``numpy.fft.fft``; that of a ufunc of another library alone."""
    name = function.__name__
    if isinstance(function, np.ufunc):
        return f"numpy.{name}" if getattr(np, name, None) is function else name
    module = getattr(function, "__module__", None) or "numpy"
    return f"{module}.{name}"


def advice(function: Callable, plain_values: str = "t.numpy()") -> str:
    """What to write instead of a NumPy function that has no operator."""
    name = full_name(function)
    hint = HINTS.get("fft" if name.startswith("numpy.fft.") else name.removeprefix("numpy."), "")
    return (f"{hint and hint + '. '}On plain values: {plain_values}. To add a rule: "
            f"@tape.implements({name.replace('numpy.', 'np.')}) above an operator made by "
            f"tape.primitive(forward, derivative), or above a function made of operators.")


def _unwrap(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_unwrap, value))
    return plain(value)
