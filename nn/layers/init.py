"""Initial values. Everything random takes a generator, so that a seed fixes a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from nn.layers.parameter import Parameter

Rng = Any       # numpy.random.Generator, an int seed, or None for fresh entropy


def normal(rng: Rng, shape: tuple[int, ...], std: float) -> Parameter:
    """Independent normal entries with mean 0, float32."""
    return Parameter(np.random.default_rng(rng).standard_normal(shape, np.float32) * np.float32(std))


def uniform(rng: Rng, shape: tuple[int, ...], bound: float) -> Parameter:
    """Independent entries from [-bound, bound), float32."""
    return Parameter(((np.random.default_rng(rng).random(shape, np.float32) * 2 - 1)
                      * np.float32(bound)))


def zeros(*shape: int) -> Parameter:
    """Zeros, float32."""
    return Parameter(np.zeros(shape, np.float32))


def ones(*shape: int) -> Parameter:
    """Ones, float32."""
    return Parameter(np.ones(shape, np.float32))
