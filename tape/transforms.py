"""Derivatives of Python functions: a function goes in, a function comes out.

    grad(f), value_and_grad(f)      the gradient, of one number
    elementwise_grad(f)             the derivative of each result by the argument in its place
    jacobian(f), hessian(f)         all first, all second derivatives
    vjp, jvp, hvp                   their products with a vector, without making the matrix

The functions are written with NumPy. An argument is an array, a number, or a list, tuple or dict of
them, at any depth; a derivative is built like the argument, of its dtype (a Python number counts as
float64, as in NumPy). What is given arrays returns arrays. Where the value depends on Tensors that
want a gradient (inside another of these functions, or on a model's parameters), the result is
recorded and can be differentiated in its turn. ``f`` may be called only once to find the derivative at
one point, so it must not change its arguments.
"""

from __future__ import annotations

import warnings
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tape.engine import Record, records_behind
from tape.grad_mode import enable_grad, modes
from tape.ops.arithmetic import identity
from tape.ops.joining import stack
from tape.ops.shapes import reshape
from tape.promotion import plain
from tape.tensor import Tensor, as_tensor
from tape.gradients import gradients
from tape.trees import leaves, like_tree, map_leaves

Argnum = int | tuple[int, ...]


class _Variable(Tensor):
    """A leaf in the place of an argument, of which only the call that made it asks for the gradient."""
    __slots__ = ("returned",)
    returned: bool                  # True once the function has returned: nobody else can mean it


class _Run(NamedTuple):
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


def grad(outputs: Any, inputs: Any = None, grad_outputs: Any = None, *, argnum: Argnum = 0,
         create_graph: bool = False, retain_graph: bool | None = None,
         allow_unused: bool = False) -> Any:
    """Gradients as values: ``grad(y, x)`` of recorded results, ``grad(f)`` of a function.

    ``grad(y, x)`` is dL/dx for each input x, where L is the sum of the outputs; no ``.grad`` changes.
    ``grad(f)``, or ``grad(f, argnum)``, is the function that returns the gradient of f, which returns
    one number, by its positional argument number `argnum` (or by several, as a tuple).

    Parameters
    ----------
    outputs : Tensor or sequence of Tensor, or a function
        What follows but `argnum` is for Tensors.
    inputs : Tensor or sequence of Tensor
        Leaves or intermediate results. For an intermediate result, the derivative holds
        everything it was made from fixed. For a function: the same as `argnum`.
    grad_outputs : array_like, Tensor or a sequence of them, optional
        The cotangent of each output, of its shape; default 1 for one-element outputs.
    argnum : int or tuple of int
        For a function: the arguments to differentiate by.
    create_graph : bool
        Record the gradients too, so that they can be differentiated again.
    retain_graph : bool, optional
        Keep the tape for another walk; default: as `create_graph`.
    allow_unused : bool
        Return None for an input that the outputs do not depend on, instead of raising.

    Returns
    -------
    Tensor or tuple of Tensor, as `inputs` was given; of a function, a function

    Raises
    ------
    RuntimeError
        An input plays no part in the outputs, or the tape was released.

    Examples
    --------
    >>> import numpy as np
    >>> from tape import Tensor, grad
    >>> x = Tensor(3.0, requires_grad=True)
    >>> slope = grad(x ** 3, x, create_graph=True)        # 3 x^2
    >>> slope.item(), grad(slope, x).item()               # and 6 x
    (27.0, 18.0)
    >>> cube = lambda x: np.sum(x ** 3)
    >>> grad(cube)(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """
    if not callable(outputs):
        return gradients(outputs, inputs, grad_outputs, create_graph=create_graph,
                         retain_graph=retain_graph, allow_unused=allow_unused)
    if grad_outputs is not None or create_graph or retain_graph or allow_unused:
        raise TypeError("grad: of a function takes argnum alone. What it returns is recorded by itself "
                        "where it will be differentiated again.")
    pair = value_and_grad(outputs, argnum if inputs is None else inputs)
    return _named(lambda *args, **kwargs: pair(*args, **kwargs)[1], "grad", outputs)


