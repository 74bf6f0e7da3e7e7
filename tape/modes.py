"""Whether operations are recorded, and whether with their lines: `no_grad` and its like.

A mode holds for a ``with`` block, a function, a generator or a coroutine, in the current thread or
asyncio task alone.
"""

from __future__ import annotations

import functools
import inspect
import os
from contextvars import ContextVar
from typing import Any, Callable

# Context variables, not globals: each thread and each asyncio task has its own value.
recording: ContextVar[bool] = ContextVar("recording", default=True)
lines: ContextVar[bool] = ContextVar(
    "lines", default=os.environ.get("TAPE_RECORD_LINES", "0") not in ("", "0"))

_outside: ContextVar[tuple] = ContextVar("outside", default=())    # of each mode entered


class _Mode:
    """Sets a context variable for the length of a ``with`` block or of a function's run.

    On a generator function the mode holds while its body runs and is put back at every ``yield``,
    so two generators that take turns, or a caller between two items, never see each other's mode.
    """

    def __init__(self, variable: ContextVar[bool], value: bool):
        self.variable, self.value = variable, value

    # What to go back to is kept in the context too, not in this object: one object may be entered
    # twice, or by two threads at once.

    def __enter__(self) -> None:
        _outside.set((*_outside.get(), self.variable.get()))
        self.variable.set(self.value)

    def __exit__(self, *_: Any) -> None:
        *rest, before = _outside.get()
        _outside.set(tuple(rest))
        self.variable.set(before)

    def __call__(self, function: Callable) -> Callable:
        wrapper: Callable
        if inspect.isgeneratorfunction(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return (yield from _resumed_in(self, function(*args, **kwargs)))
        elif inspect.isasyncgenfunction(function):
            @functools.wraps(function)
            async def wrapper(*args, **kwargs):
                generator = function(*args, **kwargs)
                try:
                    while True:
                        with self:
                            item = await anext(generator)
                        yield item
                except StopAsyncIteration:
                    return
                finally:
                    await generator.aclose()
        elif inspect.iscoroutinefunction(function):
            @functools.wraps(function)
            async def wrapper(*args, **kwargs):
                with self:
                    return await function(*args, **kwargs)
        else:
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                with self:
                    return function(*args, **kwargs)
        return wrapper


def _resumed_in(mode: _Mode, generator):
    """Drive `generator`, inside the mode each time it runs and outside it while it waits."""
    resume, payload = generator.send, None
    while True:
        try:
            with mode:
                item = resume(payload)
        except StopIteration as stop:
            return stop.value
        try:
            resume, payload = generator.send, (yield item)
        except GeneratorExit:
            with mode:
                generator.close()
            raise
        except BaseException as error:
            resume, payload = generator.throw, error


def _mode(variable: ContextVar[bool], value: bool, function: Callable | None):
    mode = _Mode(variable, value)
    return mode if function is None else mode(function)


def no_grad(function: Callable | None = None):
    """Record nothing: ``with no_grad():``, or as a decorator, ``@no_grad()`` or ``@no_grad``.

    The mode belongs to the current thread (or asyncio task). Decorated generators hold it only
    while their own body runs.
    """
    return _mode(recording, False, function)


def enable_grad(function: Callable | None = None):
    """Record again inside a `no_grad` block; used like `no_grad`."""
    return _mode(recording, True, function)


def record_lines(function: Callable | None = None):
    """Remember the user's file and line with each record; used like `no_grad`.

    `tape.show` and the errors of ``backward()`` then say where an operation came from. Off by
    default: finding the line costs about a microsecond an operation. Setting the environment
    variable ``TAPE_RECORD_LINES=1`` turns it on for a whole run without touching the code.
    """
    return _mode(lines, True, function)
