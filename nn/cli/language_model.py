"""A trained language model as a script uses it: loaded with its tokenizer, and prompted with text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nn.cli.script import UsageError
from nn.data.tokenizers import Tokenizer
from nn.layers.module import Module
from nn.models.gpt import GPT
from nn.models.recurrent import RecurrentLM
from nn.models.seq2seq import Seq2SeqTransformer
from nn.models.vision import VisionTransformer
from nn.training.checkpoint import load_checkpoint, newest_checkpoint


class LanguageModel(NamedTuple):
    """A model that continues text, and what its checkpoint says of prompts.

    Attributes
    ----------
    model : GPT or RecurrentLM
    tokenizer : Tokenizer
    prompt : what suits the model, where none is given.
    start : stands before each prompt, and is not shown.
    stop : a token that ends a text, or None.
    """

    model: Any
    tokenizer: Tokenizer
    prompt: str
    start: str
    stop: int | None

    def encode(self, text: str, flag: str) -> np.ndarray:
        """The ids of `start` and a text (N,); says on stderr where the model will not see them all.

        Raises
        ------
        UsageError
            A token is unknown, or there is none; it names the flag.
        """
        try:
            ids = np.concatenate([self.tokenizer.encode(self.start), self.tokenizer.encode(text)])
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from error
        if not len(ids):
            raise UsageError(f"{flag}: the prompt must have at least one token")
        return ids

    def window(self, ids: np.ndarray) -> np.ndarray:
        """The last of the ids that the model sees at once; says on stderr if these are not all."""
        longest = self.model.new_cache().longest
        if len(ids) <= longest:
            return ids
        print(f"the prompt has {len(ids):,} tokens, of which the model sees the last {longest:,}",
              file=sys.stderr)
        return ids[-longest:]

    def shown(self, ids: np.ndarray) -> str:
        """The text of ids, without `start`."""
        return self.tokenizer.decode(ids).removeprefix(self.start)


def load_language_model(given: Path | None, folder: Path) -> LanguageModel:
    """The model of a checkpoint, by default of the newest in a folder.

    Raises
    ------
    OSError, ValueError
        There is none, or it continues no text.
    """
    path = given or newest(folder)
    checkpoint = load_checkpoint(path)
    tokenizer, info = checkpoint.tokenizer, checkpoint.info
    if not isinstance(checkpoint.model, (GPT, RecurrentLM)):
        raise ValueError(no_text(path, checkpoint.model))
    if tokenizer is None:
        raise ValueError(f"{path} has no tokenizer, so its tokens cannot be written as text")
    return LanguageModel(checkpoint.model, tokenizer, info.get("prompt", tokenizer.vocabulary[0]),
                         info.get("start", ""), info.get("stop"))


def no_text(path: Path, model: Module) -> str:
    """What a model that continues no text is for, and what to run instead."""
    load = f"with model = nn.load_checkpoint({str(path)!r}).model,"
    uses = {Seq2SeqTransformer: f"translates. In Python: {load} nn.translate(model, source, start, "
                                f"stop), all of them token ids",
            VisionTransformer: f"classifies images. In Python: {load} nn.predict(model, images)"}
    use = next((text for kind, text in uses.items() if isinstance(model, kind)), "is of another kind")
    return f"{path} holds a {type(model).__name__}, which continues no text: it {use}"


def newest(folder: Path) -> Path:
    try:
        return newest_checkpoint(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. Train a model first, python train.py, or name a file with "
                                f"--checkpoint") from error
