"""Causal attention with its weights kept, in blocks of queries that do not look at the future.

The operator and its backward are derived in `tape.causal_attention`. The products are NumPy's; the
softmax between them is a function in place, of which `tape/kernels/numba/` has another.

In whole rows a half of the (T, S) scores would be computed to be masked. Here queries are taken in
blocks, and a block sees only the keys up to its last query: for n blocks (n + 1) / 2n of the whole.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Iterator

import numpy as np

from tape.kernels.numpy import _dot_rows, _floating, _row_sums
from tape.kernels.sums import gradient_in_float32, in_float32

# With so few weights calls of NumPy take longer than what they compute, and all is done in one block.
FEW = 2 ** 14
BLOCK = 64              # queries in a block
# Entries of the first axis go together while their weights have at most so many elements (1 MB of
# float32), so that they stay in the cache from the product to the softmax to the next product.
TOGETHER = 2 ** 18


@functools.lru_cache(maxsize=16)
def future_mask(queries: int, keys: int, dtype: np.dtype) -> np.ndarray:
    """-inf where key j lies in the future of query i, that is j - i > keys - queries, else 0."""
    future = np.triu(np.ones((queries, keys), bool), keys - queries + 1)
    mask = np.where(future, -np.inf, 0).astype(dtype)
    mask.flags.writeable = False         # the cache hands the same array to everybody
    return mask


@functools.lru_cache(maxsize=16)
def _bounds(queries: int, keys: int, dtype: np.dtype) -> np.ndarray:
    """What np.fmin makes scores -inf with in the future, even NaN and inf; NaN bounds nothing."""
    bounds = np.where(future_mask(queries, keys, dtype) < 0, -np.inf, np.nan).astype(dtype)
    bounds.flags.writeable = False
    return bounds


def attention_scale(q):
    """1/sqrt(D) for queries (..., T, D)."""
    return q.shape[-1] ** -0.5


def softmax_rows(weights, rows, keys):
    """In place for these rows of (..., T, S), of which the last sees as many keys as `keys`."""
    block = weights[..., rows, :keys]
    if rows.stop - rows.start > 1:                             # the last query sees all keys
        masked = block[..., keys - (rows.stop - rows.start):]  # before, every query of the block sees
        np.fmin(masked, _bounds(*masked.shape[-2:], masked.dtype), out=masked)
    block -= np.maximum.reduce(block, axis=-1, keepdims=True, initial=-np.inf)
    np.exp(block, out=block)
    block /= _row_sums(block)


def softmax_rows_backward(g, weights, rows, scale):
    """In place, for g (..., t, s) of these rows: dL/d(weights) becomes scale * dL/d(scores)."""
    kept = weights[..., rows, :g.shape[-1]]
    g -= _dot_rows(g, kept)
    g *= kept
    g *= scale


def causal_attention(q, k, v, scale):
    """softmax(mask(q k^T * scale)) v over (..., T, D); returns the weights as a residual."""
    return attend(q, k, v, scale, softmax_rows)


def causal_attention_backward(g, q, k, v, scale, weights):
    """Gradients of q, k, v."""
    return attend_backward(g, q, k, v, scale, weights, softmax_rows_backward)


@in_float32
def attend(q, k, v, scale, softmax):
    """`causal_attention` with this softmax in place of `softmax_rows`."""
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2] or q.shape[-2] > k.shape[-2]:
        raise ValueError(f"causal_attention: q (..., T, D), k and v (..., S, D) with T <= S; got "
                         f"{q.shape}, {k.shape}, {v.shape}")
    q, k, v = _same_leading_axes(_floating(q), _floating(k), _floating(v))
    scale = attention_scale(q) if scale is None else scale
    shape = *q.shape[:-1], k.shape[-2]
    if math.prod(shape) > FEW:
        return _attend_in_blocks(q, k, v, scale, np.empty(shape, np.result_type(q, k)), softmax)
    weights = (q * scale) @ k.swapaxes(-1, -2)                 # (..., T, S)
    softmax(weights, slice(0, shape[-2]), shape[-1])
    return weights @ v, {"weights": weights}


def _attend_in_blocks(q, k, v, scale, weights, softmax):
    """`attend` in blocks; of the weights those that no block sees are not even set.

    The result lies in memory as q does: of heads (B, H, T, D) that are a view of (B, T, H, D), so that
    joining them takes no copy.
    """
    out = np.empty_like(q, np.result_type(q, k, v), shape=(*q.shape[:-1], v.shape[-1]))
    for part in _parts(weights.shape):
        queries, keys, values = q[part] * scale, _transposed(k[part]), v[part]
        for rows, seen in _blocks(*weights.shape[-2:]):
            block = weights[part][..., rows, :seen]                             # (..., t, s)
            np.matmul(queries[..., rows, :], keys[..., :seen], out=block)
            softmax(weights[part], rows, seen)
            np.matmul(block, values[..., :seen, :], out=out[part][..., rows, :])
    return out, {"weights": weights}


@gradient_in_float32
def attend_backward(g, q, k, v, scale, weights, softmax_backward):
    """`causal_attention_backward` with this function in place of `softmax_rows_backward`."""
    scale = attention_scale(q) if scale is None else scale
    q, k, v = _same_leading_axes(q, k, v)
    if weights.size > FEW:
        return _attend_in_blocks_backward(g, q, k, v, scale, weights, softmax_backward)
    g_scores = g @ v.swapaxes(-1, -2)                          # gradient of the weights, for now
    softmax_backward(g_scores, weights, slice(0, weights.shape[-2]), scale)
    return g_scores @ k, g_scores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ g


def _attend_in_blocks_backward(g, q, k, v, scale, weights, softmax_backward):
    """`attend_backward` in blocks. Each gradient lies in memory as its input does."""
    dtype = np.result_type(g, q, k, v)
    g_q, g_k, g_v = (np.empty_like(x, dtype) for x in (q, k, v))
    for part in _parts(weights.shape):
        kept, values = weights[part], _transposed(v[part])
        for rows, seen in _blocks(*weights.shape[-2:]):
            g_rows = g[part][..., rows, :]
            g_scores = g_rows @ values[..., :seen]                               # (..., t, s)
            softmax_backward(g_scores, kept, rows, scale)
            np.matmul(g_scores, k[part][..., :seen, :], out=g_q[part][..., rows, :])
            _add_product(g_k[part], g_scores, q[part][..., rows, :])
            _add_product(g_v[part], kept[..., rows, :seen], g_rows)
    return g_q, g_k, g_v


def _add_product(total, block, rows):
    """Add block^T rows to the first rows of `total`; what reaches its end is the first, and sets it."""
    seen = block.shape[-1]
    if seen == total.shape[-2]:
        np.matmul(block.swapaxes(-1, -2), rows, out=total)
    else:
        total[..., :seen, :] += block.swapaxes(-1, -2) @ rows


def _blocks(queries: int, keys: int) -> Iterator[tuple[slice, int]]:
    """Rows of queries, and how many keys they see: the last block first, which sees all."""
    for stop in range(queries, 0, -BLOCK):
        yield slice(max(stop - BLOCK, 0), stop), keys - queries + stop


def _parts(shape: tuple[int, ...]) -> Iterator[Any]:
    """Indices of the first axis that together take all weights of this shape (..., T, S)."""
    if len(shape) == 2 or math.prod(shape) <= TOGETHER:
        yield ()
        return
    entries = max(1, TOGETHER // math.prod(shape[1:]))
    for start in range(0, shape[0], entries):
        yield slice(start, start + entries)


def _same_leading_axes(q, k, v):
    """The three broadcast to the leading axes of all together."""
    if q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return q, k, v
    leading = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    return tuple(np.broadcast_to(x, (*leading, *x.shape[-2:])) for x in (q, k, v))


def _transposed(x):
    """(..., D, S) of (..., S, D), copied: BLAS takes half the time for it when matrices are small."""
    return np.ascontiguousarray(x.swapaxes(-1, -2))
