"""Operators that move elements and change none: each gradient is moved back the same way."""

from __future__ import annotations

import math

import numpy as np

from tape import kernels
from tape.saved import stand_in
from tape.primitive import derivative, implements, joint_derivative


@derivative(lambda g, like_x: reshape_like(g, like_x), None)
def reshape_like(x, like, /):
    """x in the shape of `like`."""
    return np.reshape(x, like.shape)


@derivative(lambda g, like_x: reshape_like(g, like_x), numpy=np.reshape)
def reshape(x, /, shape):
    """x with the same elements, in the same order, in another shape (-1: what is left over)."""
    return np.reshape(x, shape)


@derivative(lambda g, like_x: reshape_like(g, like_x), numpy=np.expand_dims)
def expand_dims(x, /, axis):
    """x with an axis of length 1 put in at `axis` (an int or a tuple)."""
    return np.expand_dims(x, axis)


@derivative(lambda g, like_x: reshape_like(g, like_x), numpy=np.squeeze)
def squeeze(x, /, axis=None):
    """x without its axes of length 1 (or only without those in `axis`)."""
    return np.squeeze(x, axis=axis)


@derivative(lambda g, axes: np.transpose(g, None if axes is None else _inverse(axes)),
            numpy=np.transpose)
def transpose(x, /, axes=None):
    """x with its axes permuted: axis i of the result is axis ``axes[i]`` of x.

    None reverses them. The gradient goes through the inverse permutation, which sorting gives:
    ``axes[argsort(axes)[j]] == j``. With no axes it is the same reversal again.
    """
    return np.transpose(x, axes)


def _inverse(axes):
    return tuple(np.argsort([axis % len(axes) for axis in axes]).tolist())


@derivative(lambda g, axis1, axis2: np.swapaxes(g, axis1, axis2), numpy=np.swapaxes)
def swapaxes(x, /, axis1, axis2):
    """x with two axes exchanged; its own inverse."""
    return np.swapaxes(x, axis1, axis2)


@derivative(lambda g, source, destination: np.moveaxis(g, destination, source), numpy=np.moveaxis)
def moveaxis(x, /, source, destination):
    """x with the axes `source` (an int or a tuple) moved to the places `destination`."""
    return np.moveaxis(x, source, destination)


@derivative(lambda g: g, numpy=np.broadcast_to)       # the engine sums over the copies
def broadcast_to(x, /, shape):
    """x repeated along new axes and axes of length 1, to fill `shape`, without copying."""
    return np.broadcast_to(x, shape)


# --- joining ---


@derivative(None)
def joints(*like, axis):
    """Where each of some arrays begins when they are joined along `axis`, and where the last ends."""
    return np.cumsum([0, *(x.shape[axis] for x in like)])


@derivative(lambda g, like_x, bounds, axis, i: paste_like(g, like_x, bounds, axis, i), None)
def cut(x, bounds, /, axis, i):
    """Piece i of x along `axis`, from ``bounds[i]`` to ``bounds[i + 1]``."""
    return x[_along(axis, x.ndim, bounds[i], bounds[i + 1])]


@derivative(lambda g, bounds, axis, i: cut(g, bounds, axis, i), None, None)
def paste_like(x, like, bounds, /, axis, i):
    """Zeros of the shape of `like` with x in the place of piece i."""
    total = np.zeros(like.shape, kernels.sum_dtype(x.dtype))
    total[_along(axis, like.ndim, bounds[i], bounds[i + 1])] = x
    return total


def _along(axis, ndim, start, stop):
    return (*(slice(None),) * (axis % ndim), slice(start, stop))


def _pieces(x, bounds, axis, count):
    """x between one bound and the next, along `axis`; of nodes the bounds are known when they run."""
    if not isinstance(bounds, np.ndarray):
        return [cut(x, bounds, axis, i) for i in range(count)]
    ends = bounds.tolist()
    return [getitem(x, _along(axis, x.ndim, *ends[i:i + 2])) for i in range(count)]


def _cut_at_joints(g, like_arrays, axis):
    return _pieces(g, joints(*like_arrays, axis=axis), axis, len(like_arrays))


@joint_derivative(_cut_at_joints)
def _concatenate(*arrays, axis=0):
    return np.concatenate(arrays, axis=axis)


_concatenate.name = "concatenate"


@implements(np.concatenate)
def concatenate(arrays, axis=0):
    """Join tensors along an axis that they have (None: flattened); each gets its own piece back."""
    if axis is None:
        arrays, axis = [reshape(array, (-1,)) for array in arrays], 0
    return _concatenate(*arrays, axis=axis)


def _unstack(g, like_arrays, axis):
    pieces = moveaxis(g, axis, 0)
    return [pieces[i] for i in range(len(like_arrays))]


@joint_derivative(_unstack)
def _stack(*arrays, axis=0):
    return np.stack(arrays, axis=axis)


_stack.name = "stack"


@implements(np.stack)
def stack(arrays, axis=0):
    """Join tensors of one shape along a new axis; each gets its own slice of the gradient."""
    return _stack(*arrays, axis=axis)


