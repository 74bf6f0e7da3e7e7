"""Activations: as functions, as modules, for `Sequential`, and by name, for configurations."""

from __future__ import annotations

from typing import Callable

import tape
from nn.layers.module import Module
from tape import Tensor


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), elementwise, which is x P(L <= x) for a standard logistic L.

    By the product rule and s' = s (1 - s) the derivative is s (1 + x (1 - s)). Hendrycks and Gimpel
    2016, arXiv:1606.08415, section 4; Ramachandran et al. 2017, arXiv:1710.05941, call it Swish.
    """
    return x * tape.sigmoid(x)


gelu_exact = tape.gelu_exact               # as models call it that were pickled before it was tape's

# By the names that configurations use. Those in FeedForward's gated form are in feed_forward.py.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": tape.relu, "gelu": tape.gelu, "gelu_exact": tape.gelu_exact, "silu": silu}


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return tape.relu(x)


class GELU(Module):
    """x times the normal distribution function of x.

    Parameters
    ----------
    approximate : "tanh" or "none"
        `tape.gelu`, the variant of GPT-2, or `tape.gelu_exact`, that of BERT.
    """

    def __init__(self, approximate: str = "tanh"):
        if approximate not in ("tanh", "none"):
            raise ValueError(f"GELU: approximate must be 'tanh' or 'none', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return tape.gelu(x) if self.approximate == "tanh" else tape.gelu_exact(x)


class SiLU(Module):
    """x times the logistic function of x; see `silu`."""

    def forward(self, x: Tensor) -> Tensor:
        return silu(x)
