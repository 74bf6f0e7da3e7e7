"""Diagonals and triangles of matrices."""

from __future__ import annotations

import numpy as np

from tape.ops.reductions import sum
from tape.ops.shapes import reshape
from tape.primitive import derivative, implements


@derivative(lambda g, like_x, offset, axis1, axis2: diagonal_like(g, like_x, offset, axis1, axis2),
            numpy=np.diagonal)
def diagonal(x, /, offset=0, axis1=0, axis2=1):
    """The elements x[i, i + offset] of two axes of x, which become the last axis of the result."""
    return np.diagonal(x, offset, axis1, axis2)


@derivative(lambda g, offset, axis1, axis2: diagonal(g, offset, axis1, axis2), None)
def diagonal_like(x, like, /, offset=0, axis1=0, axis2=1):
    """Zeros of the shape of `like`, with x on the diagonal."""
    total = np.zeros(like.shape, x.dtype)
    matrices = np.moveaxis(total, (axis1, axis2), (-2, -1))
    rows = np.arange(x.shape[-1]) + max(-offset, 0)
    matrices[..., rows, rows + offset] = x
    return total


@implements(np.trace)
def trace(x, offset=0, axis1=0, axis2=1):
    """The sum of the diagonal of two axes of x."""
    return sum(diagonal(x, offset, axis1, axis2), -1)


@derivative(lambda g, like_v, k: diag_like(g, like_v, k), numpy=np.diag)
def diag(v, /, k=0):
    """A vector as the diagonal k of a matrix, or the diagonal k of a matrix as a vector."""
    return np.diag(v, k)


@derivative(lambda g, k: diag(g, k), None)
def diag_like(x, like, /, k=0):
    """The transpose of `diag`: of a vector of the shape of `like`, or of a matrix of that shape."""
    return np.diagonal(x, k) if like.ndim == 1 else diagonal_like.forward(x, like, k)


@implements(np.diagflat)
def diagflat(v, k=0):
    """The elements of v, in their order, as the diagonal k of a matrix."""
    return diag(reshape(v, (-1,)), k)


@derivative(lambda g: half_lower(g))
def half_lower(x, /):
    """The lower triangle of each matrix, with half of its diagonal; it is its own transpose.

    A symmetric matrix is this and its transpose, added.
    """
    return np.tril(x) - 0.5 * np.tril(np.triu(x))


@derivative(None)
def identity_like(like, /):
    """For each matrix the identity of its size."""
    return np.broadcast_to(np.eye(like.shape[-1], dtype=like.dtype), like.shape)
