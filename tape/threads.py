"""Tasks run side by side, in threads that are kept from call to call.

NumPy lets go of Python's lock while it computes, so that tasks of large arrays run at the same time.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from typing import Any, Callable, Sequence

import numpy as np

_MOST = 64                     # threads; they are started as they are needed
_pool: ThreadPoolExecutor | None = None
_inside: ContextVar[bool] = ContextVar("inside a task", default=False)


def inside_a_task() -> bool:
    """Whether what runs is itself one of several tasks; its own tasks then run one after the other."""
    return _inside.get()


def as_a_task() -> None:
    """What runs from here on is one of several tasks, which another process runs."""
    _inside.set(True)


def side_by_side(tasks: Sequence[Callable[[], Any]]) -> list:
    """What the tasks return: the first is run here, the others each in a thread.

    Every task runs in a copy of the caller's context, so in the modes of the caller (`no_grad`). When
    one fails, or the caller is interrupted, the others are waited for, and none is begun any more;
    then the error of the first in order that failed is raised. An interruption comes before it.
    """
    global _pool
    if len(tasks) < 2 or inside_a_task():
        return [task() for task in tasks]
    if _pool is None:
        _pool = ThreadPoolExecutor(_MOST, thread_name_prefix="tape")
    contexts, errors = [copy_context() for _ in tasks], np.geterr()
    others = [_begin(_pool, context.run, _run, task, errors)
              for context, task in zip(contexts[1:], tasks[1:])]
    try:
        try:
            first = contexts[0].run(_run, tasks[0], errors)
        except BaseException:
            for other in others:
                other.cancel()
            raise
        finally:
            _wait(others)
        return [first, *map(Future.result, others)]
    finally:
        del others         # an error has this frame, and they the error: a cycle would keep the tapes


def _begin(pool: ThreadPoolExecutor, run: Callable, *args: Any) -> Future:
    """Run it in a thread; at once in this one when Python ends, and gives pools no more to do.

    It ends when its main thread has, while other threads of the program may still have much to do.
    """
    try:
        return pool.submit(run, *args)
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
    future: Future = Future()
    try:
        future.set_result(run(*args))
    except BaseException as error:
        future.set_exception(error)
    try:
        return future
    finally:
        del future         # as above


def _run(task: Callable[[], Any], errors: Any) -> Any:
    _inside.set(True)
    with np.errstate(**errors):
        return task()


def _wait(futures: list[Future]) -> None:
    """Wait for all, also where Ctrl-C is pressed meanwhile, which is raised afterwards."""
    interrupt = None
    while True:
        try:
            wait(futures)
            break
        except KeyboardInterrupt as error:
            interrupt = error
            for future in futures:
                future.cancel()
    if interrupt is not None:
        raise interrupt


def _forget_threads() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):        # a child process has none of the threads of its parent
    os.register_at_fork(after_in_child=_forget_threads)
