"""Matrices as products of simpler ones: Cholesky, eigenvalues, singular values, QR.

An operator returns one array, so what a decomposition consists of is packed into one, and cut apart by
operators that have derivatives already. Eigenvectors and singular vectors are given up to their signs;
derivatives are of functions that do not depend on these, say of v v^T.

Where eigenvalues or singular values are equal, so that their vectors can be turned into each other,
few functions of the vectors have a derivative that can be found. The others raise
numpy.linalg.LinAlgError in the backward pass: degenerate.py says which, and why. Where values are
close, but not equal, the rounding of the cotangents is divided by their distance, as everywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tape.ops.degenerate import (
    EQUAL_EIGENVALUES, EQUAL_SINGULAR, ZERO_SINGULAR, divided, gaps, lengths, of_whole_groups,
    same_where_equal, shared_singular_values, shared_values, turn_equal, turn_null,
    without_rounding, zero_over_zero, zero_where_free)
from tape.ops.diagonals import half_lower
from tape.ops.shapes import matrix_transpose as mT
from tape.ops.indexing import getitem
from tape.ops.joining import pieces, concatenate
from tape.ops.linalg import matmul
from tape.ops.solving import solve_matrix
from tape.primitive import derivative, implements
from tape.saved import stand_in

# --- Cholesky ---


def _cholesky_rule(g, out):
    lt = mT(out)
    x = solve_matrix(lt, mT(half_lower(lt @ g)))          # L^-T P^T
    x = solve_matrix(lt, mT(x))                           # L^-T P L^-1
    return (x + mT(x)) / 2


@derivative(_cholesky_rule, name="cholesky")
def _cholesky(a, /):
    return np.linalg.cholesky(a)


@implements(np.linalg.cholesky)
def cholesky(a, /, *, upper=False):
    """The lower triangular L with L L^T = a, or with `upper` L^T: (..., n, n) -> (..., n, n).

    From da = dL L^T + L dL^T follows L^-1 da L^-T = L^-1 dL + (L^-1 dL)^T. The first term is lower
    triangular, so it is the lower triangle of the left side with half of the diagonal; call the map
    that takes this h. It is its own transpose, so dL = L h(L^-1 da L^-T) gives

        dL/da = L^-T h(L^T g) L^-1, made symmetric

    (Murray, Differentiation of the Cholesky decomposition, arXiv:1602.07527). `a` must be symmetric:
    one triangle is read, and the gradient is the symmetric one, for changes that keep `a` symmetric.
    A matrix that is not positive definite raises numpy.linalg.LinAlgError.
    """
    return mT(_cholesky(mT(a))) if upper else _cholesky(a)


# --- eigenvalues ---

class EighResult(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: Any
    eigenvectors: Any


class EigResult(NamedTuple):
    """What `eig` returns."""

    eigenvalues: Any
    eigenvectors: Any


def _values_and_vectors(packed):
    """The eigenvalues, which are the first column of what is packed, and the eigenvectors."""
    return getitem(packed, (..., 0)), getitem(packed, (..., slice(1, None)))


def _packed(values, vectors):
    return np.concatenate([values[..., None], vectors], axis=-1)


def _eigh_rule(g, out):
    (w, v), (gw, gv) = map(_values_and_vectors, (out, g))
    gv = of_whole_groups(gv, w, "eigh", EQUAL_EIGENVALUES)
    turn, distances, size = mT(v) @ gv, gaps(w), lengths(gv)
    turn = zero_over_zero((turn - mT(turn)) / 2, distances, size + mT(size))
    inner = divided(turn, distances, "eigh", EQUAL_EIGENVALUES)
    gw = same_where_equal(gw, w, inner, "eigh", EQUAL_EIGENVALUES)
    x = (v @ inner + v * gw[..., None, :]) @ mT(v)
    return (x + mT(x)) / 2


@derivative(_eigh_rule, name="eigh")
def _eigh(a, /, UPLO="L"):
    values, vectors = np.linalg.eigh(a, UPLO)
    turn_equal(values, vectors)
    return _packed(values, vectors)


@implements(np.linalg.eigh)
def eigh(a, UPLO="L"):
    """Eigenvalues w (..., n), ascending, and eigenvectors v (..., n, n) of a symmetric matrix.

    a v = v w, with w as a diagonal matrix. Let dv = v C, where C is antisymmetric since v stays
    orthogonal. Differentiating and multiplying by v^T gives v^T da v = C w - w C + dw. On the diagonal
    that is dw_i = (v^T da v)_ii, and off it C_ij = (v^T da v)_ij / (w_j - w_i). So, with gw and gv the
    gradients of the two,

        dL/da = v (diag(gw) + (v^T gv)_ij / (w_j - w_i)) v^T, made symmetric.

    `UPLO` says which triangle is read; the gradient is the symmetric one, for changes that keep `a`
    symmetric. For equal eigenvalues see degenerate.py; of their vectors, which are any basis, a random
    one is returned, always the same. (Giles, Collected matrix derivative results, 2008.)
    """
    return EighResult(*_values_and_vectors(_eigh(a, UPLO)))


@implements(np.linalg.eigvalsh)
def eigvalsh(a, UPLO="L"):
    """The eigenvalues of `eigh` alone. Equal ones share their gradient equally."""
    return shared_values(eigh(a, UPLO).eigenvalues, "eigh")


def _eig_rule(g, out):
    (w, v), (gw, gv) = map(_values_and_vectors, (out, g))
    gv = of_whole_groups(gv, w, "eig", EQUAL_EIGENVALUES)
    gv = gv - v * np.sum(v * gv, -2, keepdims=True)          # the columns of v keep the length 1
    distances, vt = gaps(w), mT(v)
    turn = zero_over_zero(vt @ gv, distances, lengths(gv))
    inner = divided(turn, distances, "eig", EQUAL_EIGENVALUES)
    gw = same_where_equal(gw, w, inner, "eig", EQUAL_EIGENVALUES)
    return solve_matrix(independent(vt), inner @ vt + gw[..., :, None] * vt)


@derivative(lambda g: g)
def independent(vt, /):
    """The transposed eigenvectors, which must have an inverse."""
    if np.any(np.linalg.cond(vt) * vt.shape[-1] * np.finfo(vt.dtype).eps > 1):
        raise np.linalg.LinAlgError("eig: where the eigenvectors depend on each other linearly, as "
                                    "those of [[0, 1], [0, 0]], the gradient does not exist")
    return vt


@derivative(_eig_rule, name="eig")
def _eig(a, /):
    values, vectors = np.linalg.eig(a)
    if np.iscomplexobj(values):
        raise TypeError("eig: here eigenvalues must be real; of this matrix some are complex. Of a "
                        "symmetric matrix take eigh; write others in real numbers, say by traces of "
                        "powers")
    turn_equal(values, vectors)
    return _packed(values, vectors / np.linalg.norm(vectors, axis=-2, keepdims=True))


@implements(np.linalg.eig)
def eig(a):
    """Eigenvalues w (..., n) and eigenvectors v (..., n, n), of length 1, if all of them are real.

    As for `eigh`, with v^-1 in the place of v^T: with dv = v C, v^-1 da v = C w - w C + dw, so dw_i and
    C_ij for i != j are known. C_jj follows from the length of the columns: what changes it is taken
    away. Complex eigenvalues raise TypeError.
    """
    return EigResult(*_values_and_vectors(_eig(a)))


@implements(np.linalg.eigvals)
def eigvals(a):
    """The eigenvalues of `eig` alone. Equal ones share their gradient equally."""
    return shared_values(eig(a).eigenvalues, "eig")


# --- singular values ---


def refuse_hermitian(name, hermitian):
    """NumPy's hermitian=True reads one triangle alone, and so would have another gradient."""
    if hermitian:
        raise TypeError(f"{name}: hermitian=True has no derivative here. Leave it out, which gives the "
                        f"same of a symmetric matrix, or write it by eigh")


