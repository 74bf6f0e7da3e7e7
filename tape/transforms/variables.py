"""A call of a function on variables that stand in for its arguments, to be differentiated by them."""

from __future__ import annotations

import warnings
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tape.engine import caller_frame, parents_of, records_behind
from tape.grad_mode import enable_grad, modes
from tape.transforms.gradients import gradients
from tape.ops.arithmetic import identity
from tape.promotion import plain
from tape.tensor import Tensor, as_tensor
from tape.trees import like_tree, map_leaves

Argnum = int | tuple[int, ...]


class Run(NamedTuple):
    """A call of a function on variables that stand in for some of its arguments."""

    value: Any                  # what it returned
    variables: list             # Tensors, one for each leaf of `tree`
    tree: Any                   # the arguments that they stand in for
    recorded: bool              # whether derivatives of this call are differentiated again

    def like_arguments(self, derivatives: Sequence) -> Any:
        """One derivative for each variable, built like the arguments."""
        return like_tree(self.tree, [self.result(d) for d in derivatives])

    def result(self, value: Any) -> Any:
        """What the caller is given: a Tensor if it is recorded, else an array or a NumPy scalar."""
        return value if self.recorded else np.asarray(plain(value))[()]

    def pull(self, cotangent: Any = None) -> list:
        """The gradient of each variable, for a cotangent of the value; zeros where it plays no part."""
        found: Sequence = [None] * len(self.variables)
        if isinstance(self.value, Tensor) and self.value.requires_grad:
            found = gradients(self.value, self.variables, cotangent, create_graph=self.recorded,
                              retain_graph=True, allow_unused=True)
        return [as_tensor(np.zeros(x.shape, x.dtype), None) if g is None else g
                for g, x in zip(found, self.variables)]


def run_on_variables(function: Callable, argnum: Argnum, args: tuple, kwargs: dict,
                     caller: str) -> Run:
    """Call a function with variables in the place of what the arguments number `argnum` hold."""
    chosen: tuple = tuple(argnum) if np.iterable(argnum) else (argnum,)
    if not all(isinstance(i, (int, np.integer)) for i in chosen):
        raise TypeError(f"{caller}: argnum must be the number of a positional argument, or a tuple of "
                        f"such, got {argnum!r}")
    for i in chosen:
        if not -len(args) <= i < len(args):
            raise TypeError(f"{caller}: argnum {i} counts the positional arguments, of which the call "
                            f"has {len(args)}")
    if len({i % len(args) for i in chosen}) < len(chosen):
        raise TypeError(f"{caller}: argnum must name each argument once, got {argnum}")
    outside = modes.get().recording
    given = [args[i] for i in chosen]
    new_args = list(args)
    variables: list[Tensor] = []
    own: list[Tensor] = []
    with enable_grad():
        for i, tree in zip(chosen, given):
            new_args[i] = map_leaves(lambda leaf: _variable(leaf, variables, own, caller), tree)
        value = function(*new_args, **kwargs)
    if not isinstance(value, Tensor):
        _check_plain(value, caller)
    recorded = outside and (len(own) < len(variables) or _depends_on_others(value, variables))
    for leaf in own:        # nobody else can ask for their gradients: to later calls they are constants
        leaf.requires_grad = False
    return Run(value, variables, tuple(given) if np.iterable(argnum) else given[0], recorded)


def _variable(leaf: Any, variables: list[Tensor], own: list[Tensor], caller: str) -> Tensor:
    """A Tensor to differentiate by, in the place of an argument; added to `variables`.

    It has its own place on the tape, where the walk stops: behind it is the argument, if that is a
    Tensor that wants a gradient, or else a leaf made for this call, which is added to `own`.
    """
    if not (isinstance(leaf, Tensor) and leaf.requires_grad):
        array = np.asarray(plain(leaf))
        if array.dtype.kind in "biu":
            array = array.astype(np.float64)
        if array.dtype.kind != "f":
            raise TypeError(f"{caller}: derivatives are by real numbers, got "
                            f"{type(leaf).__name__} of dtype {array.dtype}. Choose the argument with "
                            f"argnum=, or leave out of it what is no number.")
        leaf = Tensor(array, requires_grad=True)
        own.append(leaf)
    variables.append(identity(leaf))
    return variables[-1]


def _check_plain(value: Any, caller: str) -> None:
    """A result that is no Tensor: constant, or a mistake."""
    if isinstance(value, (list, tuple, dict, type(None), str)):
        raise TypeError(f"{caller}: the function must return one array or number, got "
                        f"{type(value).__name__}. Several are joined by np.stack or np.concatenate.")
    frame = caller_frame()
    warnings.warn_explicit(
        f"{caller}: the function returned a plain {type(value).__name__}, so its derivative is zero. "
        f"Does it take .data, or numbers out of its argument?", UserWarning,
        frame.f_code.co_filename, frame.f_lineno,
        registry=frame.f_globals.setdefault("__warningregistry__", {}))


def _depends_on_others(value: Any, variables: list[Tensor]) -> bool:
    """Whether a value depends on Tensors that want a gradient, apart from the variables."""
    if not isinstance(value, Tensor) or value._record is None:
        return isinstance(value, Tensor) and value.requires_grad
    own = {x._record for x in variables}
    behind = records_behind([value._record], lambda r: [] if r in own else parents_of(r))
    return any(isinstance(parent, Tensor) and parent.requires_grad
               for record in behind if record not in own for parent in record.parents)
