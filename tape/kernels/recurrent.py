"""Recurrent layers over a whole sequence; derived in ``tape/ops/recurrent.py``.

The loop over time and the products are here for both sets of kernels. What a step does between the
products, element by element, is a kernel of its own, as `lstm_step`.
"""

from __future__ import annotations

import numpy as np

from tape.kernels.choice import find
from tape.kernels.numpy import sigmoid, zero_where_undefined
from tape.kernels.products import as_rows, dot
from tape.kernels.sums import gradient_in_float32, in_float32, reduce_sum


def check_sequence(operator, parts, projected, weight, steps, h, **others):
    """The dtype of the result; a ValueError unless the shapes fit.

    The step computes so many `parts` of the length H; the others are c or a bias.
    """
    given = {"h": h, **others}
    wanted = {name: h.shape[1:] if name == "bias" else h.shape for name in given}
    if projected.ndim == 3 and h.ndim == 2 and len(projected) == steps > 0:
        (rows, width), found = h.shape, {name: x.shape for name, x in given.items()}
        if found == wanted and weight.shape == (width, parts * width) and (
                projected.shape[1:] == (rows, parts * width)):
            return np.result_type(projected, weight, *given.values(), np.float16)
    long = f"{parts} H" if parts > 1 else "H"
    said = [f"{name} {'(H,)' if name == 'bias' else '(B, H)'}" for name in given]
    raise ValueError(f"{operator}: projected must have shape (T, B, {long}) with T = steps >= 1, and "
                     f"weight (H, {long}), {', '.join(said)}; got {projected.shape} for {steps} steps, "
                     f"{weight.shape}, {', '.join(str(x.shape) for x in given.values())}")


def _weight_gradient(h, states, g_products):
    """sum_t h_t^T d_t, from h before the first step, (B, H), and after each, (T, B, H)."""
    before = np.concatenate([np.asarray(h, states.dtype)[None], states[:-1]])
    return dot(as_rows(before).T, as_rows(g_products))


def _past(g, slope):
    """g times the slope; 0 where g is 0, whatever the slope."""
    return zero_where_undefined(g * slope, g)


# --- RNN ---


@in_float32
def rnn(projected, weight, h, steps):
    """h after each step (T, B, H), which is kept."""
    projected, weight, h = map(np.asarray, (projected, weight, h))
    dtype = check_sequence("rnn", 1, projected, weight, steps, h)
    out = np.empty(projected.shape, dtype)
    for t in range(steps):
        np.add(dot(h, weight), projected[t], out=out[t])
        h = np.tanh(out[t], out=out[t])
    return out, {"states": out}


@gradient_in_float32
def rnn_backward(g, weight, h, states):
    """Gradients of the projected inputs, the weight and h."""
    g_a, g_h = np.empty_like(states), 0
    for t in reversed(range(len(states))):
        g_a[t] = _past(g[t] + g_h, 1 - states[t] * states[t])
        g_h = dot(g_a[t], weight.T)
    return g_a, _weight_gradient(h, states, g_a), g_h


# --- LSTM ---


@in_float32
def lstm(projected, weight, h, c, steps):
    """h and c after each step (2, T, B, H); these, and i, f, g, o of each (T, B, 4 H), are kept."""
    projected, weight, h, c = map(np.asarray, (projected, weight, h, c))
    dtype = check_sequence("lstm", 4, projected, weight, steps, h, c=c)
    out, gates = np.empty((2, steps, *h.shape), dtype), np.empty(projected.shape, dtype)
    step = find("lstm_step")
    for t in range(steps):
        np.add(dot(h, weight), projected[t], out=gates[t])
        step(gates[t], c, *out[:, t])
        h, c = out[:, t]
    return out, {"states": out, "gates": gates}


@gradient_in_float32
def lstm_backward(g, weight, h, c, states, gates):
    """Gradients of the projected inputs, the weight, h and c."""
    step, g_a = find("lstm_step_backward"), np.empty_like(gates)
    g_h = g_c = 0
    for t in reversed(range(len(gates))):
        g_h, g_c = g[0, t] + g_h, g[1, t] + g_c
        step(g_h, g_c, gates[t], states[1, t - 1] if t else c, states[1, t], g_a[t])
        g_h = dot(g_a[t], weight.T)
    return g_a, _weight_gradient(h, states[0], g_a), g_h, g_c


