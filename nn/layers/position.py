"""Position encodings, because attention does not depend on order.

Vectors added to the tokens, rotations of queries and keys, or a penalty on distance in the scores.
"""

from __future__ import annotations

import numpy as np

import tape
from nn.layers.cache import check_length
from nn.layers.init import Rng, normal
from nn.layers.module import Module
from tape import Tensor


def sinusoids(length: int, d: int) -> np.ndarray:
    """A table (length, d) of sines and cosines of geometrically growing wavelengths, float64.

    PE(t, 2i) = sin(t / 10000^(2i/d)), PE(t, 2i+1) = cos of the same: Vaswani et al. 2017,
    arXiv:1706.03762, section 3.5. A shift in t is a rotation of each pair, the same for all t.
    """
    t = np.arange(length)[:, None]                               # (T, 1)
    frequency = 10000.0 ** (-np.arange(0, d, 2) / d)             # (ceil(d/2),)
    table = np.zeros((length, d))
    table[:, 0::2] = np.sin(t * frequency)
    table[:, 1::2] = np.cos(t * frequency)[:, :d // 2]
    return table


class SinusoidalPositionalEncoding(Module):
    """The table of `sinusoids`, fixed, added to x (..., T, d)."""

    def __init__(self, block_size: int, d: int):
        self.table = sinusoids(block_size, d)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add to x (..., T, d), whose positions are start, start + 1, ..."""
        return x + self.table[_span(x, start, len(self.table))].astype(x.dtype)     # + (T, d)


class LearnedPositionalEncoding(Module):
    """A learned vector for each position, added to x (..., T, d). Starts normal, std 0.02."""

    def __init__(self, block_size: int, d: int, rng: Rng = None, std: float = 0.02):
        self.weight = normal(rng, (block_size, d), std)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add to x (..., T, d), whose positions are start, start + 1, ..."""
        span = _span(x, start, len(self.weight))
        whole = span == slice(0, len(self.weight))              # then there is nothing to pick
        return x + (self.weight if whole else self.weight[span])        # (..., T, d) + (T, d)


ADDED = ("learned", "sinusoidal")


def position_layer(kind: str, block_size: int, d: int, rng: Rng = None) -> Module:
    """A `LearnedPositionalEncoding` ("learned") or a `SinusoidalPositionalEncoding` ("sinusoidal")."""
    if kind not in ADDED:
        raise ValueError(f"position_layer: kind must be one of {list(ADDED)}, got {kind!r}")
    return (LearnedPositionalEncoding(block_size, d, rng) if kind == "learned" else
            SinusoidalPositionalEncoding(block_size, d))


def _span(x: Tensor, start: int, block_size: int) -> slice:
    """The positions of x (..., T, d)."""
    check_length("position", block_size, start, x.shape[-2])
    return slice(start, start + x.shape[-2])


class RotaryEmbedding(Module):
    """Rotate pairs of coordinates of queries and keys by angles that grow with the position.

    (..., T, d) -> (..., T, d). Pair i, the coordinates 2i and 2i + 1 of the vector at position t, is
    turned by the angle a = t * base^(-2i/d):

        out_2i = x_2i cos a - x_2i+1 sin a,    out_2i+1 = x_2i sin a + x_2i+1 cos a

    Rotations keep lengths, and the product of a query turned by a and a key turned by b depends on
    a - b alone, so scores depend on distances: Su et al. 2021, arXiv:2104.09864, eq. 15 and 34. It
    has no parameters, and no longest sequence.

    Parameters
    ----------
    d : int
        Width of a head; even.
    base : float
        The wavelengths go from 2 pi to nearly 2 pi * base.
    """

    frequencies: Tensor

    def __init__(self, d: int, base: float = 10000.0):
        if d % 2:
            raise ValueError(f"RotaryEmbedding: d must be even, because pairs are rotated, got {d}. "
                             f"Take heads of an even width.")
        self.d = d
        self.register_buffer("frequencies", base ** (-np.arange(0, d, 2) / d), saved=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Rotate x (..., T, d), whose positions are start, start + 1, ..."""
        if x.shape[-1] != self.d:
            raise ValueError(f"RotaryEmbedding: the last axis of x must be {self.d}, got shape "
                             f"{x.shape}")
        t = np.arange(start, start + x.shape[-2])[:, None]       # (T, 1)
        angle = t * self.frequencies.data                        # (T, d/2), float64
        cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
        return tape.rotate_pairs(x, cos, sin)


def alibi_slopes(n_head: int) -> np.ndarray:
    """(H,) slopes of `ALiBi`: 2^(-8i/H) for i = 1, ..., H, where H is a power of two.

    For other H those of the next smaller power n, then every other one of 2n, the first, the third, ...
    (the authors' code, https://github.com/ofirpress/attention_with_linear_biases).
    """
    n = 2 ** (int(n_head).bit_length() - 1)
    slopes = 2.0 ** (-8 * np.arange(1, n + 1) / n)
    between = 2.0 ** (-8 * np.arange(1, 2 * n, 2) / (2 * n))
    return np.concatenate([slopes, between[:n_head - n]])


class ALiBi(Module):
    """Attention with linear biases: each head lowers the scores of keys in proportion to distance.

        score_h(i, j) = q_i . k_j / sqrt(D) - m_h (i - j),    m_h by `alibi_slopes`

    Press, Smith and Lewis 2022, arXiv:2108.12409, section 3. With a large slope a head sees what is
    near, with a small one nearly all. There are no parameters and no longest sequence: distances
    beyond those of the training continue the same line, which the paper finds works better than
    positions that were never seen.

    Parameters
    ----------
    n_head : int
    """

    slopes: Tensor

    def __init__(self, n_head: int):
        if not isinstance(n_head, (int, np.integer)) or n_head < 1:
            raise ValueError(f"ALiBi: n_head must be a positive integer, got {n_head!r}")
        self.register_buffer("slopes", alibi_slopes(n_head), saved=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Causal scores (B, H, T, S), whose queries are the last T of S positions, with the penalty."""
        T, S = scores.shape[-2:]
        distance = np.arange(S - T, S)[:, None] - np.arange(S)   # (T, S); below 0 where all is masked
        penalty = self.slopes.data[:, None, None] * distance     # (H, T, S), float64
        return scores - penalty.astype(scores.dtype)
