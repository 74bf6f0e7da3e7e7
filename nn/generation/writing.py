"""Texts that a model writes: `generate`, token after token, and `generate_batch`, all at once."""

from __future__ import annotations

import copy
import itertools
import operator
from typing import Any, Iterator, NamedTuple

import numpy as np

from nn.generation.reader import Reader
from nn.generation.sampling import Sampling
from nn.layers.init import Rng


class Step(NamedTuple):
    """What one step wrote.

    Attributes
    ----------
    tokens : of each text the new token, or None where there is none.
    logits : array (B, V), from which they were drawn.
    """

    tokens: list[int | None]
    logits: np.ndarray


def generate(model: Any, idx: Any, max_new_tokens: int, temperature: float = 1.0,
             top_k: int | None = None, rng: Rng = None, stop: int | None = None, *,
             top_p: float | None = None, min_p: float | None = None, repetition_penalty: float = 1.0,
             num_samples: int | None = None, use_cache: bool = True) -> Iterator[Any]:
    """Continue one text or several: an iterator of token ids, each available as soon as it is drawn.

    Parameters
    ----------
    model : Module
        A `GPT`, a `RecurrentLM` or what is called as they are; see `Reader`. Of a text longer than
        the model's block its last block_size tokens are seen; a `RecurrentLM` sees all.
    idx : integer sequence, or a sequence of such
        The prompt, of at least one token; or prompts, which may differ in length. Each gives what it
        gives alone.
    max_new_tokens : int
        At most, for each text.
    temperature, top_k, top_p, min_p
        Of `sample`.
    rng : numpy.random.Generator or int, optional
    stop : int, optional
        A token that ends a text; it is not yielded.
    repetition_penalty : float
        Above 1, tokens that the text has already, the prompt included, become less likely; see
        `nn.generation.sampling.penalised`.
    num_samples : int, optional
        Texts for each prompt. Sample i is the same however many there are: the first draws from `rng`
        itself, sample i from the i-th generator that `rng` spawns.
    use_cache : bool
        Whether each token is computed once, or the whole text anew for each (the logits agree to
        rounding). Beyond the block it is always the second.

    Yields
    ------
    int, or of several prompts or with `num_samples` a list with an entry for each text, those of the
    first prompt first: its token, or None where a longer prompt is still being read or the text has
    ended.
    """
    steps, single = _start(model, idx, max_new_tokens, rng, stop, num_samples, use_cache, Sampling(
        temperature, top_k, top_p, min_p, repetition_penalty))
    return (step.tokens[0] if single else step.tokens for step in steps)


def generate_batch(model: Any, idx: Any, max_new_tokens: int, *args: Any, num_samples: int = 1,
                   **options: Any) -> list[list[int]]:
    """The tokens of whole texts: for each prompt, `num_samples` lists; arguments as of `generate`.

    Examples
    --------
    >>> import nn
    >>> model = nn.GPT(nn.GPTConfig(5, 8, 1, 1, 4), rng=0)
    >>> texts = nn.generate_batch(model, [[1, 2, 3], [4]], 6, rng=0, num_samples=2)
    >>> len(texts), [len(text) for text in texts]
    (4, [6, 6, 6, 6])
    """
    texts: list[list[int]] = [[] for _ in range(len(_prompts(idx)) * num_samples)]
    for tokens in generate(model, idx, max_new_tokens, *args, num_samples=num_samples, **options):
        for text, token in zip(texts, tokens, strict=True):
            if token is not None:
                text.append(token)
    return texts


def steps(model: Any, idx: Any, max_new_tokens: int, how: Sampling, rng: Rng = None,
          stop: int | None = None, use_cache: bool = True) -> Iterator[Step]:
    """As `generate`, with the logits of each step."""
    return _start(model, idx, max_new_tokens, rng, stop, None, use_cache, how)[0]


def sample_streams(rng: Rng, count: int) -> Iterator[np.random.Generator]:
    """The random numbers of each of so many samples, made as they are asked for; see `generate`."""
    first = np.random.default_rng(rng)
    yield first
    for _ in range(count - 1):          # what is spawned does not depend on what was drawn
        yield from first.spawn(1)


def _start(model: Any, idx: Any, max_new_tokens: int, rng: Rng, stop: int | None,
           num_samples: int | None, use_cache: bool, how: Sampling) -> tuple[Iterator[Step], bool]:
    """The steps, and whether they are of a single text."""
    prompts = _prompts(idx)
    count = 1 if num_samples is None else num_samples
    if count < 1:
        raise ValueError(f"generate: num_samples must be at least 1, got {num_samples}")
    streams = list(sample_streams(rng, count))
    # Each prompt draws the numbers that it draws alone.
    rows = [(list(prompt), stream if i == 0 else copy.deepcopy(stream))
            for i, prompt in enumerate(prompts) for stream in streams]
    found = _steps(Reader(model, use_cache), [text for text, _ in rows], max_new_tokens, how,
                   [stream for _, stream in rows], stop)
    return found, len(prompts) == 1 and num_samples is None


def _prompts(idx: Any) -> list[list[int]]:
    """One list of ids for each prompt."""
    nested = len(idx) > 0 and all(np.ndim(row) for row in idx)
    prompts = [[as_id(i) for i in np.ravel(row)] for row in (idx if nested else [idx])]
    if not all(prompts):
        raise ValueError("generate: the prompt must have at least one token")
    return prompts


def as_id(value: Any, caller: str = "generate") -> int:
    """A token of a prompt; 1.9 is none, and neither is 1.0."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{caller}: a prompt must be the ids of tokens, which are integers, got "
                        f"{value!r}") from None


def _steps(reader: Reader, texts: list[list[int]], max_new_tokens: int, how: Sampling,
           streams: list[np.random.Generator], stop: int | None) -> Iterator[Step]:
    """Read all texts in step, column by column: where a prompt goes on, its token is not drawn.

    So prompts of unequal length need neither padding nor masks, and each token has the position that
    it has alone.
    """
    ends = [len(text) + max_new_tokens for text in texts]
    for length in itertools.count(min(map(len, texts))):
        if all(length >= end for end in ends):
            return
        logits = reader.read(texts, length)
        tokens: list[int | None] = [None] * len(texts)
        for i, text in enumerate(texts):
            if len(text) > length:
                continue                                # still in its prompt
            if length < ends[i]:
                token = how.draw(logits[i], text, streams[i])
                if token == stop:
                    ends[i] = length
                else:
                    tokens[i] = token
            text.append(0 if tokens[i] is None else token)       # behind its end, any
        if any(token is not None for token in tokens):
            yield Step(tokens, logits)