def lstm_step(gates, c, h_after, c_after):
    """From a in `gates` (B, 4 H) its i, f, g and o, in place; and the other two, (B, H), from these."""
    i, f, g, o = np.split(gates, 4, axis=1)
    written = np.tanh(g)
    gates[...] = sigmoid(gates)
    g[...] = written
    np.multiply(f, c, out=c_after)
    c_after += i * g
    np.multiply(o, np.tanh(c_after), out=h_after)


def lstm_step_backward(g_h, g_c, gates, c, c_after, g_a):
    """From the gradients of h' and c' that of a, and in the place of `g_c` that of c."""
    i, f, g, o = np.split(gates, 4, axis=1)
    y = np.tanh(c_after)
    g_c += _past(g_h, o * (1 - y * y))
    slopes = gates * (1 - gates)
    of_i, of_f, of_g, of_o = np.split(slopes, 4, axis=1)
    np.subtract(1, g * g, out=of_g)
    parts = (g_c, of_i * g), (g_c, of_f * c), (g_c, of_g * i), (g_h, of_o * y)
    np.concatenate([_past(*part) for part in parts], axis=1, out=g_a)
    g_c[...] = _past(g_c, f)


# --- GRU ---


@in_float32
def gru(projected, weight, bias, h, steps):
    """h after each step (T, B, H); this, r, z, n (T, B, 3 H) and m (T, B, H) of each are kept."""
    projected, weight, bias, h = map(np.asarray, (projected, weight, bias, h))
    dtype = check_sequence("gru", 3, projected, weight, steps, h, bias=bias)
    out, products = (np.empty((steps, *h.shape), dtype) for _ in range(2))
    gates, step = np.array(projected, dtype, order="C"), find("gru_step")
    for t in range(steps):
        step(dot(h, weight), bias, h, gates[t], products[t], out[t])
        h = out[t]
    return out, {"states": out, "gates": gates, "products": products}


@gradient_in_float32
def gru_backward(g, weight, bias, h, states, gates, products):
    """Gradients of the projected inputs, the weight, the bias and h."""
    step, g_a, g_u = find("gru_step_backward"), np.empty_like(gates), np.empty_like(gates)
    g_h = 0
    for t in reversed(range(len(gates))):
        g_h = g[t] + g_h
        step(g_h, gates[t], products[t], states[t - 1] if t else h, g_a[t], g_u[t])
        g_h += dot(g_u[t], weight.T)
    g_bias = reduce_sum(g_u[..., -len(bias):], (0, 1))
    return g_a, _weight_gradient(h, states, g_u), g_bias, g_h


def gru_step(u, bias, h, gates, m, h_after):
    """From a in `gates` (B, 3 H) its r, z and n, in place; and m and h' (B, H), from u (B, 3 H)."""
    r, z, n = np.split(gates, 3, axis=1)
    both = slice(2 * h.shape[1])
    gates[:, both] = sigmoid(gates[:, both] + u[:, both])
    np.add(u[:, both.stop:], bias, out=m)
    np.tanh(n + r * m, out=n)
    np.add((1 - z) * n, z * h, out=h_after)


def gru_step_backward(g_h, gates, m, h, g_a, g_u):
    """From the gradient of h' those of a and u, and in the place of `g_h` the part of h's by z."""
    r, z, n = np.split(gates, 3, axis=1)
    of_n = _past(g_h, (1 - z) * (1 - n * n))
    of_r, of_z = _past(of_n, m * r * (1 - r)), _past(g_h, (h - n) * z * (1 - z))
    np.concatenate([of_r, of_z, of_n], axis=1, out=g_a)
    np.concatenate([of_r, of_z, _past(of_n, r)], axis=1, out=g_u)
    g_h[...] = _past(g_h, z)
