"""`Node`: a step of a computation that has not run, and `Op`: what kind of step it is.

Where a Tensor is an array that remembers how it was made, a Node knows how it will be made, and has
no array. It speaks the same protocols as a Tensor (Python's operators, NumPy's functions, tape's
operators), so the very rules that differentiate Tensors build, on Nodes, the graph of the gradient.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import threading
from operator import attrgetter
from typing import Any, Callable, Collection, Iterable, Iterator, Mapping, Sequence

from tape import numpy_protocol, ops
from tape.comparison import Comparison
from tape.interop import on_arrays
from tape.ops import arithmetic
from tape.primitive import NUMPY_FUNCTIONS
from tape.topological import topological_order

_next_position = itertools.count().__next__
LONGEST_NAME = 60
REQUIRED = inspect.Parameter.empty         # the default of an attribute that must be given
# Of tape's operators, those that read the shape of an operand, which a node does not have yet.
NOT_ON_NODES = {"dot": "the product of two nodes is x @ y",
                "dropout": "multiply by a mask that is fed, already divided by 1 - p",
                **dict.fromkeys((
                    "average", "block", "broadcast_arrays", "column_stack", "corrcoef", "cov",
                    "gradient", "hsplit", "hstack", "meshgrid", "unstack"),
                    "it reads the shape of its operand, which a node has when it runs"),
                **dict.fromkeys(("inner", "kron", "tensordot"), "write it as an einsum")}
_VALUE = {"shape", "dtype", "ndim", "size", "data", "grad", "T", "numpy", "item", "tolist"}


class Op:
    """A kind of step. One object of it serves all nodes of the kind.

    A new kind is a subclass with three methods: ``__call__``, which makes a Node; `compute`; and
    `gradient`. Tape's own operators need none: given a Node they make one.
    """

    symbol = ""
    name = ""                  # what errors, names of nodes and `show` call it
    takes: Mapping[str, Any] = {}      # the attributes of a node of this kind, with their defaults

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        """A Node of this kind."""
        raise NotImplementedError(f"{self.name}: __call__ is not defined")

    def compute(self, node: Node, input_values: list) -> Any:
        """The value of `node`, given the values of its inputs."""
        raise NotImplementedError(f"{self.name}: compute is not defined")

    def gradient(self, node: Node, output_grad: Node) -> list[Node]:
        """For each input, a Node of the shape of that input: its part in the gradient.

        Builds graph, computes nothing.
        """
        raise NotImplementedError(f"{self.name}: gradient is not defined")

    def _vjp(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        """`gradient` for the inputs numbered in `wanted`; leaves out those that have none.

        Where a rule asks for the node's value it gets `out`, if that is given: a composite, which is
        differentiated through its parts, gives itself, so that a value fed in its place is used.
        """
        parts = self.gradient(node, output_grad)
        if not isinstance(parts, (list, tuple)) or len(parts) != len(node.inputs) or not all(
                isinstance(part, Node) for part in parts):
            raise TypeError(f"{self.name}: gradient must return a list with a Node for each of the "
                            f"{len(node.inputs)} inputs of {node.name}; got {parts!r:.200}")
        return {i: parts[i] for i in wanted}

    def formula(self, names: list[str], attrs: dict) -> str:
        """How a node of this kind reads, given the names of its inputs."""
        if self.symbol:
            return f"({self.symbol.join(names)})"
        return f"{self.name}({', '.join(names)})"

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class BuiltIn(Op):
    """An Op of the package's own. A `singleton` is copied and pickled by its name.

    `compute` is there for programs that evaluate a graph node by node; an `Evaluator` schedules calls
    of tape's operators themselves. A kind defines `value_of`, the same on arrays.
    """

    def compute(self, node: Node, input_values: list) -> Any:
        """The value of `node`, given those of its inputs: arrays, or tensors of PyTorch's."""
        return on_arrays(lambda values: self.value_of(node, values), input_values, self.name)

    def value_of(self, node: Node, input_values: list) -> Any:
        """`compute` on arrays."""
        raise NotImplementedError

    def gradient(self, node: Node, output_grad: Node) -> list[Node]:
        found = self._vjp(node, output_grad, range(len(node.inputs)))
        return [found[i] if i in found else ops.zeros_like(x) for i, x in enumerate(node.inputs)]

    def _vjp(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        return {}

    def attributes(self, attrs: dict) -> dict:
        """Those of a node's attributes that the operator takes; a user may have put others there."""
        return {name: value for name, value in attrs.items() if name in self.takes}

    def __copy__(self) -> BuiltIn:
        return self

    def __deepcopy__(self, memo: dict) -> BuiltIn:
        return self

    def __reduce__(self) -> tuple:
        return _singleton_named, (self.name,)


_SINGLETONS: dict[str, BuiltIn] = {}


def _singleton_named(name: str) -> BuiltIn:
    return _SINGLETONS[name]


def singleton(op: BuiltIn) -> BuiltIn:
    """The one Op of its name."""
    _SINGLETONS[op.name] = op
    return op


class Node:
    """One step of a static graph.

    Parameters
    ----------
    inputs : sequence of Node
    op : Op
    attrs : dict, optional
        What the step needs besides its inputs. Each can be read as a field: ``node.dim``.
    name : str, optional
        By default a formula such as ``(x+y)`` while that is short; then the operator and a number.

    Examples
    --------
    >>> import numpy as np
    >>> import tape.lazy as ad
    >>> x = ad.Variable("x")
    >>> y = x * x + 1
    >>> (slope,) = ad.gradients(y, [x])
    >>> ad.Evaluator([y, slope]).run({x: np.array([1.0, 2.0])})
    [array([2., 5.]), array([2., 4.])]
    """

    def __init__(self, inputs: Iterable[Node], op: Op, attrs: dict | None = None, name: str = ""):
        if not isinstance(op, Op):
            raise TypeError(f"Node: op must be an Op, got {op!r:.80}")
        if isinstance(inputs, Node):
            raise TypeError(f"Node of {op.name}: inputs must be a list of Nodes, got {inputs.name}")
        self.inputs = as_nodes(inputs, f"Node of {op.name}")
        self.op = op
        self.attrs = dict(attrs or {})
        missing = [name for name, default in op.takes.items()
                   if default is REQUIRED and name not in self.attrs]
        if missing:
            raise ValueError(f"Node of {op.name}: attrs must have {', '.join(missing)}; got "
                             f"{self.attrs}")
        # Inputs come before their users, so that sorting by position is a topological sort.
        self._position = _next_position()
        self.name = name or self._formula()

    def _formula(self) -> str:
        # Never longer than a bound: names made of names would double in each y = y + y.
        formula = self.op.formula([node.name for node in self.inputs[:8]], self.attrs)
        return formula if len(formula) <= LONGEST_NAME else f"{self.op.name}:{self._position}"

    def __getattr__(self, name: str) -> Any:
        attrs = self.__dict__.get("attrs", {})      # not yet there while a copy is being made
        if name in attrs:
            return attrs[name]
        if name in _VALUE:
            raise AttributeError(f"a node has no {name} before it is computed: "
                                 f"Evaluator([node]).run({{...}}) returns its array")
        hint = ""
        if name in NOT_ON_NODES:
            hint = f"; {NOT_ON_NODES[name]}"
        elif name in ops.__all__:
            hint = f"; a node has no methods, write tape.{name}(node)"
        elif name == "backward":
            hint = "; gradients(output, nodes) makes the nodes of the gradient"
        raise AttributeError(f"{self.__dict__.get('name', 'node')} has no field {name!r}; its "
                             f"attributes are {list(attrs)}{hint}")

    def __repr__(self) -> str:
        return self.name

    def __copy__(self) -> Node:
        return rebuilt(*self._parts())

    def __deepcopy__(self, memo: dict) -> Node:
        for node in topological_sort(self):         # inputs first: a deep graph needs no recursion
            if id(node) not in memo:
                cls, inputs, *rest = node._parts()
                copies = [memo[id(x)] for x in inputs]
                memo[id(node)] = rebuilt(cls, copies, *copy.deepcopy(rest, memo))
        return memo[id(self)]

    def _parts(self) -> tuple:
        """What `rebuilt` makes an equal node from."""
        fields = {name: value for name, value in vars(self).items() if name not in _FIELDS}
        return type(self), self.inputs, self.op, self.attrs, self.name, fields

    def __reduce__(self) -> tuple:
        return _unpickled, (_InputsFirst(self), *self._parts())

    # --- Python's operators: tape's own, which meet a Node here and so make a Node ---

    def __add__(self, other): return ops.add(self, other)
    def __radd__(self, other): return ops.add(other, self)
    def __sub__(self, other): return ops.sub(self, other)
    def __rsub__(self, other): return ops.sub(other, self)
    def __mul__(self, other): return ops.mul(self, other)
    def __rmul__(self, other): return ops.mul(other, self)
    def __truediv__(self, other): return ops.div(self, other)
    def __rtruediv__(self, other): return ops.div(other, self)
    def __pow__(self, exponent): return ops.power(self, exponent)
    def __rpow__(self, base): return ops.power(base, self)
    def __matmul__(self, other): return ops.matmul(self, other)
    def __rmatmul__(self, other): return ops.matmul(other, self)
    def __mod__(self, other): return ops.remainder(self, other)
    def __rmod__(self, other): return ops.remainder(other, self)
    def __floordiv__(self, other): return ops.floor_divide(self, other)
    def __rfloordiv__(self, other): return ops.floor_divide(other, self)
    def __neg__(self): return ops.neg(self)
    def __getitem__(self, index): return ops.getitem(self, index)
    def __lt__(self, other): return arithmetic.less(self, other)
    def __le__(self, other): return arithmetic.less_equal(self, other)
    def __gt__(self, other): return arithmetic.greater(self, other)
    def __ge__(self, other): return arithmetic.greater_equal(self, other)

    # == stays what it is for keys of a dict: whether this is the same node. np.equal makes a node.

    __iter__ = None            # node[0], node[1], ... would never end
    __contains__ = None

    def __bool__(self) -> bool:
        """A node is something, and so true; but ``if x > y:`` would never ask for the values."""
        if isinstance(getattr(self.op, "operator", None), Comparison):
            raise TypeError(f"bool: {self.name} is neither true nor false before it is computed. "
                            f"where(condition, x, y) chooses when the graph runs")
        return True

    __tape_apply__: Callable   # set in tape/lazy/tape_ops.py

    # --- NumPy's protocols ---

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__" or kwargs:
            raise TypeError(f"{ufunc.__name__}: of NumPy's ufuncs a node takes plain calls only, got "
                            f"{method} with {list(kwargs)}")
        return _operator_for(ufunc)(*inputs)

    def __array_function__(self, function, types, args, kwargs):
        return _operator_for(function)(*args, **kwargs)

    def __array__(self, dtype=None, copy=None):
        raise TypeError(f"array: {self.name} has no value yet: Evaluator([node]).run({{...}}) returns "
                        f"its array")


def _operator_for(function: Callable) -> Callable:
    if function not in NUMPY_FUNCTIONS:
        raise TypeError(f"{numpy_protocol.full_name(function)} has no operator here. "
                        + numpy_protocol.advice(function, "Evaluator([node]).run({...})"))
    return NUMPY_FUNCTIONS[function]


_FIELDS = {"inputs", "op", "attrs", "name", "_position"}       # others are a user's


def rebuilt(cls: type, inputs: list, op: Op, attrs: dict, name: str, fields: dict) -> Node:
    """A node from what its ``_parts`` gave."""
    node: Node = object.__new__(cls)
    Node.__init__(node, inputs, op, attrs, name)
    vars(node).update(fields)
    return node


def _unpickled(inputs_first: list, *parts: Any) -> Node:
    return rebuilt(*parts)


_pickling = threading.local()


class _InputsFirst:
    """What a node depends on, for pickle: a list that it goes through before the node itself.

    Pickle saves what it has not met yet by recursion, and a graph may be deeper than that can go. In
    this list inputs come before their users, so that each node's inputs are known already.
    """

    def __init__(self, node: Node):
        self.node = node

    def __reduce__(self) -> tuple:
        return list, (), None, self._nodes()

    def _nodes(self) -> Iterator[Node]:
        if not getattr(_pickling, "busy", False):      # the nodes of the list have none of their own
            _pickling.busy = True
            try:
                yield from topological_sort(self.node)[:-1]
            finally:
                _pickling.busy = False


# --- what is fed ---


class Placeholder(BuiltIn):
    """What is fed. Calling it makes a `Variable`."""

    name = "placeholder"

    def __call__(self, name: str) -> Variable:
        return Variable(name)

    def value_of(self, node: Node, input_values: list) -> Any:
        raise ValueError(f"placeholder: the variable {node.name} was not fed; give run() an array for "
                         f"it")


placeholder = singleton(Placeholder())


class Variable(Node):
    """An input of the graph, which has no shape until it is fed."""

    def __init__(self, name: str):
        if not isinstance(name, str) or not name:
            raise TypeError(f"Variable: the name must be a text such as 'x', got {name!r:.80}")
        super().__init__([], placeholder, name=name)


# --- graphs ---


def topological_sort(nodes: Node | Iterable[Node], stop: Collection[Node] = ()) -> list[Node]:
    """All nodes that `nodes` depend on, and they themselves, each once and inputs before users.

    Nodes in `stop` count as given: what they were made from is left out.
    """
    def inputs_of(node: Node) -> list[Node]:
        if node in stop:
            return []
        for x in node.inputs:
            if x._position >= node._position:
                raise ValueError(f"{node.name}: its input {x.name} is itself or was made after it. The "
                                 f"inputs of a node cannot be exchanged; make a new node.")
        return node.inputs
    return topological_order(as_nodes(nodes, "topological_sort"), inputs_of, attrgetter("_position"))


def as_nodes(nodes: Any, caller: str) -> list[Node]:
    """A node or several as a list, checked; `caller` is who asks for it."""
    if isinstance(nodes, Node):
        return [nodes]
    if not isinstance(nodes, Iterable):
        raise TypeError(f"{caller}: must be given a list of Nodes, got {type(nodes).__name__}")
    found = list(nodes)
    for i, node in enumerate(found):
        if not isinstance(node, Node):
            raise TypeError(f"{caller}: must be given Nodes; number {i} is a {type(node).__name__}")
    return found
