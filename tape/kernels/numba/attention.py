"""Causal attention, a head at a time while its scores are in the processor's cache.

The mathematics is in `tape.causal_attention`, and why queries are taken in blocks in
``tape/kernels/causal.py``. The products are those of ``tape/kernels/numba/products.py``: by tiles where
heads have a multiple of 64 features, else by the BLAS. What is between takes NumPy six passes over the
scores forward and four back; here a row stays in the cache meanwhile.
"""

from __future__ import annotations

import numpy as np

from tape.kernels import causal
from tape.kernels.numba.bits import largest
from tape.kernels.numba.compiled import (
    DTYPES, INTEGER, READ, REAL, SPREAD, STRIDED, SUMS, TEAM, WRITE, inner, loop)
from tape.kernels.numba.exponential import exp
from tape.kernels.numba.products import available, prepared, times
from tape.kernels.numba.threads import in_parts, share, team_for
from tape.kernels.numba.tiles import AVAILABLE, NARROW, SIZE

BLOCK = 64              # queries in a block


def causal_attention(q, k, v, scale):
    """The result, laid out in memory as q, and the weights."""
    if not _suit(q, k, v) or q.shape[-2] > k.shape[-2]:
        return causal.causal_attention(q, k, v, scale)
    scale = causal.attention_scale(q) if scale is None else scale
    out = _empty(q, v.shape[-1])
    weights = np.empty((*q.shape[:-1], k.shape[-2]), q.dtype)
    _causal_attention[q.dtype](q, k, v, scale, out, weights, *team_for(weights.size))
    return out, {"weights": weights}


def causal_attention_backward(g, q, k, v, scale, weights):
    """Gradients of q, k and v, each laid out as what it belongs to."""
    # NumPy's kernel would read weights behind the blocks, which are not set if the loops made them.
    g = g if _has_rows(g) else np.array(g, order="C")
    if not (_suit(q, k, v, g) and weights.flags.c_contiguous):
        return causal.causal_attention_backward(g, q, k, v, scale, weights)
    scale = causal.attention_scale(q) if scale is None else scale
    g_q, g_k, g_v = [_empty(x, x.shape[-1]) for x in (q, k, v)]
    _causal_attention_backward[q.dtype](
        g, q, k, v, weights, scale, g_q, g_k, g_v, *team_for(weights.size))
    return g_q, g_k, g_v


def _suit(q, k, v, *gradient):
    """Whether the loops take these: heads (B, H, T, D) with the same B and H."""
    if not (available() and q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2]):
        return False
    for x in (q, k, v, *gradient):
        if not (type(x) is np.ndarray and x.dtype == q.dtype and x.size and x.ndim == 4
                and x.shape[:2] == q.shape[:2] and _has_rows(x)):
            return False
    return True


def _has_rows(x):
    """Whether the matrices in x have rows of neighbours in memory, one after the other."""
    across, along = x.strides[-2:]
    return (x.dtype in DTYPES and x.flags.aligned and along == x.itemsize and across % along == 0
            and across >= x.shape[-1] * along)


def _empty(x, width):
    """An array for rows of this width, laid out as x, but where x is the same for several heads.

    Of these NumPy would make neighbours in memory.
    """
    out = np.empty_like(x) if width == x.shape[-1] else np.empty_like(x, shape=(*x.shape[:-1], width))
    return out if 0 not in x.strides or _has_rows(out) else np.empty(out.shape, out.dtype)


# Query i sees the keys up to i + ahead. What lies behind in the block is zero, as the products want it.

@loop(STRIDED(4), STRIDED(4), STRIDED(4), REAL, SPREAD(4), WRITE(4), TEAM, INTEGER)
def _causal_attention(q, k, v, scale, out, weights, team, parts):
    _causal_attention_part(team, parts, (q, k, v, scale, out, weights))


@in_parts()
def _causal_attention_part(q, k, v, scale, out, weights, number, parts):
    heads = q.shape[1]
    for i in range(*share(number, parts, len(q) * heads)):
        b, h = divmod(i, heads)
        _attend(q[b, h], k[b, h], v[b, h], scale, out[b, h], weights[b, h])