@derivative(lambda g, like_x, pad_width: unpad_like(g, like_x, pad_width))
def _pad(x, /, pad_width, constant_values=0):
    return np.pad(x, pad_width, constant_values=constant_values)


_pad.name = "pad"


@implements(np.pad)
def pad(x, pad_width, mode="constant", constant_values=0):
    """x with a constant added around it; `pad_width` is NumPy's: n, (before, after), a pair an axis."""
    if mode != "constant":
        raise TypeError(f"pad: mode must be 'constant', got {mode!r}. Build other borders by "
                        f"indexing and concatenate.")
    return _pad(x, pad_width, constant_values)


@derivative(lambda g, pad_width: pad(g, pad_width), None)
def unpad_like(x, like, /, pad_width):
    """Cut away what `pad` added around an array of the shape of `like`."""
    before = np.broadcast_to(pad_width, (like.ndim, 2))[:, 0]
    return x[tuple(slice(b, b + n) for b, n in zip(before, like.shape))]


# --- picking ---


def _add_at(total, g, like, index):
    """total[index] += g, where an element that is picked k times gets k terms."""
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu":
        rows = np.reshape(g, (index.size, math.prod(total.shape[1:])))
        ids = index.astype(np.intp) % max(len(total), 1)
        kernels.add_rows(total, rows, ids)
    elif _has_integer_array(index):
        places = _places(total.shape, index)
        kernels.add_rows(total.reshape(-1, 1), np.reshape(g, (places.size, 1)), places)
    else:                       # slices and masks reach each element once
        total[index] += g


def _places(shape, index):
    """Where x[index] stands in x.reshape(-1): the sum over axes of coordinate times step."""
    places, step = np.zeros((), np.intp), 1
    for axis in reversed(range(len(shape))):
        coordinate = np.arange(shape[axis]).reshape(-1, *(1,) * (len(shape) - 1 - axis))
        places = places + step * np.broadcast_to(coordinate, shape)[index]
        step *= shape[axis]
    return places


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


@derivative(lambda g, like_x, index: scatter_like(g, like_x, index), scatter=_add_at)
def _getitem(x, /, index):
    return x[index]


_getitem.name = "getitem"


def getitem(x, index):
    """x[index], for all that NumPy takes: ints, slices, None, ..., boolean and integer arrays."""
    if isinstance(index, tuple):
        return _getitem(x, tuple(map(_as_index, index)))
    return _getitem(x, _as_index(index))


def _as_index(index):
    """One part of an index; a sequence of any kind is an array there, for NumPy and for us."""
    if index is None or index is Ellipsis or isinstance(index, (slice, int, np.integer)):
        return index
    array = np.array(getattr(index, "_data", index))       # a copy: the caller may change theirs later
    return array if array.size or array.dtype.kind in "biu" else array.astype(int)


@derivative(None)
def equal_joints(like, /, sections, axis):
    """Where each of `sections` equal pieces along `axis` begins, and where the last ends."""
    if not -like.ndim <= axis < like.ndim:
        raise ValueError(f"split: axis must be in [{-like.ndim}, {like.ndim}), got {axis}")
    length = like.shape[axis]
    if length % sections:
        raise ValueError(f"split: axis {axis} of length {length} cannot be cut into {sections} equal "
                         f"pieces")
    return np.arange(sections + 1) * (length // sections)


@implements(np.split)
def split(x, sections, axis=0):
    """A list of pieces of x along `axis`: that many equal ones, or cut before each given index."""
    x = np.asarray(x) if isinstance(x, (list, tuple)) else x
    if isinstance(sections, (int, np.integer)):
        if sections < 1:
            raise ValueError(f"split: the number of pieces must be positive, got {sections}")
        like = x if not hasattr(x, "shape") else stand_in(x)       # a node has no shape yet
        return _pieces(x, equal_joints(like, int(sections), axis), axis, sections)
    ends = [0, *(int(i) for i in sections), None]
    return [getitem(x, (*(slice(None),) * axis, slice(a, b))) if axis >= 0 else
            getitem(x, (Ellipsis, slice(a, b), *(slice(None),) * (-1 - axis)))
            for a, b in zip(ends, ends[1:])]


def _add_looked_up(total, g, ids, like):
    kernels.add_rows(total, g, np.asarray(ids))


@derivative(lambda g, ids, like_weight: embedding_gradient(g, ids, like_weight), None,
            scatter=_add_looked_up)
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


_embedding.name = "embedding"


def embedding(weight, ids):
    """Rows of a table: weight (V, D), ids (...) integers in [0, V) -> (..., D).

    Equal to one_hot(ids) @ weight, so a row's gradient is the sum of g over the places it went to.
    """
    return _embedding(weight, ids)


@derivative(lambda g, ids: embedding(g, ids), None, None)
def embedding_gradient(g, ids, like_weight, /):
    """The gradient of the table: g summed by row."""
    return kernels.scatter_rows(g, np.asarray(ids), like_weight.shape[0])
