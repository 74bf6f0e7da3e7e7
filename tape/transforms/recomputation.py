"""`checkpoint`: run a part of the forward once more, rather than keep what it saves."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from typing import Any, Callable

import numpy as np

from tape.engine import Record, parents_of, records_behind
from tape.grad_mode import enable_grad, modes
from tape.transforms.gradients import gradients
from tape.mutation import checksum
from tape.ops.arithmetic import identity
from tape.primitive import Primitive
from tape.tensor import Tensor


def checkpoint(function: Callable, *args: Any) -> Any:
    """``function(*args)``, of which the tape keeps the inputs alone.

    A tape grows with the depth of a model, since each operation saves what its derivative will need.
    Here the function runs, what its operations saved is let go, and one operation stands for all of
    them. When the walk back arrives there the function runs again, and is walked. Memory falls to what
    a single call needs and the inputs of the others; the cost is one more forward. Chen et al. 2016,
    arXiv:1604.06174.

    Parameters
    ----------
    function : callable
        Returns one Tensor. What it computes depends on `args`, and on leaves (the parameters of a
        model), which get their gradients too. It may be a Module.
    *args
        Tensors, and anything else the function takes.

    Raises
    ------
    ValueError
        The function uses the result of an operation that is not among its arguments.
    RuntimeError
        In the backward pass, an array among `args` is not what it was, or the function computes
        something else than it did before, as one does that draws random numbers (dropout).

    Notes
    -----
    Under `tape.lazy.trace` the function runs as if it were called, so that all its steps are in the
    graph.

    Examples
    --------
    >>> import numpy as np, tape
    >>> x = tape.Tensor([0.5], requires_grad=True)
    >>> y = tape.checkpoint(lambda x: np.exp(np.sin(x)), x)
    >>> print(tape.show(y))
    position  operator    parents    shape  bytes kept
           0  checkpoint  leaf (1,)  (1,)            0
    1 records, 0 bytes kept
    """
    if not modes.get().recording or modes.get().tracing:
        return function(*args)
    places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.requires_grad]
    own = [args[i] for i in places]

    def run(stand_ins: Any) -> Any:
        given = list(args)
        for i, x in zip(places, stand_ins):
            given[i] = x
        with enable_grad():
            return function(*given)

    measurement = modes.get().measurement
    start = identity(Tensor(0.0, requires_grad=True))._record    # what is older comes from outside
    with measurement.run_again() if measurement else nullcontext():
        stand_ins = [identity(x) for x in own]
        out = run(stand_ins)
    if not isinstance(out, Tensor):
        if isinstance(out, (np.ndarray, np.generic, int, float)) and not any(
                isinstance(arg, Tensor) for arg in args):
            return out
        raise TypeError(f"checkpoint: the function must return one Tensor, got {type(out).__name__}")
    if out._record is None:                                     # a leaf, or a constant
        return out
    leaves = _leaves_behind(out, stand_ins, start)
    constant = [args[i] for i in range(len(args)) if i not in places and _may_change(args[i])]
    return _operator(run, out.numpy(), constant, len(own), leaves)(*own, *leaves)


def _may_change(value: Any) -> bool:
    """Whether a value is an array of numbers, or the Tensor of one, that others can write to."""
    return value._writable if isinstance(value, Tensor) else (
        isinstance(value, np.ndarray) and value.dtype.kind in "biuf")


def _sum_of(value: Any) -> Any:
    return checksum(np.asarray(value._data if isinstance(value, Tensor) else value))


def _operator(run: Callable, result: Any, constant: list, count: int,
              leaves: list[Tensor]) -> Primitive:
    """An operator of the arguments and of the leaves that stands for a call of the function.

    `constant` are the other arguments that must stay what they are.
    """
    before, given = checksum(np.asarray(result)), [_sum_of(value) for value in constant]

    def forward(*inputs):
        return result

    def rule(g, inputs):
        recorded = isinstance(g, Tensor)
        again = [identity(x) if recorded else Tensor(x, requires_grad=True) for x in inputs[:count]]
        for value, known in zip(constant, given):
            if _sum_of(value) != known:
                raise RuntimeError(f"checkpoint: an argument, of shape {value.shape}, was changed in "
                                   f"place after the function ran, which runs again for the backward "
                                   f"pass. Call backward() before the change, or pass a copy; what the "
                                   f"function itself changes may be an attribute of it.")
        out = run(again)
        if checksum(np.asarray(out.numpy())) != before:
            raise RuntimeError("checkpoint: the function computed something else when it ran again for "
                               "the backward pass. It must not draw random numbers (dropout) or depend "
                               "on what changes between its calls.")
        # What is behind the arguments is the walk's that called this rule.
        found = gradients(out, again + leaves, g, create_graph=recorded, allow_unused=True,
                          stop={x._record for x in again if recorded})
        return [x if recorded or x is None else x.numpy() for x in found]
    operator = Primitive(forward, (rule,), name="checkpoint")
    operator.vjps = weakref.WeakValueDictionary()      # else a cycle would keep the arrays alive
    return operator


def _leaves_behind(out: Tensor, stand_ins: list[Tensor], start: Record) -> list[Tensor]:
    """The leaves, apart from the arguments, that a result was made from."""
    own, earliest = {x._record for x in stand_ins}, start.position
    found: dict[Tensor, None] = {}
    for record in records_behind([out._record], lambda r: [] if r in own else parents_of(r)):
        if record.position < earliest:
            raise ValueError(f"checkpoint: the function uses a result of {record.name}, shape "
                             f"{record.shape}, that is not among its arguments. Pass it as one.")
        if record not in own:
            found.update((parent, None) for parent in record.parents if isinstance(parent, Tensor))
    return list(found)
