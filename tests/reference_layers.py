"""The layers as plain NumPy, written from their papers, with nothing of `nn` in them.

`w` are the arrays of the parameters by their names; `part` picks those of a module inside. Positions,
heads and rows are loops where a formula speaks of one at a time.
"""

import math

import numpy as np


def part(w, name):
    """The parameters below a name, without it."""
    return {key[len(name) + 1:]: array for key, array in w.items() if key.startswith(f"{name}.")}


# --- what is done with each vector by itself ---


def linear(w, x):
    return x @ w["weight"] + w.get("bias", 0)


def layer_norm(w, x, eps=1e-5):
    """Ba, Kiros and Hinton 2016, eq. 3 and 4."""
    mean = x.sum(-1, keepdims=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdims=True) / x.shape[-1]
    return (x - mean) / np.sqrt(variance + eps) * w["weight"] + w.get("bias", 0)


def rms_norm(w, x, eps=1e-5):
    """Zhang and Sennrich 2019, eq. 4."""
    return x / np.sqrt((x * x).sum(-1, keepdims=True) / x.shape[-1] + eps) * w["weight"]


def relu(x):
    return np.where(x > 0, x, 0)


def gelu_exact(x):
    """x P(Z <= x): Hendrycks and Gimpel 2016, section 2."""
    return x * np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2)(x)


def gelu_tanh(x):
    """Their approximation."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def silu(x):
    """Ramachandran et al. 2017, with beta = 1."""
    return x / (1 + np.exp(-x))


def feed_forward(w, x, activation=relu):
    """Vaswani et al. 2017, eq. 2."""
    return linear(part(w, "output"), activation(linear(part(w, "hidden"), x)))


def swiglu(w, x):
    """Shazeer 2020, eq. 6."""
    gate, hidden = linear(part(w, "gate"), x), linear(part(w, "hidden"), x)
    return linear(part(w, "output"), silu(gate) * hidden)


# --- positions and patches ---


def sinusoids(x):
    """Vaswani et al. 2017, section 3.5, added to x (B, T, C)."""
    out = np.array(x)
    for t in range(x.shape[1]):
        for i in range(0, x.shape[2], 2):
            angle = t / 10000 ** (i / x.shape[2])
            out[:, t, i] += math.sin(angle)
            if i + 1 < x.shape[2]:
                out[:, t, i + 1] += math.cos(angle)
    return out


def rotated(x):
    """Su et al. 2021, eq. 34: each pair of coordinates of x (..., T, D) as a complex number, turned."""
    T, D = x.shape[-2:]
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    pairs = pairs * np.exp(1j * np.outer(np.arange(T), 10000.0 ** (-np.arange(0, D, 2) / D)))
    return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)


def patches(w, images, size):
    """Dosovitskiy et al. 2021, eq. 1: (B, H, W) -> (B, N, C)."""
    B, H, W = images.shape
    cut = [images[:, i:i + size, j:j + size].reshape(B, -1)
           for i in range(0, H, size) for j in range(0, W, size)]
    return linear(part(w, "linear"), np.stack(cut, 1))


# --- attention and what is built on it ---


def attention(w, x, context=None, n_head=2, causal=False, allowed=None):
    """Vaswani et al. 2017, section 3.2, row by row, head by head, query by query.

    `allowed` (B, S) says which keys are no padding.
    """
    context = x if context is None else context
    q, k, v = (linear(part(w, name), a) for name, a in (("query", x), ("key", context),
                                                        ("value", context)))
    D, mixed = q.shape[-1] // n_head, np.zeros_like(q)
    for b in range(len(x)):
        for h in range(n_head):
            at = slice(h * D, (h + 1) * D)
            for t in range(x.shape[1]):
                seen = [s for s in range(context.shape[1]) if (allowed is None or allowed[b, s])
                        and (not causal or s <= t)]
                scores = np.array([q[b, t, at] @ k[b, s, at] for s in seen]) / math.sqrt(D)
                weights = np.exp(scores) / np.exp(scores).sum()
                mixed[b, t, at] = weights @ v[b, seen, at]
    return linear(part(w, "output"), mixed)


def residual(w, norm, x, sublayer, pre):
    """Pre-norm: Xiong et al. 2020; post-norm: Vaswani et al. 2017."""
    norm = part(w, norm)
    return x + sublayer(layer_norm(norm, x)) if pre else layer_norm(norm, x + sublayer(x))


def block(w, x, pre, context=None, **masks):
    """Vaswani et al. 2017, section 3.1: of an encoder, or with a context of a decoder."""
    own = {**masks, "causal": True} if context is not None else masks
    x = residual(w, "norm1", x, lambda y: attention(part(w, "attention"), y, **own), pre)
    if context is not None:
        x = residual(w, "cross_norm", x,
                     lambda y: attention(part(w, "cross_attention"), y, context), pre)
    return residual(w, "norm2", x, lambda y: feed_forward(part(w, "feed_forward"), y), pre)


def encoder(w, x, n_layer, pre, **masks):
    """The stack; behind pre-norm blocks one more norm."""
    for i in range(n_layer):
        x = block(part(w, f"blocks.{i}"), x, pre, **masks)
    return layer_norm(part(w, "norm"), x) if pre else x


def linear_biases(slopes, scores):
    """Press et al. 2022: a query at position i lowers the score of key j by slope (i - j)."""
    T, S = scores.shape[-2:]
    out = scores.copy()
    for head, slope in enumerate(slopes):
        for i in range(T):
            for j in range(S):
                out[:, head, i, j] -= slope * (S - T + i - j)
    return out
