"""Dropout as a module."""

from __future__ import annotations

import numpy as np

import tape
from nn.layers.init import Rng
from nn.layers.module import Module
from tape import Tensor


class Dropout(Module):
    """Zero each element with probability `p` while training; see `tape.dropout`.

    It draws from a stream of its own, so that it disturbs no other random choice: a generator is
    spawned from `rng`, which leaves the numbers that `rng` itself gives as they were.
    """

    def __init__(self, p: float, rng: Rng = None):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p}")
        self.p = p
        (self.rng,) = np.random.default_rng(rng).spawn(1)

    def forward(self, x: Tensor) -> Tensor:
        return tape.dropout(x, self.p, self.rng) if self.training and self.p else x
