"""Text as token ids."""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

import numpy as np


class Tokenizer:
    """A fixed vocabulary. Subclasses say how text splits into tokens and how tokens join.

    Parameters
    ----------
    vocabulary : sequence of str
        The token of each id, in order.
    """

    kind = ""               # what a token is; checkpoints hold it
    unit = "token"          # the same, for people
    end = ""                # the token that stands between documents

    def __init__(self, vocabulary: Sequence[str]):
        self.vocabulary = list(vocabulary)
        self.ids = {token: i for i, token in enumerate(self.vocabulary)}
        if len(self.ids) != len(self.vocabulary):
            raise ValueError("Tokenizer: the vocabulary names a token twice")

    @classmethod
    def from_text(cls, text: str) -> Tokenizer:
        """The tokenizer whose vocabulary is what occurs in `text`, sorted."""
        return cls.from_texts([text])

    @classmethod
    def from_texts(cls, texts: Iterable[str], size: int | None = None,
                   ends: bool = False) -> Tokenizer:
        """The tokenizer of a text that is given in pieces.

        Parameters
        ----------
        texts : iterable of str
        size : int, optional
            At most so many tokens.
        ends : bool
            Whether the end of a document is a token too.
        """
        found = {cls.end} if ends else set()
        for text in texts:
            found.update(cls.split(text))
        if size is not None and len(found) > size:
            raise ValueError(f"vocab_size: all {len(found):,} {cls.kind}s of the text are needed; got "
                             f"{size:,}")
        return cls(sorted(found))

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

    def joined(self, documents: Iterable[str]) -> str:
        """The text of some documents, with the end token behind each."""
        return self.join(part for document in documents for part in (document, self.end))

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
    """A token is a character. Decoded, a text is what it was. Documents end with a line feed."""

    kind = unit = "character"
    end = "\n"

    def __init__(self, vocabulary: Sequence[str]):
        super().__init__(vocabulary)
        points = {ord(token): i for token, i in self.ids.items() if len(token) == 1}
        self._id_of = np.full(max(points, default=0) + 2, -1)      # by code point; the last is unknown
        self._id_of[list(points)] = list(points.values())

    @staticmethod
    def split(text: str) -> Iterable[str]:
        return text

    @staticmethod
    def join(tokens: Iterable[str]) -> str:
        return "".join(tokens)

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        ids = self._id_of[np.minimum(points, len(self._id_of) - 1)]
        return super().encode(text) if (ids < 0).any() else ids          # which says what is unknown


