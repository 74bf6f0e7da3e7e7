"""`Evaluator`: computes nodes from arrays, by a plan that is made once."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

import numpy as np

from tape.lazy.gradients import topological_sort
from tape.lazy.node import Node, Variable, as_nodes
from tape.lazy.schedule import Plan, make_plan
from tape.promotion import retold
from tape.tensor import Tensor


class Evaluator:
    """Computes nodes. Everything that does not depend on the arrays is settled here, once.

    The plan holds the order of the calls, and after which of them each value is no longer needed
    and is let go. Nodes that none of `eval_nodes` depends on are left out; equal subexpressions are
    computed once.

    Parameters
    ----------
    eval_nodes : list of Node
        What `run` returns.

    Examples
    --------
    >>> import numpy as np
    >>> import tape.lazy as ad
    >>> x, y = ad.Variable("x"), ad.Variable("y")
    >>> evaluator = ad.Evaluator([x * y, x - y])
    >>> evaluator.run({x: np.array([3.0, 4.0]), y: np.array([2.0, 1.0])})
    [array([6., 4.]), array([1., 3.])]
    """

    def __init__(self, eval_nodes: Iterable[Node]):
        self.eval_nodes = as_nodes(eval_nodes, "Evaluator")
        self._graph = frozenset(topological_sort(self.eval_nodes))
        self._plans: dict[frozenset[Node], Plan] = {frozenset(): make_plan(self.eval_nodes)}

    def run(self, input_values: Mapping[Node, Any]) -> list[np.ndarray]:
        """The values of ``eval_nodes``, in their order.

        Parameters
        ----------
        input_values : dict of Node to array
            Every Variable that is needed. Any other node can be fed too: the array then takes the
            place of what the node would compute. Nodes that play no part are ignored.

        Returns
        -------
        list of numpy.ndarray
            They share memory neither with each other nor with what was fed.

        Raises
        ------
        ValueError
            A Variable is missing (the message lists every missing one). Also what an operator
            raises, with the name of the node and the shapes that met there.
        TypeError
            A key is no Node, or a value no array of numbers.
        """
        plan = self._plan_for(input_values)
        missing = [node.name for node in plan.feeds if node not in input_values]
        if missing:
            raise ValueError(f"run: each Variable that is needed must be fed an array; not fed: "
                             f"{', '.join(missing)}")
        values = plan.start.copy()
        fed = _settled([_as_fed(node, input_values[node]) for node in plan.feeds])
        for slot, value in zip(plan.feeds.values(), fed):
            values[slot] = value if value.ndim else value[()]       # a scalar, as on the tape
        given = [value for value in values if isinstance(value, np.ndarray)]
        with np.errstate(all="ignore"):           # infinities and NaN are values, as in backward()
            try:
                for function, sources, target, dead, node in plan.steps:
                    values[target] = function(*[values[i] for i in sources])
                    for i in dead:
                        values[i] = None
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                raise _located(error, node, [values[i] for i in sources]) from error
        return _owned([values[slot] for slot in plan.outputs], given)

    def __reduce__(self) -> tuple:
        return Evaluator, (self.eval_nodes,)       # the plan, which is made of functions, is made anew

    def _plan_for(self, input_values: Mapping[Node, Any]) -> Plan:
        """The plan for feeding these nodes; a new one only where other inner nodes are fed."""
        if not isinstance(input_values, Mapping):
            raise TypeError(f"run: must be given a dict of Nodes and their arrays, got "
                            f"{type(input_values).__name__}")
        for node in input_values:
            if not isinstance(node, Node):
                raise TypeError(f"run: what is fed must be named by its Node, got the key {node!r} of "
                                f"type {type(node).__name__}")
        inner = frozenset(node for node in input_values
                          if not isinstance(node, Variable) and node in self._graph)
        if inner not in self._plans:
            self._plans[inner] = make_plan(self.eval_nodes, inner)
        return self._plans[inner]


def _settled(fed: list) -> list[np.ndarray]:
    """Python's floats are weak: they take the dtype of the arrays of floats that are fed with them."""
    floats = [x.dtype for x in fed if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    weak = np.result_type(*floats) if floats else np.float64
    return [np.asarray(x, weak) if type(x) is float else x for x in fed]


def _as_fed(node: Node, value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return np.asarray(value)         # of a subclass too: a matrix has another idea of x * y
    if type(value) is float:
        return value                                 # see `_settled`
    if isinstance(value, (int, np.bool_, np.integer, np.floating)):
        return np.asarray(value)
    hint = "; feed its .data" if isinstance(value, Tensor) else "; np.array(...) makes one"
    kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"run: {node.name} must be fed an array of real numbers, got {kind}{hint}")


def _located(error: Exception, node: Node, values: list) -> Exception:
    """The error that an operator raised, with the node, the operator and the shapes."""
    shapes = ", ".join(str(np.shape(value)) for value in values[:8] if hasattr(value, "dtype"))
    text = str(error).rstrip().removeprefix(f"{node.op.name}: ")
    return retold(error, f"run: node {node.name}, operator {node.op.name}: {text} "
                         f"(inputs of shape {shapes})")


def _owned(values: list, given: list[np.ndarray]) -> list[np.ndarray]:
    """Results as arrays that share memory with nothing, copied where that takes a copy."""
    seen = {id(_memory(array)) for array in given}
    arrays = []
    for value in values:
        array = np.asarray(value)
        memory = _memory(array)
        if (id(memory) in seen or memory.base is not None or memory.size != array.size
                or not array.flags.writeable):
            array = memory = array.copy()
        seen.add(id(memory))
        arrays.append(array)
    return arrays


def _memory(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory that a view looks at."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
