"""Parts of a kernel in several threads that wait for work in compiled code.

A kernel of some 50 us is over before a thread that sleeps has woken up, and one of Python's must wait
for the interpreter's lock besides. The threads here look for the next task all the time, and go to
sleep when none came for some milliseconds. A part that no other thread has begun, the caller does
itself. Where threads are kept from running in the middle of a part, by another program on their
processor, sharing takes longer than it saves, and the caller does all parts alone for a while.

There should be no busy threads besides. While parts are computed, those of the BLAS are held to one.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from typing import Callable

import numpy as np
from llvmlite import binding
from numba import types

from tape.blas import held_by, shipped_functions
from tape.kernels.choice import threads_wanted
from tape.kernels.numba.atomics import (
    SECOND, add, busy, clock, load, pause, run, store, swap, task)
from tape.kernels.numba.compiled import CONTRACT, INTEGER, TEAM, inner, loop
from tape.threads import inside_a_task

MOST = 64               # threads; more than these OpenBLAS may have no memory for
EACH = 2 ** 14          # elements that a thread has at least; with fewer it takes as long to share them

# What the threads share, in an array of int64, each number in a cache line of its own. A ticket is
# the number of the task, and in the last 16 bits how many of its parts nobody has begun.
_TICKET, _DONE, _CODE, _WHERE, _PARTS, _FAILED, _BUSY, _LOCK, _HOLD, _LIMIT, _STOP, _DEBT, _ALONE, \
    _SPELL, _SINCE, _LENGTH = range(0, 128, 8)
_LEFT = 2 ** 16 - 1

# Longer than Python takes from one operator to the next; and longer than one part takes longer than
# another, if both run at the same time.
_PATIENCE, _EAGER = 2 * SECOND // 1000, SECOND // 10_000
_NAP = 50               # microseconds
_MUCH, _MOST_ALONE = SECOND // 1000, 32 * SECOND // 1000            # see `_learn`
_NO_REALS = np.dtype(np.float32)      # what a loop is asked for that has no arrays of floats


# --- in compiled code ---

_FUNCTIONS = shipped_functions()
_NOTHING = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda threads: 1)        # kept: it is called
_SLEEP = (ctypes.windll.kernel32.SwitchToThread if os.name == "nt"                # type: ignore
          else ctypes.CDLL(None).usleep)
for _name, _function in {
        "tape_set_blas_threads": _FUNCTIONS("openblas_set_num_threads") if _FUNCTIONS else _NOTHING,
        "tape_get_blas_threads": _FUNCTIONS("openblas_get_num_threads") if _FUNCTIONS else _NOTHING,
        "tape_sleep": _SLEEP}.items():
    binding.add_symbol(_name, ctypes.cast(_function, ctypes.c_void_p).value)
_set_blas_threads = types.ExternalFunction("tape_set_blas_threads", types.void(types.int32))
_get_blas_threads = types.ExternalFunction("tape_get_blas_threads", types.int32())
_sleep = types.ExternalFunction("tape_sleep", types.int32(types.int32))


def in_parts(fastmath: frozenset = CONTRACT) -> Callable:
    """Decorator of a function (*arguments, number, parts), which does one of the parts of a kernel.

    Loops call what it becomes with (team, parts, arguments), and all parts are done: the same parts,
    whoever does them. All that can fail in a part is to get memory.
    """
    def define(function: Callable) -> Callable:
        task_of = task(inner(fastmath)(function))

        @inner()
        def all_parts(team, parts, arguments):
            code, where = task_of(arguments)
            if _all_parts(team, parts, code, where):
                raise MemoryError("a part of a kernel got no memory")
        return all_parts
    return define


@inner()
def _all_parts(team, parts, code, where):
    """How many parts failed."""
    if parts == 1:
        return run(code, where, 0, 1)
    failed = 0
    _hold_blas(team, 1)
    if load(team, _ALONE) <= 0 and swap(team, _BUSY, 0, 1):
        failed = _together(team, parts, code, where)
        store(team, _BUSY, 0)
    else:
        began = clock()
        for part in range(parts):
            failed += run(code, where, part, parts)
        _spend(team, clock() - began, parts)
    _hold_blas(team, -1)
    return failed


@inner()
def _hold_blas(team, change):
    """One more that holds the BLAS to one thread, or one less; with the last it has its own again."""
    _lock(team)
    before = load(team, _HOLD)
    if before == 0:
        store(team, _LIMIT, _get_blas_threads())
        _set_blas_threads(1)
    elif before + change == 0:
        _set_blas_threads(load(team, _LIMIT))
    store(team, _HOLD, before + change)
    store(team, _LOCK, 0)


@inner()
def _lock(team):
    """Wait until nobody else asks or sets how many threads the BLAS has."""
    while not swap(team, _LOCK, 0, 1):
        pause()


@inner()
def _together(team, parts, code, where):
    """`_all_parts` with the other threads."""
    began, had = clock(), busy()
    store(team, _CODE, code)
    store(team, _WHERE, where)
    store(team, _PARTS, parts)
    store(team, _DONE, 0)
    store(team, _FAILED, 0)
    store(team, _TICKET, (load(team, _TICKET) // (_LEFT + 1) + 1) * (_LEFT + 1) + parts)
    own = _help(team)
    had, helped = busy() - had, clock()
    while load(team, _DONE) < parts:
        pause()
        if clock() - helped > _EAGER:                   # the other thread does not run at present
            _sleep(_NAP)
    if own > 0:
        now = clock()
        _learn(team, now, now - began, had * parts // own)
    return load(team, _FAILED)


# Sharing is worth it as long as it saves time over some tasks. What it lost is a debt; one of _MUCH is
# paid by as much time lost by computing alone, so that together no more than twice the least is lost.
# If sharing is soon no good again, the next time is twice as long.

@inner()
def _learn(team, now, took, alone):
    """Count what a shared task took, and would have taken alone: time on a processor."""
    debt = max(load(team, _DEBT) + took - alone, -_MUCH)
    if debt > _MUCH:
        spell = load(team, _SPELL)
        soon = now - load(team, _SINCE) < 2 * spell
        spell = min(2 * spell, _MOST_ALONE) if soon else min(debt, _MOST_ALONE)
        store(team, _SPELL, spell)
        store(team, _ALONE, spell)
        debt = 0
    store(team, _DEBT, debt)


@inner()
def _spend(team, took, parts):
    """Count what a task lost that was done alone."""
    left = load(team, _ALONE)
    if left > 0:
        store(team, _ALONE, left - took * (parts - 1) // parts)
        store(team, _SINCE, clock())


@inner()
def _help(team):
    """Do parts of the present task as long as there are some that nobody has begun; how many."""
    own = 0
    while True:
        ticket = load(team, _TICKET)
        left = ticket & _LEFT
        if left == 0:
            return own
        code, where, parts = load(team, _CODE), load(team, _WHERE), load(team, _PARTS)
        # Where the ticket is another by now, what was read may be of another task, and is not used.
        if swap(team, _TICKET, ticket, ticket - 1):
            add(team, _FAILED, run(code, where, parts - left, parts))
            add(team, _DONE, 1)
            own += 1


@loop(TEAM)
def _serve(team):
    """Help until nothing came for a while."""
    since = clock()
    while clock() - since < _PATIENCE and load(team, _STOP) == 0:
        if load(team, _TICKET) & _LEFT:
            _help(team)
            since = clock()
        else:
            pause()


@loop(TEAM)
def _limit(team):
    """How many threads the BLAS may use, when it is not held to one."""
    _lock(team)
    limit = load(team, _LIMIT) if load(team, _HOLD) else np.int64(_get_blas_threads())
    store(team, _LOCK, 0)
    return limit


@loop(TEAM, INTEGER)
def _set_limit(team, limit):
    """Let the BLAS use so many, from when nobody holds it to one."""
    _lock(team)
    if load(team, _HOLD):
        store(team, _LIMIT, limit)
    else:
        _set_blas_threads(limit)
    store(team, _LOCK, 0)


@inner()
def share(number, parts, rows):
    """Where part number `number` of so many rows starts and stops."""
    return rows * number // parts, rows * (number + 1) // parts


@inner()
def own(x, number, parts):
    """The rows of part number `number` of an array."""
    return x[len(x) * number // parts:len(x) * (number + 1) // parts]


# --- the threads ---

class _Team:
    """Threads, and what they share."""

    def __init__(self) -> None:
        self.shared = np.zeros(_LENGTH, np.int64)
        self.awake = threading.Event()
        self.others: list[threading.Thread] = []
        self.may_grow = _FUNCTIONS is not None

    def grow(self, most: int) -> int:
        """Start threads until there are so many with the caller's; how many there are."""
        if not self.may_grow:                  # also after a fork, where the lock may never be free
            return 1 + len(self.others)
        with _START:
            serve = _serve[_NO_REALS]
            while self.may_grow and len(self.others) < most - 1:
                thread = threading.Thread(target=self._work, args=(serve,), daemon=True)
                try:
                    thread.start()
                except RuntimeError:           # Python is about to end
                    self.may_grow = False
                else:
                    self.others.append(thread)
        return 1 + len(self.others)

    def _work(self, serve: Callable) -> None:
        while not self.shared[_STOP]:
            serve(self.shared)
            self.awake.clear()
            if not self.shared[_STOP]:         # asked after clear: `stop` sets both the other way round
                self.awake.wait()

    def stop(self) -> None:
        self.may_grow = False
        self.shared[_STOP] = 1
        self.awake.set()
        for thread in self.others:
            thread.join()


