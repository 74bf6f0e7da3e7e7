"""Updates of arrays in place, for optimisers."""

from __future__ import annotations

import itertools
import math

import numpy as np

from tape.kernels.pieces import pieces
from tape.kernels.sums import sum_dtype


def adam_update(arrays, gradients, m, v, t, lr, betas, eps, weight_decay=0.0, decoupled=False):
    """Change arrays in place; derived and described in `tape.adam_update`."""
    settings = t, lr, betas, eps, weight_decay, decoupled
    if len(arrays) == 1 and arrays[0].flags.c_contiguous and gradients[0].flags.c_contiguous:
        flat = arrays[0].reshape(-1), gradients[0].reshape(-1), m, v
        for array, g, own_m, own_v in pieces(*flat):
            _adam_update([array], [g], own_m, own_v, *settings)
    else:
        _adam_update(arrays, gradients, m, v, *settings)


def _adam_update(arrays, gradients, m, v, t, lr, betas, eps, weight_decay, decoupled):
    # One array for all: a dozen calls of NumPy take longer than the arithmetic of a small array.
    g = _side_by_side(gradients)                                # (N,)
    if weight_decay:
        decay = weight_decay * (lr if decoupled else 1) * _side_by_side(arrays)
        g = g if decoupled else g + decay
    beta1, beta2 = betas
    change = g - m
    change *= 1 - beta1
    m += change
    square = np.multiply(g, g, out=change)
    square *= 1 - beta2
    v *= beta2
    v += square
    # sqrt(v / c) + eps = (sqrt(v) + eps sqrt(c)) / sqrt(c), with c = 1 - beta2^t
    root = math.sqrt(1 - beta2 ** t)
    denominator = np.sqrt(v, out=square)
    denominator += eps * root
    step = np.divide(m, denominator, out=denominator)
    step *= lr * root / (1 - beta1 ** t)
    if decoupled and weight_decay:
        step += decay
    ends = itertools.accumulate(array.size for array in arrays)
    for array, end in zip(arrays, ends):
        array -= step[end - array.size:end].reshape(array.shape)


def _side_by_side(arrays):
    """The elements of all arrays, (N,), in float32 at least."""
    flat = np.concatenate(arrays, axis=None) if len(arrays) > 1 else arrays[0].reshape(-1)
    return flat.astype(sum_dtype(flat.dtype), copy=False)
