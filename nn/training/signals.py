"""Signals that ask a program to end are noted, to be acted on where nothing is half done."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import Any, Iterator

# Ctrl-C, what `kill` sends, and what a terminal sends that is closed. Windows has no SIGHUP.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
               if hasattr(signal, name))


class Noted:
    """The first signal that arrived, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int | None, frame: Any = None) -> None:
        """A handler. Later signals change nothing: what is done about the first goes on."""
        if self.signal is None and number is not None:
            self.signal = int(number)


@contextmanager
def noted() -> Iterator[Noted]:
    """Note the signals `ENDING` for the length of a block, in place of what they do elsewhere.

    One that is ignored stays so, as SIGHUP under nohup. Python delivers signals to the main thread
    alone, so that in another none is noted.
    """
    found, before = Noted(), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: handler for number in ENDING
                  if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, found.note)
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
