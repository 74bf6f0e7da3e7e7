"""Beam search: the likeliest continuations, as far as a few at a time can find them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nn.generation.reader import Reader
from nn.generation.sampling import Sampling, check_logits, penalised
from nn.generation.writing import as_id


class Beam(NamedTuple):
    """A continuation.

    Attributes
    ----------
    tokens : without the stop token.
    log_probability : sum of log p of its tokens, in nats, that of the stop token included.
    """

    tokens: list[int]
    log_probability: float


def beam_search(model: Any, idx: Any, max_new_tokens: int, num_beams: int = 4,
                stop: int | None = None, *, repetition_penalty: float = 1.0,
                use_cache: bool = True) -> list[Beam]:
    """The likeliest continuations of a prompt, best first.

    At each step every beam is continued by every token, and the `num_beams` likeliest of all these
    are kept, on ties the earlier beam and the lower id. One that `stop` ends is put aside; the search
    ends when none that is left could become likelier than the best `num_beams` of those, or at
    `max_new_tokens`. Log-probabilities are summed and not divided by the length: with `stop`, short
    texts win. One beam is greedy decoding; with so many beams that none is dropped the search is
    exhaustive. (Graves 2012, arXiv:1211.3711, section 2.4.)

    Parameters
    ----------
    model, idx, max_new_tokens, stop, repetition_penalty, use_cache
        Of `generate`, for one prompt. With the penalty, p is the softmax of the penalised logits.
    num_beams : int

    Returns
    -------
    list of Beam
        At most `num_beams`.
    """
    prompt = [as_id(i, "beam_search") for i in np.ravel(idx)]
    if not prompt:
        raise ValueError("beam_search: the prompt must have at least one token")
    if num_beams < 1:
        raise ValueError(f"beam_search: num_beams must be at least 1, got {num_beams}")
    penalty = Sampling(repetition_penalty=repetition_penalty).repetition_penalty
    reader, live, ended = Reader(model, use_cache), [Beam([], 0.0)], list[Beam]()
    for _ in range(max_new_tokens):
        if not live or _settled(live, ended, num_beams):
            break
        texts = [prompt + beam.tokens for beam in live]
        logits = reader.read(texts, len(texts[0]))                           # (B, V)
        for row in logits:
            check_logits(row, "beam_search")
        scores = np.array([beam.log_probability + _log_softmax(penalised(row, text, penalty))
                           for beam, row, text in zip(live, logits, texts, strict=True)])
        # 2 B, because of the best as many as there are beams may be stopped.
        best = np.argsort(-scores, axis=None, kind="stable")[:2 * num_beams]
        kept: list[int] = []
        found: list[Beam] = []
        for row, token in zip(*np.unravel_index(best, scores.shape), strict=True):
            score = float(scores[row, token])
            if token == stop:
                ended.append(Beam(live[row].tokens, score))
            elif len(found) < num_beams:
                found.append(Beam([*live[row].tokens, int(token)], score))
                kept.append(int(row))
        live = found
        reader.select(kept)
    return sorted([*ended, *live], key=lambda beam: -beam.log_probability)[:num_beams]


def _settled(live: list[Beam], ended: list[Beam], num_beams: int) -> bool:
    """Whether enough beams have ended that none that is left can overtake: its sum only falls."""
    better = [beam for beam in ended if beam.log_probability >= live[0].log_probability]
    return len(better) >= num_beams


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """(V,), in float64."""
    logits = logits.astype(np.float64) - logits.max()
    return logits - np.log(np.exp(logits).sum())
