"""Dropout as a module."""

from __future__ import annotations

from functools import partial

import numpy as np

from nn.layers.batch_part import current_part
from nn.layers.init import Rng
from nn.layers.module import Module
from nn.layers.recomputed import drawn_once
from tape import Tensor


class Dropout(Module):
    """Zero each element with probability `p` while training; see `tape.dropout`.

    It draws from a generator that is spawned from `rng`, so that the numbers that `rng` itself gives
    do not depend on dropout. Within `nn.DataParallel` the parts of a batch draw together, and what
    `recomputed` runs again drops the same elements.
    """

    def __init__(self, p: float, rng: Rng = None):
        self.p = p
        self._check()
        (self.rng,) = np.random.default_rng(rng).spawn(1)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.p):
            return x
        self._check()                       # p may have been changed
        keep = drawn_once(partial(self._drawn, x.shape))
        return x * np.divide(keep, 1 - self.p, dtype=x.dtype)

    def _check(self) -> None:
        if not 0 <= self.p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), got {self.p}")

    def _drawn(self, shape: tuple[int, ...]) -> np.ndarray:
        """Which elements are kept."""
        part = current_part()
        drawn = (self.rng.random(shape, np.float32) if part is None else
                 part.random(self.rng, shape))
        return drawn >= self.p
