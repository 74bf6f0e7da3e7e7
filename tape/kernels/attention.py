"""Attention block by block: exact, in memory that grows with the length and not with its square.

The operator and its backward are derived in `tape.attention`.
"""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

from tape.kernels.causal import attention_scale
from tape.kernels.numpy import broadcasts_to
from tape.kernels.products import pairs
from tape.kernels.sums import gradient_in_float32, in_float32, unbroadcast

# Measured over 1,024 to 4,096 tokens (4 heads of 32, float32): 64 takes a third longer, since each
# call of NumPy does less; 256 and 512 take as long or up to a third longer, and four or sixteen times
# the memory for a block.
BLOCK = 128


def attention(q, k, v, mask, causal, scale, block_size):
    """The result (..., T, D_v); left for the backward are it, and each row's maximum and sum.

    The sum of exp(scores - maximum) is kept beside the maximum: beside a large one, as where a mask
    adds -1e9 to all scores of a row, its logarithm would be lost.
    """
    mask = None if mask is None else np.asarray(mask)
    return _attention(q, k, v, mask=mask, causal=causal, scale=scale, block_size=block_size)


@in_float32
def _attention(q, k, v, *, mask, causal, scale, block_size):
    q, k, v = (x if x.dtype.kind == "f" else x.astype(np.float64) for x in map(np.asarray, (q, k, v)))
    leading = _leading_axes(q, k, v, mask, causal)
    shape = *leading, q.shape[-2]
    out = np.zeros((*shape, v.shape[-1]), np.result_type(q, k, v))
    peaks = np.full((*shape, 1), -np.inf, np.result_type(q, k))
    totals = np.zeros_like(peaks)
    scale = attention_scale(q) if scale is None else scale
    for entry in _entries(leading, _over_heads(q, leading), k, v, mask, out, peaks, totals):
        _attend(*entry, causal=causal, scale=scale, size=block_size or BLOCK)
    return out, {"peaks": peaks, "totals": totals, "unrounded": out}


def _attend(q, k, v, mask, out, peaks, totals, *, causal, scale, size):
    """Fill in out (H, T, D_v), peaks and totals (H, T, 1), by a running maximum and a running sum.

    Milakov and Gimelshein 2018, arXiv:1805.02867, algorithm 3: what was summed up relative to the old
    maximum of a row is multiplied by exp(old - new) when a block of keys has a larger one.
    """
    for rows, blocks in _blocks(q.shape[-2], k.shape[-2], causal, size):
        queries = q[..., rows, :] * scale                                       # (H, t, D)
        peak, total, mixed = peaks[..., rows, :], 0, 0                          # (H, t, 1)
        for columns, future in blocks:
            e = _scores(queries, k[..., columns, :], _part(mask, rows, columns), future)  # (H, t, s)
            old, peak = peak, np.maximum(peak, e.max(axis=-1, keepdims=True))
            shift = np.where(np.isneginf(peak), 0, peak)        # a row that saw nothing yet stays zero
            e -= shift
            np.exp(e, out=e)
            kept = np.exp(old - shift)
            total = total * kept + e @ np.ones((e.shape[-1], 1), e.dtype)
            mixed = mixed * kept + pairs(e, v[..., columns, :])                 # (H, t, D_v)
        if blocks:
            out[..., rows, :] = mixed / np.where(np.equal(total, 0), 1, total)
            peaks[..., rows, :], totals[..., rows, :] = peak, total             # -inf and 0: saw no key


@gradient_in_float32
def attention_backward(g, q, k, v, mask, causal, scale, block_size, peaks, totals, unrounded):
    """Gradients of q, k, v and of a mask of floats; derived in `tape.attention`."""
    leading = peaks.shape[:-2]
    scale = attention_scale(q) if scale is None else scale
    g_q, g_k, g_v = (np.zeros((*leading, *x.shape[-2:]), np.result_type(g, q, k, v)) for x in (q, k, v))
    mask = None if mask is None else np.asarray(mask)
    learned = mask is not None and mask.dtype.kind == "f"
    g_mask = np.zeros(mask.shape, g_q.dtype) if learned else None
    for entry in _entries(leading, g, _over_heads(q, leading), k, v, mask, peaks, totals,
                          unrounded, g_q, g_k, g_v, g_mask):
        _attend_backward(*entry, causal=causal, scale=scale, size=block_size or BLOCK)
    return g_q, g_k, g_v, g_mask


