"""The block that Transformers stack."""

from __future__ import annotations

from typing import Any

import numpy as np

from nn.layers.attention import MultiHeadAttention
from nn.layers.dropout import Dropout
from nn.layers.feed_forward import FeedForward
from nn.layers.init import Rng
from nn.layers.module import Module
from nn.layers.norm import LayerNorm
from tape import Tensor


class TransformerBlock(Module):
    """Self-attention, then a feed-forward layer, each with a residual connection and a layer norm.

        post-norm   x = norm(x + sublayer(x))      Vaswani et al. 2017, arXiv:1706.03762
        pre-norm    x = x + sublayer(norm(x))      Xiong et al. 2020, arXiv:2002.04745

    Pre-norm leaves a path from the top of the stack to the bottom that no norm rescales, so deep
    stacks train without a long warm-up; post-norm keeps the residual stream itself normalised.

    Parameters
    ----------
    d_model, n_head : int
    d_hidden : int, optional
        Width of the feed-forward layer, default 4 * d_model.
    norm : "pre" or "post"
    activation : "relu" or "gelu"
    causal, bias : bool
    dropout : float
        On the attention weights and on what each sublayer adds.
    rng : numpy.random.Generator or int, optional
    """

    def __init__(self, d_model: int, n_head: int, d_hidden: int | None = None, norm: str = "pre",
                 activation: str = "relu", causal: bool = False, bias: bool = True,
                 dropout: float = 0.0, rng: Rng = None):
        if norm not in ("pre", "post"):
            raise ValueError(f"TransformerBlock: norm must be 'pre' or 'post', got {norm!r}")
        rng = np.random.default_rng(rng)
        self.pre = norm == "pre"
        self.norm1 = LayerNorm(d_model, bias)
        self.attention = MultiHeadAttention(d_model, n_head, causal, bias, dropout, rng)
        self.norm2 = LayerNorm(d_model, bias)
        self.feed_forward = FeedForward(d_model, d_hidden, activation, bias, rng)
        self.dropout = Dropout(dropout, rng)

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if self.pre:
            x = x + self.dropout(self.attention(self.norm1(x), mask=mask))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.attention(x, mask=mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))
