"""Normalisation layers."""

from __future__ import annotations

import numpy as np

import tape
from nn.layers.init import ones, zeros
from nn.layers.module import Module
from tape import Tensor


class LayerNorm(Module):
    """Normalise the last axis, then scale and shift it; see `tape.layer_norm`.

    Parameters
    ----------
    d : int
        Length of the last axis.
    bias : bool
        Whether there is a shift.
    eps : float
    """

    def __init__(self, d: int, bias: bool = True, eps: float = 1e-5):
        self.weight = ones(d)
        self.bias = zeros(d) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return tape.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Divide the last axis by its root mean square, then scale it: (..., d) -> (..., d).

        out = x / sqrt(mean(x^2) + eps) * weight

    Unlike layer norm it takes no mean away and adds no shift. Zhang and Sennrich 2019,
    arXiv:1910.07467, eq. 4. The weight (d,) starts at 1.

    Parameters
    ----------
    d : int
        Length of the last axis.
    eps : float
        Keeps a row of zeros from dividing by zero.

    Notes
    -----
    With r = 1 / sqrt(mean(x^2) + eps), n = x r and h = g weight, dr/dx_k = -r^3 x_k / d, so

        dL/dx_k = r h_k + sum_i h_i x_i dr/dx_k,  that is  dL/dx = r (h - n mean(h n)).
    """

    def __init__(self, d: int, eps: float = 1e-5):
        self.weight = ones(d)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        if dtype == np.float16:                                  # in which 256^2 is infinite
            x = x.astype(np.float32)
        mean_square = tape.mean(x * x, axis=-1, keepdims=True)   # (..., 1)
        out = x / tape.sqrt(mean_square + self.eps)
        return (out if out.dtype == dtype else out.astype(dtype)) * self.weight


NORMS = ("layer", "rms")


def norm_layer(kind: str, d: int, bias: bool = True) -> Module:
    """A `LayerNorm` ("layer") or an `RMSNorm` ("rms"), which never has a bias."""
    if kind not in NORMS:
        raise ValueError(f"norm_layer: norm_kind must be one of {list(NORMS)}, got {kind!r}")
    return LayerNorm(d, bias) if kind == "layer" else RMSNorm(d)
