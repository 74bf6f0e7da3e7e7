"""The encoder-decoder Transformer, from one sequence to another.

Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nn.layers.attention import padding_mask
from nn.layers.cache import DecoderCache, KeyValueCache, check_length, past_and_caches
from nn.layers.dropout import Dropout
from nn.layers.init import Rng
from nn.layers.linear import Embedding, Linear
from nn.layers.losses import cross_entropy
from nn.layers.module import Module
from nn.layers.norm import LayerNorm
from nn.layers.position import ADDED, position_layer
from nn.layers.transformer import TransformerDecoderBlock, TransformerEncoder
from nn.models.configuration import (
    Shapes, TokenId, block_shapes, check_choice, check_sizes, linear_shapes, norm_shapes, set_default)
from tape import Tensor


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The sizes and options of a `Seq2SeqTransformer`; saved in its checkpoints.

    Attributes
    ----------
    source_vocab_size, target_vocab_size : tokens known of each side.
    block_size : the longest sequence of either side.
    n_layer, n_head, n_embd : blocks of the encoder, and of the decoder; heads in each, width.
    dropout : probability, while training.
    bias : whether linear layers and norms have one; the logits have none.
    norm : "pre" or "post"; see `TransformerBlock`.
    activation : "relu", "gelu", "gelu_exact" or "silu"; see `FeedForward`.
    position : "sinusoidal" or "learned".
    d_ff : width of the feed-forward layers; 0 becomes 4 n_embd.
    padding_id : the token, of both sides, that fills rows up to a common length.
    """

    source_vocab_size: int
    target_vocab_size: int
    block_size: int
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = True
    norm: str = "pre"
    activation: str = "relu"
    position: str = "sinusoidal"
    d_ff: int = 0
    padding_id: TokenId = 0

    def __post_init__(self) -> None:
        check_sizes(self, "source_vocab_size", "target_vocab_size", "block_size", "n_layer", "n_head",
                    "n_embd")
        check_choice(self, "norm", ("post", "pre"))
        check_choice(self, "activation", ("gelu", "gelu_exact", "relu", "silu"))
        check_choice(self, "position", ADDED)
        set_default(self, "d_ff", 4 * self.n_embd)
        check_sizes(self, "d_ff")
        smaller = min(self.source_vocab_size, self.target_vocab_size)
        if not isinstance(self.padding_id, (int, np.integer)) or not 0 <= self.padding_id < smaller:
            raise ValueError(f"Seq2SeqConfig: padding_id must be a token of both sides, an integer in "
                             f"[0, {smaller}), got {self.padding_id!r}")

    @property
    def vocab_size(self) -> int:
        """Of a vocabulary, and a tokenizer, that both sides share; 0 where their sizes differ."""
        same = self.source_vocab_size == self.target_vocab_size
        return self.source_vocab_size if same else 0

    def parameter_shapes(self) -> Shapes:
        """(name, shape) of each parameter of the model, in the order of definition."""
        sides = {"source": self.source_vocab_size, "target": self.target_vocab_size}
        for side, size in sides.items():
            yield f"{side}_tokens.weight", (size, self.n_embd)
        for side in sides if self.position == "learned" else ():
            yield f"{side}_positions.weight", (self.block_size, self.n_embd)
        for stack, cross in (("encoder.", False), ("", True)):
            yield from block_shapes(self.n_layer, self.n_embd, self.bias, d_ff=self.d_ff,
                                    stack=f"{stack}blocks", cross=cross)
            if self.norm == "pre":
                yield from norm_shapes(f"{stack}norm", self.n_embd, self.bias)
        yield from linear_shapes("head", self.n_embd, self.target_vocab_size, bias=False)


class TargetCache(DecoderCache):
    """What is kept of a target that is decoded token by token.

    Attributes
    ----------
    blocks, of_memory : a `KeyValueCache` for each block; of the target, and of the encoder's result.
    ids : integer array (B, length), the tokens that were read.
    """

    def __init__(self, n_layer: int, longest: int):
        super().__init__(n_layer, longest)
        self.of_memory = [KeyValueCache(longest) for _ in range(n_layer)]
        self.ids: np.ndarray | None = None


