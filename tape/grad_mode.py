"""How operations are recorded: whether at all, and with what besides. `no_grad` and its like.

A mode holds for a ``with`` block, a function, a generator or a coroutine, in the current thread or
asyncio task alone.
"""

from __future__ import annotations

import functools
import inspect
import os
from contextvars import ContextVar
from typing import Any, Callable, NamedTuple


class Modes(NamedTuple):
    """What an operation asks about before it leaves a record."""

    recording: bool = True     # no_grad, enable_grad
    lines: bool = False        # record_lines
    strict: bool = False       # strict
    tracing: bool = False      # tape.lazy.tracing
    measurement: Any = None    # measure

    def forward_of(self, operator: Any) -> Callable:
        """What runs an operator on arrays."""
        return (operator.on_numpy if self.measurement is None else
                functools.partial(self.measurement.run, operator))


DEFAULT = Modes()              # recognised by its identity
_same = {DEFAULT: DEFAULT}         # equal modes are one object

# A context variable, not a global: each thread and each asyncio task has its own value. One for all
# modes, since it is read at every operation.
modes: ContextVar[Modes] = ContextVar("modes", default=DEFAULT._replace(lines=True) if os.environ.get(
    "TAPE_RECORD_LINES", "0") not in ("", "0") else DEFAULT)


def in_modes(mode: Modes) -> None:
    """Set all modes, from now on, as to those of another process."""
    modes.set(mode if mode.measurement else _same.setdefault(mode, mode))


# For each block entered and not left: its manager, and what its mode was outside.
_outside: ContextVar[tuple] = ContextVar("outside", default=())


class _Mode:
    """Sets one of the `Modes` for the length of a ``with`` block or of a function's run.

    On a generator function the mode holds while its body runs and is put back at every ``yield``,
    so two generators that take turns, or a caller between two items, never see each other's mode.
    """

    def __init__(self, name: str, value: Any):
        self.name, self.value = name, value

    # What to go back to is kept in the context too, not in this object: one object may be entered
    # twice, or by two threads at once. Blocks may be left in another order than they were entered, as
    # those of two generators that take turns, and in another context, where there is nothing to undo.

    def __enter__(self) -> None:
        _outside.set((*_outside.get(), (self, getattr(modes.get(), self.name))))
        self._set(self.value)

    def __exit__(self, *_: Any) -> None:
        entered = list(_outside.get())
        mine = [i for i, (manager, _) in enumerate(entered) if manager is self]
        if mine:
            _, before = entered.pop(mine[-1])
            for i in range(mine[-1], len(entered)):         # of a block that is still open
                if entered[i][0].name == self.name:
                    entered[i] = entered[i][0], before
                    break
            else:
                self._set(before)
            _outside.set(tuple(entered))

    def _set(self, value: bool) -> None:
        in_modes(modes.get()._replace(**{self.name: value}))

    def __call__(self, function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(self(function.__func__))
        if isinstance(function, type):
            raise TypeError(f"a mode decorates functions, not classes: put it on the methods of "
                            f"{function.__name__}")
        wrapper: Callable
        if inspect.isgeneratorfunction(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return (yield from _resumed_in(self, function(*args, **kwargs)))
        elif inspect.isasyncgenfunction(function):
            @functools.wraps(function)
            async def wrapper(*args, **kwargs):
                generator = function(*args, **kwargs)
                resume, payload = generator.asend, None
                try:
                    while True:
                        try:
                            with self:
                                item = await resume(payload)
                        except StopAsyncIteration:
                            return
                        try:
                            resume, payload = generator.asend, (yield item)
                        except GeneratorExit:
                            raise
                        except BaseException as error:
                            resume, payload = generator.athrow, error
                finally:
                    with self:
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


def mode(name: str, value: Any, function: Callable | None) -> Any:
    """One of the `Modes` as a context manager, or as a decorator that was given its function."""
    manager = _Mode(name, value)
    return manager if function is None else manager(function)


def no_grad(function: Callable | None = None):
    """Record nothing: ``with no_grad():``, or as a decorator, ``@no_grad()`` or ``@no_grad``.

    The mode belongs to the current thread (or asyncio task). Decorated generators hold it only
    while their own body runs.
    """
    return mode("recording", False, function)


def enable_grad(function: Callable | None = None):
    """Record again inside a `no_grad` block; used like `no_grad`."""
    return mode("recording", True, function)


def record_lines(function: Callable | None = None):
    """Remember the user's file and line with each record; used like `no_grad`.

    `tape.show` and the errors of ``backward()`` then say where an operation came from. Off by
    default: finding the line costs about a microsecond an operation. Setting the environment
    variable ``TAPE_RECORD_LINES=1`` turns it on for a whole run without touching the code.
    """
    return mode("lines", True, function)


def strict(function: Callable | None = None):
    """Check every array that the tape keeps, not only those that can be reached; like `no_grad`.

    The tape notices a change of a leaf, whose array can be written to, and keeps copies of the
    caller's arrays. What it cannot see is an operator of a user's that writes to an array after it
    returned it. In this mode a checksum of each kept array is taken when it is kept and compared
    before it is used: ``backward()`` then names the operator and which of its arrays was changed. It
    costs two readings of all that the tape keeps.
    """
    return mode("strict", True, function)
