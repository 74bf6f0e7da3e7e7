"""The lines that a training prints."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import Iterator


class Progress:
    """How far a training is, how fast, and how long it will still take.

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

    def pulse(self, done: float) -> None:
        """On a terminal, at most once a second: so many rounds are done. The next line replaces it."""
        now = time.perf_counter()
        if now - self.last_pulse > 1 and sys.stdout.isatty():
            self.last_pulse = now
            print(f"{self.name} {done:.2f}/{self.rounds}", end="\r", flush=True)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around an evaluation: the speed is that of the training alone."""
        start = time.perf_counter()
        yield
        self.evaluation_seconds += time.perf_counter() - start
        self.evaluations += 1

    def line(self, done: int, loss: float, more: str = "", evaluations: int = 0) -> str:
        """``step   100/500   loss 0.0471   22,310 tokens/s   0:01 left`` after `done` rounds.

        The time left is that of the rounds, and of so many evaluations as still come.
        """
        seconds = max(time.perf_counter() - self.start - self.evaluation_seconds, 1e-9)
        here = done - self.before
        each = self.evaluation_seconds / max(self.evaluations, 1)
        left = round(seconds / here * (self.rounds - done) + each * evaluations)
        return (f"{self.name} {done:>{len(str(self.rounds))}}/{self.rounds}   loss {loss:7.4f}{more}   "
                f"{here * self.examples / seconds:>7,.0f} {self.unit}/s   "
                f"{left // 60}:{left % 60:02d} left")
