"""Multi-head attention and its masks.

Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762, section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tape
from nn.layers.cache import KeyValueCache
from nn.layers.dropout import Dropout
from nn.layers.init import Rng, Scheme
from nn.layers.linear import Linear, is_plain
from nn.layers.module import Module
from nn.layers.position import ALiBi, RotaryEmbedding
from tape import Tensor

# From so many scores to a head on attention goes block by block and keeps no weights. Below, to keep
# them is faster. Causal attention skips the future there too; of 768 tokens with heads of 64 its
# weights take no more memory than what a block of a Transformer keeps besides (see tests/bench/LOG.md).
BLOCKWISE_SCORES = 192 * 192
BLOCKWISE_CAUSAL = 768 * 768


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
    """n_head attentions side by side, each over its own D = d_model / n_head coordinates.

        out = concatenate_h(softmax(q_h k_h^T / sqrt(D) + masks) v_h) W + b

    With fewer key-value heads than heads (grouped queries: Ainslie et al. 2023, arXiv:2305.13245),
    n_head / n_kv_head neighbouring heads share the keys and values of one. Each of the four linear
    layers starts as `Linear` does.

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
    n_kv_head : int, optional
        Heads of keys and values; divides `n_head`, the default.
    rotary : bool
        Rotate queries and keys by their positions; see `RotaryEmbedding`.
    alibi : bool
        Lower the scores in proportion to distance; see `ALiBi`. Needs `causal`.
    """

    def __init__(self, d_model: int, n_head: int, causal: bool = False, bias: bool = True,
                 dropout: float = 0.0, rng: Rng = None, n_kv_head: int | None = None,
                 rotary: bool = False, alibi: bool = False):
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        if d_model % n_head:
            raise ValueError(f"MultiHeadAttention: n_head must divide d_model, got {n_head} and "
                             f"{d_model}")
        if n_kv_head < 1 or n_head % n_kv_head:
            raise ValueError(f"MultiHeadAttention: n_kv_head must divide n_head, got {n_kv_head} and "
                             f"{n_head}")
        if alibi and not causal:
            raise ValueError("MultiHeadAttention: alibi must come with causal=True, because it ranks "
                             "the keys before a query, got causal=False")
        rng = np.random.default_rng(rng)
        self.n_head, self.n_kv_head, self.causal = n_head, n_kv_head, causal
        d_kv = d_model // n_head * n_kv_head
        self.query = Linear(d_model, d_model, bias, rng)
        self.key = Linear(d_model, d_kv, bias, rng)
        self.value = Linear(d_model, d_kv, bias, rng)
        self.output = Linear(d_model, d_model, bias, rng)
        self.dropout = Dropout(dropout, rng)
        self.rotary = RotaryEmbedding(d_model // n_head) if rotary else None
        self.alibi = ALiBi(n_head) if alibi else None

    def initialise(self, scheme: Scheme, rng: Rng) -> None:
        """Draw the weights anew."""
        for layer in (self.query, self.key, self.value):
            layer.initialise(scheme.linear, rng)
        self.output.initialise(scheme.residual, rng)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Any = None,
                return_weights: bool = False, *, cache: KeyValueCache | None = None) -> Any:
        """Attend from x (B, T, C) to `context` (B, S, C), by default to x itself.

        Parameters
        ----------
        x, context : Tensor
        mask : array, optional
            Broadcasts to (B, H, T, S). Of booleans: True where a query may attend to a key. Of
            floats: added to the scores.
        return_weights : bool
        cache : KeyValueCache, optional
            Of causal self-attention: x follows the positions in the cache, sees them too, so that S
            counts both, and is added. Of attention to a context that stays the same: the first call
            fills the cache, and later ones take the keys and values from it.

        Returns
        -------
        Tensor (B, T, C), or with `return_weights` that and the weights (B, H, T, S), before dropout
            A query that may see no key has weights of zero: what it mixes is zero, and so are the
            gradients that it passes to queries, keys and values.
        """
        if context is mask is cache is None and not return_weights and self._is_one_operator(x):
            query, key, value, output = self.query, self.key, self.value, self.output
            return tape.causal_self_attention(
                x, self.n_head, query.weight, key.weight, value.weight, output.weight,
                query.bias, key.bias, value.bias, output.bias)
        if cache is not None and self.causal != (context is None):
            raise ValueError("MultiHeadAttention: a cache is for causal attention of x to itself, or "
                             "for attention to a context without the causal mask: what is kept must "
                             "not depend on what follows. Leave the cache out.")
        past = cache.length if cache is not None and context is None else 0
        context = x if context is None else context
        if context.ndim != 3 or x.ndim != 3 or context.shape[0] != x.shape[0]:
            raise ValueError(f"MultiHeadAttention: x and context must have shapes (B, T, C) and (B, S, "
                             f"C), got {x.shape} and {context.shape}")
        B, T, _ = x.shape
        if self.causal and T > past + context.shape[1]:
            raise ValueError(f"MultiHeadAttention: causal queries are the last T of S positions, so T "
                             f"must be at most S, got {T} queries and a context of {context.shape[1]}")
        # Causal queries are the last T.
        start = past + (context.shape[1] - T if self.causal else 0)
        q = self._rotated(_split_heads(self.query(x), self.n_head), start)   # (B, H, T, D)
        k, v = map(self._shared, self._keys_and_values(context, cache))      # (B, H, S, D) each
        fused = self.alibi is None and not return_weights and not (
            self.training and self.dropout.p > 0)
        limit = BLOCKWISE_CAUSAL if self.causal and mask is None else BLOCKWISE_SCORES
        if fused and T * k.shape[-2] >= limit:                   # without (T, S) in memory
            added = None if mask is None else _added(mask, (B, self.n_head, T, k.shape[-2]), q.dtype)
            out = tape.attention(q, k, v, added, self.causal)
        elif fused and self.causal and mask is None:
            out = tape.causal_attention(q, k, v)
        else:
            weights = self.weights(q, k, mask)                   # (B, H, T, S)
            out = self.dropout(weights) @ v                      # (B, H, T, D)
        out = self.output(_merge_heads(out, self.n_head))        # (B, T, C)
        return (out, weights) if return_weights else out

    def _is_one_operator(self, x: Tensor) -> bool:
        """Whether `tape.causal_self_attention` is all that this layer does with x.

        It takes less time than its parts, for the same bits. Layers that others have replaced, or whose
        calls they watch, are called; and so are frozen ones, whose gradient it would compute. With
        weights that are arrays each row of a batch has products of its own, so that it does not depend
        on the others.
        """
        if not (self.causal and self.n_kv_head == self.n_head and self.rotary is None
                and self.alibi is None) or self.training and self.dropout.p > 0:
            return False
        if not all(map(is_plain, (self.query, self.key, self.value, self.output))):
            return False
        shape = x.shape
        return (len(shape) == 3 and shape[1] ** 2 < BLOCKWISE_CAUSAL and x.dtype.kind == "f"
                and shape[2] == self.query.weight.shape[0])

    def weights(self, q: Tensor, k: Tensor, mask: Any = None) -> Tensor:
        """softmax(q k^T / sqrt(D) + masks), (B, H, T, S): the weight of each key for each query."""
        scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
        if self.alibi is not None:
            scores = self.alibi(scores)
        if self.causal:
            scores = scores + causal_mask(*scores.shape[-2:]).astype(scores.dtype)
        if mask is not None:
            scores = scores + _added(mask, scores.shape, scores.dtype)
        return tape.softmax(scores)

    def _keys_and_values(self, context: Tensor, cache: KeyValueCache | None) -> tuple[Any, Any]:
        """(B, n_kv_head, S, D) each, with those in the cache."""
        if cache is not None and cache.length and not self.causal:       # of this context, all known
            keys, values = cache.held()
            if (len(keys), keys.shape[2]) != context.shape[:2]:
                raise ValueError(f"MultiHeadAttention: the cache must be of this context, got one of "
                                 f"(B, S) = {(len(keys), keys.shape[2])} and a context of shape "
                                 f"{context.shape}. Begin a new cache for another context.")
            return keys, values
        k = self._rotated(_split_heads(self.key(context), self.n_kv_head),
                          0 if cache is None else cache.length)
        v = _split_heads(self.value(context), self.n_kv_head)
        return (k, v) if cache is None else cache.extend(k, v)

    def _rotated(self, x: Tensor, start: int = 0) -> Tensor:
        return x if self.rotary is None else self.rotary(x, start)

    def _shared(self, x: Tensor) -> Tensor:
        """(B, n_kv_head, S, D) -> (B, H, S, D): each head repeated for its group of queries."""
        group = self.n_head // self.n_kv_head
        return x if group == 1 else x[:, np.repeat(np.arange(self.n_kv_head), group)]


def _split_heads(x: Any, n_head: int) -> Any:
    """(B, T, H D) -> (B, H, T, D); a single position, as one is written at a time, is in order."""
    if type(x) is np.ndarray and x.shape[1] == 1:
        return x.reshape(len(x), n_head, 1, -1)
    return tape.split_heads(x, n_head)


def _merge_heads(x: Any, n_head: int) -> Any:
    """(B, H, T, D) -> (B, T, H D), as `_split_heads`."""
    if type(x) is np.ndarray and x.shape[2] == 1:
        return x.reshape(len(x), 1, -1)
    return tape.merge_heads(x, n_head)


def _added(mask: Any, wanted: tuple, dtype: Any) -> Any:
    """What a mask adds to the scores, whose shape (B, H, T, S) is `wanted`, in their dtype."""
    mask = mask if isinstance(mask, Tensor) else np.asarray(mask)
    if mask.dtype.kind not in "bf":
        raise TypeError(f"MultiHeadAttention: mask must be of booleans (True: may attend) or of floats "
                        f"(added to the scores), got {mask.dtype}. Use mask.astype(bool).")
    shape = tuple(mask.shape)
    lengths = (1,) * (4 - len(shape)) + shape
    if len(lengths) > 4 or any(n not in (1, m) for n, m in zip(lengths, wanted)):
        raise ValueError(f"MultiHeadAttention: mask must broadcast to (B, H, T, S) = {wanted}, got "
                         f"shape {shape}. Of keys that are padding, (B, S), make a padding_mask.")
    if mask.dtype.kind == "b":
        mask = np.where(mask.data if isinstance(mask, Tensor) else mask, 0.0, -np.inf)
    return mask.astype(dtype)
