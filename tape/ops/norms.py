"""Norms of every order, of vectors and matrices, and the condition number."""

from __future__ import annotations

import numpy as np

from tape.ops import reductions
from tape.ops.arithmetic import abs, equal, where
from tape.ops.decompositions import svdvals
from tape.ops.contraction import rank
from tape.ops.reductions import max, min, sum
from tape.ops.shapes import expand_dims, moveaxis
from tape.ops.solving import inv
from tape.primitive import derivative, implements


@implements(np.linalg.norm)
def norm(x, ord=None, axis=None, keepdims=False):
    """NumPy's norm, of the whole of x, of vectors along one axis, or of matrices along two.

    Parameters
    ----------
    x : array_like, Tensor or Node
    ord : number or str, optional
        None: the square root of the sum of squares. Otherwise see `vector_norm` and `matrix_norm`.
    axis : int or pair of ints, optional
        None: of x as a vector if it has one axis, as a matrix if it has two.
    keepdims : bool
        Keep the axes, with length 1.
    """
    if ord is None and (axis is None or isinstance(axis, (int, np.integer))):
        return reductions.norm(x, axis, keepdims)
    if axis is None:
        count = rank(x, "norm")
        if count not in (1, 2):
            raise ValueError(f"norm: with ord={ord!r} and no axis, x must have one axis or two; got "
                             f"{count}. Name the axis or the two axes.")
        axis = 0 if count == 1 else (0, 1)
    if isinstance(axis, (int, np.integer)) or len(axis) == 1:
        return vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)
    return _matrix_norm(x, "fro" if ord is None else ord, tuple(axis), keepdims)


@implements(np.linalg.vector_norm)
def vector_norm(x, /, *, axis=None, keepdims=False, ord=2):
    """The norm of vectors: (sum |x_i|^p)^(1/p), p = `ord`.

    For inf and -inf the largest and smallest |x_i|, with ties sharing the gradient; for 0 the number of
    elements that are not 0, a constant. The derivative by x_i is sign(x_i) (|x_i| / norm)^(p - 1). At
    x = 0 there is none; 0 is taken, as for |x|.
    """
    if isinstance(ord, str) or ord is None:
        raise ValueError(f"norm: of a vector ord must be a number, got {ord!r}")
    if ord == 2:
        return reductions.norm(x, axis, keepdims)
    if ord == 0:
        return counted_nonzero(x, axis, keepdims)
    if ord in (np.inf, -np.inf):
        return (max if ord > 0 else min)(abs(x), axis, keepdims)
    if ord == 1:
        return sum(abs(x), axis, keepdims)
    size = abs(x)
    if 0 < ord < 1:                             # at 0 the slope of the power is infinite; 0 is taken
        nothing = equal.as_operator(size, 0)
        powers = where(nothing, 0, where(nothing, 1, size) ** ord)
    else:
        powers = size ** ord
    total = sum(powers, axis, keepdims)
    zero = equal.as_operator(total, 0)              # where the root has no derivative
    return where(zero, 0, where(zero, 1, total) ** (1 / ord))


@derivative(None)
def counted_nonzero(x, /, axis=None, keepdims=False):
    """How many elements are not 0, as a number of x's dtype."""
    return np.sum(x != 0, axis=axis, keepdims=keepdims).astype(x.dtype)


@implements(np.linalg.matrix_norm)
def matrix_norm(x, /, *, keepdims=False, ord="fro"):
    """The norm of the matrices along the last two axes.

    "fro": the square root of the sum of squares; "nuc": the sum of the singular values; 2 and -2: the
    largest and smallest of them; 1 and -1: the largest and smallest sum of absolute values of a column;
    inf and -inf: of a row.
    """
    return _matrix_norm(x, ord, (-2, -1), keepdims)


def _matrix_norm(x, ord, axis, keepdims):
    x = x if axis == (-2, -1) else moveaxis(x, axis, (-2, -1))
    out = _of_last_two(x, ord)
    if not keepdims:
        return out
    if axis == (-2, -1):
        return expand_dims(out, axis)
    count = rank(x, "norm")
    return expand_dims(out, tuple(sorted(a % count for a in axis)))


def _of_last_two(x, ord):
    if ord == "fro":
        return reductions.norm(x, (-2, -1))
    if ord == "nuc":
        return sum(svdvals(x), -1)
    if ord in (2, -2):
        return svdvals(x)[..., 0 if ord > 0 else -1]
    if ord in (1, -1, np.inf, -np.inf):
        sums = sum(abs(x), -2 if ord in (1, -1) else -1)
        return (max if ord > 0 else min)(sums, -1)
    raise ValueError(f"norm: of a matrix ord must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf; got "
                     f"{ord!r}")


@implements(np.linalg.cond)
def cond(x, p=None):
    """The condition number: the norm of a matrix times that of its inverse, of the order p.

    With None or 2 it is the largest singular value over the smallest, and with -2 the opposite.
    """
    if p in (None, 2, -2):
        s = svdvals(x)
        return s[..., 0] / s[..., -1] if p != -2 else s[..., -1] / s[..., 0]
    return _of_last_two(x, p) * _of_last_two(inv(x), p)
