"""`WorkerProcesses`, as the program sees them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
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
from tape.processes.messages import Answer, Call, Failure, Found, Given, Settings, Walk, packed
from tape.processes.shared import SharedArrays, SharedLeaves, forks_share
from tape.processes.snapshot import Inherited, dump
from tape.processes.worker import SIGNALS, serve
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

    def __init__(self, function: Callable):
        if not sys.platform.startswith("linux"):
            raise RuntimeError("WorkerProcesses: processes need Linux, where one can be started as a "
                               "copy of the program. Compute in threads, processes=False")
        self.function = function
        self._workers: list[_Worker] = []
        self._shared: SharedLeaves | None = None
        self._inherited = Inherited()
        self._lock = threading.Lock()
        _known.add(self)

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
        with self._lock:
            for worker in self._workers:
                worker.end()
            self._workers, self._shared = [], None

    def after_fork(self) -> None:
        """In a process that the program forked: the workers are not its own."""
        self._workers, self._shared = [], None
        self._lock = threading.Lock()

    def _workers_for(self, count: int, shared: Sequence[Tensor], new: bool) -> list[_Worker]:
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
                self._workers.append(_Worker(self._shared, self._inherited.objects))
        assert self._shared is not None
        self._shared.bring_up_to_date()
        return self._workers


class _Worker:
    """One process, and the pipe to it.

    Attributes
    ----------
    expects : whether a call has been begun whose answer did not come yet.
    """

    def __init__(self, shared: SharedLeaves, inherited: list):
        context = multiprocessing.get_context("fork")
        self.shared = shared
        self.gradients = SharedArrays([leaf._data for leaf in shared.leaves])
        self.connection, end = context.Pipe()
        self.process = context.Process(target=serve, args=(end, shared, self.gradients, inherited),
                                       daemon=True)
        self._lock = threading.Lock()        # a message and its answer
        self.lives, self.expects, self.number = True, False, 0
        _known.add(self)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)      # until `serve` hears them
        try:
            with warnings.catch_warnings(), forks_share():
                warnings.simplefilter("ignore", DeprecationWarning)      # of threads, whose locks are
                self.process.start()                                     # not used in `serve`
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        end.close()
        self.forgotten: list[int] = []
        self._tapes: WeakSet[_Tape] = WeakSet()
        self._warned: dict = {}
        self._sent: bytes | None = None

    def begin(self, function: bytes, args: Sequence) -> Callable[[], Any]:
        """Let a call begin; returns what waits for its result."""
        inputs = [x for x in leaves(args) if isinstance(x, Tensor) and x.requires_grad]
        mode = modes.get()
        arguments = map_leaves(lambda x: Given(x.numpy(), x.requires_grad and mode.recording)
                               if isinstance(x, Tensor) else x, tuple(args))
        forgotten = [*self.forgotten]
        self.number += 1
        try:
            message = packed(Call(self.number, None if function == self._sent else function,
                                  _settings(), arguments, forgotten))
        except Exception as error:
            raise TypeError(f"WorkerProcesses: the arguments must be of a kind that can be sent to "
                            f"another process: {error}. Or compute in threads, processes=False"
                            ) from error
        self.expects = True
        self._post(message)
        self._sent = function
        del self.forgotten[:len(forgotten)]
        versions = tuple((i, version_of(leaf)) for i, leaf in enumerate(self.shared.leaves))
        return partial(self._result, self.number, inputs, versions)

    def _result(self, number: int, inputs: list[Tensor], versions: tuple) -> Any:
        """What a call returned, as results of one operator of the leaves and the arguments."""
        answer = self._received()
        self.expects = False
        self._lock.release()
        found = self._value(answer)
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
        message = packed(Walk(number, _settings(), cotangents))
        try:
            self._post(message)
            answer = self._received()
            present = {} if isinstance(answer, Failure) else {
                i: np.array(self.gradients[i]) for i in answer.value[0]}
            self._lock.release()
        except BaseException:          # interrupted: the answer would be taken for the next one
            self.end()
            raise
        own = self._value(answer)[1]
        return [present.get(i) for i in range(len(self.shared.leaves))], own

    def end(self) -> None:
        """End the process; what it still has is lost."""
        if self.lives:
            self.lives = False
            # The connection stays: another thread may read from it, and would read from the next
            # file that gets its number.
            if self.process.pid is not None:
                self.process.terminate()

    def after_fork(self) -> None:
        """In a process that the program forked, also as another worker: this one is not its own."""
        self.lives = False
        self.connection.close()

    def __del__(self) -> None:
        if hasattr(self, "lives"):
            self.end()

    def _post(self, message: bytes) -> None:
        """Send a message. Who does not take the answer and release the lock must end the process."""
        while self.lives and not self._lock.acquire(timeout=0.1):
            pass                       # a process may be ended in the middle, and then nobody releases
        if not self.lives:
            raise RuntimeError("WorkerProcesses: the process that has the tape of this result was "
                               "ended. Run the forward once more")
        try:
            self.connection.send_bytes(message)
        except OSError as error:
            raise self._gone() from error

    def _received(self) -> Answer | Failure:
        try:
            message = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        return pickle.loads(message)

    def _value(self, answer: Answer | Failure) -> Any:
        """What was answered, with its warnings; or its error is raised."""
        for text, category, file, line in answer.warnings:
            warnings.warn_explicit(text, category, file, line, registry=self._warned)
        if isinstance(answer, Failure):
            raise answer.error from WorkerError(answer.text)
        return answer.value

    def _gone(self) -> RuntimeError:
        self.end()
        self.process.join(1)
        code = self.process.exitcode
        return RuntimeError(f"WorkerProcesses: a process ended with exit code {code}; where that is -9 "
                            f"it was killed from outside, perhaps for lack of memory")


def _settings() -> Settings:
    return Settings(modes.get(), {**np.geterr()}, kernels_in_use())


_known: WeakSet[WorkerProcesses | _Worker] = WeakSet()


def _after_fork() -> None:
    for one in [*_known]:
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
