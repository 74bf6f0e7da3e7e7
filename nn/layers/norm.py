"""Normalisation layers."""

from __future__ import annotations

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
