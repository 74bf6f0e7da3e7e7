"""Matrix product, with all of NumPy's rank rules, and that with a transposed matrix."""

from __future__ import annotations

import numpy as np

from tape import kernels
from tape.primitive import derivative


@derivative(lambda g, like_x, y: matmul_gradient_x(g, like_x, y),
            lambda g, x, like_y: matmul_gradient_y(g, x, like_y), numpy=np.matmul, symbol="@",
            fresh=True)
def matmul(x, y, /):
    """x @ y: (..., n, k) @ (..., k, m) -> (..., n, m); a vector counts as a row on the left, as a
    column on the right, and leading axes broadcast.

    With out_ij = sum_k x_ik y_kj, the element x_ik has a part in row i of out alone:

        dL/dx_ik = sum_j dL/dout_ij * dout_ij/dx_ik = sum_j g_ij y_kj,  that is  g @ y^T,

    and likewise dL/dy_kj = sum_i x_ik g_ij, that is x^T @ g. Where a batch of matrices x meets one
    matrix y, y's gradient is summed over the batch, as for anything that was broadcast.
    """
    try:
        return kernels.matmul(x, y)
    except ValueError as error:
        left, right = np.shape(x)[-1:], np.shape(y)[-2:][:1]
        if left == right or not left or not right:
            raise
        raise ValueError(f"the last axis of the left operand, {left[0]}, must be as long as the last "
                         f"but one of the right, {right[0]}") from error


# Both are linear in g and in the other operand, so their derivatives are the same three products:
# L = <G, g y^T> = <G y, g> = <y, G^T g>.

@derivative(lambda g, y: matmul(g, y), None,
            lambda g, g_out, like_y: matmul_gradient_y(g_out, g, like_y))
def matmul_gradient_x(g_out, like, y, /):
    """g @ y^T in the shape that x (`like`) has."""
    return kernels.matmul_gradient_x(g_out, like, y)


@derivative(lambda g, x: matmul(x, g),
            lambda g, g_out, like_x: matmul_gradient_x(g_out, like_x, g), None)
def matmul_gradient_y(g_out, x, like, /):
    """x^T @ g in the shape that y (`like`) has."""
    return kernels.matmul_gradient_y(g_out, x, like)


# The rules are those of matmul, since out = x @ y^T has the derivatives g @ y and g^T @ x.

@derivative(lambda g, y: matmul(g, y),
            lambda g, x, like_y: matmul_gradient_y(x, g, like_y), name="inner", fresh=True)
def inner_with_matrix(x, y, /):
    """x @ y^T of a matrix y, which is not copied: (..., k), (n, k) -> (..., n)."""
    if x.shape[-1] != y.shape[1]:
        raise ValueError(f"the last axes must be equally long, got shapes {x.shape} and {y.shape}")
    return kernels.matmul(x, y.T)


@derivative(lambda g: g, None)       # as for any broadcasting, the engine sums over the copies
def stack_like(x, like, /):
    """The matrix x, copied for each matrix of `like`: (n, m), (B, k, n) -> (B, n, m)."""
    if np.ndim(x) < 2 or like.ndim < 2:
        return x
    return np.broadcast_to(x, np.broadcast_shapes(x.shape[:-2], like.shape[:-2]) + x.shape[-2:])
