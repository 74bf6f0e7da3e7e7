"""A worker process, as the program sees it, and what it computed, as an operator."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
import warnings
from functools import partial
from typing import Any, Callable, Sequence
from weakref import WeakSet

import numpy as np

from tape.engine import Record
from tape.grad_mode import modes
from tape.kernels.choice import kernels_in_use
from tape.primitive import Primitive
from tape.processes.forks import tell_forks, workers_share
from tape.processes.messages import Answer, Call, Failure, Found, Given, Settings, Walk, packed
from tape.processes.shared import SharedArrays, SharedLeaves
from tape.processes.snapshot import PICKLE_ERRORS
from tape.processes.worker import SIGNALS, serve
from tape.tensor import Tensor, from_array
from tape.trees import leaves, map_leaves


class Worker:
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
        tell_forks(self)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)      # until `serve` hears them
        try:
            with warnings.catch_warnings(), workers_share():
                warnings.simplefilter("ignore", DeprecationWarning)      # of threads, whose locks are
                self.process.start()                                     # not used in `serve`
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        end.close()
        self.forgotten: list[int] = []
        self._tapes: WeakSet[_Tape] = WeakSet()
        self._warned: dict = {}
        self._sent: bytes | None = None

    def begin(self, function: bytes, args: Sequence, versions: tuple) -> Callable[[], Any]:
        """Let a call begin; returns what waits for its result.

        `versions` are those of the shared leaves, by number, for the record.
        """
        inputs = [x for x in leaves(args) if isinstance(x, Tensor) and x.requires_grad]
        mode = modes.get()
        arguments = map_leaves(lambda x: Given(x.numpy(), x.requires_grad and mode.recording)
                               if isinstance(x, Tensor) else x, tuple(args))
        forgotten = [*self.forgotten]
        self.number += 1
        try:
            message = packed(Call(self.number, None if function == self._sent else function,
                                  _settings(), arguments, forgotten))
        except PICKLE_ERRORS as error:
            raise TypeError(f"WorkerProcesses: the arguments must be of a kind that can be sent to "
                            f"another process: {error}. Or compute in threads, processes=False"
                            ) from error
        self.expects = True
        self._post(message)
        self._sent = function
        del self.forgotten[:len(forgotten)]
        return partial(self._result, self.number, inputs, versions)

    def _result(self, number: int, inputs: list[Tensor], versions: tuple) -> Any:
        """What a call returned, as results of one operator of the leaves and the arguments."""
        answer = self._received()
        self.expects = False
        if isinstance(answer, Failure):
            self._sent = None            # it may not have been taken over
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
        except TimeoutError:           # of a signal's handler; a pipe waits for ever
            raise
        except OSError as error:
            raise self._gone() from error

    def _received(self) -> Answer | Failure:
        try:
            message = self.connection.recv_bytes()
        except TimeoutError:
            raise
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

    def __init__(self, worker: Worker, number: int, results: list, arguments: int):
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
