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
import signal
import sys
from functools import partial
from typing import Sequence

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)       # Ctrl-C during the imports ends in silence

import numpy as np

from nn.jobs import images, names, sentences, text, translate
from nn.cli.script import UsageError, run
from nn.cli.flags import Parser, as_arguments
from nn.jobs.run import Done, asked_for
from nn.jobs.verify import verify_resume
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


def start(name: str | None, arguments: Sequence[str]) -> int | None:
    """Do a job with the flags that are among the arguments; one that goes on has those of its run."""
    found = asked_for(arguments)
    if found and name not in (None, found["job"]):
        raise UsageError(f"that is a run of the job {found['job']}: python train.py {found['job']} ...")
    name = name or (found["job"] if found else DEFAULT)
    if name not in JOBS:
        near = difflib.get_close_matches(name, JOBS, 1)
        raise UsageError(f"unknown job {name!r}" + (f"; did you mean {near[0]!r}?" if near else
                                                    f"; known: {', '.join(JOBS)}"))
    others = {other: partial(parser, other) for other in JOBS if other != name}
    settings = as_arguments(found["settings"]) if found else []
    flags = parser(name).parse([*settings, *arguments], others)
    try:
        with np.errstate(all="ignore"):        # the engines check every loss
            if flags.verify_resume:
                return verify_resume(JOBS[name].run, flags)
            JOBS[name].run(flags)
    except Done as done:
        return done.status
    except Diverged as error:
        raise UsageError(f"{error}; try a lower --lr") from error
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status: 0, 2 for a mistake in the arguments or the data, 128 + the
    number of the signal that ended it, and 1 where --verify-resume found a difference."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    return run("train.py", lambda: start(name, arguments))


if __name__ == "__main__":
    sys.exit(main())
