"""Normalisation layers."""

from __future__ import annotations

import operator
from typing import Any

import tape
from nn.layers.init import ones, zeros
from nn.layers.module import Module
from tape import Tensor


def _length(layer: str, d: Any) -> int:
    """The length of the last axis; ``[d]`` means the same, as in PyTorch."""
    if isinstance(d, (list, tuple)) and len(d) == 1:
        d = d[0]
    if isinstance(d, bool) or not hasattr(d, "__index__"):
        raise TypeError(f"{layer}: d must be the length of the last axis, which alone is normalised; "
                        f"got {d!r}")
    return operator.index(d)


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
        d = _length("LayerNorm", d)
        self.weight = ones(d)
        self.bias = zeros(d) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return tape.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Divide the last axis by its root mean square, then scale it; see `tape.rms_norm`.

    The weight (d,) starts at 1.

    Parameters
    ----------
    d : int
        Length of the last axis.
    eps : float
        Keeps a row of zeros from dividing by zero.
    """

    def __init__(self, d: int, eps: float = 1e-5):
        self.weight = ones(_length("RMSNorm", d))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return tape.rms_norm(x, self.weight, self.eps)


NORMS = ("layer", "rms")


def norm_layer(kind: str, d: int, bias: bool = True) -> Module:
    """A `LayerNorm` ("layer") or an `RMSNorm` ("rms"), which never has a bias."""
    if kind not in NORMS:
        raise ValueError(f"norm_layer: norm_kind must be one of {list(NORMS)}, got {kind!r}")
    return LayerNorm(d, bias) if kind == "layer" else RMSNorm(d)
