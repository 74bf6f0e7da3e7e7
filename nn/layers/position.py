"""Position encodings: vectors added to the tokens, because attention does not depend on order."""

from __future__ import annotations

import numpy as np

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

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[:_length(x, len(self.table))]


class LearnedPositionalEncoding(Module):
    """A learned vector for each position, added to x (..., T, d). Starts normal, std 0.02."""

    def __init__(self, block_size: int, d: int, rng: Rng = None, std: float = 0.02):
        self.weight = normal(rng, (block_size, d), std)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[:_length(x, len(self.weight))]


def _length(x: Tensor, block_size: int) -> int:
    if x.shape[-2] > block_size:
        raise ValueError(f"position: at most block_size = {block_size} positions, got {x.shape[-2]}. "
                         f"Cut the sequence, or build the model with a larger block_size.")
    return x.shape[-2]
