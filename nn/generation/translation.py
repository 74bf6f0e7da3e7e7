"""From a source sequence to a target sequence, token after token."""

from __future__ import annotations

from typing import Any

import numpy as np

from nn.layers.module import evaluating
from tape import no_grad


@no_grad
def translate(model: Any, source: Any, start: int, stop: int,
              max_new_tokens: int | None = None) -> list[list[int]]:
    """The target that a model finds for each source, by taking the likeliest token each time.

    Greedy decoding: y_t = argmax p(y | y_<t, source), the first of equals, until y_t is `stop`. The
    source is encoded once, and at each step only the new token is decoded.

    Parameters
    ----------
    model : Seq2SeqTransformer
        Or what has its `encode`, `decode`, `new_cache` and ``config.block_size``.
    source : integer array (B, S)
        Filled up with the model's padding_id.
    start, stop : int
        The target tokens before the first and after the last.
    max_new_tokens : int, optional
        At most, and by default, block_size.

    Returns
    -------
    list of list of int
        For each row the tokens without `start` and `stop`.

    Raises
    ------
    ValueError
        `max_new_tokens` is not in [1, block_size].
    """
    longest = model.config.block_size
    count = longest if max_new_tokens is None else max_new_tokens
    if not 1 <= count <= longest:
        raise ValueError(f"translate: max_new_tokens must be in [1, {longest}], the block_size, got "
                         f"{max_new_tokens}")
    source = np.asarray(source)
    with evaluating(model):
        memory, cache = model.encode(source), model.new_cache()
        target = np.full((len(source), 1), start, np.int64)      # (B, 1)
        done = np.zeros(len(source), bool)
        for _ in range(count):
            logits, _ = model.decode(target[:, -1:], *memory, cache=cache)       # (B, 1, V)
            likeliest = logits.numpy()[:, -1].argmax(axis=1)     # (B,)
            done |= likeliest == stop
            if done.all():
                break
            target = np.column_stack([target, likeliest])        # (B, t + 1)
    return [_until(row, stop) for row in target[:, 1:].tolist()]


def _until(row: list[int], stop: int) -> list[int]:
    return row[:row.index(stop)] if stop in row else row
