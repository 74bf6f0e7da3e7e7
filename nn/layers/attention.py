"""Multi-head attention and its masks.

Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762, section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tape
from nn.layers.dropout import Dropout
from nn.layers.init import Rng
from nn.layers.linear import Linear
from nn.layers.module import Module
from tape import Tensor


def causal_mask(t: int, s: int | None = None) -> np.ndarray:
    """(T, S) to be added to the scores: -inf where key j lies in the future of query i, else 0.

    The queries are the last T of S positions. -inf rather than a large number: the weight is then
    exactly zero in any dtype, and a row in which all is masked gives zeros, not an average.
    """
    s = t if s is None else s
    return np.where(np.arange(s) > np.arange(s - t, s)[:, None], -np.inf, 0).astype(np.float32)


def padding_mask(valid: Any) -> np.ndarray:
    """(B, 1, 1, S) to be added to the scores: -inf at keys that are padding.

    Parameters
    ----------
    valid : bool array (B, S)
        True where there is a token.
    """
    valid = np.asarray(valid, bool)
    return np.where(valid, 0, -np.inf).astype(np.float32)[:, None, None, :]


class MultiHeadAttention(Module):
    """n_head attentions side by side, each over its own d_model / n_head coordinates.

    Parameters
    ----------
    d_model : int
    n_head : int
        Divides `d_model`.
    causal : bool
        A query sees only keys up to its own position.
    bias : bool
        Of the four linear layers.
    dropout : float
        On the attention weights, while training.
    rng : numpy.random.Generator or int, optional
    """

    def __init__(self, d_model: int, n_head: int, causal: bool = False, bias: bool = True,
                 dropout: float = 0.0, rng: Rng = None):
        if d_model % n_head:
            raise ValueError(f"MultiHeadAttention: n_head must divide d_model, got {n_head} and "
                             f"{d_model}")
        rng = np.random.default_rng(rng)
        self.n_head, self.causal = n_head, causal
        self.query = Linear(d_model, d_model, bias, rng)
        self.key = Linear(d_model, d_model, bias, rng)
        self.value = Linear(d_model, d_model, bias, rng)
        self.output = Linear(d_model, d_model, bias, rng)
        self.dropout = Dropout(dropout, rng)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Any = None) -> Tensor:
        """Attend from x (B, T, C) to `context` (B, S, C), by default to x itself.

        `mask`, which broadcasts to (B, H, T, S), is added to the scores.
        """
        context = x if context is None else context
        q = self._heads(self.query(x))                           # (B, H, T, D)
        k = self._heads(self.key(context))                       # (B, H, S, D)
        v = self._heads(self.value(context))                     # (B, H, S, D)
        drops = self.training and self.dropout.p > 0
        if self.causal and mask is None and not drops:
            out = tape.causal_attention(q, k, v)                 # one fused operator
        else:
            out = self.dropout(self.weights(q, k, mask)) @ v     # (B, H, T, D)
        B, T, C = x.shape
        return self.output(out.swapaxes(1, 2).reshape(B, T, C))

    def weights(self, q: Tensor, k: Tensor, mask: Any = None) -> Tensor:
        """softmax(q k^T / sqrt(D) + masks), (B, H, T, S): the weight of each key for each query."""
        scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
        if self.causal:
            scores = scores + causal_mask(*scores.shape[-2:])
        if mask is not None:
            scores = scores + mask
        return tape.softmax(scores)

    def _heads(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        return x.reshape(B, T, self.n_head, C // self.n_head).swapaxes(1, 2)