class WordTokenizer(Tokenizer):
    """A token is a word: what stands between spaces.

    Decoded, the words have single spaces between them: line breaks and further spaces are lost. With
    the word "<unk>" in its vocabulary, every word that is not has its id, and is lost too.
    """

    kind = unit = "word"
    end, unknown = "<end>", "<unk>"

    @classmethod
    def from_texts(cls, texts: Iterable[str], size: int | None = None,
                   ends: bool = False) -> Tokenizer:
        """The commonest words, of equally common ones the first; "<unk>" if any are left out."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(cls.split(text))
        always = {cls.end} if ends else set()
        if size is not None and len(counts.keys() | always) > size:
            always.add(cls.unknown)
            room = max(size - len(always), 0)
            common = sorted(counts.keys() - always, key=lambda word: (-counts[word], word))[:room]
        else:
            common = list(counts)
        return cls(sorted({*always, *common}))

    @staticmethod
    def split(text: str) -> Iterable[str]:
        return text.split()

    @staticmethod
    def join(tokens: Iterable[str]) -> str:
        return " ".join(tokens)

    def encode(self, text: str) -> np.ndarray:
        if self.unknown not in self.ids:
            return super().encode(text)
        other = self.ids[self.unknown]
        return np.array([self.ids.get(word, other) for word in text.split()], np.int64)


class BPETokenizer(Tokenizer):
    """Pairs of bytes that are often neighbours are merged, and merged again: what GPT-2 reads.

    Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword units";
    on bytes by Radford et al. 2019, "Language models are unsupervised multitask learners". The merges
    are those of the library ``tokenizers``, whose file ``tokenizer.json`` can hold other subwords too.

    Every text has tokens, and is decoded to what it was, if `from_texts` made the tokenizer or it is
    that of GPT-2. A token may end within a character: then decoded text ends in U+FFFD.

    Parameters
    ----------
    state : dict
        What such a file holds.

    Raises
    ------
    ImportError
        The library is not installed; says how to get it.
    ValueError
        The library cannot read the state.
    """

    kind = "bpe"
    learned_from = 2 ** 25      # characters, spread over a longer text, suffice to learn from
    ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
    _BYTES = 256

    def __init__(self, state: dict):
        library = _library()
        try:
            self._coder = library.Tokenizer.from_str(json.dumps(state))
        except Exception as error:           # the library raises nothing more special
            raise ValueError(f"the library tokenizers cannot read the tokenizer: {error}") from error
        self._coder.no_truncation()
        self._coder.no_padding()
        self.ids = self._coder.get_vocab(with_added_tokens=True)
        size = max(self.ids.values(), default=-1) + 1
        if not 0 < size <= 2 * len(self.ids):
            raise ValueError(f"tokenizer: the ids must be 0, 1, 2 ... with few gaps; got {size:,} as "
                             f"one more than the highest of {len(self.ids):,}")
        self.vocabulary = [""] * size
        for token, i in self.ids.items():
            self.vocabulary[i] = token
        # Whether the tokens of a text are those of its parts: with the pattern of GPT-2 and no more.
        before = state.get("pre_tokenizer") or {}
        self._splits = state.get("normalizer") is None and before == {**before, **_GPT2} and not any(
            token["lstrip"] or token["rstrip"] for token in state.get("added_tokens", ()))
        self.end = next((token for token in self.ENDS if token in self.ids), "")

    @classmethod
    def from_texts(cls, texts: Iterable[str], size: int | None = None,
                   ends: bool = False) -> Tokenizer:
        """The tokenizer whose merges are the commonest of a text, each of them at least twice there.

        Its tokens are the end of a document, the 256 bytes, and the merges up to `size` tokens (by
        default 1,024).
        """
        size = 1024 if size is None else size
        if size <= cls._BYTES:
            raise ValueError(f"vocab_size must be at least {cls._BYTES + 1}, for the bytes and the end "
                             f"of a document; got {size}")
        library = _library()
        coder = library.Tokenizer(library.models.BPE())
        coder.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        coder.decoder = library.decoders.ByteLevel()
        coder.train_from_iterator(texts, library.trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, special_tokens=[cls.ENDS[0]], show_progress=False,
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet())))
        return cls(json.loads(coder.to_str()))

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """The tokenizer in a ``tokenizer.json``. ValueError if it is none, FileNotFoundError."""
        try:
            return cls(json.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {path}") from None
        except ValueError as error:
            raise ValueError(f"{path} is no tokenizer.json: {str(error)[:200]}") from error

    @staticmethod
    def join(tokens: Iterable[str]) -> str:
        return "".join(tokens)

    def encode(self, text: str) -> np.ndarray:
        parts = list(_short(text)) if self._splits else [text]
        try:
            found = self._coder.encode_batch_fast(parts, add_special_tokens=False)
        except TypeError as error:           # a character of U+D800 to U+DFFF, which UTF-8 has not
            raise ValueError("the text has a surrogate, which is no character") from error
        except Exception as error:           # the library raises nothing more special
            raise ValueError(f"the tokenizer cannot encode the text: {error}") from error
        return np.array([i for part in found for i in part.ids], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        return self._coder.decode([int(i) for i in ids], skip_special_tokens=False)

    def to_dict(self) -> dict:
        return {"kind": self.kind, "vocabulary": json.loads(self._coder.to_str())}

    @classmethod
    def from_dict(cls, state: dict) -> Tokenizer:
        return cls(state["vocabulary"])


_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_SHORT = 2 ** 14            # characters: of long texts the library takes more time for each
_BEFORE_SPACES = re.compile(r"(?<=\S)(?=\s)")


def _short(text: str) -> Iterator[str]:
    """Parts of a text, cut in front of spaces."""
    start = 0
    while start < len(text):
        found = _BEFORE_SPACES.search(text, start + _SHORT)
        end = found.end() if found else len(text)
        yield text[start:end]
        start = end


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError('byte-pair encoding needs the library tokenizers, which is not installed: '
                          'pip install -e ".[text]"') from error
    return tokenizers


# By kind. A new tokenizer is added here. Kinds are never renamed: files hold them.
TOKENIZERS: dict[str, type[Tokenizer]] = {
    c.kind: c for c in (CharTokenizer, WordTokenizer, BPETokenizer)}


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
