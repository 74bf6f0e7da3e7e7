"""Train a Transformer.

    python train.py                      memorise ten sentences, in seconds
    python train.py text --data FILE     a GPT on the characters of any text
    python train.py images --data DIR    a Vision Transformer on MNIST
    python train.py names --data FILE    a small GPT that invents names
    python train.py translate            dates in words to their ISO form

Each job has its own flags: python train.py text --help
Jobs, and settings that have a name: python train.py --list
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Sequence

import numpy as np

from nn.jobs import images, names, sentences, text, translate
from nn.cli.script import UsageError, program, run, start_of
from nn.cli.flags import Parser
from nn.jobs.run import Done
from nn.jobs.settings import GROUPS, PRESETS, settings_of
from nn.jobs.verify import verify_resume
from nn.training.engines import Diverged

JOBS = {"sentences": sentences.JOB, "text": text.JOB, "images": images.JOB,
        "names": names.JOB, "translate": translate.JOB}
DEFAULT = "sentences"


def parser(name: str) -> Parser:
    """The parser of a job's flags; that of the default job tells of the others."""
    job, own = JOBS[name], program("train")
    if name == DEFAULT:
        return Parser(f"{own} [{name}]", job.flags, f"{__doc__}\n{job.description}", groups=GROUPS)
    return Parser(f"{own} {name}", job.flags, job.description,
                  f"The other jobs, and presets: {start_of('train')} --list", groups=GROUPS)


def start(name: str | None, arguments: Sequence[str]) -> int | None:
    """Do a job with the flags that are among the arguments, and what a run, preset or file sets."""
    name, sources = settings_of(name, arguments, JOBS, DEFAULT)
    others = {other: partial(parser, other) for other in JOBS if other != name}
    own = parser(name)
    given = [word for source, settings in sources for word in own.arguments(settings, source, others)]
    flags = own.parse([*given, *arguments], others)
    try:
        if flags.list:
            print_list()
            return None
        with np.errstate(all="ignore"):        # the engines check every loss
            if flags.verify_resume:
                return verify_resume(JOBS[name].run, flags)
            JOBS[name].run(flags)
    except Done as done:
        return done.status
    except Diverged as error:
        raise UsageError(f"{error}; try a lower --lr") from error
    return None


def print_list() -> None:
    """A line for each job, which is the first of its file, and for each preset."""
    print("jobs")
    for name, job in JOBS.items():
        _, line = str(sys.modules[job.run.__module__].__doc__).splitlines()[0].split(": ", 1)
        print(f"  {name:15}  {line}")
    print(f"\npresets, as in {start_of('train')} --preset baby-gpt")
    for name, preset in PRESETS.items():
        print(f"  {name:15}  {preset.job}: {preset.line}")


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status: 0, 2 for a mistake in the arguments or the data, 128 + the
    number of the signal that ended it, and 1 where --verify-resume found a difference."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    return run(program("train"), lambda: start(name, arguments))
