"""Text as token ids."""

from __future__ import annotations

import difflib
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

    kind = ""               # what a token is; checkpoints hold it

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

    @classmethod
    def from_dict(cls, state: dict) -> Tokenizer:
        """The tokenizer that `to_dict` described; ValueError if the state is not of that form."""
        vocabulary = state["vocabulary"]
        if not isinstance(vocabulary, list) or not all(isinstance(t, str) for t in vocabulary):
            raise ValueError("tokenizer: the vocabulary must be a list of texts")
        return cls(vocabulary)


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
    """A token is a word: the characters between spaces. Decoded text has single spaces."""

    kind = "word"

    @staticmethod
    def split(text: str) -> Iterable[str]:
        return text.split()

    @staticmethod
    def join(tokens: Iterable[str]) -> str:
        return " ".join(tokens)


# By kind. A new tokenizer is added here. Kinds are never renamed: files hold them.
TOKENIZERS: dict[str, type[Tokenizer]] = {c.kind: c for c in (CharTokenizer, WordTokenizer)}


def tokenizer_from_dict(state: Any) -> Tokenizer:
    """The tokenizer that ``to_dict`` described.

    Raises
    ------
    ValueError
        The state is not of that form.
    """
    if not isinstance(state, dict) or not {"kind", "vocabulary"} <= state.keys():
        raise ValueError("tokenizer: must be a dict with a kind and a vocabulary")
    kind = state["kind"]
    if not isinstance(kind, str) or kind not in TOKENIZERS:
        raise ValueError(f"tokenizer: kind must be one of {sorted(TOKENIZERS)}, got "
                         f"{reprlib.repr(kind)}")
    return TOKENIZERS[kind].from_dict(state)
