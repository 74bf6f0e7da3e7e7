"""What the jobs share: their form, some flags, and the lines before and after a training."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Callable, NamedTuple

import nn
from nn.cli.script import command, user_input
from nn.cli.flags import flag

INIT = 0       # the initial weights draw from (seed, 0), the batch of step n from (seed, n), n >= 1


class Job(NamedTuple):
    """A job of train.py.

    Attributes
    ----------
    flags : a dataclass whose fields are made by `flag`.
    description : for --help.
    run : does the job with such flags.
    """

    flags: type
    description: str
    run: Callable[[Any], None]


def engine_flag() -> Any:
    """The field of --engine."""
    return flag("tape: operations run as the code is read; static: they are described first, as a "
                "graph, and the graph is run (tape.lazy)", "tape", choices=("tape", "static"))


def print_start(model: nn.GPT | nn.RecurrentLM, tokens: int, data: str) -> None:
    """Say how large a language model is, how many tokens a step has, and what a first loss means."""
    print(f"{model.parameter_count():,} parameters, {tokens:,} tokens a step\n{data}")
    print(f"a model that knows nothing has a loss of ln {model.config.vocab_size} = "
          f"{math.log(model.config.vocab_size):.3f} nats per token\n", flush=True)


def save(path: Path, model: Any, tokenizer: nn.Tokenizer | None, info: dict) -> None:
    """Write a checkpoint; a UsageError where that is refused."""
    with user_input():
        nn.save_checkpoint(path, model, tokenizer, info)


def print_generate(done: str, path: Path, flags: str) -> None:
    """Say what was done with a checkpoint, and the command that generates text from it."""
    parts = re.split(" (?=--)", flags)
    print(f"{done} {path}; try\n" + command("python generate.py", f"--checkpoint {path}", *parts))
