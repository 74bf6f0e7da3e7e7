"""Recurrent layers as loops of plain NumPy over rows and time, written from the papers."""

import numpy as np

import nn


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --- one step, from the papers; W (C, G H), b, U (H, G H), and for a GRU a ---


def elman(x, state, W, b, U):
    return [np.tanh(x @ W + b + state[0] @ U)]


def lstm(x, state, W, b, U):
    h, c = state
    H = len(h)
    i, f, g, o = (x @ W[:, k * H:(k + 1) * H] + b[k * H:(k + 1) * H] + h @ U[:, k * H:(k + 1) * H]
                  for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def gru(x, state, W, b, U, a):
    (h,) = state
    (Wr, Wz, Wn), (br, bz, bn), (Ur, Uz, Un) = (np.split(part, 3, axis=-1) for part in (W, b, U))
    r, z = sigmoid(x @ Wr + br + h @ Ur), sigmoid(x @ Wz + bz + h @ Uz)
    n = np.tanh(x @ Wn + bn + r * (h @ Un + a))
    return [z * h + (1 - z) * n]


STEPS = {nn.RNN: elman, nn.LSTM: lstm, nn.GRU: gru}


def by_loops(step, x, weights, before):
    """Over layers, rows and time; `weights` is a list for each layer, `before` (parts, L, B, H)."""
    after = np.array(before)
    for layer, arrays in enumerate(weights):
        out = np.zeros((*x.shape[:2], before.shape[-1]))
        for row in range(len(x)):
            state = list(before[:, layer, row])
            for t in range(x.shape[1]):
                state = step(x[row, t], state, *arrays)
                out[row, t] = state[0]
            after[:, layer, row] = state
        x = out
    return x, after


def arrays_of(module):
    """The arrays of each layer, in the order of the arguments of a step."""
    return [[layer.input.weight.data, layer.input.bias.data, layer.hidden.weight.data,
             *([layer.candidate_bias.data] if isinstance(module, nn.GRU) else [])]
            for layer in module.layers]
