"""The position-wise feed-forward layer of a Transformer, plain and gated."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

import tape
from nn.layers.activation import ACTIVATIONS, silu
from nn.layers.init import Rng, Scheme
from nn.layers.linear import Linear
from nn.layers.module import Module
from tape import Tensor

# What stands for a gate and its activation at once.
GATED = {"swiglu": "silu"}


def default_width(d_model: int, gated: bool) -> int:
    """4 d_model; with a gate 8/3 d_model, rounded, so that three matrices have the size of two."""
    return round(8 * d_model / 3) if gated else 4 * d_model


class FeedForward(Module):
    """Two linear layers with an activation f between them, at each position by itself.

        plain   f(x W + b) V + c                       Vaswani et al. 2017, arXiv:1706.03762, eq. 2
        gated   (f(x G + a) * (x W + b)) V + c         Shazeer 2020, arXiv:2002.05202, eq. 5 and 6

    (..., d_model) -> (..., d_model). V is ``output``, W ``hidden`` and G ``gate``. The activated gate
    multiplies: it says how much of each hidden unit passes. All layers start as `Linear` does.

    Parameters
    ----------
    d_model : int
    d_hidden : int, optional
        Width between the layers; default 4 * d_model, gated 8/3 * d_model, rounded.
    activation : str or callable
        A name in `ACTIVATIONS`, a function of a Tensor, or "swiglu": "silu" with a gate.
    bias : bool
        Of all linear layers.
    rng : numpy.random.Generator or int, optional
    gated : bool
    """

    def __init__(self, d_model: int, d_hidden: int | None = None,
                 activation: Any = "relu", bias: bool = True,
                 rng: Rng = None, gated: bool = False):
        rng = np.random.default_rng(rng)
        if activation in GATED:
            activation, gated = GATED[activation], True
        d_hidden = default_width(d_model, gated) if d_hidden is None else d_hidden
        self.activation = _activation(activation)
        self.gate = Linear(d_model, d_hidden, bias, rng) if gated else None
        self.hidden = Linear(d_model, d_hidden, bias, rng)
        self.output = Linear(d_hidden, d_model, bias, rng)

    def initialise(self, scheme: Scheme, rng: Rng) -> None:
        """Draw the weights anew; the layer that is activated is the one in front of a rectifier."""
        if self.gate is None:
            self.hidden.initialise(scheme.rectified, rng)
        else:
            self.gate.initialise(scheme.rectified, rng)
            self.hidden.initialise(scheme.linear, rng)
        self.output.initialise(scheme.residual, rng)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x)                                  # (..., d_hidden)
        if self.gate is None:
            return self.output(self.activation(hidden))
        if self.activation is silu:
            return self.output(tape.swiglu(self.gate(x), hidden))          # the same, as one operator
        return self.output(self.activation(self.gate(x)) * hidden)


class SwiGLU(FeedForward):
    """`FeedForward` with a gate whose activation is `silu`: Shazeer 2020, arXiv:2002.05202, eq. 6.

    Parameters
    ----------
    d_model : int
    d_hidden : int, optional
        Default 8/3 * d_model, rounded.
    bias : bool
    rng : numpy.random.Generator or int, optional
    """

    def __init__(self, d_model: int, d_hidden: int | None = None, bias: bool = True,
                 rng: Rng = None):
        super().__init__(d_model, d_hidden, "swiglu", bias, rng)


def _activation(given: Any) -> Callable[[Tensor], Tensor]:
    if callable(given):
        return given
    if given not in ACTIVATIONS:
        raise ValueError(f"FeedForward: activation must be one of {sorted([*ACTIVATIONS, *GATED])} "
                         f"or a function, got {given!r}")
    return ACTIVATIONS[given]