class Seq2SeqTransformer(Module):
    """An encoder of the source, and a decoder of the target that attends to what the encoder made.

    ``Seq2SeqTransformer(config)(source, target, targets=None) -> (logits, loss)`` with integer arrays
    `source` (B, S), `target` and `targets` (B, T), logits (B, T, target_vocab_size) and loss None
    without targets. Position t of `target` sees itself and what is before it; its target is the token
    that follows. Targets of -1 are ignored.

        memory = encoder(source),   p(y_t | y_<t, source) = softmax(decoder(y_<t, memory)_t W)

    No position attends to `padding_id`, on either side, so rows may be filled up with it.

    Parameters
    ----------
    config : Seq2SeqConfig
    rng : numpy.random.Generator or int, optional
        Fixes the initial weights and the dropout.

    Notes
    -----
    Token vectors start normal with std 1 beside sinusoids, which are of that size: the paper has
    std 1/sqrt(n_embd) and multiplies by sqrt(n_embd) (section 3.4). Beside learned positions they
    start with std 0.02, as those do. The linear layers start as `Linear` does.
    """

    def __init__(self, config: Seq2SeqConfig, rng: Rng = None):
        rng = np.random.default_rng(rng)
        c = self.config = config
        std = 1.0 if c.position == "sinusoidal" else 0.02
        self.source_tokens = Embedding(c.source_vocab_size, c.n_embd, rng, std)
        self.target_tokens = Embedding(c.target_vocab_size, c.n_embd, rng, std)
        self.source_positions = position_layer(c.position, c.block_size, c.n_embd, rng)
        self.target_positions = position_layer(c.position, c.block_size, c.n_embd, rng)
        self.dropout = Dropout(c.dropout, rng)
        settings = (c.n_embd, c.n_head, c.d_ff, c.norm, c.activation, c.bias, c.dropout, rng)
        self.encoder = TransformerEncoder(c.n_layer, *settings)
        self.blocks = [TransformerDecoderBlock(*settings) for _ in range(c.n_layer)]
        # Post-norm blocks end in a norm already.
        self.norm = LayerNorm(c.n_embd, c.bias) if c.norm == "pre" else None
        self.head = Linear(c.n_embd, c.target_vocab_size, bias=False, rng=rng)

    def forward(self, source: Any, target: Any, targets: Any = None) -> tuple[Tensor, Tensor | None]:
        logits, _ = self.decode(target, *self.encode(source))
        return logits, None if targets is None else cross_entropy(logits, targets)

    def encode(self, source: Any) -> tuple[Tensor, np.ndarray | None]:
        """The memory (B, S, C) of a source (B, S), and the mask of its padding for `decode`."""
        source = self._checked("source", source)
        x = self.dropout(self.source_positions(self.source_tokens(source)))  # (B, S, C)
        mask = self._mask(source)
        return self.encoder(x, mask), mask

    def new_cache(self) -> TargetCache:
        """An empty cache for `decode`; its first call sets the batch size."""
        return TargetCache(len(self.blocks), self.config.block_size)

    def decode(self, target: Any, memory: Tensor, mask: np.ndarray | None = None, *,
               cache: TargetCache | None = None) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, T, V) for a target (B, T), and the weights of attention to the memory.

        These are (B, H, T, S) for each block, in order. `memory` and `mask` are those of `encode`. With
        ``cache=model.new_cache()`` the calls of ``no_grad`` go on with one target: T counts the tokens
        after those of the earlier calls, and the memory's keys and values are computed once.
        """
        past, kept = past_and_caches(cache, len(self.blocks))
        target = self._checked("target", target, past)
        x = self.dropout(self.target_positions(self.target_tokens(target), past))      # (B, T, C)
        ids = target if cache is None or cache.ids is None else np.hstack([cache.ids, target])
        own, weights = self._mask(ids), []
        of_memory = kept if cache is None else cache.of_memory
        for block, keys, memory_keys in zip(self.blocks, kept, of_memory, strict=True):
            x, seen = block(x, own, memory, mask, return_weights=True, cache=keys,
                            context_cache=memory_keys)
            weights.append(seen)
        if cache is not None:
            cache.ids = ids
        return self.head(x if self.norm is None else self.norm(x)), weights

    def _mask(self, ids: np.ndarray) -> np.ndarray | None:
        """The mask of padding; None, which is faster, where there is none."""
        valid = ids != self.config.padding_id                    # (B, S)
        return None if valid.all() else padding_mask(valid)

    def _checked(self, name: str, ids: Any, past: int = 0) -> np.ndarray:
        ids, longest = np.asarray(ids), self.config.block_size
        if past and ids.ndim == 2:
            check_length("Seq2SeqTransformer", longest, past, ids.shape[1])
        if ids.ndim != 2 or ids.shape[1] > longest:
            raise ValueError(f"Seq2SeqTransformer: {name} must be integers of shape (B, n) with n at "
                             f"most block_size = {longest}, got shape {ids.shape}. Cut the sequences, "
                             f"or build the model with a larger block_size.")
        return ids
