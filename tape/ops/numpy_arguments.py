"""NumPy's reductions and running sums with all the arguments that NumPy gives them.

``np.sum(t, where=mask)`` and the like; our own functions take `axis`, `keepdims` and `ddof` alone.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from tape.ops import cumulative, reductions, statistics
from tape.ops.arithmetic import (
    add, astype, maximum, minimum, mul, ones_like, where as choose)
from tape.ops.joining import concatenate
from tape.ops.series import _part
from tape.primitive import NUMPY_FUNCTIONS, implements
from tape.promotion import plain


def _in_dtype(name: str, x: Any, dtype: Any, out: Any) -> Any:
    """x in the dtype to compute in. A result is never written into an array."""
    if out is not None:
        raise TypeError(f"{name}: a tensor's result cannot be written into an array; leave out= out")
    return x if dtype is None else astype(x, dtype)


def _folds(numpy: Callable, reduce: Callable, join: Callable, empty: float) -> None:
    """A sum or product: `empty` stands for what where= leaves out, `join` adds the initial= value."""
    def fold(x, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
        x = _in_dtype(numpy.__name__, x, dtype, out)
        found = reduce(x if where is True else choose(where, x, empty), axis, keepdims)
        return found if initial is None else join(found, initial)
    _stands_for(numpy, fold)


def _extremes(numpy: Callable, reduce: Callable, join: Callable) -> None:
    """A largest or smallest element, of those where= lets through and the initial= value."""
    def extreme(x, axis=None, out=None, keepdims=False, initial=None, where=True):
        x = _in_dtype(numpy.__name__, x, None, out)
        if where is not True:
            if initial is None:
                raise ValueError(f"{numpy.__name__}: where= needs initial=, the value of nothing")
            x = choose(where, x, initial)
        found = reduce(x, axis, keepdims)
        return found if initial is None else join(found, initial)
    _stands_for(numpy, extreme)


def _stands_for(numpy: Callable, function: Callable) -> None:
    function.__name__ = function.__qualname__ = f"_numpy_{numpy.__name__}"
    NUMPY_FUNCTIONS[numpy] = function


_folds(np.sum, reductions.sum, add, 0)
_folds(np.nansum, statistics.nansum, add, 0)
_folds(np.prod, cumulative.prod, mul, 1)
_folds(np.nanprod, statistics.nanprod, mul, 1)
_extremes(np.max, reductions.max, maximum)
_extremes(np.min, reductions.min, minimum)
_extremes(np.nanmax, statistics.nanmax, maximum)
_extremes(np.nanmin, statistics.nanmin, minimum)
NUMPY_FUNCTIONS[np.amax], NUMPY_FUNCTIONS[np.amin] = NUMPY_FUNCTIONS[np.max], NUMPY_FUNCTIONS[np.min]


def _masked(x, where):
    """x with NaN where it is to be left out, for the functions that leave NaN out."""
    return choose(where, x, np.nan)


@implements(np.mean)
def _numpy_mean(x, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    x = _in_dtype("mean", x, dtype, out)
    if where is True:
        return reductions.mean(x, axis, keepdims)
    count = reductions.sum(choose(where, ones_like(x), 0), axis, keepdims)
    return reductions.sum(choose(where, x, 0), axis, keepdims) / count


def _spread(numpy: Callable, reduce: Callable) -> None:
    name = numpy.__name__

    def spread(x, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None,
               correction=None):
        if where is not True or mean is not None:
            raise TypeError(f"{name}: where= and mean= have no rule here; write the mean of "
                            f"(x - mean) ** 2 with np.mean(..., where=...)")
        x = _in_dtype(name, x, dtype, out)
        return reduce(x, axis, ddof if correction is None else correction, keepdims)
    _stands_for(numpy, spread)


_spread(np.var, reductions.var)
_spread(np.std, reductions.std)
_spread(np.nanvar, statistics.nanvar)
_spread(np.nanstd, statistics.nanstd)


@implements(np.nanmean)
def _numpy_nanmean(x, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    x = _in_dtype("nanmean", x, dtype, out)
    return statistics.nanmean(x if where is True else _masked(x, where), axis, keepdims)


@implements(np.full_like)
def full_like(x, fill_value, dtype=None, order="K", subok=True, shape=None, *, device=None):
    """An array of x's shape and dtype full of a number; a tensor `fill_value` is broadcast."""
    if not any(hasattr(type(value), "__tape_apply__") for value in (plain(x), fill_value)):
        return np.full_like(plain(x), fill_value, dtype, shape=shape)
    if dtype is not None or shape is not None:
        raise TypeError("full_like: with a tensor as fill_value without dtype= and shape=; write "
                        "tape.broadcast_to(fill_value, shape)")
    return reductions.expand_like(fill_value, x)


@implements(getattr(np, "astype", None))
def _numpy_astype(x, dtype, /, *, copy=True, device=None):
    return astype(x, dtype)


@implements(np.where)
def _numpy_where(condition, *choices):
    """``np.where(condition)`` is ``np.nonzero``: places, which are no tensors."""
    return choose(condition, *choices) if choices else np.nonzero(plain(condition))


# --- running sums and products ---


def _runs(numpy: Callable, run: Callable) -> None:
    def running(x, axis=None, dtype=None, out=None):
        return run(_in_dtype(numpy.__name__, x, dtype, out), axis)
    _stands_for(numpy, running)


_runs(np.cumsum, cumulative.cumsum)
_runs(np.cumprod, cumulative.cumprod)
_runs(np.nancumsum, statistics.nancumsum)
_runs(np.nancumprod, statistics.nancumprod)


def _from_first(name: str, run: Callable, first: float) -> Callable:
    """NumPy 2.1's running sum or product, which can begin with that of no elements."""
    def running(x, /, *, axis=None, dtype=None, out=None, include_initial=False):
        x = _in_dtype(name, x, dtype, out)
        if axis is None and np.ndim(x) > 1:
            raise ValueError(f"{name}: x has {np.ndim(x)} axes; axis= must say along which")
        axis = 0 if axis is None else axis
        found = run(x, axis)
        if not include_initial:
            return found
        return concatenate([first * ones_like(_part(found, axis, 0, 1)), found], axis)
    running.__name__ = running.__qualname__ = name
    running.__doc__ = f"`{run.__name__}`, with `include_initial` a {first} before it."
    return implements(getattr(np, name, None))(running)


cumulative_sum = _from_first("cumulative_sum", cumulative.cumsum, 0)
cumulative_prod = _from_first("cumulative_prod", cumulative.cumprod, 1)
