"""Layers that are a table of numbers: `Linear` and `Embedding`."""

from __future__ import annotations

from typing import Any

import tape
from nn.layers.init import Initialiser, Rng, normal, uniform, zeros
from nn.layers.module import Module
from tape import Tensor


class Linear(Module):
    """x @ weight + bias: (..., n_in) -> (..., n_out).

    The weight, of shape (n_in, n_out), starts uniform in +-1/sqrt(n_in): each entry has variance
    1/(3 n_in), so independent inputs of variance 1 give outputs of variance 1/3, whatever the
    width. The bias starts at zero.
    """

    def __init__(self, n_in: int, n_out: int, bias: bool = True, rng: Rng = None):
        self.weight = uniform(rng, (n_in, n_out), n_in ** -0.5)
        self.bias = zeros(n_out) if bias else None

    def initialise(self, initialiser: Initialiser, rng: Rng) -> None:
        """Draw the weight anew; the bias stays as it is."""
        self.weight.data = initialiser(rng, self.weight.shape).data

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, (list, tuple)):
            x = Tensor(x, dtype=self.weight.dtype)
        if x.shape[-1] != self.weight.shape[0]:
            turned = (". The weight is (n_in, n_out); with a table (n_out, n_in), as a tied embedding "
                      "is, write x @ table.weight.T" if x.shape[-1] == self.weight.shape[1] else "")
            raise ValueError(f"Linear: the last axis of x must be {self.weight.shape[0]}, got shape "
                             f"{x.shape}{turned}")
        out = x @ self.weight
        return out if self.bias is None else out + self.bias


def is_plain(layer: Any, counted: bool = False) -> bool:
    """Whether a layer is a `Linear` that nobody replaced, in training, whose calls nobody watches.

    Then an operator may take its weight, and compute the gradient of it, in the place of a call.
    `counted`: whether `nn.summary`, which alone counts what a call costs, may be watching.
    """
    watch = vars(layer).get("forward")
    return type(layer) is Linear and getattr(layer.weight, "requires_grad", False) and (
        watch is None or counted and getattr(watch, "counts_alone", False))


class Embedding(Module):
    """A vector for each of `n` ids: integer array (...) -> (..., d). Starts normal, std 0.02."""

    def __init__(self, n: int, d: int, rng: Rng = None, std: float = 0.02):
        self.weight = normal(rng, (n, d), std)

    def initialise(self, initialiser: Initialiser, rng: Rng) -> None:
        """Draw the vectors anew."""
        self.weight.data = initialiser(rng, self.weight.shape).data

    def __setattr__(self, name: str, value: Any) -> None:
        shape = self.weight.shape if name == "weight" and "weight" in vars(self) else ()
        if shape != shape[::-1] == getattr(value, "shape", None):
            raise ValueError(f"Embedding: the weight is (n, d), {shape}, and that of a Linear is "
                             f"turned, {value.shape}. To tie an output to the table leave out the "
                             f"Linear, and write x @ table.weight.T")
        super().__setattr__(name, value)

    def forward(self, ids: Any) -> Tensor:
        return tape.embedding(self.weight, ids)