_START = threading.Lock()
_team = _Team()
atexit.register(lambda: _team.stop())
NOBODY = np.zeros(_LENGTH, np.int64)
if _FUNCTIONS:
    held_by(lambda: _limit[_NO_REALS](_team.shared),
            lambda limit: _set_limit[_NO_REALS](_team.shared, limit))


def team_for(work: int) -> tuple[np.ndarray, int]:
    """Who computes so many elements, and in how many parts, a thread each: for `in_parts`."""
    if work < 2 * EACH or inside_a_task():
        return NOBODY, 1
    limit = _limit[_NO_REALS](_team.shared)
    parts = min(threads_wanted() or limit, work // EACH, MOST)
    if parts > 1 + len(_team.others):
        parts = min(parts, _team.grow(parts))
    if parts == 1:
        return NOBODY, 1
    if not _team.awake.is_set() and _team.shared[_ALONE] <= 0:
        _team.awake.set()
    return _team.shared, parts


def threads() -> int:
    """How many threads a large kernel uses.

    It is 1 inside the tasks of `parallel_map`, where the library of the products cannot be limited, and
    in a child process that was forked, which has none of its parent's threads.
    """
    return team_for(sys.maxsize)[1]


def _after_fork() -> None:
    global _team
    _team = _Team()
    _team.may_grow = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
