"""Position encodings, because attention does not depend on order: vectors added, or rotations."""

from __future__ import annotations

import numpy as np

import tape
from nn.layers.cache import check_length
from nn.layers.init import Rng, normal
from nn.layers.module import Module
from tape import Tensor


def sinusoids(length: int, d: int) -> np.ndarray:
    """A table (length, d) of sines and cosines of geometrically growing wavelengths, float32.

    PE(t, 2i) = sin(t / 10000^(2i/d)), PE(t, 2i+1) = cos of the same: Vaswani et al. 2017,
    arXiv:1706.03762, section 3.5. A shift in t is a rotation of each pair, the same for all t.
    """
    t = np.arange(length)[:, None]                               # (T, 1)
    frequency = 10000.0 ** (-np.arange(0, d, 2) / d)             # (ceil(d/2),)
    table = np.zeros((length, d))
    table[:, 0::2] = np.sin(t * frequency)
    table[:, 1::2] = np.cos(t * frequency)[:, :d // 2]
    return table.astype(np.float32)


class SinusoidalPositionalEncoding(Module):
    """The table of `sinusoids`, fixed, added to x (..., T, d)."""

    def __init__(self, block_size: int, d: int):
        self.table = sinusoids(block_size, d)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add to x (..., T, d), whose positions are start, start + 1, ..."""
        return x + self.table[_span(x, start, len(self.table))]


class LearnedPositionalEncoding(Module):
    """A learned vector for each position, added to x (..., T, d). Starts normal, std 0.02."""

    def __init__(self, block_size: int, d: int, rng: Rng = None, std: float = 0.02):
        self.weight = normal(rng, (block_size, d), std)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Add to x (..., T, d), whose positions are start, start + 1, ..."""
        return x + self.weight[_span(x, start, len(self.weight))]


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
        even, odd = x[..., 0::2], x[..., 1::2]                   # (..., T, d/2)
        turned = [even * cos - odd * sin, even * sin + odd * cos]
        return tape.stack(turned, axis=-1).reshape(x.shape)      # (..., T, d/2, 2) -> (..., T, d)
