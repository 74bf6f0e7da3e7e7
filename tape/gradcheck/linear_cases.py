"""The lines of the catalogue for linear algebra; see ``cases.py``.

Symmetric and positive definite matrices are made of the inputs inside the functions, so that the
differences too see symmetric matrices alone. Of eigenvectors and the like, whose signs are arbitrary,
squares are taken.
"""

from __future__ import annotations

import numpy as np

from tape import linalg, ops
from tape.gradcheck.case import case, positive
from tape.ops import (
    contraction, decompositions, degenerate, diagonals, least_squares, norms, products, solving)
from tape.ops.diagonals import identity_like
from tape.ops.linalg import inner_with_matrix
from tape.ops.shapes import matrix_transpose as mT


def _symmetric(x):
    return x + mT(x)


def _definite(x):
    return x @ mT(x) + 3 * identity_like(x)


def _invertible(x):
    return x + 4 * identity_like(x)


def _joined(*parts):
    """The elements of several results in a row."""
    return ops.concatenate([ops.reshape(part, (-1,)) for part in parts])


def _of_eigh(x):
    values, vectors = linalg.eigh(_symmetric(x))
    return _joined(values, vectors * vectors)


def _of_eig(x):
    values, vectors = linalg.eig(_definite(x))        # whose eigenvalues are real
    return _joined(values, vectors * vectors)


def _of_svd(x):
    u, s, vt = linalg.svd(x, full_matrices=False)
    return _joined(u * u, s, vt * vt, u @ vt)


def _of_lstsq(a, b):
    x, left_over, _, s = linalg.lstsq(a, b)
    return _joined(x, left_over, s)


_LIKE = np.zeros((2, 3))
_CUBE = np.zeros((3, 3, 2))

PRODUCTS = [
    case("einsum", lambda x, y: ops.einsum("ij,jk->ik", x, y), (2, 3), (3, 2)),
    case("einsum/implicit", lambda x, y: ops.einsum("cb,ba", x, y), (2, 3), (3, 2)),
    case("einsum/batch", lambda x, y: ops.einsum("bij,bkj->bik", x, y), (2, 2, 3), (2, 1, 3)),
    case("einsum/broadcast", lambda x, y: ops.einsum("ij,ij->i", x, y), (2, 3), (2, 1)),
    case("einsum/lone", lambda x, y: ops.einsum("ijk,k->i", x, y), (2, 3, 2), (2,)),
    case("einsum/all", lambda x, y: ops.einsum("ab,cd->", x, y), (2, 3), (2,) * 2),
    case("einsum/trace", lambda x: ops.einsum("ii", x), (3, 3)),
    case("einsum/diagonal", lambda x: ops.einsum("iji->ij", x), (2, 3, 2)),
    case("einsum/diagonal of one", lambda x, y: ops.einsum("iij,ji->j", x, y), (2, 2, 3), (3, 2)),
    case("einsum/transpose", lambda x: ops.einsum("ijk->kij", x), (2, 3, 2)),
    case("einsum/three", lambda x, y, z: ops.einsum("i,ij,j->", x, y, z), (2,), (2, 3), (3,)),
    case("einsum/optimize", lambda x, y, z: ops.einsum("ij,jk,kl->il", x, y, z, optimize=True),
         (1, 2), (2, 4), (4, 3)),
    case("einsum/ellipsis", lambda x, y: ops.einsum("...ij,jk...->...ik", x, y), (3, 2, 2), (2, 2, 1)),
    case("tensordot", lambda x, y: ops.tensordot(x, y, ([0, 1], [1, 0])), (2, 3, 2), (3, 2, 2)),
    case("tensordot/count", lambda x, y: ops.tensordot(x, y, 1), (2, 3), (3, 2)),
    case("dot/3d", ops.dot, (2, 3), (2, 3, 2)),
    case("inner", ops.inner, (2, 3), (2, 1, 3)),
    case("inner/matrix", inner_with_matrix, (2, 1, 3), (4, 3)),
    case("inner/row", inner_with_matrix, (3,), (2, 3)),
    case("outer", ops.outer, (2,), (3, 2)),
    case("outer/vectors", linalg.outer, (2,), (3,)),
    case("kron", ops.kron, (2, 3), (3, 2)),
    case("kron/ranks", ops.kron, (2,), (1, 2, 2)),
    case("cross", ops.cross, (2, 3), (3,)),
    case("cross/axes", lambda x, y: ops.cross(x, y, axisa=0, axisc=0), (3, 2), (2, 3)),
    case("vdot", ops.vdot, (2, 3), (2, 3)),
    case("vecdot", ops.vecdot, (2, 3), (3,)),
    case("vecdot/axis", lambda x, y: ops.vecdot(x, y, axis=0), (3, 2), (3, 1)),
    case("matvec", ops.matvec, (2, 2, 3), (3,)),
    case("vecmat", ops.vecmat, (2, 3), (3, 2)),
    case("multi_dot", lambda *xs: linalg.multi_dot(xs), (2, 3), (3, 4), (4, 1)),
    case("multi_dot/vectors", lambda *xs: linalg.multi_dot(xs), (2,), (2, 3), (3,)),
]

