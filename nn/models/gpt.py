"""GPT: a decoder-only Transformer that predicts the next token.

Radford et al. 2018 and 2019 (GPT, GPT-2); with ``norm="post", activation="relu",
position="sinusoidal"`` it is the decoder of Vaswani et al. 2017 without cross-attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import tape
from nn.layers.dropout import Dropout
from nn.layers.init import Rng
from nn.layers.linear import Embedding, Linear
from nn.layers.module import Module
from nn.layers.norm import LayerNorm
from nn.layers.position import LearnedPositionalEncoding, SinusoidalPositionalEncoding
from nn.layers.transformer import TransformerBlock
from nn.models.configuration import Shapes, block_shapes, check_sizes, linear_shapes, norm_shapes
from tape import Tensor


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
    activation : "gelu" or "relu".
    position : "learned" or "sinusoidal".
    tie_weights : whether the logits use the token embedding, transposed (Press and Wolf 2017,
        arXiv:1608.05859).
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

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "block_size", "n_layer", "n_head", "n_embd")
        if self.position not in ("learned", "sinusoidal"):
            raise ValueError(f"GPTConfig: position must be 'learned' or 'sinusoidal', got "
                             f"{self.position!r}")

    def parameter_shapes(self) -> Shapes:
        """(name, shape) of each parameter of the model, in the order of definition."""
        yield "tokens.weight", (self.vocab_size, self.n_embd)
        if self.position == "learned":
            yield "positions.weight", (self.block_size, self.n_embd)
        yield from block_shapes(self.n_layer, self.n_embd, self.bias)
        if self.norm == "pre":
            yield from norm_shapes("norm", self.n_embd, self.bias)
        if not self.tie_weights:
            yield from linear_shapes("head", self.n_embd, self.vocab_size, bias=False)


class GPT(Module):
    """Token embedding + position, a stack of causal blocks, logits.

    ``GPT(config)(idx, targets=None) -> (logits, loss)`` with `idx` and `targets` integer arrays of
    shape (B, T), logits (B, T, vocab_size) and loss None without targets. Targets of -1 are
    ignored.

    Parameters
    ----------
    config : GPTConfig
    rng : numpy.random.Generator or int, optional
        Fixes the initial weights and the dropout.
    """

    def __init__(self, config: GPTConfig, rng: Rng = None):
        rng = np.random.default_rng(rng)
        c = self.config = config
        self.tokens = Embedding(c.vocab_size, c.n_embd, rng)
        self.positions: Module = (
            LearnedPositionalEncoding(c.block_size, c.n_embd, rng) if c.position == "learned"
            else SinusoidalPositionalEncoding(c.block_size, c.n_embd))
        self.dropout = Dropout(c.dropout, rng)
        self.blocks = [
            TransformerBlock(c.n_embd, c.n_head, norm=c.norm, activation=c.activation, causal=True,
                             bias=c.bias, dropout=c.dropout, rng=rng) for _ in range(c.n_layer)]
        # Post-norm blocks end in a norm already.
        self.norm = LayerNorm(c.n_embd, c.bias) if c.norm == "pre" else None
        self.head = None if c.tie_weights else Linear(c.n_embd, c.vocab_size, bias=False, rng=rng)
        self._initialise(rng)

    def _initialise(self, rng: np.random.Generator) -> None:
        """Initial values, by name:

            *norm*.weight            1
            *.bias                   0
            tokens, positions        normal, std 0.02
            *.output.weight          normal, std 0.02 / sqrt(2 n_layer)
            head, the other weights  normal, std 0.02

        The two outputs of each block add to the residual stream; their factor keeps its variance
        from growing with depth (Radford et al. 2019, section 2.3). A post-norm model, whose
        stream is normalised anyway, keeps its layers' own initial values (1/sqrt(n_in)). Next to
        sinusoidal positions, of size 1, token vectors must be of similar size: std 1, unless they are
        the output weights too.
        """
        if self.config.position == "sinusoidal" and self.head is not None:
            self.tokens.weight.data = rng.standard_normal(self.tokens.weight.shape)
        if self.config.norm == "post":
            return
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and name.startswith(("blocks", "head")):
                scale = (2 * self.config.n_layer) ** -0.5 if name.endswith("output.weight") else 1.0
                parameter.data = rng.standard_normal(parameter.shape) * (0.02 * scale)

    def forward(self, idx: Any, targets: Any = None) -> tuple[Tensor, Tensor | None]:
        idx = np.asarray(idx)
        if idx.ndim != 2:
            raise ValueError(f"GPT: idx must be integers of shape (B, T), got shape {idx.shape}")
        x = self.dropout(self.positions(self.tokens(idx)))       # (B, T, C)
        for block in self.blocks:
            x = block(x)
        if self.norm is not None:
            x = self.norm(x)
        logits = x @ self.tokens.weight.T if self.head is None else self.head(x)      # (B, T, V)
        return logits, None if targets is None else tape.cross_entropy(logits, targets)
