"""The block that Transformers stack, and what encoders and decoders make of it."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import numpy as np

from nn.layers.attention import MultiHeadAttention
from nn.layers.cache import KeyValueCache
from nn.layers.dropout import Dropout
from nn.layers.feed_forward import FeedForward
from nn.layers.init import Rng, Scheme
from nn.layers.module import Module
from nn.layers.norm import LayerNorm, norm_layer
from nn.layers.recomputed import recomputed
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
    n_kv_head, rotary, alibi
        Of `MultiHeadAttention`.

    Attributes
    ----------
    checkpointing : whether the tape keeps the inputs of the block alone, and it runs once more in the
        backward pass; see `checkpoint_blocks`.
    """

    checkpointing = False

    def __init__(self, d_model: int, n_head: int, d_hidden: int | None = None, norm: str = "pre",
                 activation: Any = "relu", causal: bool = False, bias: bool = True,
                 dropout: float = 0.0, rng: Rng = None, norm_kind: str = "layer",
                 n_kv_head: int | None = None, rotary: bool = False, alibi: bool = False):
        if norm not in ("pre", "post"):
            raise ValueError(f"TransformerBlock: norm must be 'pre' or 'post', got {norm!r}")
        rng = np.random.default_rng(rng)
        self.pre = norm == "pre"
        self.norm1 = norm_layer(norm_kind, d_model, bias)
        self.attention = MultiHeadAttention(d_model, n_head, causal, bias, dropout, rng, n_kv_head,
                                            rotary, alibi)
        self.norm2 = norm_layer(norm_kind, d_model, bias)
        self.feed_forward = FeedForward(d_model, d_hidden, activation, bias, rng)
        self.dropout = Dropout(dropout, rng)

    def initialise(self, scheme: Scheme, rng: Rng) -> None:
        """Draw the weights of both sublayers anew."""
        self.attention.initialise(scheme, rng)
        self.feed_forward.initialise(scheme, rng)

    def forward(self, x: Tensor, mask: Any = None, *, cache: KeyValueCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C); `mask` and `cache` as of `MultiHeadAttention`."""
        if self.checkpointing and cache is None:
            return recomputed(self._computed, x, mask)
        return self._computed(x, mask, cache)

    def _computed(self, x: Tensor, mask: Any = None, cache: KeyValueCache | None = None) -> Tensor:
        x = self._residual(x, self.norm1, partial(self.attention, mask=mask, cache=cache))
        return self._residual(x, self.norm2, self.feed_forward)

    def _residual(self, x: Tensor, norm: Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x and what the sublayer adds to it; the norm is where pre-norm or post-norm has it."""
        if self.pre:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))


def checkpoint_blocks(model: Module, on: bool = True) -> None:
    """Let the tape keep of each `TransformerBlock` in a model its input alone (gradient checkpointing).

    In the backward pass a block runs once more, right before its derivatives are taken, and drops the
    elements that it dropped before. So the gradients are the same to the last bit; the tape holds the
    inside of one block in place of all, for the time of one more forward. See `tape.checkpoint`.
    Blocks with attention to a context are not changed: their results are two.

    Parameters
    ----------
    model : Module
    on : bool
        False goes back to blocks that are kept.

    Raises
    ------
    ValueError
        The model has no such block.

    Examples
    --------
    >>> import nn
    >>> model = nn.GPT(nn.GPTConfig(vocab_size=7, block_size=4, n_layer=2, n_head=1, n_embd=8), rng=0)
    >>> nn.checkpoint_blocks(model)
    >>> [block.checkpointing for block in model.blocks]
    [True, True]
    """
    blocks = [module for module in model.modules() if isinstance(module, TransformerBlock)
              and not isinstance(module, TransformerDecoderBlock)]
    if not blocks:
        raise ValueError(f"checkpoint_blocks: the model must have a TransformerBlock, got a "
                         f"{type(model).__name__} without one")
    for block in blocks:
        block.checkpointing = on


class TransformerEncoderBlock(TransformerBlock):
    """`TransformerBlock` in which every position sees every other: Vaswani et al. 2017, section 3.1.

    Parameters
    ----------
    d_model, n_head, d_hidden, norm, activation, bias, dropout, rng : see `TransformerBlock`.
    """

    def __init__(self, d_model: int, n_head: int, d_hidden: int | None = None, norm: str = "pre",
                 activation: Any = "relu", bias: bool = True, dropout: float = 0.0,
                 rng: Rng = None):
        super().__init__(d_model, n_head, d_hidden, norm, activation, False, bias, dropout, rng)


