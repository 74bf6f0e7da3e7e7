"""The kinds of step: variables, constants, tape's operators, and composites of several.

There are no derivatives here. A `TapeOp` runs, on Nodes, the rules that stand beside its operator in
``tape/ops``; a `Composite` is differentiated through the operators that it is made of.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any, Callable, Sequence

import numpy as np

from tape import ops
from tape.comparison import Comparison
from tape.cotangents import fit
from tape.interop import as_number, from_torch, is_torch
from tape.kernels import unbroadcast
from tape.lazy.gradients import graph_vjp
from tape.lazy.node import REQUIRED, BuiltIn, Node, singleton
from tape.ops import arithmetic
from tape.ops.fused import recompute
from tape.primitive import Primitive
from tape.promotion import as_python, counted, is_number, plain, promote
from tape.tensor import Tensor


# --- constants ---


class Constant(BuiltIn):
    """A number or an array that stands in the program; ``node.value``."""

    name = "constant"
    takes = {"value": REQUIRED}

    def __call__(self, value: Any) -> Node:
        return Node([], self, {"value": value})

    def value_of(self, node: Node, input_values: list) -> Any:
        return node.value

    def formula(self, names: list[str], attrs: dict) -> str:
        value = attrs["value"]
        return f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)


constant = singleton(Constant())


def is_none(node: Node) -> bool:
    """Whether a node stands for an optional input that is not given."""
    return node.op is constant and node.attrs["value"] is None


def is_weak(node: Node) -> bool:
    """Whether a node is a list of numbers, which take the dtype of the floats beside them."""
    return node.op is constant and "weak" in node.attrs


def as_node(value: Any) -> Node:
    """A Node as it is; a number, an array or a list as a constant node."""
    if isinstance(value, Node):
        return value
    if is_number(value):
        return constant(as_python(value))
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise TypeError("lazy: a tensor that requires a gradient cannot be an operand of a node, "
                            "since its tape would be lost. Feed its .data to a Variable, or turn the "
                            "whole run into a graph with from_tape.")
        value = value.data
    if is_torch(value):
        value = from_torch(value, "lazy")
    if isinstance(value, (list, tuple)) and any(isinstance(item, Node) for item in value):
        raise TypeError("lazy: an operand must be one node, got a list with nodes in it; concat([...]) "
                        "and np.stack([...]) join them")
    array = np.array(value)          # a copy: the caller may change theirs later
    if array.dtype.kind not in "biuf":
        raise TypeError(f"lazy: operands must be nodes, arrays or real numbers; got "
                        f"{type(value).__name__}")
    node = constant(array)
    if isinstance(value, (list, tuple)):
        node.attrs["weak"] = True
    return node


# --- operators made of others ---


class Composite(BuiltIn):
    """Several of tape's operators under one name, which is differentiated through them."""

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        """What it is made of, as a graph on these inputs."""
        raise NotImplementedError

    def _vjp(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        seen: set[Node] = set()
        # An input that occurs twice has two contributions, so its second use needs a node of its own.
        inputs: list[Node] = []
        for x in node.inputs:
            inputs.append(arithmetic.identity(x) if x in seen else x)
            seen.add(x)
        found = graph_vjp(self.expand(inputs, node.attrs), output_grad, [inputs[i] for i in wanted],
                          stop=frozenset(inputs), stands_for=node if out is None else out)
        return {i: found[inputs[i]] for i in wanted if inputs[i] in found}


class KernelGradient(Composite):
    """The gradient of one input of a fused operator, by its backward kernel.

    Inputs: the gradient of the result, then those of the fused operator. Its own derivative is that
    of the composed definition, differentiated twice.
    """

    def __init__(self, operator: Primitive):
        self.operator = operator
        self.name = f"{operator.name}_gradient"
        self.takes = operator.defaults
        # What the forward kernel leaves, `made` below, is its residuals or its result, not both.
        assert not (operator.residuals and "out" in operator.needs[0])

    def __call__(self, output_grad: Node, node: Node, i: int) -> Node:
        return Node([output_grad, *node.inputs], self, {**node.attrs, "input": i})

    def value_of(self, node: Node, input_values: list) -> Any:
        g, *inputs = input_values
        attributes = self.attributes(node.attrs)
        vjp = self.operator.vjp(1)
        i, weak = node.attrs["input"], tuple(map(is_weak, node.inputs[1:]))
        made = _promoted(self.operator, weak, self.operator.forward, *inputs, **attributes)
        made = made[1] if vjp.residuals else made
        gradients = self.backward(g, made, *inputs, vjp=vjp, weak=weak, attributes=attributes)
        return of_input(gradients[i], inputs[i])

    @staticmethod
    def backward(g: Any, made: Any, *inputs: Any, vjp: Any, weak: tuple, attributes: dict) -> Sequence:
        """The gradients of all inputs by a kernel, from what the forward left: residuals or result."""
        operands = _alike(vjp.operator, weak, inputs)
        saved = vjp.bind(operands, made, attributes, made if vjp.residuals else None)
        return vjp.joint_gradients(g, saved, len(inputs))

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        g, *rest = inputs
        x = rest[attrs["input"]]
        given: Sequence = [None if is_none(node) else node for node in rest]
        out = recompute(self.operator, given, self.attributes(attrs))
        found = graph_vjp(out, arithmetic.widened(g), [x], stop=frozenset(rest))
        return found[x] if x in found else ops.zeros_like(x)

    def __reduce__(self) -> tuple:
        return kernel_gradient, (self.operator,)


def of_input(gradient: Any, x: Any) -> Any:
    """What a kernel gives for an input, in its shape; None, say for targets, stands for no gradient."""
    return np.zeros_like(x) if gradient is None else unbroadcast(np.asarray(gradient), np.shape(x))


def kernel_gradient(operator: Primitive) -> KernelGradient:
    """The one `KernelGradient` of an operator."""
    op = _KERNEL_GRADIENTS.get(id(operator))
    if op is None:
        op = _KERNEL_GRADIENTS[id(operator)] = KernelGradient(operator)
    return op


_KERNEL_GRADIENTS: weakref.WeakValueDictionary[int, KernelGradient] = weakref.WeakValueDictionary()


# --- tape's operators ---


def op_of(operator: Primitive, name: str = "") -> TapeOp:
    """The one `TapeOp` of an operator; its first use may give it another name."""
    op = _TAPE_OPS.get(id(operator))
    if op is None:
        op = _TAPE_OPS[id(operator)] = TapeOp(operator, name)
    return op


# By the id of an operator, which its TapeOp keeps alive. A user's own is freed with its last node.
_TAPE_OPS: weakref.WeakValueDictionary[int, TapeOp] = weakref.WeakValueDictionary()


class TapeOp(BuiltIn):
    """One of tape's operators as a step of a graph. Make one with `op_of`."""

    def __init__(self, operator: Primitive, name: str = ""):
        self.operator = operator
        self.name = name or operator.name
        self.symbol = operator.symbol
        self.takes = operator.defaults
        self.__doc__ = operator.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        named = [kwargs.pop(f"node_{letter}") for letter in "ABC" if f"node_{letter}" in kwargs]
        for theirs, ours in (("dim", "axis"), ("keepdim", "keepdims")):
            if theirs in kwargs and ours in self.takes:
                kwargs[ours] = kwargs.pop(theirs)
        inputs, attributes = self.operator.bind((*args, *named), kwargs)
        return _node(self, inputs, {key: as_python(value) for key, value in attributes.items()})

    def operands(self, node: Node) -> list:
        """What the operator is applied to."""
        return node.inputs

    def value_of(self, node: Node, input_values: list) -> Any:
        return self.forward_on(node.inputs)(*input_values, **self.attributes(node.attrs))

    def forward_on(self, inputs: list[Node]) -> Callable:
        """The forward on arrays for these inputs, with the dtypes of mixed operands as on the tape."""
        operator = self.operator
        if operator.counts_booleans:
            return functools.partial(_counting, operator.on_numpy)
        forward = operator.on_arrays if operator.residuals else operator.protected
        return promoting(operator, forward, inputs) if len(inputs) > 1 else forward

    def _vjp(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        operator = self.operator
        if operator.composed is not None:
            parts = {i: kernel_gradient(operator)(output_grad, node, i) for i in wanted
                     if not is_none(node.inputs[i])}
        else:
            parts = self._by_rules(node, output_grad, wanted, node if out is None else out)
        return {i: fit(as_node(part), output_grad, node.inputs[i],
                       operator.elementwise and not _zero_wherever(part, output_grad), computed=False)
                for i, part in parts.items()}

    def _by_rules(self, node: Node, g: Node, wanted: Sequence[int], out: Node) -> dict[int, Any]:
        operator, operands = self.operator, self.operands(node)
        if operator.joint:
            vjp = operator.vjp(1)
            saved = vjp.bind(operands, out, node.attrs, like=_itself)
            parts = vjp.joint_gradients(g, saved, len(operands))
            return {i: parts[i] for i in wanted}
        vjp = operator.vjp(sum(operator.gradient_bits[i] for i in wanted))
        kept = vjp.kept or ()
        asked = [self._as_operand(x, operands) if i in kept and operator.numeric_bits[i] else x
                 for i, x in enumerate(operands)]
        saved = vjp.bind(asked, out, node.attrs, like=_itself)
        return {i: rule(g, *saved[where]) for i, rule, where, _ in vjp.rules}

    def _as_operand(self, operand: Any, operands: list) -> Any:
        """An operand as the forward takes it: integers are floats beside floats."""
        x = operand
        for other, bit in zip(operands, self.operator.numeric_bits):
            if bit and other is not operand and _is_array(operand) and _is_array(other):
                x = arithmetic.as_operand(x, other, weak=is_weak(operand))
        return x

    def formula(self, names: list[str], attrs: dict) -> str:
        if self.symbol and len(names) == 1 and not self.takes:
            return f"({self.symbol}{names[0]})"
        if self.symbol:
            values = self.attributes(attrs).values()
            return f"({self.symbol.join([*names, *map(repr, values)])})"
        return super().formula(names, attrs)

    def __reduce__(self) -> tuple:
        return op_of, (self.operator,)


def _itself(x: Any) -> Any:
    return x


def _is_array(operand: Any) -> bool:
    return isinstance(operand, Node) and not is_number(operand.attrs.get("value"))


def promoting(operator: Primitive, forward: Callable, inputs: list[Node]) -> Callable:
    """A forward on these inputs, of which integers and lists are given the dtype of the floats."""
    part = functools.partial(_promoted, operator, tuple(map(is_weak, inputs)), forward)
    return part if operator.promotes and operator.numeric else forward


def _promoted(operator: Primitive, weak: tuple, forward: Callable, /, *values: Any, **attrs) -> Any:
    return forward(*_alike(operator, weak, values), **attrs)


def _alike(operator: Primitive, weak: tuple, values: Sequence) -> Sequence:
    """Operands of which integers and those that are `weak` have the dtype of the floats."""
    several = len({value.dtype for value in values if hasattr(value, "dtype")}) > 1
    return promote(values, weak, operator.numeric_bits) if several and operator.promotes else values


def _counting(forward: Callable, x: Any) -> Any:
    return forward(counted(x))


def _node(op: TapeOp, inputs: Sequence, attributes: dict) -> Node:
    operator, nodes = op.operator, []
    for i, x in enumerate(inputs):
        if isinstance(x, bool) and operator.trusted and operator.inputs[:i + 1][-1] == "condition":
            raise TypeError(f"{op.name}: the condition must be a node or an array, got {x}. Between "
                            f"nodes == says whether they are the same; np.equal(x, y) compares values.")
        x = plain(x) if isinstance(operator, Comparison) else x        # no gradient can be lost
        nodes.append(constant(None) if x is None and operator.optional_inputs else as_node(x))
    return Node(nodes, op, attributes)


def _zero_wherever(part: Any, g: Node) -> bool:
    """Whether a contribution is surely 0 where g is: it is g, -g, or g times something finite.

    Where this is not seen, a check is scheduled that the run could have done without.
    """
    if part is g:
        return True
    if not isinstance(part, Node) or g not in part.inputs:
        return False
    others = [x for x in part.inputs if x is not g]
    if part.op is WITH_NUMBER[ops.mul]:
        return bool(np.isfinite(part.attrs["constant"]))
    return part.op is op_of(ops.neg) or part.op is op_of(ops.mul) and all(
        isinstance(getattr(x.op, "operator", None), Comparison) for x in others)


class WithNumber(TapeOp):
    """An operator whose second operand is a number: ``node.constant``.

    `commutes`: whether the number may stand on the left as well. `inverse`: the operator that does the
    same with the number's negative, for numbers below 0, which unsigned integers do not have.
    """

    def __init__(self, operator: Primitive, name: str, commutes: bool = False,
                 inverse: Primitive | None = None):
        super().__init__(operator, name)
        self.takes = {"constant": REQUIRED}
        self.commutes, self.inverse = commutes, inverse

    def __call__(self, node_A: Any, const_val: Any) -> Node:
        const_val = as_number(const_val)
        if not is_number(const_val):
            raise TypeError(f"{self.name}: const_val must be a number, got {type(const_val).__name__}")
        return Node([as_node(node_A)], self, {"constant": as_python(const_val)})

    def operands(self, node: Node) -> list:
        return [*node.inputs, node.attrs["constant"]]

    def call(self, attrs: dict) -> tuple[Primitive, Any]:
        """The operator to run, and its second operand."""
        number = attrs["constant"]
        if self.inverse is not None and number < 0:
            return self.inverse, -number
        return self.operator, number

    def value_of(self, node: Node, input_values: list) -> Any:
        operator, number = self.call(node.attrs)
        return operator.forward(*input_values, number)

    def formula(self, names: list[str], attrs: dict) -> str:
        value = attrs["constant"]
        symbol = "" if self.inverse is not None and value < 0 else self.symbol
        return f"({names[0]}{symbol}{value!r})"

    __reduce__ = BuiltIn.__reduce__


WITH_NUMBER: dict[Primitive, WithNumber] = {
    ops.add: WithNumber(ops.add, "add_by_const", commutes=True, inverse=ops.sub),
    ops.mul: WithNumber(ops.mul, "mul_by_const", commutes=True),
    ops.div: WithNumber(ops.div, "div_by_const")}
for _op in WITH_NUMBER.values():
    singleton(_op)


# --- tape's operators meet Nodes ---


def apply(operator: Primitive, inputs: Sequence, attributes: dict) -> Node:
    """What an operator does that is given a Node: make another. See `Primitive.__call__`.

    In the API a sum with a number is a step of its own: x - 2 is the sum of x and -2, and 2 - x that
    of -x and 2.
    """
    inputs = [as_number(x) for x in inputs]
    number = WITH_NUMBER.get(operator)
    if number is not None and is_number(inputs[1]):
        return number(*inputs)
    if number is not None and number.commutes and is_number(inputs[0]):
        return number(inputs[1], inputs[0])
    if operator is ops.sub and is_number(inputs[1]):
        return inputs[0] + -as_python(inputs[1])
    if operator is ops.sub and isinstance(inputs[0], int):
        return -inputs[1] + inputs[0]
    return _node(op_of(operator), inputs, attributes)


Node.__tape_apply__ = staticmethod(apply)
