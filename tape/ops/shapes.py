"""Operators that move elements and change none: each gradient is moved back the same way."""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np

from tape import kernels
from tape.primitive import derivative, implements


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
    try:
        out = np.asarray(x).transpose(axes)
        return out if out.ndim else out[()]
    except (ValueError, TypeError):
        if axes is None or np.ndim(x) == np.size(axes):
            raise
        exchange = f"; to exchange two write swapaxes{axes}" if np.size(axes) == 2 else ""
        raise ValueError(f"transpose: axes must name each of the {np.ndim(x)} axes once, got "
                         f"{axes}{exchange}") from None


def _inverse(axes):
    return _inverse_of(tuple(map(int, axes)))           # also of an array


@functools.lru_cache(maxsize=128)
def _inverse_of(axes):
    return tuple(np.argsort([axis % len(axes) for axis in axes]).tolist())


@derivative(lambda g, axis1, axis2: np.swapaxes(g, axis1, axis2), numpy=np.swapaxes)
def swapaxes(x, /, axis1, axis2):
    """x with two axes exchanged; its own inverse."""
    return np.swapaxes(x, axis1, axis2)


@derivative(lambda g, n_head: merge_heads(g, n_head))
def split_heads(x, /, n_head):
    """(..., T, H D) -> (..., H, T, D): of each row H parts, with the part in front of the row.

    A reshape and an exchange of axes in one, as attention with several heads needs them (Vaswani et
    al. 2017, arXiv:1706.03762, section 3.2.2). `merge_heads` is its inverse.
    """
    if x.ndim < 2 or n_head < 1 or x.shape[-1] % n_head:
        raise ValueError(f"split_heads: x must have shape (..., T, C) with C a multiple of n_head, got "
                         f"{x.shape} and {n_head}")
    return kernels.split_heads(x, n_head)


@derivative(lambda g, n_head: split_heads(g, n_head))
def merge_heads(x, /, n_head):
    """(..., H, T, D) -> (..., T, H D): the heads side by side again; the inverse of `split_heads`."""
    if x.ndim < 3 or n_head < 1 or x.shape[-3] != n_head:
        raise ValueError(f"merge_heads: x must have shape (..., {n_head}, T, D), with the {n_head} "
                         f"heads third from the end, got {x.shape}")
    return kernels.merge_heads(x)


@derivative(lambda g, source, destination: np.moveaxis(g, destination, source), numpy=np.moveaxis)
def moveaxis(x, /, source, destination):
    """x with the axes `source` (an int or a tuple) moved to the places `destination`."""
    return np.moveaxis(x, source, destination)


@derivative(lambda g: g, numpy=np.broadcast_to)       # the engine sums over the copies
def broadcast_to(x, /, shape):
    """x repeated along new axes and axes of length 1, to fill `shape`, without copying."""
    return np.broadcast_to(x, shape)


# --- what the static graph needs ---


@derivative(lambda g, like_x: reshape_like(g, like_x))
def merge_last(x, /, shape):
    """x with its last ``len(shape)`` axes made one; a warning where they have another shape."""
    first = x.ndim - len(shape)
    if first < 0 or not shape:
        raise ValueError(f"layernorm: normalized_shape must name one or more of the last axes of the "
                         f"node, whose shape is {x.shape}; got {shape}")
    if x.shape[first:] != shape:
        warnings.warn(f"layernorm: normalized_shape is {shape}, but the last axes of the node, whose "
                      f"shape is {x.shape}, are of other sizes; they are normalised as they are",
                      stacklevel=2)
    return x.reshape(*x.shape[:first], math.prod(x.shape[first:]))


@derivative(lambda g: g, None)
def alike(x, like, /):
    """x, which must have the shape of `like`: what one use of a weight adds to what another did."""
    if np.shape(x) != like.shape:
        raise ValueError(f"gradients: with batched=True all uses of a node must have the same batch "
                         f"axes; got gradients of shape {like.shape} and {np.shape(x)}. Leave batched "
                         f"out, and the sum over the batch out of the update")
    return x


# --- the other names of a reshape ---


@derivative(lambda g, like_x: reshape_like(g, like_x))
def atleast(x, /, ndim):
    """x with 1, 2 or 3 axes at least, where NumPy's atleast_1d, _2d and _3d put them."""
    return (np.atleast_1d, np.atleast_2d, np.atleast_3d)[ndim - 1](x)


@implements(np.ravel)
def ravel(x, order="C"):
    """The elements of x along one axis: row by row, or with ``order="F"`` column by column."""
    if order not in ("C", "F", "A", "K"):
        raise TypeError(f"ravel: order must be 'C' (row by row) or 'F' (by columns), got {order!r}")
    return reshape(transpose(x) if order == "F" else x, (-1,))


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x, /):
    """x with its last two axes exchanged."""
    return swapaxes(x, -1, -2)
