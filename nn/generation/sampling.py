"""From logits to tokens: `sample` draws one, `generate` continues a sequence."""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

from nn.layers.init import Rng
from nn.layers.module import evaluating
from tape import no_grad


def sample(logits: np.ndarray, rng: np.random.Generator, temperature: float = 1.0,
           top_k: int | None = None) -> int:
    """Draw a token from softmax(logits / temperature).

    Parameters
    ----------
    logits : array (V,)
    rng : numpy.random.Generator
        Used for exactly one number, whatever the other arguments; not at all when greedy.
    temperature : float
        0 is greedy: the largest logit, the first of them on a tie.
    top_k : int, optional
        Only the k largest logits take part, exactly k even on ties; more than V is all.

    Returns
    -------
    int
    """
    if temperature < 0:
        raise ValueError(f"sample: temperature must be 0 (greedy) or positive, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"sample: top_k must be at least 1, got {top_k}")
    if temperature == 0:
        return int(np.argmax(logits))
    candidates = np.argsort(-logits, kind="stable")[:top_k]      # best first
    with np.errstate(over="ignore"):        # a tiny temperature: -inf is right
        scores = (logits[candidates] - logits[candidates[0]]).astype(np.float64) / temperature
    cumulative = np.cumsum(np.exp(scores))
    place = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(candidates[min(place, len(candidates) - 1)])


@no_grad
def generate(model: Any, idx: Any, max_new_tokens: int, temperature: float = 1.0,
             top_k: int | None = None, rng: Rng = None, stop: int | None = None) -> Iterator[int]:
    """Continue a sequence: an iterator of token ids, each available as soon as it is drawn.

    Parameters
    ----------
    model : callable
        ``model(idx (1, T)) -> (logits (1, T, V), loss)``, with ``model.config.block_size``. One that
        has a ``new_cache()`` is given it as ``cache``, and then only the tokens that are new, as
        long as the text fits into the cache: of a `GPT` block_size tokens, of a `RecurrentLM` any
        number.
    idx : integer sequence
        The prompt, at least one token. Of a text that does not fit the last block_size tokens are
        seen.
    max_new_tokens : int
    temperature, top_k : see `sample`.
    rng : numpy.random.Generator or int, optional
    stop : int, optional
        A token that ends the text; it is not yielded.
    """
    ids = [int(i) for i in np.ravel(idx)]
    if not ids:
        raise ValueError("generate: the prompt must have at least one token")
    rng = np.random.default_rng(rng)
    modules = list(model.modules())
    cache = model.new_cache() if hasattr(model, "new_cache") else None
    for _ in range(max_new_tokens):
        if cache is not None and len(ids) > cache.longest:
            cache = None                # the window moves, and with it the position of every token
        with evaluating(model, modules):
            logits, _ = (model(np.array([ids[-model.config.block_size:]])) if cache is None else
                         model(np.array([ids[cache.length:]]), cache=cache))
        token = sample(logits.numpy()[0, -1], rng, temperature, top_k)
        if token == stop:
            return
        ids.append(token)
        yield token
