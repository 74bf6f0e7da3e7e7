"""What runs in a worker process: calls and walks, one after the other, until the pipe is closed."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Callable, Sequence

import numpy as np

from tape.blas import limit_blas_threads
from tape.engine import Record, walk
from tape.grad_mode import in_modes
from tape.kernels.choice import kernels_in_use, use_kernels
from tape.ops.arithmetic import identity
from tape.processes import snapshot
from tape.processes.messages import Answer, Call, Failure, Found, Given, Settings, Walk, packed
from tape.processes.shared import SharedArrays, SharedLeaves
from tape.tensor import Tensor
from tape.threads import as_a_task
from tape.trees import map_leaves


SIGNALS = {signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])}


def serve(connection: Connection, shared: SharedLeaves, gradients: SharedArrays,
          inherited: Sequence) -> None:
    """Answer messages until the program has ended, or closes the connection.

    Parameters
    ----------
    inherited : what numbers in snapshots stand for.
    """
    for number in SIGNALS:                              # which the program has blocked until here
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C is the program's to act on
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _let_go_of_files(connection.fileno())
    limit_blas_threads(1)
    as_a_task()
    shared.take_over()
    snapshot.leaves_here, snapshot.inherited_here = shared.leaves, inherited
    worker = _Worker(shared, gradients)
    while True:
        try:
            message = pickle.loads(connection.recv_bytes())
            _send(connection, _answer(worker, message))
            worker.prepare()
        except (EOFError, OSError):                     # nobody waits any more
            os._exit(0)


def _let_go_of_files(own: int) -> None:
    """Keep open none of the program's files but the standard ones: it may hold a lock by one.

    Their numbers stay taken, since objects that were inherited may still close them.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != own:
            with suppress(OSError):                     # the one that listed them is closed again
                os.fstat(number)
                os.dup2(nothing, number, inheritable=False)


def _answer(worker: _Worker, message: Any) -> Answer | Failure:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = worker.call(message) if isinstance(message, Call) else worker.walk(message)
        except BaseException as error:
            return Failure(_sendable(error), traceback.format_exc(), _plain(caught))
        finally:
            with suppress(Exception):                   # there may be none, or nobody who reads it
                sys.stdout.flush()
    return Answer(value, _plain(caught))


def _sendable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _plain(caught: Sequence) -> list:
    return [(str(w.message), w.category, w.filename, w.lineno) for w in caught]


def _send(connection: Connection, answer: Answer | Failure) -> None:
    try:
        message = packed(answer)
    except Exception as error:
        message = packed(Failure(TypeError(
            f"WorkerProcesses: what the function returns must be of a kind that can be sent to another "
            f"process: {error}"), traceback.format_exc(), []))
    connection.send_bytes(message)


class _Worker:
    """The function as it was last sent, and the tapes of its calls.

    Attributes
    ----------
    snapshot : the function as bytes.
    tapes : number of a call -> the records of its results, and the arguments that want a gradient.
    """

    def __init__(self, shared: SharedLeaves, gradients: SharedArrays):
        self.snapshot: bytes | None = None
        self._function: Callable | None = None
        self.shared, self.gradients = shared, gradients
        self.tapes: dict[int, tuple[list[Record], list[Tensor]]] = {}

    def prepare(self) -> None:
        """Make the function for the next call, anew: the last one may have changed what it holds."""
        if self._function is None and self.snapshot is not None:
            self._function = snapshot.load(self.snapshot)

    def call(self, message: Call) -> Any:
        """What the function returns, with `Found` in the place of Tensors."""
        for number in message.forgotten:
            self.tapes.pop(number, None)
        if message.function is not None:
            self._function = snapshot.load(message.function)
            self.snapshot = message.function
        _compute_as(message.settings)
        variables: list[Tensor] = []
        arguments = map_leaves(lambda x: _taken(x, variables) if isinstance(x, Given) else x,
                               message.arguments)
        self.prepare()
        function, self._function = self._function, None
        assert function is not None
        with np.errstate(**message.settings.errors):
            result = function(*arguments)
        records: list[Record] = []
        found = map_leaves(lambda x: _found(x, records) if isinstance(x, Tensor) else x, result)
        if records:
            self.tapes[message.number] = records, variables
        return found

    def walk(self, message: Walk) -> tuple[list[int], list]:
        """The numbers of the shared leaves that have a gradient, and the gradients of the arguments."""
        _compute_as(message.settings)
        records, variables = self.tapes.pop(message.number)
        roots: dict = {}
        for record, g in zip(records, message.cotangents):
            if g is not None:
                roots[record] = roots[record] + g if record in roots else g
        gradients = walk(roots)
        present = []
        for i, leaf in enumerate(self.shared.leaves):
            g = gradients.pop(leaf, None)
            if g is not None:
                self.gradients[i][...] = g
                present.append(i)
        own = [gradients.pop(variable, None) for variable in variables]
        for leaf in gradients:
            raise RuntimeError(
                f"WorkerProcesses: a leaf of shape {leaf.shape} that wants a gradient was used which "
                f"is neither shared nor an argument, so its gradient would be lost. Make it a "
                f"parameter of the model")
        return present, own


def _compute_as(settings: Settings) -> None:
    if settings.kernels != kernels_in_use():
        use_kernels(settings.kernels)
    in_modes(settings.modes)


def _taken(given: Given, variables: list[Tensor]) -> Tensor:
    tensor = Tensor(given.array, requires_grad=given.requires_grad)
    if given.requires_grad:
        variables.append(tensor)
    return tensor


def _found(x: Tensor, records: list[Record]) -> Found:
    if not x.requires_grad:
        return Found(x.numpy(), None)
    record = x._record
    if record is None:                      # the function returned a leaf
        record = identity(x)._record
    records.append(record)
    return Found(x.numpy(), len(records) - 1)
