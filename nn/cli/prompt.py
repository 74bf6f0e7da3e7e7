"""The prompt of a script: from a flag, a file, or what is piped into it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Iterator

from nn.cli.script import UsageError
from nn.data.text import read_text


def given_prompt(prompt: str | None, file: Path | None, interactive: bool = False) -> str | None:
    """The text of the flag, of the file ("-" is standard input), or of standard input if it is piped.

    The line end with which a file ends is not part of the prompt. None where nothing is given,
    and if somebody is asked, line by line, what to continue.
    """
    if prompt is not None or interactive:
        return prompt
    if file is not None and str(file) != "-":
        return without_last_line_end(read_text(file))
    if file is not None or _is_piped():
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]
            raise UsageError(f"standard input is not UTF-8 text: byte 0x{wrong:02x} at position "
                             f"{error.start:,}") from error
        return without_last_line_end(text) if text or file is not None else None
    return None


def without_last_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _is_piped() -> bool:
    """Whether standard input is a pipe or a file: not a terminal, and not closed."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):        # closed, or no file at all
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def asked() -> Iterator[str]:
    """Prompts that somebody types, line by line, until the end of input (Ctrl-D)."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            return
        if line.strip():
            yield without_last_line_end(line)
