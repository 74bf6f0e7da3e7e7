"""`WorkerProcesses`, as the program sees them."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from functools import partial
from typing import Callable, Iterable, Sequence

from tape.mutation import version_of
from tape.processes.forks import tell_forks
from tape.processes.process import Worker
from tape.processes.shared import SharedLeaves
from tape.processes.snapshot import Inherited, dump
from tape.tensor import Tensor
from tape.transforms.parallel import may_run_side_by_side, run_recorded


class WorkerProcesses:
    """Calls of a function side by side in processes, where the walk back runs too.

    Does what `parallel_map` does, with the same bits. There the calls are threads, which wait for each
    other's use of Python; processes do not. The first call runs in the program itself, each other one
    in a process, which is started when it is needed first and kept.

    The values of `shared` leaves are in memory that all processes see. All else that the function holds
    (the attributes of a model, random generators) is sent along whenever it has changed. So a worker
    sees what the program changes, except global variables and attributes of classes, which it has as
    they were when it was started, and the ``.grad`` of shared leaves, which is None there. What a call
    changes in a worker is lost when it returns.

    A process that the program forks has no part in the workers, and starts others when it needs them.

    The tape of a call can be walked once, and its gradients cannot be differentiated again. Inside
    `parallel_map`, and under `measure` and `tape.lazy.from_tape`, the calls run in the program, one
    after the other.

    Parameters
    ----------
    function : callable
        Returns Tensors, also in lists, tuples and dicts, and what pickle can send. What it holds, and
        its arguments, must be of that kind too; functions and classes may be anything but closures.

    Raises
    ------
    RuntimeError
        The system is not Linux. Elsewhere a process cannot be started as a copy of the program.

    Examples
    --------
    >>> import tape
    >>> w = tape.Tensor([1.0, 2.0], requires_grad=True)
    >>> processes = tape.WorkerProcesses(tape.mul)
    >>> a, b = processes.map([(w, 3.0), (w, 4.0)], [w])
    >>> (a * b).sum().backward()
    >>> w.grad
    array([24., 48.], dtype=float32)
    >>> processes.close()
    """

    @staticmethod
    def available() -> bool:
        """Whether processes can be started here; `map` and the constructor raise where they cannot."""
        return sys.platform.startswith("linux") and not multiprocessing.current_process().daemon

    def __init__(self, function: Callable):
        if not sys.platform.startswith("linux"):
            raise RuntimeError("WorkerProcesses: processes need Linux, where one can be started as a "
                               "copy of the program. Compute in threads, processes=False")
        self.function = function
        self._workers: list[Worker] = []
        self._shared: SharedLeaves | None = None
        self._inherited = Inherited()
        self._lock = threading.Lock()
        tell_forks(self)

    def __reduce__(self) -> tuple:
        return WorkerProcesses, (self.function,)         # a copy starts processes of its own

    def map(self, calls: Iterable[Sequence], shared: Sequence[Tensor] = ()) -> list:
        """``[function(*args) for args in calls]``.

        Parameters
        ----------
        calls : iterable of sequences
            The arguments of each call.
        shared : sequence of Tensors
            Leaves that the function uses, as the parameters of a model.

        Raises
        ------
        What the function raises: the error of the first call that failed, when all have ended.
        TypeError
            Something cannot be sent to another process.
        RuntimeError
            A process has ended.
        """
        calls = list(calls)
        if not may_run_side_by_side(len(calls)):
            return [self.function(*args) for args in calls]
        with self._lock:
            known = len(self._inherited.objects)
            snapshot = dump(self.function, shared, self._inherited)
            new = len(self._inherited.objects) > known
            workers = self._workers_for(len(calls) - 1, shared, new)
            try:
                versions = tuple((i, version_of(leaf)) for i, leaf in enumerate(shared))
                tasks: list[Callable] = [partial(self.function, *calls[0])]
                for worker, args in zip(workers, calls[1:]):
                    tasks.append(worker.begin(snapshot, args, versions))
                return run_recorded(tasks, shared)
            except BaseException:
                for worker in workers:
                    if worker.expects:         # interrupted: the answer would be taken for the next one
                        worker.end()
                raise

    def close(self) -> None:
        """End the processes. They are started again when they are needed."""
        with self._lock:
            for worker in self._workers:
                worker.end()
            self._workers, self._shared = [], None

    def after_fork(self) -> None:
        """In a process that the program forked: the workers are not its own."""
        self._workers, self._shared = [], None
        self._lock = threading.Lock()

    def _workers_for(self, count: int, shared: Sequence[Tensor], new: bool) -> list[Worker]:
        """So many processes that know these leaves, started anew where others have to be inherited."""
        old = self._shared
        if (new or old is None or len(self._workers) < count or not old.fits(shared) or old.held()
                or not all(worker.lives for worker in self._workers)
                or any(worker.has_tapes() for worker in self._workers) and old.differs()):
            if multiprocessing.current_process().daemon:
                raise RuntimeError("WorkerProcesses: a process that is a daemon itself, as those of a "
                                   "multiprocessing.Pool, cannot start others. Compute in threads, "
                                   "processes=False")
            self._workers = []                 # those whose tapes are still needed live on with these
            self._shared = SharedLeaves(shared)
            for _ in range(count):
                self._workers.append(Worker(self._shared, self._inherited.objects))
        assert self._shared is not None
        self._shared.bring_up_to_date()
        return self._workers
