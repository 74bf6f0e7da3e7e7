"""`parallel_map`: calls of a function side by side, each with its own tape."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Iterable, Sequence
from weakref import WeakSet

import numpy as np

from tape.engine import FORKED, Record, next_position
from tape.grad_mode import modes
from tape.mutation import version_of
from tape.ops.forking import branch
from tape.tensor import Tensor, from_array
from tape.threads import inside_a_task, side_by_side
from tape.trees import leaves, map_leaves


def parallel_map(function: Callable, calls: Iterable[Sequence],
                 shared: Iterable[Tensor] = ()) -> list:
    """``[function(*args) for args in calls]``, in threads, of which the walk back runs in threads too.

    NumPy lets several threads compute at the same time on arrays of some thousand elements and more.
    The first call runs in the caller's thread, each of the others in one that is kept for the next
    time. They may share leaves (the parameters of a model) and earlier results, whose gradients are
    added up in the order of the calls: the bits do not depend on which thread was faster. All run in
    the caller's modes, as of `no_grad`. Where the walk records itself (``create_graph=True``), it is
    not done in threads.

    The calls run one after the other, with the same results, inside another call of `parallel_map`, and
    under `measure` and `tape.lazy.from_tape`, which count and note in order.

    Parameters
    ----------
    function : callable
        Returns Tensors, also in lists, tuples and dicts, and anything else. It is run by several
        threads at once, so it must not change what they share, as a random generator.
    calls : iterable of sequences
        The arguments of each call.
    shared : iterable of Tensors, optional
        Leaves that all calls use, as the parameters of a model. It saves time alone: whether anybody
        else has such an array is then asked once, beforehand. A call cannot tell the program from the
        other calls, and so takes a checksum of what they use too; see ``tape/mutation.py``.

    Raises
    ------
    What the function raises: the error of the first call that failed, when all have ended.

    Examples
    --------
    >>> import numpy as np, tape
    >>> w = tape.Tensor([1.0, 2.0], requires_grad=True)
    >>> a, b = tape.parallel_map(lambda x: (w * x).sum(), [(3.0,), (4.0,)])
    >>> (a * b).backward()
    >>> a.item(), b.item(), w.grad
    (9.0, 12.0, array([72., 72.], dtype=float32))
    """
    tasks = [partial(function, *args) for args in calls]
    return run_recorded(tasks, shared) if may_run_side_by_side(len(tasks)) else [
        task() for task in tasks]


def may_run_side_by_side(count: int) -> bool:
    """Whether so many tasks may, here and in the present modes, or run one after the other."""
    mode = modes.get()
    return not (count < 2 or inside_a_task() or mode.measurement is not None or mode.tracing)


def run_recorded(tasks: Sequence[Callable[[], Any]], shared: Iterable[Tensor]) -> list:
    """What the tasks return, run side by side, of which the walk back runs side by side too."""
    floor = next_position()
    versions = [version_of(leaf) for leaf in shared if leaf.is_leaf]
    results = side_by_side(tasks)
    del versions                          # the records have those that they need
    branches = [_records(result, floor) for result in results]
    if sum(map(bool, branches)) < 2:
        return results
    # Weakly: a result that is deleted must free its tape, though others still have the fork.
    ends = [WeakSet(records) for records in branches]
    fork = from_array(np.float32(0), Record(FORKED, (), (ends, floor), np.float32(0)))
    own = {record for records in branches for record in records}
    return [map_leaves(lambda x: branch(x, fork) if isinstance(x, Tensor) and x._record in own else x,
                       result) for result in results]


def _records(result: Any, floor: int) -> list[Record]:
    """The records of what a call returned, each once, but for those of before the call."""
    found = (x._record for x in leaves(result) if isinstance(x, Tensor))
    return list(dict.fromkeys(r for r in found if r is not None and r.position > floor))
