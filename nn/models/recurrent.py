"""A language model on a recurrent net.

Mikolov et al. 2010, "Recurrent neural network based language model"; with LSTM layers and dropout
Zaremba, Sutskever and Vinyals 2014, arXiv:1409.2329.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nn.layers.cache import without_gradient
from nn.layers.dropout import Dropout
from nn.layers.init import Rng
from nn.layers.linear import Embedding, Linear
from nn.layers.losses import cross_entropy
from nn.layers.module import Module
from nn.layers.recurrent import GRU, LSTM, RNN, Recurrent, State
from nn.models.configuration import Shapes, check_sizes, linear_shapes
from tape import Tensor

CELLS: dict[str, type[Recurrent]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


@dataclass(frozen=True)
class RecurrentConfig:
    """The sizes and options of a `RecurrentLM`; saved in its checkpoints.

    Attributes
    ----------
    vocab_size : tokens known.
    block_size : tokens in a row that it is trained on. The model itself takes sequences of any
        length, and `generate` carries its state from the beginning of the text.
    cell : "rnn", "lstm" or "gru".
    n_layer, n_embd : layers, width of the token vectors and of the state.
    dropout : probability, while training.
    """

    vocab_size: int
    block_size: int
    cell: str = "lstm"
    n_layer: int = 2
    n_embd: int = 220
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "block_size", "n_layer", "n_embd")
        if self.cell not in CELLS:
            raise ValueError(f"RecurrentConfig: cell must be one of {', '.join(CELLS)}, got "
                             f"{self.cell!r}")

    def parameter_shapes(self) -> Shapes:
        """(name, shape) of each parameter of the model, in the order of definition."""
        width, outputs = self.n_embd, CELLS[self.cell].gates * self.n_embd
        yield "tokens.weight", (self.vocab_size, width)
        for i in range(self.n_layer):
            name = f"recurrent.layers.{i}"
            yield from linear_shapes(f"{name}.input", width, outputs)
            yield from linear_shapes(f"{name}.hidden", width, outputs, bias=False)
            if self.cell == "gru":
                yield f"{name}.candidate_bias", (width,)
        yield from linear_shapes("head", width, self.vocab_size)


class StateCache:
    """What a recurrent net keeps of a text: the state after its last token.

    Attributes
    ----------
    state : as of `Recurrent`; None before the first token.
    length : tokens that were read.
    longest : tokens that fit, without end.
    """

    longest = math.inf

    def __init__(self) -> None:
        self.state: State | None = None
        self.length = 0

    def select(self, rows: np.ndarray) -> None:
        """Go on with these rows of the batch, in this order; one may be named more than once."""
        if self.state is not None:
            self.state = tuple(part[:, rows] for part in self.state)         # (L, B, H) each


class RecurrentLM(Module):
    """Token embedding, recurrent layers, logits: a language model that is called as `GPT` is.

    ``RecurrentLM(config)(idx, targets=None) -> (logits, loss)`` with `idx` and `targets` integer
    arrays of shape (B, T), logits (B, T, vocab_size) and loss None without targets. Targets of -1 are
    ignored. Each row begins with a state of zeros.

    With ``cache=model.new_cache()`` the calls of ``no_grad`` go on with one text, as those of `GPT`:
    `idx` are the tokens after those of the earlier calls.

    Parameters
    ----------
    config : RecurrentConfig
    rng : numpy.random.Generator or int, optional
        Fixes the initial weights and the dropout.

    Notes
    -----
    Dropout is on what goes into the layers, from one to the next, and out, never on the state that is
    carried in time (Zaremba et al. 2014, figure 2). The token vectors start normal with std 1, the
    size of input for which `Linear` is initialised; the other parts as they say.
    """

    def __init__(self, config: RecurrentConfig, rng: Rng = None):
        rng = np.random.default_rng(rng)
        c = self.config = config
        self.tokens = Embedding(c.vocab_size, c.n_embd, rng, std=1.0)
        self.recurrent = CELLS[c.cell](c.n_embd, c.n_embd, c.n_layer, c.dropout, rng)
        self.head = Linear(c.n_embd, c.vocab_size, rng=rng)
        self.dropout = Dropout(c.dropout, rng)

    def new_cache(self) -> StateCache:
        """An empty cache for texts of any length; its first call sets the batch size."""
        return StateCache()

    def forward(self, idx: Any, targets: Any = None, *,
                cache: StateCache | None = None) -> tuple[Tensor, Tensor | None]:
        idx = np.asarray(idx)
        if idx.ndim != 2:
            raise ValueError(f"RecurrentLM: idx must be integers of shape (B, T), got shape "
                             f"{idx.shape}")
        state = None if cache is None else cache.state
        x, state = self.recurrent(self.dropout(self.tokens(idx)), state)     # (B, T, C)
        if cache is not None:
            without_gradient("StateCache", *state)
            cache.state, cache.length = state, cache.length + idx.shape[1]
        logits = self.head(self.dropout(x))                      # (B, T, V)
        return logits, None if targets is None else cross_entropy(logits, targets)