def value_and_grad(function: Callable, argnum: Argnum = 0) -> Callable:
    """The function that returns ``(f(...), grad(f)(...))`` from one run of f.

    Examples
    --------
    >>> import numpy as np, tape
    >>> value, slope = tape.value_and_grad(lambda w: np.sum(w ** 2))(np.array([1.0, 2.0]))
    >>> float(value), slope
    (5.0, array([2., 4.]))
    """
    def derivative(*args, **kwargs):
        run = _run(function, argnum, args, kwargs, "grad")
        if np.size(plain(run.value)) != 1:
            raise ValueError(
                f"grad: the function must return one number, got shape {np.shape(plain(run.value))}. "
                f"For all derivatives of all elements use jacobian; if each depends on the argument "
                f"in its own place alone, elementwise_grad.")
        return run.result(run.value), run.like_arguments(run.pull(_ones(run.value)))
    return _named(derivative, "value_and_grad", function)


def elementwise_grad(function: Callable, argnum: Argnum = 0) -> Callable:
    """The function that returns d f(x)_i / dx_i for each i, for a function that works elementwise.

    It is the gradient of the sum of the results: sum_j df_j/dx_i has one term if f_j depends on x_j
    alone. For any other function it is that sum.

    Examples
    --------
    >>> import numpy as np, tape
    >>> tape.elementwise_grad(np.sin)(np.array([0.0, np.pi]))
    array([ 1., -1.])
    """
    def derivative(*args, **kwargs):
        run = _run(function, argnum, args, kwargs, "elementwise_grad")
        return run.like_arguments(run.pull(_ones(run.value)))
    return _named(derivative, "elementwise_grad", function)


def jacobian(function: Callable, argnum: Argnum = 0) -> Callable:
    """The function that returns J with J[i, j] = d f(x)_i / dx_j, of shape f(x).shape + x.shape.

    The tape of one run is walked once for each element of the result.

    Examples
    --------
    >>> import numpy as np, tape
    >>> tape.jacobian(lambda x: np.array([[1.0, 2.0], [3.0, 4.0]]) @ x)(np.ones(2))
    array([[1., 2.],
           [3., 4.]])
    """
    def derivative(*args, **kwargs):
        run = _run(function, argnum, args, kwargs, "jacobian")
        shape, dtype = np.shape(plain(run.value)), getattr(run.value, "dtype", None)
        rows = [run.pull(_one_hot(i, shape, dtype)) for i in range(int(np.prod(shape)))]
        blocks = []
        for j, x in enumerate(run.variables):
            if run.recorded and rows:
                blocks.append(reshape(stack([row[j] for row in rows]), (*shape, *x.shape)))
            else:
                block = np.array([plain(row[j]) for row in rows], x.dtype)
                blocks.append(block.reshape(*shape, *x.shape))
        return run.like_arguments(blocks)
    return _named(derivative, "jacobian", function)


def hessian(function: Callable, argnum: int = 0) -> Callable:
    """The function that returns H with H[i, j] = d2 f(x) / dx_i dx_j, of shape x.shape + x.shape.

    It is the Jacobian of the gradient. f returns one number, and x is one array.

    Examples
    --------
    >>> import numpy as np, tape
    >>> tape.hessian(lambda x: x[0] ** 2 * x[1])(np.array([2.0, 3.0]))
    array([[6., 4.],
           [4., 0.]])
    """
    def derivative(*args, **kwargs):
        if isinstance(argnum, int) and argnum < len(args) and isinstance(
                args[argnum], (list, tuple, dict)) or not isinstance(argnum, int):
            raise TypeError("hessian: needs the derivatives by one array; got several. Put them into "
                            "one, np.concatenate([a.ravel(), b.ravel()]), or use hvp.")
        return jacobian(grad(function, argnum), argnum)(*args, **kwargs)
    return _named(derivative, "hessian", function)