class SVDResult(NamedTuple):
    """What `svd` returns."""

    U: Any
    S: Any
    Vh: Any


@derivative(None)
def row_bounds(like, /):
    """Where the parts of what is packed for a matrix (..., n, m) begin: n rows, m rows, one row."""
    n, m = like.shape[-2:]
    return np.array([0, n, n + m, n + m + 1])


def _rows(packed, like, count):
    """The parts of what was packed for a matrix of the shape of `like`."""
    return pieces(packed, row_bounds(_like(like)), -2, count)


def _like(a):
    """The shape of a, known at once or, of a node, when it is computed."""
    return stand_in(a) if hasattr(a, "shape") else a


@derivative(lambda g, u: beside_span(g, u), lambda g, x, u: _beside_span_rule(g, x, u))
def beside_span(x, u, /):
    """x less its part in the span of the columns of u, which are orthonormal: (1 - u u^T) x.

    Exactly 0 where u is square, so that it can be divided by 0.
    """
    return np.zeros_like(x) if u.shape[-1] == u.shape[-2] else x - u @ (mT(u) @ x)


def _beside_span_rule(g, x, u):
    return -(g @ (mT(x) @ u) + x @ (mT(g) @ u))


def _svd_rule(g, out, like_a):
    u, v, s = _rows(out, like_a, 3)                        # (..., n, k), (..., m, k), (..., 1, k)
    gu, gv, gs = _rows(g, like_a, 3)
    values = getitem(s, (..., 0, slice(None)))             # (..., k)
    gu, gv = (of_whole_groups(x, values, "svd", EQUAL_SINGULAR) for x in (gu, gv))
    s, distances, size_u, size_v = without_rounding(s), gaps(values), lengths(gu), lengths(gv)
    size = size_u + size_v + mT(size_u + size_v)
    x, y = mT(u) @ gu, mT(v) @ gv
    x, y = x - mT(x), y - mT(y)
    together = divided(zero_over_zero(x + y, distances, size), distances, "svd", EQUAL_SINGULAR)
    sums = s + mT(s)
    apart = divided(zero_over_zero(x - y, sums, size), sums, "svd", ZERO_SINGULAR)
    left = divided(zero_over_zero(beside_span(gu, u), s, size_u), s, "svd", ZERO_SINGULAR)
    right = divided(zero_over_zero(beside_span(gv, v), s, size_v), s, "svd", ZERO_SINGULAR)
    inner = (together + apart) / 2
    gs = same_where_equal(getitem(gs, (..., 0, slice(None))), values, inner, "svd", EQUAL_SINGULAR)
    gs = zero_where_free(gs, values, gu, gv, inner)[..., None, :]
    return (u @ inner + u * gs + left) @ mT(v) + u @ mT(right)


