"""Dropout as a module."""

from __future__ import annotations

import numpy as np

import tape
from nn.layers.batch_part import current_part
from nn.layers.init import Rng
from nn.layers.module import Module
from tape import Tensor


class Dropout(Module):
    """Zero each element with probability `p` while training; see `tape.dropout`.

    It draws from a generator that is spawned from `rng`, so that the numbers that `rng` itself gives
    do not depend on dropout. Within `nn.DataParallel` the parts of a batch draw together.
    """

    def __init__(self, p: float, rng: Rng = None):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p}")
        self.p = p
        (self.rng,) = np.random.default_rng(rng).spawn(1)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.p):
            return x
        part = current_part()
        if part is None:
            return tape.dropout(x, self.p, self.rng)
        keep = part.random(self.rng, x.shape) >= self.p
        return x * (keep.astype(x.dtype) / (1 - self.p))
