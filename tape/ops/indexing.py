"""Operators that pick elements: the gradient is added to the places that they came from."""

from __future__ import annotations

import math

import numpy as np

from tape import kernels
from tape.primitive import derivative
from tape.promotion import plain


_FEW = 2 ** 10          # elements; rows of fewer, one array of them after the other, are not worth it


def _add_at(total, g, like, index):
    """total[index] += g, where an element that is picked k times gets k terms."""
    if not _has_integer_array(index):           # slices and masks reach each element once
        total[index] += g
        return
    axis, ids = _rows_along(index, total.ndim)
    lead = total.shape[:axis]
    if axis is None or axis and g.size < _FEW * math.prod(lead):
        kernels.add_elements(total, g, places(total.shape, lambda x: x[index]))
        return
    ids = ids.astype(np.intp) % max(total.shape[axis], 1)
    g = np.reshape(g, (*lead, ids.size, math.prod(total.shape[axis + 1:])))
    for place in np.ndindex(lead):
        kernels.find("add_rows")(total[place], g[place], ids)


def _rows_along(index, ndim):
    """The axis along which rows are picked, and their numbers; (None, None) if an index does more."""
    parts = index if isinstance(index, tuple) else (index,)
    (place, ids), *more = [(i, part) for i, part in enumerate(parts) if isinstance(part, np.ndarray)]
    others = [part for part in parts if part is not Ellipsis and part is not ids]
    if more or any(part != slice(None) for part in others):
        return None, None
    return place + (ndim - len(parts) if Ellipsis in parts[:place] else 0), ids


def places(shape, pick):
    """Where `pick` finds its elements in x.reshape(-1): the sum over axes of coordinate times step."""
    found, step = np.zeros((), np.intp), 1
    for axis in reversed(range(len(shape))):
        coordinate = np.arange(shape[axis]).reshape(-1, *(1,) * (len(shape) - 1 - axis))
        found = found + step * pick(np.broadcast_to(coordinate, shape))
        step *= shape[axis]
    return found


def _has_integer_array(index) -> bool:
    return any(isinstance(i, np.ndarray) and i.dtype.kind in "iu"
               for i in (index if isinstance(index, tuple) else (index,)))


@derivative(lambda g, index: getitem(g, index), None)
def scatter_like(g, like, /, index):
    """Zeros of the shape of `like`, with g added at `index`: the transpose of picking.

    Picking an element k times copies it k times, so its gradient is the sum of k terms.
    """
    total = np.zeros(like.shape, kernels.sum_dtype(g.dtype))
    _add_at(total, g, like, index)
    return total


@derivative(lambda g, like_x, index: scatter_like(g, like_x, index), name="getitem",
            scatter=_add_at, gather=lambda g, like_x, index: getitem(g, index))
def _getitem(x, /, index):
    return x[index]


def getitem(x, index):
    """x[index], for all that NumPy takes: ints, slices, None, ..., boolean and integer arrays."""
    if isinstance(index, tuple):
        return _getitem(x, tuple(map(_as_index, index)))
    return _getitem(x, _as_index(index))


def _as_index(index):
    """One part of an index; a sequence of any kind is an array there, for NumPy and for us."""
    if index is None or index is Ellipsis or isinstance(index, (slice, int, np.integer)):
        return index
    array = np.asarray(plain(index))
    if array.size and array.dtype.kind == "f":
        raise IndexError(f"getitem: an index must be of integers or booleans, got {array.dtype}. Keep "
                         f"ids in an array: np.array([0, 1])")
    return array if array.size or array.dtype.kind in "biu" else array.astype(int)


def _add_looked_up(total, g, ids, like):
    kernels.find("add_rows")(total, g, np.asarray(ids))


@derivative(lambda g, ids, like_weight: embedding_gradient(g, ids, like_weight), None,
            name="embedding", scatter=_add_looked_up,
            gather=lambda g, ids, like_weight: embedding(g, ids))
def _embedding(weight, ids, /):
    """Rows of a table: weight (V, D), ids (...) integers in [0, V) -> (..., D)."""
    ids = np.asarray(ids)
    if np.ndim(weight) != 2:
        raise ValueError(f"embedding: the table must have two axes, (V, D); got shape "
                         f"{np.shape(weight)}")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids must be integers, got dtype {ids.dtype}")
    # NumPy would wrap a negative id around silently.
    if ids.size and (ids.min() < 0 or ids.max() >= len(weight)):
        bad = ids[(ids < 0) | (ids >= len(weight))].flat[0]
        raise IndexError(f"embedding: ids must be in [0, {len(weight)}), the rows of the table; "
                         f"got {bad} among ids of shape {ids.shape}")
    return weight[ids]


def embedding(weight, ids):
    """Rows of a table: weight (V, D), ids (...) integers in [0, V) -> (..., D).

    Equal to one_hot(ids) @ weight, so a row's gradient is the sum of g over the places it went to.
    """
    return _embedding(weight, ids)


@derivative(lambda g, ids: embedding(g, ids), None, None)
def embedding_gradient(g, ids, like_weight, /):
    """The gradient of the table: g summed by row."""
    return kernels.scatter_rows(g, np.asarray(ids), like_weight.shape[0])


# --- several picks from one value, undone together ---


def _gather_all(g, like_pieces, operators, args):
    return [operator.gather(g, *rest) for operator, rest in zip(operators, args)]


@derivative(_gather_all)
def scatter_add(*pieces, operators, args, shape):
    """The gradient of a value of this shape from which several operators picked elements.

    Picking is linear, L = sum_i <g_i, pick_i(x)>, so the gradient of x is the sum of the g_i put back
    to their places, and the gradient of each g_i is what pick_i picks.
    """
    total = np.zeros(shape, kernels.sum_dtype(np.result_type(*pieces)))
    for operator, piece, rest in zip(operators, pieces, args):
        operator.scatter(total, piece, *rest)
    return total