class TransformerEncoder(Module):
    """A stack of `TransformerEncoderBlock`: (B, S, C) -> (B, S, C).

    Behind pre-norm blocks there is one more norm; post-norm blocks end in one already.

    Parameters
    ----------
    n_layer : int
        Blocks.
    d_model, n_head, d_hidden, norm, activation, bias, dropout, rng : see `TransformerBlock`.
    """

    def __init__(self, n_layer: int, d_model: int, n_head: int, d_hidden: int | None = None,
                 norm: str = "pre", activation: Any = "relu", bias: bool = True,
                 dropout: float = 0.0, rng: Rng = None):
        rng = np.random.default_rng(rng)
        self.blocks = [TransformerEncoderBlock(d_model, n_head, d_hidden, norm, activation, bias,
                                               dropout, rng) for _ in range(n_layer)]
        self.norm = LayerNorm(d_model, bias) if norm == "pre" else None

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        """(B, S, C) -> (B, S, C); `mask` as of `MultiHeadAttention`, such as a `padding_mask`."""
        for block in self.blocks:
            x = block(x, mask)
        return x if self.norm is None else self.norm(x)


class TransformerDecoderBlock(TransformerBlock):
    """Causal self-attention, attention to a context, feed-forward: Vaswani et al. 2017, section 3.1.

        post-norm   x = norm1(x + attention(x))
                    x = cross_norm(x + cross_attention(x, context))
                    x = norm2(x + feed_forward(x))

    With pre-norm each norm is in front of its sublayer, as in `TransformerBlock`. The queries of the
    cross-attention come from x, its keys and values from the context, the result of an encoder. The
    linear layers start as `Linear` does, the norms at 1 and 0.

    Parameters
    ----------
    d_model, n_head, d_hidden, norm, activation, bias, dropout, rng : see `TransformerBlock`.
    """

    def __init__(self, d_model: int, n_head: int, d_hidden: int | None = None, norm: str = "pre",
                 activation: Any = "relu", bias: bool = True, dropout: float = 0.0,
                 rng: Rng = None):
        rng = np.random.default_rng(rng)
        super().__init__(d_model, n_head, d_hidden, norm, activation, True, bias, dropout, rng)
        self.cross_norm = LayerNorm(d_model, bias)
        self.cross_attention = MultiHeadAttention(d_model, n_head, False, bias, dropout, rng)

    def initialise(self, scheme: Scheme, rng: Rng) -> None:
        """Draw the weights of the three sublayers anew."""
        super().initialise(scheme, rng)
        self.cross_attention.initialise(scheme, rng)

    def forward(self, x: Tensor, mask: Any = None, context: Tensor | None = None,
                context_mask: Any = None, return_weights: bool = False, *,
                cache: KeyValueCache | None = None,
                context_cache: KeyValueCache | None = None) -> Any:
        """Decode x (B, T, C) in sight of `context` (B, S, C), which must be given.

        Parameters
        ----------
        x, context : Tensor
        mask, context_mask : array, optional
            Of the self-attention, besides the causal mask, and of the cross-attention; see
            `MultiHeadAttention`.
        return_weights : bool
        cache, context_cache : KeyValueCache, optional
            Of the two likewise.

        Returns
        -------
        Tensor (B, T, C), or with `return_weights` that and the cross-attention's weights (B, H, T, S)
        """
        if context is None:
            raise ValueError("TransformerDecoderBlock: context must be a Tensor (B, S, C), got None. "
                             "Give context=encoder(x), or take a causal TransformerBlock.")
        seen = []

        def attend(y: Tensor) -> Tensor:
            out, weights = self.cross_attention(y, context, context_mask, True,
                                                cache=context_cache)
            seen.append(weights)
            return out

        x = self._residual(x, self.norm1, partial(self.attention, mask=mask, cache=cache))
        x = self._residual(x, self.cross_norm, attend)
        x = self._residual(x, self.norm2, self.feed_forward)
        return (x, seen[0]) if return_weights else x