@derivative(_svd_rule, name="svd")
def _svd(a, /):
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    v = np.swapaxes(vt, -1, -2)
    turn_equal(s, u, v)
    turn_null(s, u, v)
    return np.concatenate([u, v, s[..., None, :]], axis=-2)


@derivative(lambda g: g)
def square_matrix(a, /):
    """a, which must be square."""
    if a.shape[-2] != a.shape[-1]:
        raise ValueError(f"svd: with full_matrices=True the vectors beyond the rank of a matrix "
                         f"{a.shape[-2:]} are arbitrary and have no derivative; write "
                         f"full_matrices=False, or compute_uv=False for the values alone")
    return a


@implements(np.linalg.svd)
def svd(a, full_matrices=True, compute_uv=True, hermitian=False):
    """Singular values S, descending, and vectors U and V^T, with a = U S V^T.

    Shapes: a (..., n, m), U (..., n, k), S (..., k), V^T (..., k, m), where k is the smaller of n, m.
    With `full_matrices`, NumPy's default, `a` must be square; otherwise ValueError. Without
    `compute_uv` S is returned alone.

    With P = U^T da V, dU = U C + (1 - U U^T) dU and dV = V D + (1 - V V^T) dV, where C and D are
    antisymmetric, da = dU S V^T + U dS V^T + U S dV^T gives

        P = C S + dS - S D,    (1 - U U^T) da V = (1 - U U^T) dU S,    and the same for V with da^T.

    The diagonal of the first is dS. Off it, multiplied by S and added to its transpose,

        C_ij = (P S + S P^T)_ij / (s_j^2 - s_i^2),    D_ij = (S P + P^T S)_ij / (s_j^2 - s_i^2).

    Put into dL = <gU, dU> + <gS, dS> + <gV, dV> and solved for da, with the antisymmetric
    X = U^T gU - gU^T U and Y = V^T gV - gV^T V,

        dL/da = U (diag(gS) + (X S + S Y)_ij / (s_j^2 - s_i^2)) V^T
                + (1 - U U^T) gU S^-1 V^T + U S^-1 gV^T (1 - V V^T)

    (Townsend, Differentiating the singular value decomposition, 2016). The quotient is

        ((X + Y)_ij / (s_j - s_i) + (X - Y)_ij / (s_j + s_i)) / 2,

    of which equal singular values trouble the first part alone. The last two terms are those of
    matrices that are not square. For singular values that are equal or 0 see degenerate.py; of their
    vectors, which are any basis, a random one is returned, always the same.
    """
    refuse_hermitian("svd", hermitian)
    if not compute_uv:
        return svdvals(a)
    a = square_matrix(a) if full_matrices else a
    u, v, s = _rows(_svd(a), a, 3)
    return SVDResult(u, getitem(s, (..., 0, slice(None))), mT(v))


