"""The position-wise feed-forward layer of a Transformer."""

from __future__ import annotations

import numpy as np

from nn.layers.activation import ACTIVATIONS
from nn.layers.init import Rng
from nn.layers.linear import Linear
from nn.layers.module import Module
from tape import Tensor


class FeedForward(Module):
    """Two linear layers with an activation between them, at each position by itself.

    Parameters
    ----------
    d_model : int
    d_hidden : int, optional
        Default 4 * d_model.
    activation : str
        "relu" or "gelu".
    """

    def __init__(self, d_model: int, d_hidden: int | None = None, activation: str = "relu",
                 bias: bool = True, rng: Rng = None):
        if activation not in ACTIVATIONS:
            raise ValueError(f"FeedForward: activation must be one of {sorted(ACTIVATIONS)}, got "
                             f"{activation!r}")
        rng = np.random.default_rng(rng)
        d_hidden = 4 * d_model if d_hidden is None else d_hidden
        self.hidden = Linear(d_model, d_hidden, bias, rng)
        self.activation = ACTIVATIONS[activation]
        self.output = Linear(d_hidden, d_model, bias, rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.activation(self.hidden(x)))
