"""The losses that a model has to beat: those of models that know nothing, or next to nothing."""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple

import numpy as np

from nn.data.text import Report, silent

_CHUNK = 2 ** 20            # pairs that are counted at a time
_TABLE = 2 ** 22            # the largest number of possible pairs that have a counter each
_SORTED = 2 ** 24           # tokens whose pairs are sorted instead


class Yardsticks(NamedTuple):
    """Three losses, in nats per token, each at most the one before it.

    Attributes
    ----------
    uniform : ln V, of a model that takes all V tokens for equally likely.
    unigram : -sum_a p(a) ln p(a), of one that knows how often each token occurs.
    bigram : -sum_ab p(a, b) ln p(b | a), of one that also looks at the token before.

    Notes
    -----
    The probabilities are the relative frequencies in the text, which fit it better than any other text.
    Where most pairs are rare, as with a large vocabulary, `bigram` is therefore too low for new text.
    Shannon 1951, "Prediction and entropy of printed English", F_0 to F_2.
    """

    uniform: float
    unigram: float
    bigram: float

    def named(self) -> dict[str, float]:
        """The three with short names."""
        return dict(zip(("ln V", "unigram entropy", "bigram entropy"), self))

    def table(self, vocab_size: int) -> str:
        """The three as lines, aligned."""
        rows = {f"nothing (ln {vocab_size})": self.uniform,
                "how often each token occurs (unigram entropy)": self.unigram,
                "and what follows it (bigram entropy)": self.bigram}
        return "\n".join(["nats per token of a model that knows",
                          *(f"  {name:<46}{loss:6.3f}" for name, loss in rows.items())])


class Passed:
    """Which yardsticks a loss has passed; each is told once. `best` is the lowest loss before."""

    def __init__(self, sticks: Yardsticks, best: float = math.inf):
        self.left = list(sticks.named().items())
        self.by(best)

    def by(self, loss: float) -> str:
        """What to say of a new loss; empty where it is below no further yardstick."""
        new = [f"{name} ({stick:.3f})" for name, stick in self.left if loss < stick]
        self.left = [(name, stick) for name, stick in self.left if not loss < stick]
        return f"  validation below {', '.join(new)}" if new else ""


def yardsticks(ids: np.ndarray, vocab_size: int, report: Report = silent) -> Yardsticks:
    """The three losses for a sequence of at least two tokens, which is read once, in chunks.

    Of more than 2,048 possible tokens, whose pairs are too many for a counter each, the first sixteen
    million of the sequence are counted, so that the memory stays bounded.
    """
    if vocab_size ** 2 > _TABLE:
        ids = ids[:_SORTED]
    pairs, counts = _pair_counts(ids, vocab_size, report)
    before = np.zeros(vocab_size, np.int64)             # how often a token is the first of a pair
    np.add.at(before, pairs // vocab_size, counts)
    total = before.copy()
    total[ids[-1]] += 1                                 # the last is the first of none
    joint, first = _entropy(counts), _entropy(before)   # H(a, b) = H(a) + H(b | a)
    return Yardsticks(math.log(vocab_size), _entropy(total), joint - first)


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _pair_counts(ids: np.ndarray, vocab_size: int, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """The pairs a V + b that occur, and how often."""
    if vocab_size ** 2 <= _TABLE:
        table = np.zeros(vocab_size ** 2, np.int64)
        for pairs in _pairs(ids, vocab_size, report):
            table += np.bincount(pairs, minlength=len(table))
        found = np.flatnonzero(table)
        return found, table[found]
    return np.unique(np.concatenate(list(_pairs(ids, vocab_size, report))), return_counts=True)


def _pairs(ids: np.ndarray, vocab_size: int, report: Report) -> Iterator[np.ndarray]:
    for start in range(0, len(ids) - 1, _CHUNK):
        tokens = ids[start:start + _CHUNK + 1].astype(np.int64)
        yield tokens[:-1] * vocab_size + tokens[1:]
        report("counting pairs", min((start + _CHUNK) / len(ids), 1.0))
