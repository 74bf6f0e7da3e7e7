"""Dropout as a module."""

from __future__ import annotations

import numpy as np

import tape
from nn.layers.init import Rng
from nn.layers.module import Module
from tape import Tensor


class Dropout(Module):
    """Zero each element with probability `p` while training; see `tape.dropout`.

    It draws from a generator that is spawned from `rng`, so that the numbers that `rng` itself gives
    do not depend on dropout.
    """

    def __init__(self, p: float, rng: Rng = None):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p}")
        self.p = p
        (self.rng,) = np.random.default_rng(rng).spawn(1)

    def forward(self, x: Tensor) -> Tensor:
        return tape.dropout(x, self.p, self.rng) if self.training and self.p else x
