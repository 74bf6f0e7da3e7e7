"""A text as the tokens that train a language model and those that validate it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np

from nn.data.text import IN_MEMORY, Report, Source, silent
from nn.data.token_files import TokenFile, cache_folder, file_states, known_digest, token_dtype
from nn.data.tokenizers import (
    BPETokenizer, CharTokenizer, Tokenizer, WordTokenizer, tokenizer_from_dict)
from nn.data.yardsticks import Yardsticks, yardsticks

_VERSION = 1                    # of what the tokens in the cache depend on
_SHARE = 10                     # one token in so many validates
_VALIDATION = 2 ** 22           # and at most about so many
_WORDS = 10_000                 # the default vocabulary
KINDS: dict[str, type[Tokenizer]] = {
    "char": CharTokenizer, "word": WordTokenizer, "bpe": BPETokenizer}


class Corpus(NamedTuple):
    """The tokens of a text.

    Attributes
    ----------
    tokenizer : Tokenizer
    training, validation : array (N,)
        Ids: int64, or of a large text uint16 or uint32 in a file that is mapped into memory.
    yardsticks : Yardsticks
        Of `training`.
    digest : str
        SHA-256 of the text.
    file : Path, optional
        Where the ids are, of a large text.
    """

    tokenizer: Tokenizer
    training: np.ndarray
    validation: np.ndarray
    yardsticks: Yardsticks
    digest: str
    file: Path | None = None

    def described(self) -> str:
        """How many tokens there are, for people."""
        unit, kept = self.tokenizer.unit, f"\nkept for the next run in {self.file}" if self.file else ""
        return (f"{len(self.training):,} {unit}s to train on, {len(self.validation):,} to validate on"
                f"{kept}")

    def generating(self, lines: bool) -> dict:
        """What a checkpoint says of how to generate: the prompt, and of documents start and stop."""
        tokenizer = self.tokenizer
        if lines:
            return {"prompt": "", "start": tokenizer.end, "stop": tokenizer.ids[tokenizer.end]}
        try:
            known = len(tokenizer.encode("\n")) > 0
        except ValueError:
            known = False
        return {"prompt": "\n" if known else tokenizer.decode(self.training[:1])}


def read_corpus(source: Source, tokenizer: str = "char", vocab_size: int | None = None,
                lines: bool = False, report: Report = silent) -> Corpus:
    """The tokens of a text, which are kept in a file where they are many.

    Without `lines` the first nine tenths train, and the rest validates. With `lines` each line that is
    not empty is a document, and every tenth validates, as lists are often sorted; an end token stands
    in front of the first document and behind each. Of a text of more than 40 MB a smaller part
    validates, some four million tokens.

    Parameters
    ----------
    source : Source
    tokenizer : str
        "char", "word", "bpe", or the name of a file ``tokenizer.json``.
    vocab_size : int, optional
        At most so many tokens, by default 1,024 of "bpe" and 10,000 of "word".
    lines : bool
    report : Report
        Told of what takes long.

    Raises
    ------
    ValueError
        The text, or its tokens, cannot be used: says why.
    ImportError
        The library of a tokenizer is missing.
    """
    _check(tokenizer, vocab_size)
    if source.size <= IN_MEMORY:
        return _in_memory(source, tokenizer, vocab_size, lines, report)
    given = None if tokenizer in KINDS else BPETokenizer.from_file(tokenizer).to_dict()
    folder = cache_folder()
    digest = known_digest(source, folder, report)
    place = TokenFile(folder, [_VERSION, digest, given or tokenizer, vocab_size, lines])
    found = place.read()
    if found is None:
        _build(place, source, tokenizer, vocab_size, lines, report)
        found = place.read()
    assert found is not None
    ids, about = found
    return Corpus(tokenizer_from_dict(about["tokenizer"]), ids[:about["cut"]], ids[about["cut"]:],
                  Yardsticks(*about["yardsticks"]), digest, place.ids_path)


def _check(tokenizer: str, vocab_size: int | None) -> None:
    if tokenizer not in KINDS and not tokenizer.endswith(".json"):
        raise ValueError(f"the tokenizer must be {', '.join(KINDS)} or the name of a file "
                         f"tokenizer.json; got {tokenizer!r}")
    if vocab_size is not None and tokenizer not in ("word", "bpe"):
        raise ValueError(f"vocab_size is for the tokenizers word and bpe; got {tokenizer!r}, whose "
                         f"vocabulary is given")


def _in_memory(source: Source, tokenizer: str, vocab_size: int | None, lines: bool,
               report: Report) -> Corpus:
    if not any(piece.strip() for piece in source.pieces()):
        raise ValueError(f"{source.described} is empty")
    made = _tokenizer(source, tokenizer, vocab_size, lines)
    parts = list(_encoded(source, made, lines, report))
    first, second = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    ids, cut = np.concatenate([first, second]), _cut(len(first), len(second))
    _check_length(ids, cut)
    return Corpus(made, ids[:cut], ids[cut:], yardsticks(ids[:cut], len(made)), source.digest())


def _build(place: TokenFile, source: Source, tokenizer: str, vocab_size: int | None, lines: bool,
           report: Report) -> None:
    """Write the tokens of a text to its place in the cache."""
    before = file_states(source.paths)
    made = _tokenizer(source, tokenizer, vocab_size, lines, report)
    dtype = token_dtype(len(made))
    first, second = place.write(_encoded(source, made, lines, report), dtype)
    if before != file_states(source.paths):
        raise ValueError(f"{source.described} was changed while it was read; start again")
    ids, cut = place.ids(first + second, dtype), _cut(first, second)
    _check_length(ids, cut)
    sticks = yardsticks(ids[:cut], len(made), report)
    place.finish({"tokenizer": made.to_dict(), "cut": cut, "yardsticks": sticks}, len(ids), dtype)


def _cut(first: int, second: int) -> int:
    """How many tokens train: the first where there are two parts, and of a single one nine tenths."""
    return first if second else max(int(0.9 * first), first - _VALIDATION)


def _check_length(ids: np.ndarray, cut: int) -> None:
    if cut < 2 or len(ids) - cut < 2:
        raise ValueError(f"{len(ids):,} tokens, {cut:,} to train on and {len(ids) - cut:,} to validate "
                         f"on, are too few for any block size: use a longer text")


def _tokenizer(source: Source, kind: str, vocab_size: int | None, lines: bool,
               report: Report = silent) -> Tokenizer:
    """The tokenizer that a flag names, learned from the text where it is not in a file."""
    if kind not in KINDS:
        made = BPETokenizer.from_file(kind)
    else:
        every = max(1, source.size // BPETokenizer.learned_from) if kind == "bpe" else 1
        size = _WORDS if kind == "word" and vocab_size is None else vocab_size
        made = KINDS[kind].from_texts(_learned(source, lines, every, report), size, ends=lines)
    if lines and not made.end:
        raise ValueError(f"{kind} has no token for the end of a document, which lines need; known: "
                         f"{', '.join(BPETokenizer.ENDS)}")
    return made


def _learned(source: Source, lines: bool, every: int, report: Report) -> Iterator[str]:
    """The pieces of the text, or one in so many of them."""
    pieces = map("\n".join, source.documents()) if lines else source.pieces()
    done = 0
    for i, text in enumerate(pieces):
        done += len(text)
        report("making the vocabulary", min(done / source.size, 1.0))
        if i % every == 0:
            yield text


def _encoded(source: Source, tokenizer: Tokenizer, lines: bool,
             report: Report) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The ids of each piece of the text: those that train, and of lines also those that validate."""
    done = 0
    for first, second in _parts(source, tokenizer, lines):
        done += len(first) + len(second)
        yield tokenizer.encode(first), tokenizer.encode(second)
        report("making tokens", min(done / source.size, 1.0))


def _parts(source: Source, tokenizer: Tokenizer, lines: bool) -> Iterator[tuple[str, str]]:
    if not lines:
        yield from ((piece, "") for piece in source.pieces())
        return
    every = max(_SHARE, math.ceil(source.size / _VALIDATION))
    yield tokenizer.end, tokenizer.end
    count = 0
    for documents in source.documents():
        places = range(count, count + len(documents))
        count += len(documents)
        last = [place % every == every - 1 for place in places]
        yield (tokenizer.joined([d for d, held in zip(documents, last) if not held]),
               tokenizer.joined([d for d, held in zip(documents, last) if held]))
