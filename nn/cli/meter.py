"""How far a long preparation is, on standard error."""

from __future__ import annotations

import sys
import time


class Meter:
    """Called with what is being done and the share that is done: shows it from time to time.

    On a terminal in one line, each second, which the next output replaces; elsewhere as lines of their
    own, each ten seconds. What takes less shows nothing.
    """

    def __init__(self) -> None:
        self.last, self.shown = time.monotonic(), ""

    def __call__(self, what: str, share: float) -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if now - self.last < (1 if terminal else 10):
            return
        self.last = now
        text = f"{what}: {share:.0%}"
        print(text.ljust(len(self.shown)), end="\r" if terminal else "\n", file=sys.stderr, flush=True)
        self.shown = text if terminal else ""

    def clear(self) -> None:
        """Remove the line from the terminal; the next preparation begins."""
        if self.shown:
            print(" " * len(self.shown), end="\r", file=sys.stderr, flush=True)
        self.last, self.shown = time.monotonic(), ""
