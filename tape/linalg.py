"""Linear algebra by NumPy's names: ``tape.linalg.solve(a, b)`` is ``np.linalg.solve(a, b)`` with a
derivative. The matrices stand along the last two axes.

The operators are in ``tape/ops``, by subject. Here are those that NumPy has in another form outside of
np.linalg.
"""

from __future__ import annotations

import numpy as np

from tape import ops
from tape.ops.decompositions import cholesky, eig, eigh, eigvals, eigvalsh, qr, svd, svdvals
from tape.ops.shapes import matrix_transpose
from tape.ops.least_squares import lstsq, matrix_rank, pinv
from tape.ops.linalg import matmul
from tape.ops.norms import cond, matrix_norm, norm, vector_norm
from tape.ops.products import multi_dot, tensordot, vecdot
from tape.ops.solving import det, inv, matrix_power, slogdet, solve, tensorinv, tensorsolve
from tape.primitive import implements

__all__ = [
    "cholesky", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh", "inv",
    "lstsq", "matmul", "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "multi_dot",
    "norm", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot", "tensorinv",
    "tensorsolve", "trace", "vecdot", "vector_norm",
]


@implements(np.linalg.outer)
def outer(x, y, /):
    """out_ij = x_i y_j, of two vectors."""
    return ops.einsum("i,j->ij", x, y)


@implements(np.linalg.cross)
def cross(x, y, /, *, axis=-1):
    """The vector at right angles to x and y, along one axis of both."""
    return ops.cross(x, y, axis=axis)


@implements(np.linalg.diagonal)
def diagonal(x, /, *, offset=0):
    """The diagonal of each matrix: (..., n, m) -> (..., k)."""
    return ops.diagonal(x, offset, -2, -1)


@implements(np.linalg.trace)
def trace(x, /, *, offset=0):
    """The sum of the diagonal of each matrix: (..., n, m) -> (...)."""
    return ops.trace(x, offset, -2, -1)