@implements(np.linalg.svdvals)
def svdvals(x):
    """The singular values of `svd` alone, descending: (..., n, m) -> (..., k).

    Equal ones share their gradient equally. Those that are 0 have the gradient 0, as |x| has at 0.
    """
    return shared_singular_values(getitem(_svd(x), (..., -1, slice(None))))


# --- QR ---


class QRResult(NamedTuple):
    """What `qr` returns."""

    Q: Any
    R: Any


@derivative(lambda g: g)
def of_full_rank(r, /):
    """The R of a QR decomposition, with no zero on its diagonal."""
    d = np.abs(np.diagonal(r, 0, -2, -1))
    if np.any(d <= r.shape[-1] * np.finfo(r.dtype).eps * np.max(d, -1, keepdims=True, initial=0)):
        raise np.linalg.LinAlgError("qr: where columns depend on each other linearly, the gradient "
                                    "does not exist")
    return r


def _qr_rule(g, out, like_a):
    (q, r), (gq, gr) = _rows(out, like_a, 2), _rows(g, like_a, 2)
    lower = half_lower(r @ mT(gr) - mT(gq) @ q)
    x = gq + q @ (lower + mT(lower))
    return mT(solve_matrix(of_full_rank(r), mT(x)))          # x R^-T


@derivative(_qr_rule, name="qr")
def _qr(a, /):
    return np.concatenate(np.linalg.qr(a), axis=-2)


@derivative(None)
def column_bounds(like, /):
    """Where the first k columns of a matrix (..., n, m) end, k the smaller of n, m, and the others."""
    n, m = like.shape[-2:]
    return np.array([0, min(n, m), m])


@implements(np.linalg.qr)
def qr(a, mode="reduced"):
    """Q (..., n, k) with orthonormal columns and R (..., k, m), upper triangular, with a = Q R.

    k is the smaller of n and m; `mode` is "reduced", or "r" for R alone. With n >= m, da = dQ R + Q dR.
    Let M = da R^-1. Then Q^T M = Q^T dQ + dR R^-1, where the first term is antisymmetric and the second
    upper triangular, so the lower triangle of Q^T M, without the diagonal, is that of Q^T dQ. Call
    Q^T dQ = A; then dR = (Q^T M - A) R and dQ = M - Q (Q^T M - A). Put into dL = <gQ, dQ> + <gR, dR>,

        dL/da = (gQ + Q c(R gR^T - gQ^T Q)) R^-T,

    where c(X) is the symmetric matrix that has the lower triangle of X (Walter and Lehmann, Algorithmic
    differentiation of linear algebra functions with application in optimum experimental design, 2012).
    With n < m, Q is that of the first n columns, and the rest of R is Q^T times the others. Columns
    that depend on each other (among these) raise numpy.linalg.LinAlgError in the backward pass.
    """
    if mode not in ("reduced", "r"):
        raise ValueError(f"qr: mode must be 'reduced' or 'r', got {mode!r}: the further columns of a "
                         f"complete Q are arbitrary and have no derivative")
    first = a
    if not hasattr(a, "shape") or a.shape[-2] < a.shape[-1]:           # of a node it may be so
        first, others = pieces(a, column_bounds(_like(a)), -1, 2)
    q, r = _rows(_qr(first), first, 2)
    if first is not a:
        r = concatenate([r, matmul(mT(q), others)], axis=-1)
    return r if mode == "r" else QRResult(q, r)
