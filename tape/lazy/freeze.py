"""`from_tape`: the static graph of what an eager run recorded."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

import numpy as np

from tape.engine import Record, check_guards
from tape.lazy.node import Node, Variable, constant
from tape.lazy.kinds import op_of
from tape.tensor import Tensor


def from_tape(output: Tensor, inputs: Mapping[str, Any] | Iterable[Any]) -> tuple[Node, Any]:
    """Freeze what was recorded behind `output` into a graph whose `inputs` can be fed anew.

    Parameters
    ----------
    output : Tensor
        Of a recorded operation, whose tape has not been released by ``backward()``.
    inputs : dict of str to (Tensor or array), or a sequence of them
        What becomes a Variable: leaves (parameters, data), results on the way, or arrays that were
        operands, such as the ids of an embedding and the targets of a loss. In a dict the keys name
        the variables.

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
        The tape was released.
    TypeError
        The output is no Tensor, or the inputs are not several.

    Notes
    -----
    The graph is the list of operators that ran. What the program took from its data outside of
    them is part of it: Python's branches and loops, shapes, indices, comparisons (``t > 0`` is an
    array), dropout masks, and whatever ran on tensors none of which required a gradient. Leaves that
    are not among `inputs` become constants, with the values that they have now.

    The tape of a gradient (``grad(..., create_graph=True)``) can be frozen too, but there the rules
    themselves compare: the masks of relu, max, where and clip and the targets of cross_entropy are
    part of the program. Freeze the result instead, and differentiate it with `gradients`.

    Examples
    --------
    >>> import numpy as np, tape
    >>> import tape.lazy as ad
    >>> w = tape.Tensor([1.0, 2.0], requires_grad=True)
    >>> x = np.array([3.0, 4.0], np.float32)
    >>> node, feed = ad.from_tape((w * x).sum(), {"w": w, "x": x})
    >>> (slope,) = ad.gradients(node, [feed["w"]])
    >>> ad.Evaluator([node, slope]).run({feed["w"]: w.data, feed["x"]: 10 * x})
    [array(110., dtype=float32), array([30., 40.], dtype=float32)]
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"from_tape: the output must be a Tensor, got {type(output).__name__}")
    if output._record is None:
        raise ValueError("from_tape: the output must be the result of recorded operations: some input "
                         "of it with requires_grad=True, and not under no_grad")
    if isinstance(inputs, (Tensor, np.ndarray)) or not isinstance(inputs, Iterable):
        raise TypeError(f"from_tape: inputs must be a dict or a list of tensors and arrays, got "
                        f"{type(inputs).__name__}")
    named = dict(inputs) if isinstance(inputs, Mapping) else {
        f"input{i}": value for i, value in enumerate(inputs)}
    variables = {name: Variable(name) for name in named}
    given = _Given(named, variables)
    made: dict[Any, Node] = {}
    for record in _records(output._record, given):
        variable = given.find(record)
        made[record] = variable if variable is not None else Node(
            _operands(record, made, given), op_of(record.plan.operator), record.attributes)
    unused = [name for name in named if name not in given.used]
    if unused:
        raise ValueError(f"from_tape: not on the tape of this output: {', '.join(unused)}. Give the "
                         f"very tensor or array that was an operand, not a copy or a slice of it. Data "
                         f"on which operations run before it meets a parameter is on the tape if it "
                         f"is a Tensor with requires_grad=True.")
    return made[output._record], variables if isinstance(inputs, Mapping) else list(variables.values())


class _Given:
    """The inputs that become variables, and how they are recognised on the tape."""

    def __init__(self, named: dict[str, Any], variables: dict[str, Variable]):
        self.variables = variables
        self.used: set[str] = set()
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


def _memory_key(value: Any) -> Any:
    """What two views of the same memory, and a tensor and its array, have in common."""
    if isinstance(value, Tensor):
        value = value._record or value._data
    if isinstance(value, np.ndarray):
        return (value.__array_interface__["data"], value.shape, value.strides, value.dtype.str)
    return value if isinstance(value, Record) else id(value)


def _records(last: Record, given: _Given) -> list[Record]:
    """The records behind one, oldest first; not behind those that are inputs. No recursion."""
    found, stack = {last}, [last]
    while stack:
        record = stack.pop()
        if given.find(record) is not None:
            continue
        if record.saved is None:
            raise RuntimeError(f"from_tape: the tape was already released at {record.name}. Freeze it "
                               f"before backward(), or call backward(retain_graph=True).")
        for parent in (*record.parents, *_recorded_constants(record)):
            if type(parent) is Record and parent not in found:
                found.add(parent)
                stack.append(parent)
    return sorted(found, key=lambda record: record.position)


def _recorded_constants(record: Record) -> list[Record]:
    """Operands without a derivative (a condition, say) that were themselves recorded."""
    return [constant[0]._record for constant in record.constants or ()
            if type(constant) is tuple and isinstance(constant[0], Tensor) and constant[0]._record]


def _operands(record: Record, made: dict[Any, Node], given: _Given) -> list[Node]:
    check_guards(record)
    constants = iter(record.constants or ())
    operands = []
    for parent in record.parents:
        if type(parent) is Record:
            operands.append(made[parent])
        elif parent is not None:
            operands.append(_leaf(parent, parent._data, made, given))
        else:
            number_or_pair: Any = next(constants)
            if type(number_or_pair) is tuple:
                value, array = number_or_pair
                operands.append(_leaf(value, array, made, given))
            else:
                operands.append(constant(number_or_pair))
    return operands


def _leaf(value: Any, array: Any, made: dict[Any, Node], given: _Given) -> Node:
    """An operand that was no result: a variable, or the constant that it is from now on."""
    if isinstance(value, Tensor) and value._record is not None:
        return made[value._record]
    variable = given.find(value)
    if variable is not None:
        return variable
    key = id(array)           # of the array that was used: what `value` holds may have changed since
    if key not in made:
        made[key] = constant(np.array(array) if isinstance(array, (np.ndarray, np.generic)) else array)
    return made[key]
