"""RMSNorm, SwiGLU and rotary positions; derived in ``tape/ops/llama.py``."""

from __future__ import annotations

import numpy as np

from tape.kernels.numpy import (
    _floating, _scalar_if_without_axes, check_of_rows, has_nan, past_the_scale, reciprocal_rms,
    zero_where_undefined)
from tape.kernels.pieces import pieces
from tape.kernels.sums import SINGLE, gradient_in_float32, in_float32


@in_float32
def rms_norm(x, weight, eps):
    """Divide the last axis by its root mean square; returns the result, and 1 / that of each row."""
    check_of_rows("rms_norm", x, weight=weight)
    x = _floating(x)
    rrms = reciprocal_rms(x, eps)
    out = np.multiply(x, rrms, dtype=np.result_type(x, x if weight is None else weight))
    if weight is not None:
        out *= weight
    return out, {"rrms": rrms}


@gradient_in_float32
def rms_norm_backward(g, x, weight, rrms):
    """Gradients of x and weight."""
    normalised = x * rrms
    g_x, along, g_weight = past_the_scale(g, normalised, weight)
    normalised *= along
    g_x -= normalised
    g_x *= rrms
    return g_x, g_weight


@in_float32
def swiglu(gate, x):
    """gate s x with s = 1 / (1 + exp(-gate))."""
    if np.shape(gate) != np.shape(x):
        raise ValueError(f"swiglu: gate and x must have one shape, got {np.shape(gate)} and "
                         f"{np.shape(x)}")
    gate = _floating(gate)
    out = np.empty(gate.shape, np.result_type(gate, x))
    logistic = np.empty_like(gate)
    with np.errstate(over="ignore"):                            # exp = inf is s = 0, as it should be
        for gate, x, s, y in pieces(gate, x, logistic, out):
            np.negative(gate, out=s)
            np.exp(s, out=s)
            s += 1
            np.divide(1, s, out=s)
            np.multiply(gate, s, out=y)
            y *= x
    return _scalar_if_without_axes(out), {"s": _scalar_if_without_axes(logistic)}


@gradient_in_float32
def swiglu_backward(g, gate, x, s):
    """Gradients of gate and x, with a = gate s: g x (s + a (1 - s)) and g a."""
    gate = _floating(gate)
    g_gate, g_x = (np.empty(gate.shape, np.result_type(gate, x)) for _ in range(2))
    for h, z, y, logistic, of_gate, a in pieces(g, gate, x, s, g_gate, g_x):
        np.multiply(z, logistic, out=a)
        np.subtract(1, logistic, out=of_gate)
        of_gate *= a
        of_gate += logistic
        of_gate *= y
        of_gate *= h
        a *= h
    return tuple(_scalar_if_without_axes(zero_where_undefined(found, g) if has_nan(found) else found)
                 for found in (g_gate, g_x))


def rotate_pairs(x, cos, sin):
    """Pairs of the last axis, as complex numbers, times cos + j sin."""
    if not (np.ndim(x) and np.ndim(cos) and np.shape(cos) == np.shape(sin)
            and x.shape[-1] == 2 * cos.shape[-1]):
        raise ValueError(f"rotate_pairs: x (..., T, D) takes cosines and sines (T, D/2), got shapes "
                         f"{np.shape(x)}, {np.shape(cos)} and {np.shape(sin)}")
    dtype = np.result_type(x, cos, sin)
    real = np.result_type(dtype, SINGLE)
    number = np.result_type(real, np.complex64)
    neighbours = x.dtype == real and x.strides[-1] == x.itemsize
    pairs = (x if neighbours else np.array(x, real, order="C")).view(number)        # (..., T, D/2)
    turns = cos + 1j * sin
    shape = np.broadcast_shapes(pairs.shape, turns.shape)
    out = np.empty((*shape[:-1], x.shape[-1]), real)
    np.multiply(pairs, turns, out=out.view(number))
    return out.astype(dtype, copy=False)
