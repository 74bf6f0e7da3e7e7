"""The softmax of causal attention, a row at a time while it is in the processor's cache.

The products stay with BLAS: loops that LLVM vectorises take twice its time for them. What is between
takes NumPy six passes over the scores forward and four back; a row here is read from memory once.
"""

from __future__ import annotations

from tape.kernels import causal
from tape.kernels.numba.bits import largest
from tape.kernels.numba.compiled import DTYPES, INTEGER, READ, REAL, SUMS, WRITE, loop
from tape.kernels.numba.exponential import exp


def causal_attention(q, k, v, scale):
    """The result, and the weights."""
    return causal.attend(q, k, v, scale, _softmax_rows)


def causal_attention_backward(g, q, k, v, scale, weights):
    """Gradients of q, k and v."""
    return causal.attend_backward(g, q, k, v, scale, weights, _softmax_rows_backward)


def _softmax_rows(weights, rows, keys):
    if not _suit(weights):
        return causal.softmax_rows(weights, rows, keys)
    _causal_attention[weights.dtype](_matrices(weights), rows.start, rows.stop, keys - rows.stop)


def _softmax_rows_backward(g, weights, rows, scale):
    if not _suit(g, weights):
        return causal.softmax_rows_backward(g, weights, rows, scale)
    _causal_attention_backward[g.dtype](_matrices(g), _matrices(weights), rows.start, scale)


def _suit(*arrays):
    """Whether the loop can write to these: a product of heads that are views may lie otherwise."""
    return all(x.size and x.dtype in DTYPES and x.dtype == arrays[0].dtype and x.flags.c_contiguous
               for x in arrays)


def _matrices(x):
    """(..., T, S) as (N, T, S)."""
    return x.reshape(-1, *x.shape[-2:])


# Query i sees the keys up to i + ahead. What lies behind in the block is zero, as the products want it.

@loop(WRITE(3), INTEGER, INTEGER, INTEGER, fastmath=SUMS)
def _causal_attention(weights, start, stop, ahead):
    """a_j = exp(s_j - max s) / sum_j exp(s_j - max s)."""
    real = weights.dtype.type
    for n in range(len(weights)):
        for i in range(start, stop):
            seen = i + 1 + ahead
            row = weights[n, i, :seen]
            peak, total = largest(row), real(0)
            for j in range(seen):                  # not with the sum, which would not be vectorised
                row[j] = exp(row[j] - peak)
            for j in range(seen):
                total += row[j]
            normaliser = real(1) / total
            for j in range(seen):
                row[j] *= normaliser
            weights[n, i, seen:stop + ahead] = real(0)


@loop(WRITE(3), READ(3), INTEGER, REAL, fastmath=SUMS)
def _causal_attention_backward(g, weights, start, scale):
    """ds_j = scale a_j (da_j - sum_j a_j da_j)."""
    real = g.dtype.type
    factor = real(scale)
    blocks, queries, keys = g.shape
    for n in range(blocks):
        for i in range(queries):
            seen = keys - queries + i + 1
            row, kept, along = g[n, i, :seen], weights[n, start + i, :seen], real(0)
            for j in range(seen):
                along += row[j] * kept[j]
            for j in range(seen):
                row[j] = (row[j] - along) * kept[j] * factor
            g[n, i, seen:] = real(0)
