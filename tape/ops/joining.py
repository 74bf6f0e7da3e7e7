"""Operators that join tensors or take them apart: each input gets its own piece of the gradient."""

from __future__ import annotations

import itertools

import numpy as np

from tape import kernels
from tape.ops.indexing import getitem
from tape.ops.shapes import moveaxis, reshape
from tape.primitive import derivative, implements
from tape.saved import stand_in


# --- pieces along an axis, between bounds that a static graph knows only when it runs ---


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


def pieces(x, bounds, axis, count):
    """x between one bound and the next, along `axis`; of nodes the bounds are known when they run."""
    if not isinstance(bounds, np.ndarray):
        return [cut(x, bounds, axis, i) for i in range(count)]
    return _between(x, bounds[:count + 1].tolist(), axis)


def _between(x, bounds, axis):
    return [x[_along(axis, x.ndim, *ends)] for ends in zip(bounds, bounds[1:])]


def _cut_at_joints(g, like_arrays, axis):
    if not all(isinstance(x, np.ndarray) for x in like_arrays):        # nodes
        return pieces(g, joints(*like_arrays, axis=axis), axis, len(like_arrays))
    return _between(g, [*itertools.accumulate((x.shape[axis] for x in like_arrays), initial=0)], axis)


@derivative(_cut_at_joints, name="concatenate")
def _concatenate(*arrays, axis=0):
    return np.concatenate(arrays, axis=axis)


@implements(np.concatenate)
def concatenate(arrays, axis=0):
    """Join tensors along an axis that they have (None: flattened); each gets its own piece back."""
    if axis is None:
        arrays, axis = [reshape(array, (-1,)) for array in arrays], 0
    return _concatenate(*arrays, axis=axis)


def _unstack(g, like_arrays, axis):
    pieces = moveaxis(g, axis, 0)
    return [pieces[i] for i in range(len(like_arrays))]


@derivative(_unstack, name="stack")
def _stack(*arrays, axis=0):
    return np.stack(arrays, axis=axis, dtype=np.result_type(*arrays))    # a Python number is weak


@implements(np.stack)
def stack(arrays, axis=0):
    """Join tensors of one shape along a new axis; each gets its own slice of the gradient.

    A list among them, of tensors and numbers, is joined first: ``stack([[t, 0.0], [0.0, t]])`` is a
    matrix of four numbers, as ``np.array`` makes one of plain numbers.
    """
    return _stack(*map(_joined, arrays), axis=axis)


def _joined(x):
    """A list that holds tensors, or lists of them, as one tensor; anything else as it is."""
    return stack(x) if isinstance(x, (list, tuple)) and _holds_tensors(x) else x


def _holds_tensors(x):
    if isinstance(x, (list, tuple)):
        return any(map(_holds_tensors, x))
    return hasattr(type(x), "__tape_apply__")


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
        return pieces(x, equal_joints(like, int(sections), axis), axis, sections)
    ends = [0, *(int(i) for i in sections), None]
    return [getitem(x, (*(slice(None),) * axis, slice(a, b))) if axis >= 0 else
            getitem(x, (Ellipsis, slice(a, b), *(slice(None),) * (-1 - axis)))
            for a, b in zip(ends, ends[1:])]


@derivative(lambda g, like_x, pad_width: unpad_like(g, like_x, pad_width), name="pad")
def _pad(x, /, pad_width, constant_values=0):
    return np.pad(x, pad_width, constant_values=constant_values)


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
