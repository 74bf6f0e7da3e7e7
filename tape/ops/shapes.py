"""Operators that move elements and change none: each gradient is moved back the same way."""

from __future__ import annotations

import math

import numpy as np

from tape.primitive import derivative


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
    if axes is not None and np.ndim(x) != np.size(axes):
        exchange = f"; to exchange two write swapaxes{axes}" if np.size(axes) == 2 else ""
        raise ValueError(f"transpose: axes must name each of the {np.ndim(x)} axes once, got "
                         f"{axes}{exchange}")
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


# --- what the static graph's API checks ---


@derivative(lambda g: g)
def of_size(x, /, input_shape):
    """x, whose elements must fill `input_shape`."""
    if np.size(x) != math.prod(input_shape):
        raise ValueError(f"broadcast: input_shape must be that of the node, {np.shape(x)}; got "
                         f"{tuple(input_shape)}")
    return x


@derivative(lambda g, like_x: reshape_like(g, like_x))
def merge_last(x, /, shape):
    """x (..., *shape), whose last axes must have this shape, with them made one."""
    if x.shape[-len(shape):] != shape:
        raise ValueError(f"layernorm: normalized_shape must be that of the last axes of the node, "
                         f"whose shape is {x.shape}; got {shape}")
    return x.reshape(*x.shape[:-len(shape)], math.prod(shape))
