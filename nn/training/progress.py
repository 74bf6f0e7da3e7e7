"""What a training prints: lines of losses on standard output, and how far it is on standard error.

The lines are a result, which may go to a file; they are the same with and without a terminal. What only
tells a person to wait is shown on a terminal alone, in one line that is replaced: by the library tqdm
as a bar, and without it as text.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import Any, Iterator

PULSE = 0.1         # seconds between changes of the line on the terminal


class Progress:
    """How far a training is, how fast, and how long it will still take. A context manager.

    Parameters
    ----------
    rounds : int
        Of the whole training.
    examples : float
        In a round, for the speed.
    unit : str
        What an example is.
    name : str
        What a round is: "step" or "epoch".
    before : float
        Rounds that were done earlier, which the speed leaves out.
    """

    def __init__(self, rounds: int, examples: float, unit: str = "tokens", name: str = "step",
                 before: float = 0):
        self.rounds, self.examples, self.unit, self.name = rounds, examples, unit, name
        self.before = before
        self.start = self.last_pulse = time.perf_counter()
        self.evaluations, self.evaluation_seconds = 0, 0.0
        self._bar = _bar(rounds) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.clear()

    def pulse(self, done: float, loss: float, evaluations: int = 0) -> None:
        """On a terminal, ten times a second at most: so many rounds are done, with this loss."""
        now = time.perf_counter()
        if self._bar and now - self.last_pulse > PULSE and done > self.before:
            self.last_pulse = now
            digits = 0 if self.name == "step" else 2           # of an epoch a part can be done
            width = len(str(self.rounds)) + digits + (digits > 0)
            self._bar.show(done, f"{self.name} {done:{width}.{digits}f}/{self.rounds}   "
                                 f"loss {loss:7.4f}   {self._left(done, evaluations)}")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around an evaluation: the speed is that of the training alone."""
        start = time.perf_counter()
        if self._bar:
            self._bar.clear()               # an evaluation may have a meter of its own there
        yield
        self.evaluation_seconds += time.perf_counter() - start
        self.evaluations += 1

    def print(self, *lines: str) -> None:
        """Print lines on standard output, above that of the terminal; empty ones are left out."""
        if self._bar:
            self._bar.clear()
        for line in filter(None, lines):
            print(line, flush=True)

    def line(self, done: int, loss: float, more: str = "", evaluations: int = 0) -> str:
        """``step   100/500   loss 0.0471   22,310 tokens/s   0:01 left`` after `done` rounds.

        The time left is that of the rounds, and of so many evaluations as still come.
        """
        speed = (done - self.before) * self.examples / self._seconds()
        return (f"{self.name} {done:>{len(str(self.rounds))}}/{self.rounds}   loss {loss:7.4f}{more}   "
                f"{speed:>7,.0f} {self.unit}/s   {self._left(done, evaluations)}")

    def _seconds(self) -> float:
        """Of the training here, without evaluations."""
        return max(time.perf_counter() - self.start - self.evaluation_seconds, 1e-9)

    def _left(self, done: float, evaluations: int) -> str:
        each = self.evaluation_seconds / max(self.evaluations, 1)
        rounds = self._seconds() / (done - self.before) * (self.rounds - done)
        left = round(rounds + each * evaluations)
        return f"{left // 60}:{left % 60:02d} left"


class TerminalLine:
    """A line of text on a terminal, which the next one replaces."""

    shown = 0           # characters

    def show(self, done: float, text: str) -> None:
        """Show a text, as much as fits into the line; a bar would show how much is `done`."""
        text = text[:_columns() - 1]
        print(text.ljust(self.shown), end="\r", file=sys.stderr, flush=True)
        self.shown = len(text)

    def clear(self) -> None:
        """Remove it, if there is one."""
        if self.shown:
            print(" " * self.shown, end="\r", file=sys.stderr, flush=True)
            self.shown = 0


def _columns() -> int:
    """Of the terminal, whose size may change."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _bar(rounds: int) -> Any:
    """What draws the line: `show` and `clear`."""
    try:
        from tqdm import tqdm
    except ImportError:
        return TerminalLine()

    class Bar(tqdm):
        """Drawn when `show` is called and at no other time."""

        monitor_interval = 0                # no thread that watches it

        def show(self, done: float, text: str) -> None:
            self.n, self.ncols = done, _columns() - 4       # a terminal adds ^C behind it
            self.set_description_str(text)

        def clear(self, nolock: bool = False) -> None:
            """The whole line, and not the bar alone."""
            print("\r" + " " * (_columns() - 1), end="\r", file=sys.stderr, flush=True)

    return Bar(total=rounds, file=sys.stderr, leave=False, ncols=_columns() - 4, delay=1e9,
               bar_format="{desc} |{bar}| {percentage:3.0f} %")
