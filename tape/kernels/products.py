"""Products of matrices, and their gradients."""

from __future__ import annotations

import math

import numpy as np

from tape.kernels.choice import find
from tape.kernels.sums import gradient_in_float32, unbroadcast

FEW = 2 ** 20           # multiplications; for fewer, no set has anything better than NumPy's product


def dot(x, y):
    """x @ y of two matrices, by the set in use."""
    if x.shape[0] * y.size < FEW:
        return x.dot(y)             # the same product as np.matmul's, which takes 0.4 us more to begin
    return find("product")(x, y)


def pairs(x, y):
    """np.matmul(x, y), by the set in use where both have a matrix for each place of the same axes."""
    if np.ndim(x) > 2 and np.shape(x)[:-2] == np.shape(y)[:-2] and x.size * y.shape[-1] >= FEW:
        return find("product")(x, y)
    return np.matmul(x, y)


def product(x, y):
    """x @ y of two matrices, or of as many pairs of matrices in arrays of the same leading axes."""
    return np.matmul(x, y)


def matmul(x, y):
    """x @ y; a batch of rows against one matrix is a single large product rather than many."""
    if type(x) is type(y) is np.ndarray and y.ndim == 2:
        if x.ndim == 2:
            return dot(x, y)
        # Rows that do not follow each other are copied, if that is little beside the product.
        if x.ndim > 2 and (x.flags.c_contiguous or x.size * y.shape[1] >= FEW):
            return dot(as_rows(x), y).reshape(*x.shape[:-1], y.shape[-1])
    return pairs(x, y)


@gradient_in_float32
def matmul_gradient_x(g, x, y):
    """dL/dx of x @ y, in x's shape; derived in `tape.matmul`."""
    if y.ndim == 2 <= x.ndim:
        return matmul(g, y.T)
    if y.ndim == 1:
        return np.multiply.outer(g, y)                 # (..., k): also for x of rank 1
    if x.ndim == 1:
        return unbroadcast((y @ g[..., None])[..., 0], x.shape)      # (batch, k) -> (k,)
    return unbroadcast(matmul(g, y.swapaxes(-1, -2)), x.shape)


@gradient_in_float32
def matmul_gradient_y(g, x, y):
    """dL/dy of x @ y, in y's shape; derived in `tape.matmul`."""
    if x.ndim == y.ndim == 2:
        return dot(x.T, g)
    if x.ndim == 1:
        return x * g if y.ndim == 1 else x[:, None] * g[..., None, :]
    if y.ndim > 2:
        return unbroadcast(pairs(x.swapaxes(-1, -2), g), y.shape)
    rows = as_rows(x)                                  # rows of all batches in one product
    out = dot(rows.T, g.reshape(len(rows), y.shape[1] if y.ndim == 2 else 1))
    return out if y.ndim == 2 else out.reshape(y.shape)          # the tape would copy a view


def as_rows(x):
    """(..., D) as (N, D); unlike reshape(-1, D) also for D = 0."""
    if x.ndim == 2:
        return x
    return x.reshape(-1 if x.size else math.prod(x.shape[:-1]), x.shape[-1])