DIAGONALS = [
    case("matrix_transpose", ops.matrix_transpose, (2, 2, 3)),
    case("diagonal", lambda x: ops.diagonal(x, 1), (3, 3)),
    case("diagonal/axes", lambda x: ops.diagonal(x, -1, 2, 0), (2, 2, 4)),
    case("diagonal/last", lambda x: linalg.diagonal(x, offset=1), (2, 2, 3)),
    case("trace", ops.trace, (3, 2)),
    case("trace/axes", lambda x: ops.trace(x, 1, 0, 2), (2, 2, 3)),
    case("trace/last", linalg.trace, (2, 3, 3)),
    case("diag", lambda x: ops.diag(x, -1), (3,)),
    case("diag/matrix", lambda x: ops.diag(x, 1), (2, 3)),
    case("diagflat", lambda x: ops.diagflat(x, 1), (2, 2)),
]

SOLVING = [
    case("solve", lambda a, b: linalg.solve(_invertible(a), b), (3, 3), (3,)),
    case("solve/batch", lambda a, b: linalg.solve(_invertible(a), b), (2, 2, 2), (2, 3)),
    case("solve/one vector", lambda a, b: linalg.solve(_invertible(a), b), (2, 2, 2), (2,)),
    case("inv", lambda a: linalg.inv(_invertible(a)), (2, 3, 3)),
    case("det", linalg.det, (3, 3)),
    case("det/batch", linalg.det, (2, 2, 2)),
    case("slogdet", lambda a: linalg.slogdet(_invertible(a)).logabsdet, (2, 3, 3)),
    case("pinv", linalg.pinv, (2, 3, 2)),
    case("pinv/wide", lambda a: linalg.pinv(a, rtol=1e-9), (2, 3)),
    case("lstsq", _of_lstsq, (4, 2), (4,)),
    case("lstsq/wide", lambda a, b: linalg.lstsq(a, b)[0], (2, 3), (2, 2)),
    case("tensorsolve", lambda a, b: linalg.tensorsolve(a, b, axes=(0,)), (4, 2, 2), (2, 2)),
    case("tensorinv", linalg.tensorinv, (2, 2, 4)),
    case("matrix_power", lambda a: linalg.matrix_power(a, 5), (2, 2)),
    case("matrix_power/negative", lambda a: linalg.matrix_power(_invertible(a), -2), (2, 2, 2)),
]

DECOMPOSITIONS = [
    case("cholesky", lambda x: linalg.cholesky(_definite(x)), (2, 3, 3)),
    case("cholesky/upper", lambda x: linalg.cholesky(_definite(x), upper=True), (3, 3)),
    case("eigh", _of_eigh, (3, 3)),
    case("eigh/batch", _of_eigh, (2, 2, 2)),
    case("eigh/UPLO", lambda x: linalg.eigh(_symmetric(x), "U").eigenvalues, (3, 3)),
    case("eigvalsh", lambda x: linalg.eigvalsh(_symmetric(x)), (2, 2, 2)),
    case("eig", _of_eig, (3, 3)),
    case("eigvals", lambda x: linalg.eigvals(_definite(x)), (2, 2, 2)),
    case("svd", _of_svd, (3, 3)),
    case("svd/tall", _of_svd, (4, 2)),
    case("svd/wide", _of_svd, (2, 2, 3)),
    case("svd/full", lambda x: linalg.svd(x)[0] ** 2, (2, 2)),
    case("svdvals", linalg.svdvals, (2, 3)),
    case("qr", lambda x: _joined(*linalg.qr(x)), (3, 2)),
    case("qr/wide", lambda x: _joined(*linalg.qr(x)), (2, 3)),
    case("qr/batch", lambda x: linalg.qr(x, "r"), (2, 2, 2)),
]