@inner()
def _attend(q, k, v, scale, out, weights):
    """out (T, D) and weights (T, S) of one head, from q (T, D), k and v (S, D)."""
    queries, keys = weights.shape
    by_tiles = _by_tiles(q, v)
    k_columns = prepared(k.T if by_tiles else _transposed(k), by_tiles)      # (D, S)
    v_rows = prepared(v, by_tiles)                                           # (S, D)
    for stop in range(queries, 0, -BLOCK):
        start, seen = max(stop - BLOCK, 0), keys - queries + stop
        block = weights[start:stop, :seen]                                   # (t, s)
        times(q[start:stop], k_columns, block, False)
        _softmax(weights, start, stop, scale)
        times(block, v_rows, out[start:stop], False)


@inner(fastmath=SUMS)
def _softmax(weights, start, stop, scale):
    """a_j = exp(s_j - max s) / sum_j exp(s_j - max s) of s = scale x, in place, in rows x of (T, S)."""
    real = weights.dtype.type
    factor = real(scale)
    ahead = weights.shape[1] - weights.shape[0]
    for i in range(start, stop):
        seen = i + 1 + ahead
        row = weights[i, :seen]
        for j in range(seen):
            row[j] *= factor
        peak, total = largest(row), real(0)
        for j in range(seen):                      # not with the sum, which would not be vectorised
            row[j] = exp(row[j] - peak)
        for j in range(seen):
            total += row[j]
        normaliser = real(1) / total
        for j in range(seen):
            row[j] *= normaliser
        weights[i, seen:stop + ahead] = real(0)


@loop(STRIDED(4), STRIDED(4), STRIDED(4), STRIDED(4), READ(4), REAL, SPREAD(4), SPREAD(4), SPREAD(4),
      TEAM, INTEGER)
def _causal_attention_backward(g, q, k, v, weights, scale, g_q, g_k, g_v, team, parts):
    _causal_attention_backward_part(team, parts, (g, q, k, v, weights, scale, g_q, g_k, g_v))


@in_parts()
def _causal_attention_backward_part(g, q, k, v, weights, scale, g_q, g_k, g_v, number, parts):
    heads = q.shape[1]
    for i in range(*share(number, parts, len(q) * heads)):
        b, h = divmod(i, heads)
        _attend_backward(g[b, h], q[b, h], k[b, h], v[b, h], weights[b, h], scale,
                         g_q[b, h], g_k[b, h], g_v[b, h])


@inner()
def _attend_backward(g, q, k, v, weights, scale, g_q, g_k, g_v):
    """The gradients (T, D), (S, D), (S, D) of one head. The block that sees all keys comes first."""
    queries, keys = weights.shape
    by_tiles = _by_tiles(q, v)
    v_columns = prepared(v.T if by_tiles else _transposed(v), by_tiles)      # (D, S)
    k_rows = prepared(k, by_tiles)                                           # (S, D)
    scratch = np.empty((min(BLOCK, queries), keys), g.dtype)
    for stop in range(queries, 0, -BLOCK):
        start, seen = max(stop - BLOCK, 0), keys - queries + stop
        rows, kept, old = g[start:stop], weights[start:stop, :seen], seen < keys
        g_scores = scratch[:stop - start, :seen]                             # (t, s)
        times(rows, v_columns, g_scores, False)
        _softmax_backward(scratch, weights, start, stop, scale)
        times(g_scores, k_rows, g_q[start:stop], False)
        times(g_scores.T, prepared(q[start:stop], by_tiles), g_k[:seen], old)
        times(kept.T, prepared(rows, by_tiles), g_v[:seen], old)


@inner(fastmath=SUMS)
def _softmax_backward(g, weights, start, stop, scale):
    """ds_j = scale a_j (da_j - sum_j a_j da_j), in place, for the first rows of g and these of a."""
    real = g.dtype.type
    factor = real(scale)
    ahead = weights.shape[1] - weights.shape[0]
    for i in range(start, stop):
        seen = i + 1 + ahead
        row, kept, along = g[i - start, :seen], weights[i, :seen], real(0)
        for j in range(seen):
            along += row[j] * kept[j]
        for j in range(seen):
            row[j] = (row[j] - along) * kept[j] * factor
        g[i - start, seen:stop + ahead] = real(0)


@inner()
def _by_tiles(q, v):
    """Whether tiles are faster for all products: where none has panels that are half empty."""
    return (AVAILABLE and q.itemsize == SIZE and q.shape[1] % NARROW == 0
            and v.shape[1] % NARROW == 0 and len(v) >= NARROW)


@inner()
def _transposed(x):
    """(D, S) of (S, D), copied: BLAS takes half the time for it when matrices are small."""
    out = np.empty((x.shape[1], x.shape[0]), x.dtype)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j, i] = x[i, j]
    return out
