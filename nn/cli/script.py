"""What the scripts share: errors that are shown as one line, and settings of the process."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator

from tape import limit_blas_threads, use_kernels


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)        # nothing more can be written


class UsageError(Exception):
    """An argument or a file is wrong: the script prints the text and ends with exit status 2."""


@contextmanager
def user_input(flags: Any = None) -> Iterator[None]:
    """Around code that reads what the user gave: a ValueError or OSError becomes a UsageError.

    With `flags`, a parameter that the error names is shown as the flag that set it.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        text = described(error)
        for name in vars(flags) if flags else ():
            if "_" in name:
                text = re.sub(rf"\b{name}\b", "--" + name.replace("_", "-"), text)
        raise UsageError(text) from error


def described(error: Exception) -> str:
    """The text of an error for a user: of a file its name and what is wrong; no numbers, no classes."""
    if isinstance(error, OSError) and error.strerror:
        parts = ["cannot write" if error.errno in FULL else "", error.filename or ""]
        return ": ".join([" ".join(filter(None, map(str, parts))), error.strerror]).removeprefix(": ")
    return re.sub(r"^[A-Z]\w*Config: ", "", str(error))


def one_line(text: str) -> str:
    """A text as one line of at most 400 characters that any terminal can show; cut in the middle."""
    text = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    return _cut(" ".join(_cut(word, 120) for word in text.split(" ")), 400)


def _cut(text: str, longest: int) -> str:
    half = (longest - 5) // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def run(script: str, job: Callable[[], int | None]) -> int:
    """Run a script's job; returns its exit status. A UsageError is printed on stderr: status 2."""
    if hasattr(sys.stdout, "reconfigure"):     # a terminal that lacks a character shows "?"
        sys.stdout.reconfigure(errors="replace")
    try:
        # Several threads of the BLAS are in each other's way beside other programs. What a job chooses
        # for the kernels ends with it.
        with ended_in_words(), limit_blas_threads(1), use_kernels():
            status = job() or 0
            sys.stdout.flush()    # here, so that what cannot be written is reported below
            return status
    except UsageError as error:
        return _failed(script, str(error))
    except MemoryError as error:
        return _failed(script, f"not enough memory: {str(error) or 'nothing is left'}. Make the model, "
                               f"the block or the batch smaller")
    except KeyboardInterrupt as stop:
        print(f"\n{script}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except BrokenPipeError:       # the reader of our output has gone, as in `generate.py | head`
        _drop(sys.stdout)
        return 141
    except OSError as error:      # of files it is a UsageError: this is a full disk, or the like
        _drop(sys.stdout)
        name = f" {error.filename}" if error.filename else ""
        return _failed(script, f"cannot write{name}: {error.strerror or error}")


def _failed(script: str, text: str) -> int:
    """Say what is wrong, on one line of stderr; returns the exit status."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)
    try:
        print(f"{script}: error: {one_line(text)}", file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)
    return 2


def _drop(stream: Any) -> None:
    """What is still in the buffer cannot be written either, and must not be tried at the exit."""
    with suppress(OSError, ValueError):                 # it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def program(script: str) -> str:
    """The name of a script: ``train.py``, or where it was started as installed ``tape-train``."""
    return f"tape-{script}" if Path(sys.argv[0]).name.startswith("tape-") else f"{script}.py"


def start_of(script: str) -> str:
    """The beginning of a command that starts one of the scripts in the way in which this one was."""
    name = program(script)
    return f"python {name}" if name.endswith(".py") else name


def command(*parts: str, width: int = 79) -> str:
    """A command to be copied: flag by flag, on a new line where the next would not fit.

    A line that goes on ends in a backslash, so that a terminal need not break it inside a flag.
    """
    lines = [f"  {parts[0]}"]
    for part in parts[1:]:
        if len(f"{lines[-1]} {part} \\") > width:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return "\n".join(lines)


class Ended(KeyboardInterrupt):
    """A signal other than Ctrl-C asks the script to end."""

    def __init__(self, number: int):
        super().__init__()
        self.signal = number


@contextmanager
def ended_in_words() -> Iterator[None]:
    """In a block SIGTERM and SIGHUP raise `Ended`, as Ctrl-C raises KeyboardInterrupt."""
    def end(number: int, frame: Any) -> None:
        raise Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupt_of(signal.getsignal(signal.SIGINT)))
        for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
            if number and signal.getsignal(number) is signal.SIG_DFL:    # under nohup it is ignored
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt_of(handler: Any) -> Any:
    """The script's head makes Ctrl-C end the process without a word while it imports; no longer so."""
    return signal.default_int_handler if handler is signal.SIG_DFL else handler


def check_writable(path: Path, flag: str) -> None:
    """Raise a UsageError, before the training, where the file that a flag names cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag}: cannot make the folder {path.parent}: {error.strerror}") from error
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{flag}: cannot write a file {path}")
