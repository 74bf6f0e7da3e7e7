"""The block that Transformers stack."""

from __future__ import annotations

from typing import Any

import numpy as np

from nn.layers.attention import MultiHeadAttention
from nn.layers.dropout import Dropout
from nn.layers.feed_forward import FeedForward
from nn.layers.init import Rng, Scheme
from nn.layers.module import Module
from nn.layers.norm import norm_layer
from tape import Tensor


class TransformerBlock(Module):
    """Self-attention, then a feed-forward layer, each with a residual connection and a norm.

        post-norm   x = norm(x + sublayer(x))      Vaswani et al. 2017, arXiv:1706.03762
        pre-norm    x = x + sublayer(norm(x))      Xiong et al. 2020, arXiv:2002.04745

    Pre-norm leaves a path from the top of the stack to the bottom that no norm rescales, so deep
    stacks train without a long warm-up; post-norm keeps the residual stream itself normalised.

    Parameters
    ----------
    d_model, n_head : int
    d_hidden : int, optional
        Width of the feed-forward layer; its default is that of `FeedForward`.
    norm : "pre" or "post"
    activation : str or callable
        Of the feed-forward layer; "swiglu" makes it a gated one.
    causal, bias : bool
    dropout : float
        On the attention weights and on what each sublayer adds.
    rng : numpy.random.Generator or int, optional
    norm_kind : "layer" or "rms"
    n_kv_head, rotary
        Of `MultiHeadAttention`.
    """

    def __init__(self, d_model: int, n_head: int, d_hidden: int | None = None, norm: str = "pre",
                 activation: Any = "relu", causal: bool = False, bias: bool = True,
                 dropout: float = 0.0, rng: Rng = None, norm_kind: str = "layer",
                 n_kv_head: int | None = None, rotary: bool = False):
        if norm not in ("pre", "post"):
            raise ValueError(f"TransformerBlock: norm must be 'pre' or 'post', got {norm!r}")
        rng = np.random.default_rng(rng)
        self.pre = norm == "pre"
        self.norm1 = norm_layer(norm_kind, d_model, bias)
        self.attention = MultiHeadAttention(d_model, n_head, causal, bias, dropout, rng, n_kv_head,
                                            rotary)
        self.norm2 = norm_layer(norm_kind, d_model, bias)
        self.feed_forward = FeedForward(d_model, d_hidden, activation, bias, rng)
        self.dropout = Dropout(dropout, rng)

    def initialise(self, scheme: Scheme, rng: Rng) -> None:
        """Draw the weights of both sublayers anew."""
        self.attention.initialise(scheme, rng)
        self.feed_forward.initialise(scheme, rng)

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if self.pre:
            x = x + self.dropout(self.attention(self.norm1(x), mask=mask))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.attention(x, mask=mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))
