"""`trace` and `from_tape`: the static graph of what an eager run recorded."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping

import numpy as np

from tape import mutation
from tape.engine import Record, parents_of, records_behind
from tape.grad_mode import enable_grad, mode
from tape.lazy.node import Node, Variable
from tape.lazy.tape_ops import as_node, constant, op_of
from tape.ops.arithmetic import stop_gradient
from tape.tensor import Tensor


def tracing(function: Callable | None = None) -> Any:
    """Record whole calls, so that `from_tape` can freeze them; used like `tape.no_grad`.

    An ordinary tape keeps what derivatives need and nothing else. In this mode it also keeps each
    call's other operands, copied where they may change, and its attributes.
    """
    return mode("tracing", True, function)


def trace(function: Callable, inputs: Mapping[str, Any] | Iterable[Any],
          parameters: Mapping[str, Tensor] | None = None,
          allow_unused: bool = False) -> tuple[Any, Any]:
    """Run `function` once on `inputs`, and freeze what it did into a graph that can be fed anew.

    Parameters
    ----------
    function : callable
        Takes `inputs`, by name if they are a dict; returns a Tensor or several. It is given arrays of
        floats as Tensors that are recorded, and other arrays (ids, targets, masks) as they are.
    inputs : dict of str to (Tensor or array), or a sequence of them
        What becomes a Variable.
    parameters : dict of str to Tensor, optional
        Tensors that the function uses by itself and that are to be Variables too, such as
        ``dict(model.named_parameters())``. All others become constants, with their present values.
    allow_unused : bool
        Return a Variable also for an input that plays no part in the graph, instead of raising.

    Returns
    -------
    nodes : Node or list of Node
        What computes the results of the function.
    variables : dict of str to Variable, or list of Variable
        As `inputs` was given; those of the parameters behind them.

    Raises
    ------
    ValueError
        A result does not depend on any input, or an input plays no part.
    TypeError
        The function returned something other than Tensors.

    Notes
    -----
    The graph is the list of operators that ran. What the program took from its data outside of them
    is part of it: Python's branches and loops, shapes, comparisons (``t > 0`` is an array), numbers
    taken out (``t.item()``, ``t.data``, ``t.grad``), gradients taken without ``create_graph=True``,
    dropout masks, integer arrays that serve as an index (``x[ids]``; an `embedding` looks ids up in
    the graph), and what plain NumPy made of arrays that are not of floats. What ran under ``no_grad``
    or was detached is in the graph, without a gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import tape.lazy as ad
    >>> node, (x,) = ad.trace(lambda x: (x * x).sum(), [np.array([1.0, 2.0])])
    >>> (slope,) = ad.gradients(node, [x])
    >>> ad.Evaluator([node, slope]).run({x: np.array([3.0, 4.0])})
    [array(25.), array([6., 8.])]
    """
    named = _named(inputs, "trace")
    parameters = dict(parameters or {})
    twice = sorted(named.keys() & parameters.keys())
    if twice:
        raise ValueError(f"trace: inputs and parameters must have names of their own; both have "
                         f"{', '.join(twice)}")
    given = {name: _recorded(name, value) for name, value in named.items()}
    with tracing(), enable_grad():
        if isinstance(inputs, Mapping):
            result = function(**given)
        else:
            result = function(*given.values())
    outputs = list(result) if isinstance(result, (list, tuple)) else [result]
    nodes, variables = _freeze(outputs, {**given, **parameters}, "trace", allow_unused)
    return (nodes if isinstance(result, (list, tuple)) else nodes[0],
            variables if isinstance(inputs, Mapping) else list(variables.values()))


def _recorded(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.requires_grad or value.dtype.kind != "f" else Tensor(
            value, requires_grad=True)
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"trace: inputs must be Tensors or arrays; {name} is a {type(value).__name__}. "
                        f"What is no array is part of the program: let the function close over it.")
    array = np.array(value)
    return Tensor(array, requires_grad=True) if array.dtype.kind == "f" else array


def from_tape(output: Tensor, inputs: Mapping[str, Any] | Iterable[Any],
              allow_unused: bool = False) -> tuple[Node, Any]:
    """Freeze what was recorded behind `output`, inside ``with tracing():``, into a graph.

    Parameters
    ----------
    output : Tensor
        Of a recorded operation, whose tape has not been released by ``backward()``.
    inputs : dict of str to (Tensor or array), or a sequence of them
        What becomes a Variable: leaves (parameters, data), intermediate results, or arrays that were
        operands, such as the ids of an embedding and the targets of a loss. In a dict the keys name
        the variables.
    allow_unused : bool
        Return a Variable also for an input that plays no part in the graph, instead of raising.

    Returns
    -------
    node : Node
        What computes `output`.
    variables : dict of str to Variable, or list of Variable
        As `inputs` was given.

    Raises
    ------
    ValueError
        Nothing was recorded, or an input plays no part in it.
    RuntimeError
        The run was not traced, or the tape was released.
    TypeError
        The output is no Tensor, or the inputs are not several.

    Notes
    -----
    What the graph is, and what is part of it, is said at `trace`. Here, operations on tensors none of
    which required a gradient are part of the program too. Operands that are not among `inputs` become
    constants, with the values that they had in the run.

    The tape of a gradient (``grad(..., create_graph=True)``) can be frozen too, but there the rules
    themselves compare: the masks of max, where and clip and the targets of cross_entropy are
    part of the program. Freeze the result instead, and differentiate it with `gradients`.

    Examples
    --------
    >>> import numpy as np, tape
    >>> import tape.lazy as ad
    >>> w = tape.Tensor([1.0, 2.0], requires_grad=True)
    >>> x = np.array([3.0, 4.0], np.float32)
    >>> with ad.tracing():
    ...     out = (w * x).sum()
    >>> node, feed = ad.from_tape(out, {"w": w, "x": x})
    >>> (slope,) = ad.gradients(node, [feed["w"]])
    >>> ad.Evaluator([node, slope]).run({feed["w"]: w.data, feed["x"]: 10 * x})
    [array(110., dtype=float32), array([30., 40.], dtype=float32)]
    """
    (node,), variables = _freeze([output], _named(inputs, "from_tape"), "from_tape", allow_unused)
    return node, variables if isinstance(inputs, Mapping) else list(variables.values())


def _named(inputs: Any, caller: str) -> dict[str, Any]:
    if isinstance(inputs, (Tensor, np.ndarray)) or not isinstance(inputs, Iterable):
        raise TypeError(f"{caller}: inputs must be a dict or a list of tensors and arrays, got "
                        f"{type(inputs).__name__}")
    return dict(inputs) if isinstance(inputs, Mapping) else {
        f"input{i}": value for i, value in enumerate(inputs)}


def _freeze(outputs: list, named: dict[str, Any], caller: str,
            allow_unused: bool) -> tuple[list[Node], dict[str, Variable]]:
    """The nodes of some recorded results, and the variables for the inputs that are named."""
    for output in outputs:
        if not isinstance(output, Tensor):
            raise TypeError(f"{caller}: the output must be a Tensor, got {type(output).__name__}")
        if not output.requires_grad or output._record is None:
            raise ValueError(f"{caller}: the output must be the result of recorded operations: some "
                             f"input of it with requires_grad=True, and not under no_grad")
    variables = {name: Variable(name) for name in named}
    given = _Given(named, variables)
    made: dict[Any, Node] = {}
    for record in _records([output._record for output in outputs], given):
        variable = given.find(record)
        made[record] = variable if variable is not None else _node_of(record, made, given)
    unused = [name for name in named if name not in given.used]
    if unused and not allow_unused:
        raise ValueError(f"{caller}: not on the tape of this output: {', '.join(unused)}. Give the "
                         f"very tensor or array that was an operand, not a copy or a slice of it. Data "
                         f"on which operations run before it meets a parameter is on the tape if it "
                         f"is a Tensor with requires_grad=True.")
    return [made[output._record] for output in outputs], variables


def _node_of(record: Record, made: dict[Any, Node], given: _Given) -> Node:
    operator = record.vjp.operator
    node = Node(_operands(record, made, given), op_of(operator), record.call[1])
    cut_off = operator.differentiable and all(parent is None for parent in record.parents)
    return stop_gradient(node) if cut_off else node       # it ran under no_grad


class _Given:
    """The inputs that become variables, and how they are recognised on the tape."""

    def __init__(self, named: dict[str, Any], variables: dict[str, Variable]):
        self.variables = variables
        self.used: set[str] = set()
        self._states: dict[Variable, Any] = {}
        self._names: dict[Any, str] = {}
        for name, value in named.items():
            other = self._names.setdefault(_memory_key(value), name)
            if other != name:
                raise ValueError(f"from_tape: {other} and {name} are the same array, so the tape "
                                 f"cannot tell them apart. Run the model on a copy of one of them.")

    def find(self, value: Any) -> Variable | None:
        """The variable for a record, or for an operand as it was given, if that is an input."""
        name = self._names.get(_memory_key(value))
        if name is None:
            return None
        self.used.add(name)
        return self.variables[name]

    def check_unchanged(self, variable: Variable, array: Any) -> None:
        """Refuse an input that had other values at another use, since a variable has one."""
        state = mutation.checksum(np.asarray(array, np.float64))      # integers may have become floats
        if self._states.setdefault(variable, state) != state:
            raise RuntimeError(f"from_tape: the input {variable.name} was changed in place during the "
                               f"run, between two uses. Compute a new array instead.")


def _memory_key(value: Any) -> Any:
    """What two views of the same memory, and a tensor and its array, have in common."""
    if isinstance(value, Tensor):
        value = value._record or value._data
    if isinstance(value, np.ndarray):
        return (value.__array_interface__["data"], value.shape, value.strides, value.dtype.str)
    return value if isinstance(value, Record) else id(value)


def _records(last: list[Record], given: _Given) -> list[Record]:
    """The records behind some, in the order in which they ran; not behind those that are inputs."""
    def inputs_of(record: Record) -> list[Record]:
        if given.find(record) is not None:
            return []
        if record.saved is None:
            raise RuntimeError(f"from_tape: the tape was already released at {record.name}. Freeze it "
                               f"before backward(), or call backward(retain_graph=True).")
        if record.call is None:
            raise RuntimeError(f"from_tape: {record.name} was not traced, so its other operands are "
                               f"not known. Run it inside `with tape.lazy.tracing():`, or use "
                               f"tape.lazy.trace(function, inputs).")
        return [*parents_of(record), *_recorded_constants(record)]
    return records_behind(last, inputs_of)


def _recorded_constants(record: Record) -> list[Record]:
    """Operands without a derivative (a condition, say) that were themselves recorded."""
    return [operand[0]._record for operand in record.call[0]
            if type(operand) is tuple and isinstance(operand[0], Tensor) and operand[0]._record]


def _operands(record: Record, made: dict[Any, Node], given: _Given) -> list[Node]:
    mutation.check(record)
    operands = []
    for parent, operand in zip(record.parents, record.call[0]):
        if type(parent) is Record:
            operands.append(made[parent])
        elif type(operand) is tuple:
            operands.append(_leaf(operand[0], operand[1], made, given))
        else:
            operands.append(constant(operand))
    return operands


def _leaf(value: Any, array: Any, made: dict[Any, Node], given: _Given) -> Node:
    """An operand that was no result: a variable, or the constant that it was in the run."""
    if isinstance(value, Tensor) and value._record is not None:
        return made[value._record]
    variable = given.find(value)
    if variable is not None:
        given.check_unchanged(variable, array)
        return variable
    if not hasattr(array, "dtype"):           # a number, or an optional input that was not given
        return constant(array)
    array = np.asarray(array)
    if isinstance(value, (list, tuple)):
        return as_node(array.tolist())
    key = (_memory_key(value), array.dtype, array.shape, mutation.checksum(array))
    if key not in made:
        made[key] = constant(array)
    return made[key]
