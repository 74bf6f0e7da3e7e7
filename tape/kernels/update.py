"""Updates of arrays in place, for optimisers."""

from __future__ import annotations

import itertools
import math

import numpy as np

from tape.kernels.sums import sum_dtype


def adam_update(arrays, gradients, m, v, t, lr, betas, eps, weight_decay=0.0, decoupled=False):
    """Update number t (from 1) of some arrays p, given their gradients g; the algorithm of Adam.

        m += (1 - beta1) (g - m),    v = beta2 v + (1 - beta2) g^2
        p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1. Of the decay w, w p is added to g; `decoupled`,
    lr w p is subtracted from p besides, with the p of before (Loshchilov and Hutter 2019,
    arXiv:1711.05101, algorithm 2).

    Parameters
    ----------
    arrays, gradients : lists of arrays, a gradient of the same shape for each array
        The arrays are changed. Of float16 the update is computed in float32 and rounded once.
    m, v : arrays (N,)
        The running means of all arrays, one after the other; changed, in float32 at least.
    t : int
    lr, eps, weight_decay : float
    betas : (float, float)
    decoupled : bool
    """
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
