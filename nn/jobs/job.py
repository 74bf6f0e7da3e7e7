"""What the jobs share: their form, some flags, and the lines before and after a training."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import Any, Callable, NamedTuple

import nn
import tape
from nn.cli.script import command, start_of
from nn.cli.flags import flag
from nn.layers.parameter import DTYPES
from nn.training.parallel import available_cores
from tape import limit_blas_threads

ENOUGH = 2e8   # parameters times positions: with fewer, to share costs more (tests/bench/LOG.md)
INIT = 0       # the initial weights draw from (seed, 0), the batch of step n from (seed, n), n >= 1
SHOWN = (INIT, 3)           # the samples of --sample draw from (seed, 0, 3), each time the same numbers


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


def dtype_flag() -> Any:
    """The field of --dtype."""
    return flag("of the weights and of all that is computed with them: float64 is exact to 16 digits, "
                "in twice the memory", "float32", choices=DTYPES)


def sample_flag() -> Any:
    """The field of --sample."""
    return flag("characters of text to write at each evaluation", low=1, metavar="N")


def workers_flag(**more: Any) -> Any:
    """The field of --workers."""
    return flag("processors to compute on: with Numba by the threads of its kernels, else by processes "
                "(threads where there are none) for parts of each batch (default: all, where "
                "the model and the batch are large enough, else 1)", low=1, metavar="N", **more)


def chosen_workers(asked: int | None, model: nn.Module, positions: int) -> int:
    """On how many processors a training computes, and how, which a line says.

    Compiled kernels get as many threads; see `nn.training.parallel.on_processors`. The rule asks for
    sizes alone and not for times, so that a training can be repeated to the bit.

    Parameters
    ----------
    asked : of --workers.
    model : Module
    positions : int
        How many are computed at a time: all tokens of a batch by a Transformer, and one of each row
        by a recurrent net.
    """
    limited, workers = limit_blas_threads(1).works, asked
    if workers is None:
        large = model.parameter_count() * positions >= ENOUGH
        workers = available_cores() if large and limited else 1
    if workers > 1 and tape.kernels_in_use() == "numba":
        tape.use_kernels(threads=workers)         # why they are in use stays what it is
        if tape.kernel_threads() == workers:
            print(f"compiled kernels in {workers} threads")
            return workers
    kind = ("worker" if workers == 1 else
            "processes," if tape.WorkerProcesses.available() else "threads,")
    blas = "one BLAS thread" if limited else "the threads that the BLAS takes"
    print(f"{workers} {kind} {'each ' * (workers > 1)}with {blas}")
    return workers


def print_start(model: nn.GPT | nn.RecurrentLM, tokens: int, data: str) -> None:
    """Say how large a language model is, how many tokens a step has, and what a first loss means."""
    print(f"{model.parameter_count():,} parameters, {tokens:,} tokens a step\n{data}")
    print(f"a model that knows nothing has a loss of ln {model.config.vocab_size} = "
          f"{math.log(model.config.vocab_size):.3f} nats per token")


def knows_nothing(model: nn.GPT | nn.RecurrentLM) -> dict[str, float]:
    """The loss of a model that takes all tokens for equally likely, for a plot."""
    size = model.config.vocab_size
    return {f"knows nothing, ln {size}": math.log(size)}


def print_generate(path: Path, flags: str) -> None:
    """Say where a checkpoint is, and the command that generates text from it."""
    parts = re.split(" (?=--)", flags)
    print(f"saved {path}; try\n" + command(
        start_of("generate"), f"--checkpoint {shlex.quote(str(path))}", *parts))