def vjp(function: Callable, *primals: Any) -> tuple[Any, Callable]:
    """``f(*primals)``, and the function that carries a cotangent g of it back: J^T g.

    Returns
    -------
    (value, pull)
        ``pull(g)`` returns a tuple with a gradient for each of the primals; it can be called again.
        g has the shape of the value.

    Examples
    --------
    >>> import numpy as np, tape
    >>> value, pull = tape.vjp(lambda x, y: x * y, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    >>> pull(np.array([1.0, 10.0]))
    (array([ 3., 40.]), array([ 1., 20.]))
    """
    run = _run(function, tuple(range(len(primals))), primals, {}, "vjp")
    return run.result(run.value), lambda cotangent: run.like_arguments(run.pull(cotangent))


def jvp(function: Callable, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """``f(*primals)``, and its derivative in a direction: J v, for the tangents v.

    Parameters
    ----------
    primals, tangents : tuple, or one array for a function of one argument
        A tangent is built like its primal.

    Notes
    -----
    There is no second engine that runs forward. J^T u is linear in the cotangent u, whatever u is; its
    derivative by u, carried back from v, is (J^T)^T v = J v. So two walks give what a forward one
    would, at some three times its cost.

    Examples
    --------
    >>> import numpy as np, tape
    >>> value, slope = tape.jvp(np.sin, 0.0, 2.0)
    >>> float(value), float(slope)
    (0.0, 2.0)
    """
    primals, tangents = _direction(primals, tangents, "jvp")
    run = _run(function, tuple(range(len(primals))), primals, {}, "jvp")
    zero = np.zeros(np.shape(plain(run.value)), getattr(run.value, "dtype", None))
    if not (isinstance(run.value, Tensor) and run.value.requires_grad):
        return run.result(run.value), run.result(zero)
    u = Tensor(np.ones(run.value.shape, run.value.dtype), requires_grad=True)
    back = gradients(run.value, run.variables, u, create_graph=True, allow_unused=True)
    slope = _directional(back, list(leaves(tangents)), [u], run.recorded)[0]
    return run.result(run.value), run.result(zero if slope is None else slope)


def hvp(function: Callable, primals: Any, tangents: Any) -> Any:
    """The Hessian of f times a vector, H v, without making H: built like the first of the primals.

    f returns one number. H v is the gradient of (grad f) . v, since v does not depend on x.

    Parameters
    ----------
    primals, tangents : tuple, or one array for a function of one argument
        The arguments at which H is taken, and v. With several primals, H is that of all of them
        together, and the result is a tuple.

    Examples
    --------
    >>> import numpy as np, tape
    >>> tape.hvp(lambda x: x[0] ** 2 * x[1], np.array([2.0, 3.0]), np.array([1.0, 0.0]))
    array([6., 4.])
    """
    single = not isinstance(primals, tuple) or len(primals) == 1
    primals, tangents = _direction(primals, tangents, "hvp")
    run = _run(function, tuple(range(len(primals))), primals, {}, "hvp")
    if np.size(plain(run.value)) != 1:
        raise ValueError(f"hvp: the function must return one number, got shape "
                         f"{np.shape(plain(run.value))}")
    first: Sequence = [None] * len(run.variables)
    if isinstance(run.value, Tensor) and run.value.requires_grad:
        first = gradients(run.value, run.variables, _ones(run.value), create_graph=True,
                          allow_unused=True)
    found = _directional(first, list(leaves(tangents)), run.variables, run.recorded)
    product = run.like_arguments([np.zeros(x.shape, x.dtype) if p is None else p
                                  for p, x in zip(found, run.variables)])
    return product[0] if single else product


# --- a call of the function ---


def _run(function: Callable, argnum: Argnum, args: tuple, kwargs: dict, caller: str) -> _Run:
    chosen = (argnum,) if isinstance(argnum, int) else tuple(argnum)
    for i in chosen:
        if not -len(args) <= i < len(args):
            raise TypeError(f"{caller}: argnum {i} counts the positional arguments, of which the call "
                            f"has {len(args)}")
    outside = modes.get().recording
    new_args = list(args)
    with enable_grad():
        variables: list[Tensor] = []
        for i in chosen:
            new_args[i] = map_leaves(lambda leaf: _variable(leaf, variables, caller), args[i])
        value = function(*new_args, **kwargs)
    if not isinstance(value, Tensor):
        _check_plain(value, caller)
    for variable in variables:
        if isinstance(variable, _Variable):
            variable.returned = True
    tree = args[argnum] if isinstance(argnum, int) else tuple(args[i] for i in chosen)
    return _Run(value, variables, tree, outside and _depends_on_others(value, variables))


def _variable(leaf: Any, variables: list[Tensor], caller: str) -> Tensor:
    """A Tensor to differentiate by, in the place of an argument."""
    if isinstance(leaf, Tensor) and leaf.requires_grad:
        variable = identity(leaf)                  # its own place on the tape: the walk stops here
    else:
        array = np.asarray(plain(leaf))
        if array.dtype.kind in "biu":
            array = array.astype(np.float64)
        if array.dtype.kind != "f":
            raise TypeError(f"{caller}: derivatives are by real numbers, got "
                            f"{type(leaf).__name__} of dtype {array.dtype}. Choose the argument with "
                            f"argnum=, or leave out of it what is no number.")
        variable = _Variable(array, requires_grad=True)
    variables.append(variable)
    return variable


def _check_plain(value: Any, caller: str) -> None:
    """A result that is no Tensor: constant, or a mistake."""
    if isinstance(value, (list, tuple, dict, type(None), str)):
        raise TypeError(f"{caller}: the function must return one array or number, got "
                        f"{type(value).__name__}. Several are joined by np.stack or np.concatenate.")
    warnings.warn(f"{caller}: the function returned a plain {type(value).__name__}, so its derivative "
                  f"is zero. Does it take .data, or numbers out of its argument?", stacklevel=4)


def _depends_on_others(value: Any, variables: list[Tensor]) -> bool:
    """Whether a value depends on Tensors that want a gradient, apart from variables of ended calls."""
    if any(x._record is not None for x in variables):         # they stand for such Tensors
        return True
    if not getattr(value, "requires_grad", False):
        return False
    parents = [value] if value._record is None else [
        parent for record in records_behind([value._record]) for parent in record.parents]
    return any(not getattr(parent, "returned", False) for parent in parents
               if parent is not None and type(parent) is not Record)


def _directional(outputs: Sequence, tangents: Sequence, by: list, recorded: bool) -> Sequence:
    """The gradient of sum(output * tangent); None where nothing is left to differentiate."""
    pairs = [(out, _fitting(v, out)) for out, v in zip(outputs, tangents)
             if out is not None and out.requires_grad]
    if not pairs:
        return [None] * len(by)
    return gradients([out for out, _ in pairs], by, [v for _, v in pairs], create_graph=recorded,
                     allow_unused=True)


def _fitting(tangent: Any, x: Tensor) -> Any:
    return tangent if isinstance(tangent, Tensor) else np.broadcast_to(
        np.asarray(tangent, x.dtype), np.shape(tangent))


def _direction(primals: Any, tangents: Any, caller: str) -> tuple[tuple, tuple]:
    """Primals and tangents as tuples that belong to each other."""
    if not isinstance(primals, tuple):
        primals, tangents = (primals,), (tangents,)
    shapes = [[np.shape(plain(leaf)) for leaf in leaves(tree)] for tree in (primals, tangents)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{caller}: each tangent must have the shape of its primal, {shapes[0]}; got "
                         f"{shapes[1]}")
    return primals, tuple(tangents)


def _ones(value: Any) -> Any:
    return np.ones(np.shape(plain(value)), getattr(value, "dtype", None))


def _one_hot(i: int, shape: tuple, dtype: Any) -> np.ndarray:
    seed = np.zeros(shape, dtype)
    seed.reshape(-1)[i] = 1
    return seed


def _named(derivative: Callable, kind: str, function: Callable) -> Callable:
    derivative.__name__ = f"{kind}_of_{getattr(function, '__name__', 'function')}"
    derivative.__doc__ = f"{kind} of {getattr(function, '__name__', function)!s}."
    return derivative
