"""How tape's operators serve as kinds of step: `TapeOp`; `WithNumber` where one operand is a number.

There are no derivatives here: a `TapeOp` runs, on Nodes, the rules that stand beside its operator in
``tape/ops``.
"""

from __future__ import annotations

import weakref
from typing import Any, Callable, Sequence

import numpy as np

from tape import ops
from tape.fused import Fused
from tape.lazy.composites import kernel_gradient
from tape.lazy.node import (
    REQUIRED, BuiltIn, Node, as_node, as_python, constant, is_comparison, is_none, is_number, is_weak)
from tape.promotion import as_floats
from tape.ops import arithmetic, reductions
from tape.primitive import Primitive

_SYMBOLS = {ops.add: "+", ops.sub: "-", ops.mul: "*", ops.div: "/", ops.neg: "-", ops.matmul: "@",
            arithmetic.less: "<", arithmetic.less_equal: "<=", arithmetic.greater: ">",
            arithmetic.greater_equal: ">="}


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
        self.symbol = _SYMBOLS.get(operator, "")
        self.takes = operator.defaults
        self.forward = _forward_of(operator)
        self.__doc__ = operator.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        named = [kwargs.pop(f"node_{letter}") for letter in "ABC" if f"node_{letter}" in kwargs]
        inputs, attributes = self.operator.bind((*args, *named), kwargs)
        for key, value in attributes.items():
            if isinstance(value, Node):
                raise TypeError(f"{self.name}: {key} must be known when the graph is built, got the "
                                f"node {value.name}")
            attributes[key] = as_python(value)
        return _node(self, inputs, attributes)

    def operands(self, node: Node) -> list:
        """What the operator is applied to."""
        return node.inputs

    def compute(self, node: Node, input_values: list) -> Any:
        return self.forward_on(node.inputs)(*input_values, **self.attributes(node.attrs))

    def forward_on(self, inputs: list[Node]) -> Callable:
        """The forward for these inputs, of which some may be lists."""
        weak = frozenset(i for i, x in enumerate(inputs) if is_weak(x))
        return _forward_of(self.operator, weak) if weak else self.forward

    def pull(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        operator = self.operator
        values = {"out": node if out is None else out, **node.attrs}
        if operator.variadic:
            values[operator.inputs[0]] = tuple(node.inputs)
        else:
            values.update(zip(operator.inputs, self.operands(node)))
        values.update({f"like_{name}": values[name] for name in operator.inputs})
        if operator.mixes and not operator.joint:
            asked = {name for i in wanted for name in operator.needs[i]}
            values.update((name, self._as_operand(i, self.operands(node)))
                          for i, name in enumerate(operator.inputs) if name in asked)

        def call(rule: Any, names: list[str]) -> Any:
            return rule(output_grad, *(values[name] for name in names))

        if isinstance(operator, Fused):
            parts = {i: kernel_gradient(operator)(output_grad, node, i) for i in wanted
                     if not is_none(node.inputs[i])}
        elif operator.joint:
            (names,) = operator.needs
            pulled = call(operator.rules[0], names)
            parts = {i: pulled[i] for i in wanted}
        else:
            parts = {i: call(operator.rules[i], operator.needs[i]) for i in wanted
                     if operator.rules[i] is not None}
        return {i: _fitting(self, part, node, i, output_grad) for i, part in parts.items()}

    def _as_operand(self, i: int, operands: list) -> Any:
        """Operand number i as the forward takes it: integers are floats beside floats."""
        x, rules = operands[i], self.operator.rules
        arrays = [isinstance(y, Node) and not is_number(y.attrs.get("value")) and rule is not None
                  for y, rule in zip(operands, rules)]
        for other, is_array in zip(operands, arrays):
            if arrays[i] and is_array and other is not operands[i]:
                x = arithmetic.as_operand(x, other, weak=is_weak(operands[i]))
        return x

    def formula(self, names: list[str], attrs: dict) -> str:
        if self.symbol and len(names) == 1:
            return f"({self.symbol}{names[0]})"
        if self.operator is arithmetic.power_number:
            return f"({names[0]}**{attrs['exponent']!r})"
        return super().formula(names, attrs)

    def __reduce__(self) -> tuple:
        return op_of, (self.operator,)


def _node(op: TapeOp, inputs: Sequence, attributes: dict) -> Node:
    if op.operator is ops.where and isinstance(inputs[0], bool):
        raise TypeError(f"where: the condition must be a node or an array, got {inputs[0]}. Between "
                        f"nodes == says whether they are the same; np.equal(x, y) compares values.")
    optional = isinstance(op.operator, Fused)        # layer_norm, say, may have no weight
    return Node([constant(None) if x is None and optional else as_node(x) for x in inputs], op,
                attributes)


def _fitting(op: TapeOp, part: Any, node: Node, i: int, output_grad: Node) -> Node:
    """What the eager walk does with each contribution: zeros where g is zero, x's shape and dtype."""
    part, x, elementwise = as_node(part), node.inputs[i], op.operator.elementwise
    if elementwise and not _zero_wherever(part, output_grad):
        part = arithmetic.zero_where_undefined(part, output_grad)
    return reductions.sum_to_like(part, x)


def _zero_wherever(part: Node, g: Node) -> bool:
    """Whether a contribution is surely 0 where g is: it is g, -g, or g times something finite.

    Where this is not seen, a check is planned that the run could have done without.
    """
    if part is g:
        return True
    if g not in part.inputs:
        return False
    others = [x for x in part.inputs if x is not g]
    if part.op is WITH_NUMBER[ops.mul]:
        return bool(np.isfinite(part.attrs["constant"]))
    return part.op is op_of(ops.neg) or part.op is op_of(ops.mul) and all(
        map(is_comparison, others))


def _forward_of(operator: Primitive, weak: frozenset[int] = frozenset()) -> Callable:
    """The forward on arrays, where integers take the dtype of floats beside them, as on the tape.

    So do the operands whose numbers are in `weak`, which were given as lists.
    """
    forward = operator.forward if operator.ours else operator.on_numpy     # see `Primitive.ours`
    mixes = operator.differentiable and (operator.variadic or sum(map(bool, operator.rules)) > 1)
    if isinstance(operator, Fused) or not mixes:
        return operator.on_arrays if operator.residuals else forward

    def with_floats(*values: Any, **attributes: Any) -> Any:
        dtypes = {getattr(value, "dtype", None) for value in values}
        if len(dtypes) > 1:
            weakly = [i in weak for i in range(len(values))]
            return forward(*as_floats(operator.bits, values, weakly), **attributes)
        return forward(*values, **attributes)
    return with_floats


class WithNumber(TapeOp):
    """An operator whose second operand is a number: ``node.constant``."""

    def __init__(self, operator: Primitive, name: str):
        super().__init__(operator, name)
        self.takes = {"constant": REQUIRED}

    def __call__(self, node_A: Any, const_val: Any) -> Node:
        if not is_number(const_val):
            raise TypeError(f"{self.name}: const_val must be a number, got "
                            f"{type(const_val).__name__}")
        return Node([as_node(node_A)], self, {"constant": as_python(const_val)})

    def operands(self, node: Node) -> list:
        return [*node.inputs, node.attrs["constant"]]

    def call(self, attrs: dict) -> tuple[Primitive, Any]:
        """The operator to run, and its second operand."""
        number = attrs["constant"]
        if self.operator is ops.add and number < 0:
            return ops.sub, -number       # the same, and defined for integers without a sign too
        return self.operator, number

    def compute(self, node: Node, input_values: list) -> Any:
        operator, number = self.call(node.attrs)
        return operator.forward(*input_values, number)

    def formula(self, names: list[str], attrs: dict) -> str:
        value = attrs["constant"]
        if self.symbol == "+" and value < 0:
            return f"({names[0]}{value!r})"
        return f"({names[0]}{self.symbol}{value!r})"

    __reduce__ = BuiltIn.__reduce__


# --- tape's operators meet Nodes ---


def apply(operator: Primitive, inputs: Sequence, attributes: dict) -> Node:
    """What an operator does that is given a Node: make another. See `Primitive.__call__`.

    In the API a sum with a number is a step of its own, and x - 2 is the sum of x and -2.
    """
    if operator in WITH_NUMBER and is_number(inputs[1]):
        return WITH_NUMBER[operator](*inputs)
    if operator is ops.sub and is_number(inputs[1]):
        return inputs[0] + -as_python(inputs[1])
    if operator is ops.sub and isinstance(inputs[0], int):
        return -inputs[1] + inputs[0]
    if operator in (ops.add, ops.mul) and is_number(inputs[0]):
        return WITH_NUMBER[operator](inputs[1], inputs[0])
    return _node(op_of(operator), inputs, attributes)


Node.__tape_apply__ = staticmethod(apply)
WITH_NUMBER = {ops.add: WithNumber(ops.add, "add_by_const"),
               ops.mul: WithNumber(ops.mul, "mul_by_const"),
               ops.div: WithNumber(ops.div, "div_by_const")}
