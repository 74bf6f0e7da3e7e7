"""`WorkerProcesses`, as the program sees them."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import warnings
from functools import partial
from typing import Any, Callable, Iterable, Sequence
from weakref import WeakSet

import numpy as np

from tape.engine import Record
from tape.grad_mode import modes
from tape.kernels.choice import kernels_in_use
from tape.mutation import version_of
from tape.primitive import Primitive
from tape.processes.messages import Call, Failure, Found, Given, Settings, Walk
from tape.processes.shared import SharedArrays, SharedLeaves
from tape.processes.snapshot import Inherited, dump
from tape.processes.worker import serve
from tape.tensor import Tensor, from_array
from tape.threads import inside_a_task
from tape.transforms.parallel import run_recorded
from tape.trees import leaves, map_leaves


class WorkerProcesses:
    """Calls of a function side by side in processes, where the walk back runs too.

    Does what `parallel_map` does, with the same bits. There the calls are threads, which wait for each
    other's use of Python; processes do not. The first call runs in the program itself, each other one
    in a process, which is started when it is needed first and kept.

    The values of `shared` leaves are in memory that all processes see. All else that the function holds
    (the attributes of a model, random generators) is sent along whenever it has changed. So a worker
    sees what the program changes, except global variables, which it has as they were when it was
    started. What a worker changes stays with it.

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

    def __init__(self, function: Callable):
        if not sys.platform.startswith("linux"):
            raise RuntimeError("WorkerProcesses: processes need Linux, where one can be started as a "
                               "copy of the program. Compute in threads, processes=False")
        self.function = function
        self._workers: list[_Worker] = []
        self._shared: SharedLeaves | None = None
        self._inherited = Inherited()
        self._lock = threading.Lock()

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
        calls, mode = list(calls), modes.get()
        if len(calls) < 2 or inside_a_task() or mode.measurement is not None or mode.tracing:
            return [self.function(*args) for args in calls]
        with self._lock:
            known = len(self._inherited.objects)
            snapshot = dump(self.function, shared, self._inherited)
            new = len(self._inherited.objects) > known
            workers = self._workers_for(len(calls) - 1, shared, new)
            try:
                tasks: list[Callable] = [partial(self.function, *calls[0])]
                for worker, args in zip(workers, calls[1:]):
                    tasks.append(worker.begin(snapshot, args))
                return run_recorded(tasks, shared)
            except BaseException:
                for worker in workers:
                    if worker.expects:         # interrupted: the answer would be taken for the next one
                        worker.end()
                raise

    def close(self) -> None:
        """End the processes. They are started again when they are needed."""
        for worker in self._workers:
            worker.end()
        self._workers, self._shared = [], None

    def _workers_for(self, count: int, shared: Sequence[Tensor], new: bool) -> list[_Worker]:
        """So many processes that know these leaves, started anew where others have to be inherited."""
        old = self._shared
        if (new or old is None or len(self._workers) < count or not old.fits(shared)
                or not all(worker.lives for worker in self._workers)
                or any(worker.has_tapes() for worker in self._workers) and old.differs()):
            if multiprocessing.current_process().daemon:
                raise RuntimeError("WorkerProcesses: a process that is a daemon itself, as those of a "
                                   "multiprocessing.Pool, cannot start others. Compute in threads, "
                                   "processes=False")
            self._shared = SharedLeaves(shared)
            self._workers = []                 # those whose tapes are still needed live on with these
            for _ in range(count):
                self._workers.append(_Worker(self._shared, self._inherited.objects,
                                             [worker.connection for worker in self._workers]))
        assert self._shared is not None
        self._shared.bring_up_to_date()
        return self._workers


