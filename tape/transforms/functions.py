"""Derivatives of Python functions: a function goes in, a function comes out.

    grad(f), value_and_grad(f)      the gradient, of one number
    elementwise_grad(f)             the derivative of each result by the argument in its place
    jacobian(f), hessian(f)         all first, all second derivatives
    vjp, jvp, hvp                   their products with a vector, without making the matrix

The functions are written with NumPy. An argument is an array, a number, or a list, tuple or dict of
them, at any depth; a derivative is built like the argument, of its dtype (a Python number counts as
float64, as in NumPy). What is given arrays returns arrays. Where the value depends on Tensors that
want a gradient (inside another of these functions, or on a model's parameters), the result is
recorded and can be differentiated in its turn. ``f`` is called once and must not change its arguments:
inside it they are results of the tape, of which ``x += y`` makes a new one, as ``x = x + y`` does.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from tape.grad_mode import modes
from tape.transforms.gradients import gradients
from tape.ops.joining import stack
from tape.ops.shapes import reshape
from tape.promotion import plain
from tape.tensor import Tensor
from tape.trees import leaves, matching_leaves
from tape.transforms.variables import Argnum, Run, run_on_variables


def grad(outputs: Any, inputs: Any = None, grad_outputs: Any = None, *, argnum: Argnum = 0,
         create_graph: bool = False, retain_graph: bool | None = None,
         allow_unused: bool = False) -> Any:
    """Gradients as values: ``grad(y, x)`` of recorded results, ``grad(f)`` of a function.

    ``grad(y, x)`` is dL/dx for each input x, where L is the sum of the outputs; no ``.grad`` changes.
    ``grad(f)``, or ``grad(f, argnum)``, is the function that returns the gradient of f, which returns
    one number, by its positional argument number `argnum` (or by several, as a tuple). Where f uses
    Tensors that want a gradient, as the parameters of a model, what it returns is recorded: a Tensor,
    of which ``.numpy()`` is the array; under `no_grad` it is an array.

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
    >>> float(grad(grad(cube))(3.0))
    18.0
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
        run = run_on_variables(function, argnum, args, kwargs, "grad")
        if np.size(plain(run.value)) != 1:
            raise ValueError(
                f"grad: the function must return one number, got shape {np.shape(plain(run.value))}. "
                f"For all derivatives of all elements use jacobian; if each depends on the argument "
                f"in its own place alone, elementwise_grad.")
        seed = np.ones(run.value.shape, run.value.dtype) if isinstance(run.value, Tensor) else None
        return run.result(run.value), run.like_arguments(run.pull(seed))
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
        run = run_on_variables(function, argnum, args, kwargs, "elementwise_grad")
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
        run = run_on_variables(function, argnum, args, kwargs, "jacobian")
        shape, dtype = np.shape(plain(run.value)), getattr(run.value, "dtype", None)
        rows = [run.pull(_one_hot(i, shape, dtype)) for i in range(int(np.prod(shape)))]
        blocks = []
        for j, x in enumerate(run.variables):
            if run.recorded and rows:
                block = reshape(stack([row[j] for row in rows]), (*shape, *x.shape))
            else:
                block = np.array([plain(row[j]) for row in rows], x.dtype).reshape((*shape, *x.shape))
            blocks.append(block)
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
        if np.iterable(argnum) or argnum < len(args) and isinstance(
                args[argnum], (list, tuple, dict)):
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
    run = run_on_variables(function, tuple(range(len(primals))), primals, {}, "vjp")

    def pull(cotangent: Any) -> Any:
        along = _along(run, [cotangent])
        return along.like_arguments(along.pull(cotangent))
    value = run.result(run.value)          # an array of the tape, which `pull` needs as it is
    return value if run.recorded else np.array(value)[()], pull


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
    primals, vectors = _direction(primals, tangents, "jvp")
    run = run_on_variables(function, tuple(range(len(primals))), primals, {}, "jvp")
    zero = np.zeros(np.shape(plain(run.value)), getattr(run.value, "dtype", None))
    if not (isinstance(run.value, Tensor) and run.value.requires_grad):
        return run.result(run.value), run.result(zero)
    u = Tensor(np.ones(run.value.shape, run.value.dtype), requires_grad=True)
    back = gradients(run.value, run.variables, u, create_graph=True, allow_unused=True)
    along = _along(run, vectors)
    slope = _directional(back, vectors, [u], along.recorded)[0]
    return run.result(run.value), along.result(zero if slope is None else slope)


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
    primals, vectors = _direction(primals, tangents, "hvp")
    run = run_on_variables(function, tuple(range(len(primals))), primals, {}, "hvp")
    if np.size(plain(run.value)) != 1:
        raise ValueError(f"hvp: the function must return one number, got shape "
                         f"{np.shape(plain(run.value))}")
    first: Sequence = [None] * len(run.variables)
    if isinstance(run.value, Tensor) and run.value.requires_grad:
        first = gradients(run.value, run.variables, _ones(run.value), create_graph=True,
                          allow_unused=True)
    along = _along(run, vectors)
    found = _directional(first, vectors, run.variables, along.recorded)
    product = along.like_arguments([np.zeros(x.shape, x.dtype) if p is None else p
                                    for p, x in zip(found, run.variables)])
    return product[0] if single else product


# --- vectors ---


def _along(run: Run, vectors: Sequence) -> Run:
    """The run as it is multiplied by vectors: recorded too where one of them wants a gradient."""
    wanted = any(isinstance(v, Tensor) and v.requires_grad for v in vectors)
    return run._replace(recorded=run.recorded or wanted and modes.get().recording)


def _directional(outputs: Sequence, tangents: Sequence, by: list, recorded: bool) -> Sequence:
    """The gradient of sum(output * tangent); None where nothing is left to differentiate."""
    pairs = [(out, v if isinstance(v, Tensor) else np.asarray(v, out.dtype))
             for out, v in zip(outputs, tangents)
             if out is not None and out.requires_grad]
    if not pairs:
        return [None] * len(by)
    return gradients([out for out, _ in pairs], by, [v for _, v in pairs], create_graph=recorded,
                     allow_unused=True)


def _direction(primals: Any, tangents: Any, caller: str) -> tuple[tuple, list]:
    """The primals as a tuple, and of the tangents, which are built like them, the leaves in order."""
    if not isinstance(primals, tuple):
        primals, tangents = (primals,), (tangents,)
    try:
        vectors = list(matching_leaves(tangents, primals))
    except ValueError as error:
        raise ValueError(f"{caller}: the tangents must be built like the primals: {error}") from None
    shapes = [[np.shape(plain(leaf)) for leaf in found] for found in (leaves(primals), vectors)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{caller}: each tangent must have the shape of its primal, {shapes[0]}; got "
                         f"{shapes[1]}")
    return primals, vectors


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