NORMS = [
    *(case(f"norm/vector {ord}", lambda x, ord=ord: linalg.norm(x, ord, 1), (2, 3))
      for ord in (1, 2, 3, -1, 0.5, np.inf, -np.inf)),
    *(case(f"norm/matrix {ord}", lambda x, ord=ord: linalg.norm(x, ord, (-2, -1), True), (2, 3, 2))
      for ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)),
    case("norm/axes", lambda x: linalg.norm(x, "nuc", (2, 0)), (2, 2, 3)),
    case("vector_norm", lambda x: linalg.vector_norm(x, ord=4), (2, 3)),
    case("matrix_norm", lambda x: linalg.matrix_norm(x, ord=2), (2, 2, 3)),
    case("cond", linalg.cond, (3, 2)),
    case("cond/1", lambda x: linalg.cond(_invertible(x), 1), (3, 3)),
]

HELPERS = [
    case("laid_out_like", lambda g: contraction.laid_out_like(g, _CUBE, "iij", "i"), (3,)),
    case("broadcast_with", lambda x: contraction.broadcast_with(x, _LIKE), (4, 1, 1)),
    case("diagonal_like", lambda g: diagonals.diagonal_like(g, _CUBE, 1, 2, 0), (3, 2)),
    case("diag_like", lambda g: diagonals.diag_like(g, _LIKE, 1), (2,)),
    case("diag_like/vector", lambda g: diagonals.diag_like(g, np.zeros(2), 1), (3, 3)),
    case("half_lower", diagonals.half_lower, (2, 3, 3)),
    case("as_columns", solving.as_columns, (3,)),
    case("columns_like", lambda x: solving.columns_like(x, np.zeros(3)), (2, 3, 1)),
    case("cofactors", solving.cofactors, (3, 3)),
    case("logabsdet", lambda a: solving.logabsdet(_invertible(a)), (2, 2)),
    case("without_rounding", degenerate.without_rounding, (2, 3)),
    case("gaps", lambda w: 1 / degenerate.gaps(w), (2, 3)),
    case("divided", lambda x, y: degenerate.divided(x, y, "eigh", "they are equal"), (2, 3), (3,),
         draw=positive),
    case("zero_over_zero", lambda x: degenerate.zero_over_zero(x, np.ones((3, 1)), 1.0), (3, 2)),
    case("of_whole_groups", lambda gv: degenerate.of_whole_groups(
        gv, np.array([1.0, 2.0]), "eigh", "they are equal"), (3, 2)),
    case("same_where_equal", lambda g: degenerate.same_where_equal(
        g, np.arange(3.0), np.zeros((2, 2)), "eigh", "they are equal"), (2, 3)),
    case("zero_where_free", lambda g: degenerate.zero_where_free(
        g, np.array([2.0, 1.0]), np.zeros((3, 2)), np.zeros((2, 2)), np.zeros((2, 2))), (2, 2)),
    case("shared", lambda g: degenerate.shared(g, np.arange(3.0), "eigh"), (2, 3)),
    case("shared_values", lambda w: degenerate.shared_values(w, "eigh"), (2, 3)),
    case("shared_but_zeros", lambda g: degenerate.shared_but_zeros(g, np.array([2.0, 1.0])), (3, 2)),
    case("zero_where_zero", lambda g: degenerate.zero_where_zero(g, np.array([2.0, 1.0])), (3, 2)),
    case("shared_singular_values", degenerate.shared_singular_values, (2, 3), draw=positive),
    case("beside_span", lambda x, u: decompositions.beside_span(x, u), (3, 2), (3, 1)),
    case("independent", lambda v: decompositions.independent(_invertible(v)), (2, 2)),
    case("square_matrix", decompositions.square_matrix, (2, 2)),
    case("of_full_rank", lambda r: decompositions.of_full_rank(_invertible(r)), (2, 2)),
]

CASES = [*PRODUCTS, *DIAGONALS, *SOLVING, *DECOMPOSITIONS, *NORMS, *HELPERS]
DEFINITIONS = (
    contraction, decompositions, degenerate, diagonals, least_squares, norms, products, solving)
