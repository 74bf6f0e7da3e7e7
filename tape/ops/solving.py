"""Linear equations, inverses and determinants, of matrices along the last two axes.

The derivatives are those that Giles collects (Collected matrix derivative results, 2008). In each,
<x, y> is the sum of the products of the elements, so dL = <g, d(out)>, and <g, x y z> = <x^T g z^T, y>.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tape.ops.diagonals import identity_like
from tape.ops.elementwise import positive
from tape.ops.shapes import matrix_transpose as mT
from tape.ops.linalg import matmul
from tape.ops.shapes import moveaxis, reshape, reshape_like
from tape.primitive import derivative, implements


@derivative(lambda g, a, out: -solve_matrix(mT(a), g) @ mT(out),
            lambda g, a: solve_matrix(mT(a), g), name="solve")
def solve_matrix(a, b, /):
    """X with a X = b: (..., n, n), (..., n, m) -> (..., n, m).

    Differentiating a X = b gives da X + a dX = db, so dX = a^-1 (db - da X), and

        dL = <g, a^-1 db> - <g, a^-1 da X> = <a^-T g, db> - <a^-T g X^T, da>.
    """
    return np.linalg.solve(a, b)


@derivative(lambda g, like_b: reshape_like(g, like_b))
def as_columns(b, /):
    """A vector as a matrix with one column; a matrix as it is."""
    return b[:, None] if b.ndim == 1 else b


@derivative(lambda g, like_x: reshape_like(g, like_x), None)
def columns_like(x, b, /):
    """Undo `as_columns`: without the axis that b, a vector, was given."""
    return x[..., 0] if b.ndim == 1 else x


@implements(np.linalg.solve)
def solve(a, b):
    """x with a x = b, where `a` has the shape (..., n, n) and b is a vector (n,) or (..., n, m).

    The gradient of b is y = a^-T g, that of `a` is -y x^T; derived at `solve_matrix`. A singular matrix
    raises numpy.linalg.LinAlgError.
    """
    b = np.asarray(b) if isinstance(b, (list, tuple)) else b
    return columns_like(solve_matrix(a, as_columns(b)), b)


@derivative(lambda g, out: -mT(out) @ g @ mT(out), numpy=np.linalg.inv)
def inv(a, /):
    """The inverse: (..., n, n). A singular matrix raises numpy.linalg.LinAlgError.

    With X = a^-1, differentiating a X = 1 gives da X + a dX = 0, so dX = -X da X, and the gradient is
    -X^T g X^T.
    """
    try:
        return np.linalg.inv(a)
    except np.linalg.LinAlgError as error:
        if "Singular" not in str(error):
            raise
        raise np.linalg.LinAlgError("inv: a singular matrix has no inverse, and the logarithm of its "
                                    "determinant no gradient") from error


@derivative(lambda g, a: g[..., None, None] * cofactors(a), numpy=np.linalg.det)
def det(a, /):
    """The determinant: (..., n, n) -> (...).

    Along each row it is a sum of the row's elements times their cofactors, in which they do not occur.
    So its derivative by an element is the cofactor, also where the matrix is singular.
    """
    return np.linalg.det(a)


def _cofactors_rule(g, a, out):
    inverse = mT(inv(a))
    return np.sum(g * out, (-2, -1), keepdims=True) * inverse - out @ mT(g) @ inverse


@derivative(_cofactors_rule)
def cofactors(a, /):
    """The matrix of cofactors, det(a) a^-T; by the singular values s, so that none need be 1 / 0:

        a = U S V^T  =>  det(a) a^-T = det(U) det(V) U P V^T, with P_ii the product of the s_j, j != i.

    Its own derivative is taken at invertible matrices alone: with B = a^-T, d(det a) = det(a) <B, da>
    and dB = -B da^T B, so the gradient of `a` is det(a) (<g, B> B - B g^T B).
    """
    u, s, vt = np.linalg.svd(a)
    others = np.where(np.eye(s.shape[-1], dtype=bool), 1, s[..., None, :]).prod(-1)      # (..., n)
    sign = np.linalg.det(u) * np.linalg.det(vt)
    return (u * (others * sign[..., None])[..., None, :] @ vt).astype(a.dtype, copy=False)


@derivative(lambda g, a: g[..., None, None] * mT(inv(a)))
def logabsdet(a, /):
    """log |det(a)|: its derivative is that of det, det(a) a^-T, over det(a)."""
    return np.linalg.slogdet(a)[1]


@derivative(None)
def sign_of_det(a, /):
    """The sign of det(a), which does not change near an invertible matrix."""
    return np.linalg.slogdet(a)[0]


class SlogdetResult(NamedTuple):
    """What `slogdet` returns."""

    sign: Any
    logabsdet: Any


@implements(np.linalg.slogdet)
def slogdet(a):
    """The sign of the determinant, a constant, and the logarithm of its absolute value.

    At a singular matrix the logarithm is -inf and has no derivative: the backward pass raises
    numpy.linalg.LinAlgError.
    """
    return SlogdetResult(sign_of_det(a), logabsdet(a))


@implements(np.linalg.matrix_power)
def matrix_power(a, n):
    """a @ a @ ... @ a, n times, by squaring; of the inverse where n < 0."""
    if not isinstance(n, (int, np.integer)):
        raise TypeError(f"matrix_power: the exponent must be an integer, got {type(n).__name__}")
    if n == 0:
        return identity_like(a)
    a, n = (inv(a), -n) if n < 0 else (a, n)
    result = None
    while True:
        if n % 2:
            result = a if result is None else matmul(result, a)
        n //= 2
        if not n:
            return positive(result) if result is a else result     # not the operand itself
        a = matmul(a, a)


@implements(np.linalg.tensorinv)
def tensorinv(a, ind=2):
    """The inverse of `a` as a matrix of its first `ind` axes by the others."""
    first, last = a.shape[:ind], a.shape[ind:]
    if ind < 1 or math.prod(first) != math.prod(last):
        raise ValueError(f"tensorinv: the first ind={ind} axes must have as many elements as the "
                         f"others; got {first} and {last}")
    return reshape(inv(reshape(a, (math.prod(first), -1))), (*last, *first))


@implements(np.linalg.tensorsolve)
def tensorsolve(a, b, axes=None):
    """x with tensordot(a, x, axes=x.ndim) == b; `axes` of `a` are moved to its end before."""
    if axes is not None:
        a = moveaxis(a, tuple(axes), tuple(range(-len(axes), 0)))
    shape = a.shape[b.ndim:]
    return reshape(solve(reshape(a, (-1, math.prod(shape))), reshape(b, (-1,))), shape)
