"""GPT: a decoder-only Transformer that predicts the next token, and its relatives.

Radford et al. 2018 and 2019 (GPT, GPT-2) by default. Of its relatives each is a configuration:

    Vaswani et al. 2017     norm="post", activation="relu", position="sinusoidal": the decoder
                            without cross-attention
    Touvron et al. 2023     norm_kind="rms", activation="swiglu", position="rotary", bias=False,
    (Llama)                 tie_weights=False; n_kv_head for grouped queries
    Press et al. 2022       position="alibi"
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import tape
from nn.layers.cache import DecoderCache, check_length, past_and_caches
from nn.layers.dropout import Dropout
from nn.layers.feed_forward import GATED, default_width
from nn.layers.init import SCHEMES, Rng, scaled_residual, scheme
from nn.layers.linear import Embedding, Linear
from nn.layers.losses import cross_entropy
from nn.layers.module import Module
from nn.layers.norm import NORMS, norm_layer
from nn.layers.position import ADDED, position_layer
from nn.layers.transformer import TransformerBlock
from nn.models.configuration import (
    Shapes, block_shapes, check_choice, check_sizes, linear_shapes, norm_shapes, set_default)
from tape import Tensor

POSITIONS = ("alibi", "learned", "none", "rotary", "sinusoidal")


@dataclass(frozen=True)
class GPTConfig:
    """The sizes and options of a `GPT`; saved in its checkpoints.

    Attributes
    ----------
    vocab_size : tokens known.
    block_size : the longest sequence.
    n_layer, n_head, n_embd : blocks, heads in each, width.
    dropout : probability, while training.
    bias : whether linear layers and norms have one.
    norm : "pre" or "post"; see `TransformerBlock`.
    activation : "gelu", "gelu_exact", "relu" or "silu"; "swiglu" has a gate; see `FeedForward`.
    position : "learned" or "sinusoidal": added to the tokens; "rotary" or "alibi": in the
        attention; or "none".
    tie_weights : whether the logits use the token embedding, transposed (Press and Wolf 2017,
        arXiv:1608.05859).
    norm_kind : "layer" or "rms"; see `LayerNorm`, `RMSNorm`.
    d_ff : width of the feed-forward layers; 0 becomes 4 n_embd, with a gate 8/3 n_embd, rounded.
    n_kv_head : heads of keys and values, see `MultiHeadAttention`; 0 becomes n_head.
    init : the scheme of the initial values, see `nn.layers.init.scheme`; "" becomes "gpt2" with
        norm "pre", and "uniform" with "post", where the stream is normalised anyway.
    """

    vocab_size: int
    block_size: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = True
    norm: str = "pre"
    activation: str = "gelu"
    position: str = "learned"
    tie_weights: bool = True

    norm_kind: str = "layer"
    d_ff: int = 0
    n_kv_head: int = 0
    init: str = ""

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "block_size", "n_layer", "n_head", "n_embd")
        check_choice(self, "position", POSITIONS)
        check_choice(self, "norm_kind", NORMS)
        set_default(self, "d_ff", default_width(self.n_embd, self.activation in GATED))
        set_default(self, "n_kv_head", self.n_head)
        set_default(self, "init", "gpt2" if self.norm == "pre" else "uniform")
        check_sizes(self, "d_ff", "n_kv_head")
        check_choice(self, "init", SCHEMES)
        if self.n_head % self.n_kv_head:
            raise ValueError(f"GPTConfig: n_kv_head must divide n_head, got {self.n_kv_head} and "
                             f"{self.n_head}")
        if self.position == "rotary" and self.n_embd // self.n_head % 2:
            raise ValueError(f"GPTConfig: with rotary positions n_embd / n_head must be even, got "
                             f"{self.n_embd} / {self.n_head}")

    def parameter_shapes(self) -> Shapes:
        """(name, shape) of each parameter of the model, in the order of definition."""
        yield "tokens.weight", (self.vocab_size, self.n_embd)
        if self.position == "learned":
            yield "positions.weight", (self.block_size, self.n_embd)
        yield from block_shapes(
            self.n_layer, self.n_embd, self.bias, d_ff=self.d_ff, norm_kind=self.norm_kind,
            d_kv=self.n_embd // self.n_head * self.n_kv_head, gated=self.activation in GATED)
        if self.norm == "pre":
            yield from norm_shapes("norm", self.n_embd, self.bias, self.norm_kind)
        if not self.tie_weights:
            yield from linear_shapes("head", self.n_embd, self.vocab_size, bias=False)


class GPT(Module):
    """Token embedding + position, a stack of causal blocks, logits.

    ``GPT(config)(idx, targets=None) -> (logits, loss)`` with `idx` and `targets` integer arrays of
    shape (B, T), logits (B, T, vocab_size) and loss None without targets. Targets of -1 are
    ignored.

    With ``cache=model.new_cache()`` the calls of ``no_grad`` go on with one text: `idx` are the tokens
    after those of the earlier calls, which are not computed again, and the logits are those of `idx`.

    Parameters
    ----------
    config : GPTConfig
    rng : numpy.random.Generator or int, optional
        Fixes the initial weights and the dropout.
    """

    def __init__(self, config: GPTConfig, rng: Rng = None):
        if not hasattr(config, "vocab_size"):
            raise TypeError(f"GPT: config must be a GPTConfig, got {config!r:.40}. Write "
                            f"nn.GPT(nn.GPTConfig(vocab_size, block_size, n_layer, n_head, n_embd))")
        rng = np.random.default_rng(rng)
        c = self.config = config
        self.tokens = Embedding(c.vocab_size, c.n_embd, rng)
        self.positions = (position_layer(c.position, c.block_size, c.n_embd, rng)
                          if c.position in ADDED else None)
        self.dropout = Dropout(c.dropout, rng)
        self.blocks = [
            TransformerBlock(c.n_embd, c.n_head, c.d_ff, c.norm, c.activation, True, c.bias, c.dropout,
                             rng, c.norm_kind, c.n_kv_head, rotary=c.position == "rotary",
                             alibi=c.position == "alibi")
            for _ in range(c.n_layer)]
        # Post-norm blocks end in a norm already.
        self.norm = norm_layer(c.norm_kind, c.n_embd, c.bias) if c.norm == "pre" else None
        self.head = None if c.tie_weights else Linear(c.n_embd, c.vocab_size, bias=False, rng=rng)
        self._initialise(rng)

    def _initialise(self, rng: np.random.Generator) -> None:
        """Draw the matrices by the scheme of the configuration; each module knows the part of its own.

        Next to sinusoidal positions, of size 1, token vectors must be of similar size: std 1, unless
        they are the output weights too. All others start with std 0.02, biases at 0, norms at 1.
        """
        c = self.config
        if c.position == "sinusoidal" and self.head is not None:
            self.tokens.initialise(partial(scaled_residual, std=1.0), rng)
        values = scheme(c.init, c.n_layer)
        if values is None:
            return
        for block in self.blocks:
            block.initialise(values, rng)
        if self.head is not None:
            self.head.initialise(values.linear, rng)

    def new_cache(self) -> DecoderCache:
        """An empty cache for up to block_size tokens; its first call sets the batch size."""
        return DecoderCache(len(self.blocks), self.config.block_size)

    def forward(self, idx: Any, targets: Any = None, *,
                cache: DecoderCache | None = None) -> tuple[Tensor, Tensor | None]:
        idx = np.asarray(idx)
        if idx.ndim != 2:
            raise ValueError(f"GPT: idx must be integers of shape (B, T), got shape {idx.shape}")
        past, kept = past_and_caches(cache, len(self.blocks))
        check_length("GPT", self.config.block_size, past, idx.shape[1])
        x = self.tokens(idx)                                     # (B, T, C)
        if self.positions is not None:
            x = self.positions(x, past)
        x = self.dropout(x)
        for block, own in zip(self.blocks, kept, strict=True):
            x = block(x, cache=own)
        if self.norm is not None:
            x = self.norm(x)
        logits = self._tied(x) if self.head is None else self.head(x)                 # (B, T, V)
        return logits, None if targets is None else cross_entropy(logits, targets)

    def _tied(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, V), by the table of the tokens, which is (V, C).

        Of arrays each row of a batch has a product of its own, and so does not depend on the others.
        """
        table = self.tokens.weight
        return tape.inner(x, table) if isinstance(table, Tensor) else x @ table.T
