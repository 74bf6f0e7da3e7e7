"""Text as token ids: tokenizers, and batches cut from one long sequence."""

from __future__ import annotations

import difflib
import importlib
import reprlib
from typing import Any, Iterable, Sequence

import numpy as np


class Tokenizer:
    """A fixed vocabulary. Subclasses say how text splits into tokens and how tokens join.

    Parameters
    ----------
    vocabulary : sequence of str
        The token of each id, in order.
    """

    kind = ""

    def __init__(self, vocabulary: Sequence[str]):
        self.vocabulary = list(vocabulary)
        self.ids = {token: i for i, token in enumerate(self.vocabulary)}
        if len(self.ids) != len(self.vocabulary):
            raise ValueError("Tokenizer: the vocabulary names a token twice")

    @classmethod
    def from_text(cls, text: str) -> Tokenizer:
        """The tokenizer whose vocabulary is what occurs in `text`, sorted."""
        return cls(sorted(set(cls.split(text))))

    @staticmethod
    def split(text: str) -> Iterable[str]:
        """The tokens of a text."""
        raise NotImplementedError

    @staticmethod
    def join(tokens: Iterable[str]) -> str:
        """The text of some tokens."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> np.ndarray:
        """Ids of the tokens of `text`, int64 (N,).

        Raises
        ------
        ValueError
            A token is not in the vocabulary: says which, where, and the nearest known ones.
        """
        tokens = list(self.split(text))
        try:
            return np.array([self.ids[token] for token in tokens], np.int64)
        except KeyError:
            position = next(i for i, token in enumerate(tokens) if token not in self.ids)
            raise ValueError(self._unknown(tokens[position], position)) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids."""
        return self.join(self.vocabulary[int(i)] for i in ids)

    def _unknown(self, token: str, position: int) -> str:
        near = difflib.get_close_matches(token, self.vocabulary, 3) \
            or [known for known in self.vocabulary if known.lower() == token.lower()]
        hint = f"; nearest known: {', '.join(map(repr, near))}" if near else ""
        if not hint:
            known = " ".join(repr(t)[1:-1] for t in self.vocabulary[:80])
            hint = f"; known: {known}{' ...' if len(self) > 80 else ''}"
        return (f"{self.kind} {token!r} at position {position} is not among the {len(self)} "
                f"{self.kind}s the model was trained on{hint}")

    def to_dict(self) -> dict:
        """As JSON can hold it; `tokenizer_from_dict` reads it."""
        return {"kind": self.kind, "vocabulary": self.vocabulary}


class CharTokenizer(Tokenizer):
    """A token is a character."""

    kind = "character"

    @staticmethod
    def split(text: str) -> Iterable[str]:
        return text

    @staticmethod
    def join(tokens: Iterable[str]) -> str:
        return "".join(tokens)


class WordTokenizer(Tokenizer):
    """A token is a word: what stands between spaces. Text comes back with single spaces."""

    kind = "word"

    @staticmethod
    def split(text: str) -> Iterable[str]:
        return text.split()

    @staticmethod
    def join(tokens: Iterable[str]) -> str:
        return " ".join(tokens)


def tokenizer_from_dict(state: dict) -> Tokenizer:
    """The tokenizer that ``to_dict`` described.

    Raises
    ------
    ValueError
        The state is not of that form.
    """
    kinds: dict[str, type[Tokenizer]] = {c.kind: c for c in (CharTokenizer, WordTokenizer)}
    if not isinstance(state, dict) or not {"kind", "vocabulary"} <= state.keys():
        raise ValueError("tokenizer: must be a dict with a kind and a vocabulary")
    kind, vocabulary = state["kind"], state["vocabulary"]
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"tokenizer: kind must be one of {sorted(kinds)}, got "
                         f"{reprlib.repr(kind)}")
    if not isinstance(vocabulary, list) or not all(isinstance(token, str) for token in vocabulary):
        raise ValueError("tokenizer: the vocabulary must be a list of texts")
    return kinds[kind](vocabulary)


def train_validation_split(ids: np.ndarray, block_size: int,
                           fraction: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """The first `fraction` of a sequence to train on, the rest to validate on.

    Raises
    ------
    ValueError
        A part is too short for one block; says the largest block size that works.
    """
    cut = int(fraction * len(ids))
    shorter = min(cut, len(ids) - cut)
    if shorter < block_size + 1:
        parts = (f"{len(ids):,} tokens, {cut:,} to train on and {len(ids) - cut:,} to validate on, are "
                 f"too few for a block size of {block_size}")
        raise ValueError(f"{parts}: the largest that works is {shorter - 1}" if shorter > 1 else
                         f"{parts}, and for any other: use a longer text")
    return ids[:cut], ids[cut:]


def random_batch(ids: np.ndarray, batch_size: int, block_size: int, seed: int,
                 step: int) -> tuple[np.ndarray, np.ndarray]:
    """Random blocks and the tokens that follow: inputs (B, T), targets (B, T) one place later.

    A pure function of (seed, step), so a run that is resumed or evaluated more often sees the
    same batches.
    """
    rng = np.random.default_rng((seed, step))
    starts = rng.integers(0, len(ids) - block_size, batch_size)
    rows = ids[starts[:, None] + np.arange(block_size + 1)]      # (B, T+1)
    return rows[:, :-1], rows[:, 1:]


def consecutive_blocks(ids: np.ndarray, batch_size: int, block_size: int) -> Any:
    """The whole sequence once, in batches of (inputs, targets): for a validation loss.

    Every token but the first is a target exactly once; the last block is as long as what is left.
    """
    count = (len(ids) - 1) // block_size
    end = count * block_size
    inputs = ids[:end].reshape(count, block_size)
    targets = ids[1:end + 1].reshape(count, block_size)
    for i in range(0, count, batch_size):
        yield inputs[i:i + batch_size], targets[i:i + batch_size]
    if end < len(ids) - 1:
        yield ids[None, end:-1], ids[None, end + 1:]


def padded_sentences(sentences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One row a sentence: inputs (B, T), and targets one place later with -1 behind the end.

    What stands in the inputs behind the end (0) plays no part: its targets are ignored, and
    earlier positions do not see it.
    """
    longest = max(map(len, sentences)) - 1
    inputs = np.zeros((len(sentences), longest), np.int64)
    targets = np.full((len(sentences), longest), -1, np.int64)
    for row, ids in enumerate(sentences):
        inputs[row, :len(ids) - 1] = ids[:-1]
        targets[row, :len(ids) - 1] = ids[1:]
    return inputs, targets


def unigram_entropy(ids: np.ndarray) -> float:
    """Entropy of the token frequencies, in nats: the loss of a model that ignores the context."""
    _, counts = np.unique(ids, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum())


def python_help_text() -> str:
    """The help topics of Python's own interactive help: a text that needs no download."""
    topics = importlib.import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[name] for name in sorted(topics))
