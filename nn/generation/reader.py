"""How a language model reads texts that grow: with what it keeps of them, or all anew."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from nn.layers.arrays import on_arrays
from nn.layers.module import evaluating
from tape import no_grad


class Reader:
    """The logits behind texts that are read token after token.

    Parameters
    ----------
    model : Module
        ``model(idx (B, T)) -> (logits (B, T, V), loss)``, with ``model.config.block_size``. One that
        has a ``new_cache()`` is given it as ``cache``, and then only the tokens that are new.
    use_cache : bool

    Attributes
    ----------
    longest : tokens that are seen at once: of a `GPT` block_size, of a `RecurrentLM` any number.
    """

    def __init__(self, model: Any, use_cache: bool = True):
        twin = on_arrays(model)
        self.forward = _evaluated(model) if twin is model else twin
        cache = model.new_cache() if hasattr(model, "new_cache") else None
        self.longest = model.config.block_size if cache is None else cache.longest
        self.cache = cache if use_cache else None

    def read(self, texts: Sequence[Sequence[int]], length: int) -> np.ndarray:
        """(B, V): the logits behind the first `length` tokens of each text.

        The texts are those of the call before, and `length` is more than it was there. A row is
        computed by the same products whatever the others are, so it does not depend on them.
        """
        if length > self.longest:       # the window slides: every token has a new position, so all anew
            self.cache = None
        start = max(0, length - self.longest) if self.cache is None else self.cache.length
        idx = np.array([text[int(start):length] for text in texts])          # (B, T)
        with no_grad():
            logits, _ = (self.forward(idx) if self.cache is None else
                         self.forward(idx, cache=self.cache))                # (B, T, V)
        return np.asarray(logits)[:, -1]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows of the texts that were read; one may be named more than once."""
        if self.cache is not None:
            self.cache.select(np.asarray(rows))


def _evaluated(model: Any) -> Callable:
    """The model, in evaluation mode for the length of each call."""
    modules = list(model.modules())

    def forward(*args: Any, **kwargs: Any) -> Any:
        with evaluating(model, modules):
            return model(*args, **kwargs)

    return forward