class _Worker:
    """One process, and the pipe to it.

    Attributes
    ----------
    expects : whether an answer is to come.
    """

    def __init__(self, shared: SharedLeaves, inherited: list, others: list):
        context = multiprocessing.get_context("fork")
        self.shared = shared
        self.gradients = SharedArrays([leaf._data for leaf in shared.leaves])
        self.connection, end = context.Pipe()
        self.process = context.Process(
            target=serve, args=(end, [*others, self.connection], shared, self.gradients, inherited),
            daemon=True)
        with warnings.catch_warnings():      # of threads, whose locks are not used in `serve`
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()
        end.close()
        self.lives, self.expects, self.number = True, False, 0
        self.forgotten: list[int] = []
        self._tapes: WeakSet[_Tape] = WeakSet()
        self._warned: dict = {}
        self._sent: bytes | None = None
        self._lock = threading.Lock()        # a message and its answer

    def begin(self, function: bytes, args: Sequence) -> Callable[[], Any]:
        """Let a call begin; returns what waits for its result."""
        inputs = [x for x in leaves(args) if isinstance(x, Tensor) and x.requires_grad]
        mode = modes.get()
        arguments = map_leaves(lambda x: Given(x.numpy(), x.requires_grad and mode.recording)
                               if isinstance(x, Tensor) else x, tuple(args))
        forgotten, self.forgotten = self.forgotten, []
        self.number += 1
        self._post(Call(self.number, None if function == self._sent else function,
                        Settings(mode, {**np.geterr()}, kernels_in_use()), arguments, forgotten))
        self._sent = function
        versions = tuple((i, version_of(leaf)) for i, leaf in enumerate(self.shared.leaves))
        return partial(self._result, self.number, inputs, versions)

    def _result(self, number: int, inputs: list[Tensor], versions: tuple) -> Any:
        """What a call returned, as results of one operator of the leaves and the arguments."""
        found = self._received()
        recorded = [x for x in leaves(found) if isinstance(x, Found) and x.number is not None]
        if not recorded:
            return map_leaves(lambda x: from_array(x.array) if isinstance(x, Found) else x, found)
        tape = _Tape(self, number, [x.array for x in recorded], len(inputs))
        self._tapes.add(tape)
        out = np.concatenate([np.ravel(x.array) for x in recorded])
        whole = from_array(out, Record(_COMPUTED, [
            None if not x.requires_grad else x if x._record is None else x._record
            for x in (*self.shared.leaves, *inputs)], ((), tape), out, versions))

        def piece(x: Any) -> Any:
            if not isinstance(x, Found):
                return x
            if x.number is None:
                return from_array(x.array)
            return whole[tape.places[x.number]].reshape(x.array.shape).astype(x.array.dtype)
        return map_leaves(piece, found)

    def has_tapes(self) -> bool:
        """Whether a tape may still be walked, with the values that the leaves had."""
        return any(not tape.walked for tape in self._tapes)

    def walk(self, number: int, cotangents: list) -> tuple[list, list]:
        """The gradients of the shared leaves and of the arguments."""
        self._post(Walk(number, cotangents))
        present, own = self._received(lambda value: (
            {i: np.array(self.gradients[i]) for i in value[0]}, value[1]))
        return [present.get(i) for i in range(len(self.shared.leaves))], own

    def end(self) -> None:
        """End the process; what it still has is lost."""
        if self.lives:
            self.lives = False
            self.connection.close()
            self.process.terminate()

    def __del__(self) -> None:
        if hasattr(self, "lives"):
            self.end()

    def _post(self, message: Call | Walk) -> None:
        self._lock.acquire()
        try:
            if not self.lives:
                raise RuntimeError("WorkerProcesses: the process that has the tape of this result was "
                                   "ended. Run the forward once more")
            self.connection.send(message)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise self._gone() from error
            raise
        self.expects = True

    def _received(self, use: Callable[[Any], Any] = lambda value: value) -> Any:
        """The answer to what was posted, used before the next message can change what it is about."""
        try:
            answer = self.connection.recv()
            self.expects = False
            for text, category, file, line in answer.warnings:
                warnings.warn_explicit(text, category, file, line, registry=self._warned)
            if isinstance(answer, Failure):
                raise answer.error from WorkerError(answer.text)
            return use(answer.value)
        except (EOFError, OSError) as error:
            if self.expects:
                raise self._gone() from error
            raise
        except BaseException:
            if self.expects:             # interrupted: the answer would be taken for the next one
                self.end()
            raise
        finally:
            self._lock.release()

    def _gone(self) -> RuntimeError:
        self.end()
        self.process.join(1)
        code = self.process.exitcode
        return RuntimeError(f"WorkerProcesses: a process ended with exit code {code}; where that is -9 "
                            f"it was killed from outside, perhaps for lack of memory")


class WorkerError(Exception):
    """The traceback of an error in another process, as its cause."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"


class _Tape:
    """What a process has recorded in a call.

    Attributes
    ----------
    places : where each recorded result stands in the array of all.
    """

    def __init__(self, worker: _Worker, number: int, results: list, arguments: int):
        self.worker, self.number, self.arguments = worker, number, arguments
        ends = np.cumsum([x.size for x in results]).tolist()
        self.places = [slice(end - x.size, end) for x, end in zip(results, ends)]
        self.likes = [(x.shape, x.dtype) for x in results]
        self.walked = False

    def walk(self, g: np.ndarray) -> list:
        """The gradients of the shared leaves and of the arguments; None where there is none."""
        if self.walked:
            raise RuntimeError("WorkerProcesses: what a process recorded can be walked once, also with "
                               "retain_graph=True. Compute in threads, processes=False")
        # What nobody used has a gradient of zeros, and is no root of the walk.
        cotangents = [g[place].astype(dtype).reshape(shape) if g[place].any() else None
                      for place, (shape, dtype) in zip(self.places, self.likes)]
        if all(cotangent is None for cotangent in cotangents):
            return [None] * (len(self.worker.shared.leaves) + self.arguments)
        self.walked = True
        shared, own = self.worker.walk(self.number, cotangents)
        return [*shared, *own]

    def __del__(self) -> None:
        if not self.walked:
            self.worker.forgotten.append(self.number)


def _computed(*inputs: Any, tape: Any) -> Any:
    """What a process found from these inputs."""
    raise NotImplementedError           # only its rule is called: the forward ran elsewhere


def _walk_elsewhere(g: Any, like_inputs: Any, tape: Any) -> list:
    if isinstance(g, Tensor):
        raise RuntimeError("WorkerProcesses: gradients that a process found cannot be differentiated "
                           "again (create_graph=True). Compute in threads, processes=False")
    return tape.walk(g)


_COMPUTED = Primitive(_computed, (_walk_elsewhere,), name="computed by a process").vjp(1)
