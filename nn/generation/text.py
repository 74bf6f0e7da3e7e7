"""From tokens to text as they come: whole characters only, and nothing of what ends the text."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Sequence

from nn.data.tokenizers import Tokenizer
from nn.generation.writing import generate

INCOMPLETE = "\ufffd"       # decoders put it where the bytes of a character are not all there


def generate_text(model: Any, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, *args: Any,
                  stop_texts: Sequence[str] = (), **options: Any) -> Iterator[str]:
    """Continue a text: an iterator of the pieces that are added, as of `stream_text`.

    Parameters
    ----------
    model, max_new_tokens, and others : of `generate`, for one text.
    tokenizer : Tokenizer
    prompt : str
        Of at least one token; not part of what is yielded.
    stop_texts : sequence of str
        The text ends before the first of these.
    """
    ids = [int(i) for i in tokenizer.encode(prompt)]
    return stream_text(tokenizer, ids, generate(model, ids, max_new_tokens, *args, **options),
                       stop_texts)


def stream_text(tokenizer: Tokenizer, ids: Iterable[int], tokens: Iterable[int],
                stop_texts: Sequence[str] = ()) -> Iterator[str]:
    """The text that `tokens` add to that of `ids`, piece by piece, each as soon as it is sure.

    A character whose bytes are spread over several tokens comes when it is complete, and the
    beginning of a stop text when it is clear that it is none. No more tokens are taken behind a stop
    text.
    """
    if "" in stop_texts:
        raise ValueError("stream_text: a stop text must have at least one character, got ''")
    return _before(_characters(tokenizer, ids, tokens), stop_texts)


def _characters(tokenizer: Tokenizer, ids: Iterable[int], tokens: Iterable[int]) -> Iterator[str]:
    """Whole characters. Only what is new is decoded, behind the piece before it.

    That piece says how the tokens join: of words, with a space.
    """
    known, new = [int(i) for i in ids], list[int]()
    for token in tokens:
        new.append(token)
        text = _added(tokenizer, known, new)
        if text and not text.endswith(INCOMPLETE):
            yield text
            known, new = new, []
    if new:
        yield _added(tokenizer, known, new)


def _added(tokenizer: Tokenizer, known: list[int], new: list[int]) -> str:
    return tokenizer.decode([*known, *new])[len(tokenizer.decode(known)):]


def _before(pieces: Iterable[str], stop_texts: Sequence[str]) -> Iterator[str]:
    """The pieces up to the stop text that is complete first; of those the longest."""
    held = ""
    for piece in pieces:
        held += piece
        ends = [(held.find(stop) + len(stop), -len(stop)) for stop in stop_texts if stop in held]
        if ends:
            end, length = min(ends)
            if end + length:
                yield held[:end + length]
            return
        sure = len(held) - max((_begun(held, stop) for stop in stop_texts), default=0)
        if sure:
            yield held[:sure]
        held = held[sure:]
    if held:
        yield held


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
