"""What can be seen of a training besides its lines: the files of --log and --plot, and samples."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Mapping

import numpy as np

import nn
from nn.cli.curves import draw_curves
from nn.cli.picture import check_picture
from nn.cli.script import UsageError, check_writable, user_input
from nn.data.tokenizers import Tokenizer
from nn.training.history import FORMS, History, LogFile

SHOWN = 74          # characters in a line of a sample


def check_files(o: Any, own: str | None) -> None:
    """Raise a UsageError, before the training, where --log or --plot cannot be written.

    A log that exists is replaced only where it is the run's own, or with --overwrite.
    """
    check_picture(o.plot, "--plot")
    if o.log is None:
        return
    if o.log.suffix not in FORMS:
        raise UsageError(f"--log: the name must end in {' or '.join(FORMS)}, got {str(o.log)!r}")
    if o.log.exists() and not o.overwrite and str(o.log) != own:
        raise UsageError(f"--log: {o.log} exists and is not the log of this run; give another name, or "
                         f"remove it")
    check_writable(o.log, "--log")


@contextmanager
def watched_by(o: Any, history: History, compared: Mapping[str, float]) -> Iterator[None]:
    """Write the log while a training adds to its history, and draw the plot however it ends."""
    file = None
    if o.log is not None:
        with user_input():
            file = LogFile(o.log, history)
        history.tell = file.add
    try:
        yield
    finally:
        if file:
            file.close()
        if o.plot is not None and history.rows:
            with user_input():
                draw_curves(o.plot, history, compared)


def sample_of(model: Any, tokenizer: Tokenizer, info: Mapping[str, Any], length: int,
              seed: tuple[int, ...]) -> str:
    """Text that a language model writes now, of at most `length` characters, as lines to be shown.

    Parameters
    ----------
    model : GPT or RecurrentLM
    tokenizer : Tokenizer
    info : mapping
        How to begin and where to end, as a checkpoint has it: "prompt", "start", "stop". Where it
        ends earlier, as with names, another text follows.
    length : int
    seed : tuple of int
        Of the random numbers, each time the same: those of the training stay as they are.
    """
    rng = np.random.default_rng(seed)
    text, prompt = "", info.get("start", "") + info["prompt"]
    while len(text) < length:
        for piece in nn.generate_text(model, tokenizer, prompt, length, rng=rng,
                                      stop=info.get("stop")):
            text += piece
            if len(text) >= length:
                break
        if "stop" not in info:                   # so many tokens may have fewer characters
            break
        text += "\n"
    return shown(text[:length])


def shown(text: str) -> str:
    """Text between bars, in lines that fit a terminal, without characters that steer one."""
    lines = []
    for line in text.rstrip("\n").split("\n"):
        safe = "".join(c if c.isprintable() else "\ufffd" for c in line)
        lines += [safe[i:i + SHOWN] for i in range(0, max(len(safe), 1), SHOWN)]
    return "\n".join(f"  | {line}".rstrip() for line in lines)
