"""How far a long preparation is, on standard error."""

from __future__ import annotations

import sys
import time

from nn.training.progress import TerminalLine


class Meter:
    """Called with what is being done and the share that is done: shows it from time to time.

    On a terminal in one line, each second, which the next output replaces; elsewhere as lines of their
    own, each ten seconds. What takes less shows nothing.
    """

    def __init__(self) -> None:
        self.last, self.line = time.monotonic(), TerminalLine()

    def __call__(self, what: str, share: float) -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if now - self.last < (1 if terminal else 10):
            return
        self.last = now
        text = f"{what}: {share:.0%}"
        if terminal:
            self.line.show(share, text)
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line from the terminal; the next preparation begins."""
        self.line.clear()
        self.last = time.monotonic()
