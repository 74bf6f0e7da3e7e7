"""Train a Transformer.

    python train.py                      memorise ten sentences, in seconds
    python train.py text --data FILE     a GPT on the characters of any text
    python train.py images --data DIR    a Vision Transformer on MNIST
    python train.py names --data FILE    a small GPT that invents names
    python train.py translate            dates in words to their ISO form

Each job has its own flags: python train.py text --help
"""

from __future__ import annotations

import difflib
import sys
from functools import partial
from typing import Sequence

import numpy as np

from nn.jobs import images, names, sentences, text, translate
from nn.cli.script import UsageError, run
from nn.cli.flags import Parser
from nn.training.engines import Diverged

JOBS = {"sentences": sentences.JOB, "text": text.JOB, "images": images.JOB,
        "names": names.JOB, "translate": translate.JOB}
DEFAULT = "sentences"


def parser(name: str) -> Parser:
    """The parser of a job's flags; that of the default job tells of the others."""
    job = JOBS[name]
    if name == DEFAULT:
        return Parser(f"train.py [{name}]", job.flags, f"{__doc__}\n{job.description}")
    return Parser(f"train.py {name}", job.flags, job.description,
                  "The other jobs: python train.py --help")


def start(name: str, arguments: Sequence[str]) -> None:
    """Do a job with the flags that are among the arguments."""
    if name not in JOBS:
        near = difflib.get_close_matches(name, JOBS, 1)
        raise UsageError(f"unknown job {name!r}" + (f"; did you mean {near[0]!r}?" if near else
                                                    f"; known: {', '.join(JOBS)}"))
    others = {other: partial(parser, other) for other in JOBS if other != name}
    flags = parser(name).parse(arguments, others)
    try:
        with np.errstate(all="ignore"):        # the engines check every loss
            JOBS[name].run(flags)
    except Diverged as error:
        raise UsageError(f"{error}; try a lower --lr") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status: 0, or 2 for a mistake in the arguments or the data."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else DEFAULT
    return run("train.py", lambda: start(name, arguments))


if __name__ == "__main__":
    sys.exit(main())
