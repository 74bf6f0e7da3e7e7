"""Texts that a language model writes, printed as they come."""

from __future__ import annotations

import sys
from typing import Any, Iterator

import numpy as np

from nn.cli.insight import print_explanations
from nn.cli.language_model import LanguageModel
from nn.generation.beams import beam_search
from nn.generation.insight import Explanation, explain
from nn.generation.sampling import Sampling
from nn.generation.text import stream_text
from nn.generation.writing import sample_streams, steps


def write(o: Any, model: LanguageModel, ids: np.ndarray) -> None:
    """Print a prompt and what the model makes of it, as it makes it; `o` are generate.py's flags."""
    rows: list[Explanation] = []
    for i, tokens in enumerate(_texts(o, model, ids, rows)):
        if o.num_samples > 1:
            print(f"{'' if i == 0 else chr(10)}text {i + 1} of {o.num_samples}:", file=sys.stderr)
        print(model.shown(ids), end="", flush=True)
        for piece in stream_text(model.tokenizer, ids, tokens, o.stop or ()):
            print(piece, end="", flush=True)
        print(flush=True)
        if o.explain:
            print_explanations(rows, model.tokenizer)
            rows.clear()


def _texts(o: Any, model: LanguageModel, ids: np.ndarray,
           rows: list[Explanation]) -> Iterator[Iterator[int]]:
    """The tokens of each text; what is drawn is explained in `rows`."""
    if o.beams is not None:
        for beam in beam_search(model.model, ids, o.max_new_tokens, o.beams, model.stop,
                                repetition_penalty=o.repetition_penalty,
                                use_cache=not o.no_cache)[:o.num_samples]:
            yield iter(beam.tokens)
        return
    how = Sampling(o.temperature, o.top_k, o.top_p, o.min_p, o.repetition_penalty)

    def tokens(stream: np.random.Generator) -> Iterator[int]:
        for (token,), logits in steps(model.model, ids, o.max_new_tokens, how, stream, model.stop,
                                      not o.no_cache):
            assert token is not None                    # of one text each step has one
            if o.explain:
                rows.append(explain(logits[0], token))
            yield token

    for stream in sample_streams(o.seed, o.num_samples):
        yield tokens(stream)