def _attend_backward(g, q, k, v, mask, peaks, totals, out, g_q, g_k, g_v, g_mask, *, causal, scale,
                     size):
    """Add to the gradients: the weights of a block are exp(scores - peak) / total, computed again.

    All that they are multiplied by has a factor of g, which is divided by the total in their place.
    """
    for rows, blocks in _blocks(q.shape[-2], k.shape[-2], causal, size):
        queries, total = q[..., rows, :] * scale, totals[..., rows, :]
        g_rows = g[..., rows, :] / np.where(np.equal(total, 0), 1, total)                 # (H, t, D_v)
        along = np.einsum("...i,...i->...", g_rows, out[..., rows, :])[..., None]         # (H, t, 1)
        shift = np.where(np.isneginf(peaks[..., rows, :]), 0, peaks[..., rows, :])
        for columns, future in blocks:
            keys, values = k[..., columns, :], v[..., columns, :]
            weights = _scores(queries, keys, _part(mask, rows, columns), future)          # (H, t, s)
            weights -= shift
            np.exp(weights, out=weights)
            g_v[..., columns, :] += pairs(np.swapaxes(weights, -1, -2), g_rows)
            g_scores = pairs(g_rows, np.swapaxes(values, -1, -2))
            g_scores -= along
            g_scores *= weights
            g_q[..., rows, :] += pairs(g_scores, keys)
            g_k[..., columns, :] += pairs(np.swapaxes(g_scores, -1, -2), queries)
            if g_mask is not None:
                part = _part(g_mask, rows, columns)
                part += unbroadcast(g_scores, part.shape)
        g_q[..., rows, :] *= scale


def _scores(queries, keys, mask, future):
    """queries keys^T + mask, (H, t, s), with -inf where `future` (t, s) holds."""
    scores = pairs(queries, np.swapaxes(keys, -1, -2))
    if mask is not None and mask.dtype.kind == "b":
        np.copyto(scores, -np.inf, where=~mask)
    elif mask is not None:
        scores += mask
    if future is not None:
        np.copyto(scores, -np.inf, where=future)
    return scores


def _blocks(queries: int, keys: int, causal: bool, size: int) -> Iterator[tuple[slice, list]]:
    """Blocks of queries, each with the blocks of keys that it may see and what is future in them.

    That is None where nothing is. Blocks that lie wholly in the future are left out.
    """
    ahead = keys - queries if causal else keys            # query i sees the keys up to i + ahead
    for start in range(0, queries, size):
        rows = slice(start, min(start + size, queries))
        blocks = []
        for first in range(0, min(keys, rows.stop + ahead), size):
            columns = slice(first, min(first + size, keys))
            future = None
            if columns.stop - 1 > rows.start + ahead:
                last = np.arange(rows.start, rows.stop)[:, None] + ahead
                future = np.arange(columns.start, columns.stop) > last
            blocks.append((columns, future))
        yield rows, blocks


def _part(mask, rows: slice, columns: slice):
    """The block of a mask (..., T or 1, S or 1)."""
    if mask is None:
        return None
    every = slice(None)
    return mask[..., rows if mask.shape[-2] > 1 else every, columns if mask.shape[-1] > 1 else every]


def _entries(leading: tuple, *arrays: Any) -> Iterator[list]:
    """The arrays for each place of the leading axes without the last, that of the heads.

    Heads go through each step together, in one call of NumPy, and the entries of a batch one after
    the other, so that a block stays small however large the batch is.
    """
    rank = len(leading) + 2
    padded = [None if x is None else x.reshape(*(1,) * (rank - x.ndim), *x.shape) for x in arrays]
    for place in np.ndindex(leading[:-1]):
        yield [None if x is None else x[tuple(i if n > 1 else 0 for i, n in zip(place, x.shape))]
               for x in padded]


def _over_heads(q, leading: tuple):
    """q with all leading axes, so that the scores have them too; a view."""
    return np.broadcast_to(q, (*leading, *q.shape[-2:]))


def _leading_axes(q, k, v, mask, causal) -> tuple[int, ...]:
    """The leading axes of the result; a ValueError where the shapes do not go together."""
    fits = min(q.ndim, k.ndim, v.ndim) >= 2 and q.shape[-1] == k.shape[-1] and (
        k.shape[-2] == v.shape[-2]) and not (causal and q.shape[-2] > k.shape[-2])
    if not fits:
        sizes = " with T <= S" if causal else ""
        raise ValueError(f"attention: q (..., T, D), k (..., S, D) and v (..., S, D_v){sizes}; got "
                         f"{q.shape}, {k.shape}, {v.shape}")
    leading = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    wanted = *leading, q.shape[-2], k.shape[-2]
    if mask is not None and mask.dtype.kind not in "bf":
        raise TypeError(f"attention: mask must be of booleans (True: may attend) or of floats (added "
                        f"to the scores), got {mask.dtype}. Use mask.astype(bool).")
    if mask is not None and not broadcasts_to(mask.shape, wanted):
        raise ValueError(f"attention: mask must broadcast to (..., T, S) = {wanted}, got shape "
                         f"{mask.shape}")
    return leading
