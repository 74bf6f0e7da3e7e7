"""Equations that have no solution or many: the pseudo-inverse and least squares."""

from __future__ import annotations

import numpy as np

from tape.ops.arithmetic import square
from tape.ops.decompositions import refuse_hermitian, svdvals
from tape.ops.shapes import matrix_transpose as mT
from tape.ops.linalg import matmul
from tape.ops.reductions import sum
from tape.ops.shapes import reshape
from tape.primitive import derivative, implements
from tape.promotion import plain


def _pinv_rule(g, out, a):
    gt, pt = mT(g), mT(out)
    left, right = gt @ out @ pt, pt @ out @ gt
    return left - a @ (out @ left) + right - right @ out @ a - pt @ g @ pt


@derivative(_pinv_rule, name="pinv")
def _pinv(a, /, rcond=None):
    eps = np.finfo(a.dtype if a.dtype.kind == "f" else float).eps
    return np.linalg.pinv(a, max(a.shape[-2:]) * eps if rcond is None else rcond)


@implements(np.linalg.pinv)
def pinv(a, rcond=None, hermitian=False, *, rtol=None):
    """The pseudo-inverse P: (..., n, m) -> (..., m, n). Where the rank stays the same,

        dP = -P da P + P P^T da^T (1 - a P) + (1 - P a) da^T P^T P

    (Golub and Pereyra, The differentiation of pseudo-inverses and nonlinear least squares problems,
    1973). Its terms are how P follows in the range of `a`, and how the two spaces at right angles to
    the ranges of `a` and of a^T turn. With <g, x da^T y> = <y g^T x, da> the gradient is

        -P^T g P^T + (1 - a P) g^T P P^T + P^T P g^T (1 - P a).

    Where the rank changes P jumps, and this is the derivative along matrices of the same rank. Singular
    values below `rcond` times the largest count as 0: by default the eps of the dtype times the larger
    of n and m, as in `lstsq`.
    """
    refuse_hermitian("pinv", hermitian)
    return _pinv(a, rcond if rtol is None else rtol)


@derivative(None, numpy=np.linalg.matrix_rank)
def matrix_rank(a, /, tol=None, hermitian=False, rtol=None):
    """How many singular values are above `tol`, or `rtol` times the largest: a constant."""
    return np.linalg.matrix_rank(a, tol, hermitian, rtol=rtol)


@implements(np.linalg.lstsq)
def lstsq(a, b, rcond=None):
    """The shortest x with the least |a x - b|: pinv(a) @ b, differentiated where the rank is constant.

    Parameters
    ----------
    a : (n, m) Tensor or array_like
    b : (n,) or (n, k)
    rcond : float, optional
        Singular values below it times the largest count as 0; default: the eps of the dtype times the
        larger of n and m.

    Returns
    -------
    tuple
        x (m,) or (m, k); the sums of the squares of b - a x, of no elements unless the rank is m < n,
        as in NumPy; the rank; the singular values.
    """
    n, m = a.shape
    rcond = np.finfo(a.dtype).eps * max(n, m) if rcond is None else rcond
    x = matmul(pinv(a, rcond), b)
    rank = int(matrix_rank(plain(a), rtol=rcond))
    left_over = reshape(sum(square(b - matmul(a, x)), 0), (-1,))
    return x, left_over if rank == m < n else left_over[:0], rank, svdvals(a)
