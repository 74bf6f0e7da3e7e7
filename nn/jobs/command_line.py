"""What the scripts share: flags that explain themselves, and mistakes that end in a sentence."""

from __future__ import annotations

import argparse
import ctypes
import difflib
import math
import os
import re
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Mapping, NoReturn, Sequence


class UsageError(Exception):
    """A mistake of the user's: its text is shown, and the script ends with exit status 2."""


@contextmanager
def user_input(options: argparse.Namespace | None = None) -> Iterator[None]:
    """Around code that reads what the user gave: its errors are the user's to mend.

    With `options`, a parameter that the error names is shown as the flag that set it.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        text = str(error)
        for name in vars(options) if options else ():
            if "_" in name:
                text = re.sub(rf"\b{name}\b", "--" + name.replace("_", "-"), text)
        raise UsageError(text) from error


class Parser(argparse.ArgumentParser):
    """argparse with defaults shown in --help, no abbreviations, and help with unknown arguments.

    `text_flag` is the flag that a word without one was probably meant for.
    """

    def __init__(self, prog: str, description: str, epilog: str = "", text_flag: str = ""):
        if "\n" not in description:
            description = textwrap.fill(description, 79, break_on_hyphens=False)
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False,
                         formatter_class=_HelpFormatter)
        self.text_flag = text_flag

    @property
    def flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings]

    def parse(self, arguments: Sequence[str],
              jobs: Mapping[str, Callable[[], Parser]] | None = None) -> argparse.Namespace:
        """Like ``parse_args``; `jobs` are the script's other jobs, where a flag may belong."""
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}; {self._advice(unknown[0], jobs or {})}")
        return options

    def _advice(self, argument: str, jobs: Mapping[str, Callable[[], Parser]]) -> str:
        flag = argument.split("=")[0]
        owners = [job for job, parser in jobs.items() if flag in parser().flags]
        near = difflib.get_close_matches(flag, self.flags, 1, cutoff=0.6)
        if argument in jobs:
            return f"the job comes first: {self.prog.split()[0]} {argument} ..."
        if owners:
            return f"{flag} is a flag of {' and '.join(owners)}, not of {self.prog}"
        if near:
            return f"did you mean {near[0]}?"
        if self.text_flag and not flag.startswith("-"):
            return f'did you mean {self.text_flag} "{argument}"?'
        return f"known: {' '.join(self.flags)}"

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Defaults, but not "(default: None)", which says nothing."""
        return action.help if action.default is None else super()._get_help_string(action)


def run(script: str, job: Callable[[], int | None]) -> int:
    """Run a script's job; returns its exit status. A user's mistake is told on stderr: status 2."""
    if hasattr(sys.stdout, "reconfigure"):     # a terminal that lacks a character shows "?"
        sys.stdout.reconfigure(errors="replace")
    try:
        return job() or 0
    except UsageError as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"{script}: error: not enough memory: {error or 'nothing is left'}. Make the model, the "
              f"block or the batch smaller", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{script}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:       # the reader of our output has gone, as in `generate.py | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the next step, rather than hand it back.

    Each training step allocates the arrays that the last one freed; having the system take the pages
    back and clear new ones in between took a third of the time of a step (``tests/bench/LOG.md``).
    Only glibc can be asked; elsewhere this does nothing. Returns whether it did something.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3               # malloc.h; 32 MiB is the most it takes
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(M_TRIM_THRESHOLD, 2 ** 30) & libc.mallopt(M_MMAP_THRESHOLD, 2 ** 25))
    except (OSError, AttributeError):
        return False


def number(kind: type, low: float = -math.inf, high: float = math.inf, *,
           above: float = -math.inf, below: float = math.inf) -> Callable[[str], float]:
    """A flag's type: a number of this kind with low <= value <= high, above < value < below."""
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and above < value < below and math.isfinite(value)):
            name = "an integer" if kind is int else "a number"
            bounds = [f">= {low:g}" if low > -math.inf else "", f"> {above:g}" if above > -math.inf
                      else "", f"<= {high:g}" if high < math.inf else "",
                      f"< {below:g}" if below < math.inf else ""]
            raise argparse.ArgumentTypeError(
                f"must be {name} {' and '.join(b for b in bounds if b)}, got {text!r}".replace(
                    "  ", " "))
        return value
    return convert


COUNT = number(int, 1)
SEED = number(int, 0)
RATE = number(float, above=0)


def file_path(text: str) -> Path:
    """A flag's type: the path of a file, which need not exist."""
    if text.endswith(("/", os.sep)):
        raise argparse.ArgumentTypeError(f"must name a file, got the folder {text!r}")
    return Path(text)


def check_writable(path: Path) -> None:
    """Find out before the training, not after it, that a checkpoint cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: cannot make the folder {path.parent}: {error.strerror}") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"--out: cannot write a file {path}")


def check_finite(name: str, value: float, step: int, unit: str = "step") -> None:
    """Stop before anything that is not a number reaches a checkpoint."""
    if not math.isfinite(value):
        raise UsageError(f"the {name} is {value} at {unit} {step}, of which nothing was saved; try a "
                         f"lower --lr")


class Progress:
    """The line that a training script prints every so many steps."""

    def __init__(self, steps: int, tokens_per_step: float, unit: str = "tokens", name: str = "step"):
        self.steps, self.tokens_per_step, self.unit, self.name = steps, tokens_per_step, unit, name
        self.start = self.last_pulse = time.perf_counter()

    def pulse(self, done: float) -> None:
        """On a terminal, a second after the last: so many steps are done. The next line replaces it."""
        now = time.perf_counter()
        if now - self.last_pulse > 1 and sys.stdout.isatty():
            self.last_pulse = now
            print(f"{self.name} {done:.2f}/{self.steps}", end="\r", flush=True)

    def line(self, step: int, loss: float, more: str = "") -> str:
        """``step   100/500   loss 0.0471   22,310 tokens/s   0:01 left`` after `step` steps."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        left = round(seconds / step * (self.steps - step))
        return (f"{self.name} {step:>{len(str(self.steps))}}/{self.steps}   loss {loss:7.4f}{more}   "
                f"{step * self.tokens_per_step / seconds:>7,.0f} {self.unit}/s   "
                f"{left // 60}:{left % 60:02d} left")
