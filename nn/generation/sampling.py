"""From logits to a token: which tokens take part, and the draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits; checked, and `sample` says what each part does.

    Attributes
    ----------
    temperature, top_k, top_p, min_p : of `sample`.
    repetition_penalty : of `penalised`; 1 is none.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        allowed = {
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or positive"),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p is None or 0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "positive; 1 is none")}
        for name, (right, words) in allowed.items():
            if not right:
                raise ValueError(f"sample: {name} must be {words}, got {getattr(self, name)}")

    def draw(self, logits: np.ndarray, seen: Sequence[int], rng: np.random.Generator) -> int:
        """A token behind the text `seen`; as `sample` draws it."""
        check_logits(logits)
        logits = penalised(logits, seen, self.repetition_penalty)
        if self.temperature == 0:
            return int(np.argmax(logits))
        ids, weights = candidates(logits, self)
        cumulative = weights.cumsum()
        place = cumulative.searchsorted(rng.random() * cumulative[-1], side="right")
        return int(ids[min(place, len(ids) - 1)])


def check_logits(logits: np.ndarray, caller: str = "sample") -> None:
    """Raise a ValueError where no token is the likeliest: the largest logit must be finite."""
    peak = logits.max()                             # NaN if one of them is
    if not math.isfinite(peak):
        raise ValueError(f"{caller}: logits must be numbers, or -inf for what cannot follow; the "
                         f"largest is {peak}. Are the weights of the model finite?")


def candidates(logits: np.ndarray, how: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that take part, best first and lower ids first on a tie, and their weights (K,).

    The weights are in proportion to the probabilities; the first is 1. In this order each filter
    keeps the first few, so together they keep as many as the strictest of them. `how.temperature`
    must be positive.
    """
    ids = (-logits).argsort(kind="stable")[:how.top_k]
    scores = (logits[ids] - logits[ids[0]]).astype(np.float64)
    if how.temperature != 1:
        with np.errstate(over="ignore"):        # a tiny temperature: -inf is right
            scores /= how.temperature
    weights = np.exp(scores)
    count = len(ids)
    if how.top_p is not None and how.top_p < 1:
        cumulative = np.cumsum(weights)
        # The first place at which the sum reaches top_p, and that place too.
        count = int(np.searchsorted(cumulative, how.top_p * cumulative[-1])) + 1
    if how.min_p is not None:
        count = min(count, int(np.count_nonzero(weights >= how.min_p)))
    return ids[:count], weights[:count]


def penalised(logits: np.ndarray, seen: Sequence[int], penalty: float) -> np.ndarray:
    """Logits (V,) in which each token of `seen` is less likely, however often it occurs.

    A positive logit is divided by the penalty: Keskar et al. 2019, arXiv:1909.05858, section 4.1. A
    negative one is multiplied by it, since to divide would make it likelier.
    """
    if penalty == 1 or not len(seen):
        return logits
    out, places = logits.copy(), np.unique(np.asarray(seen, np.int64))
    of_seen = out[places]
    out[places] = np.where(of_seen > 0, of_seen / penalty, of_seen * penalty)
    return out


def sample(logits: Any, rng: np.random.Generator, temperature: float = 1.0,
           top_k: int | None = None, top_p: float | None = None, min_p: float | None = None) -> int:
    """Draw a token from softmax(logits / temperature).

    Parameters
    ----------
    logits : array (V,)
    rng : numpy.random.Generator
        Used for exactly one number, whatever the other arguments; not at all when greedy.
    temperature : float
        0 is greedy: the largest logit, the first of them on a tie.
    top_k : int, optional
        Only the k largest logits take part: exactly k, on ties the lower ids; more than V is all.
    top_p : float, optional
        Of these only the fewest likeliest whose probabilities sum to at least top_p, so that the
        token that crosses it takes part. Holtzman et al. 2019, arXiv:1904.09751, section 3.1.
    min_p : float, optional
        Of these only those at least min_p times as likely as the likeliest. Nguyen et al. 2024,
        arXiv:2407.01082, section 3.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        An argument is out of range, or the largest logit is infinite or NaN.
    """
    return Sampling(temperature, top_k, top_p, min_p).draw(np.asarray(logits), (), rng)
