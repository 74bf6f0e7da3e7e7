"""The kinds of step that tape's operators make: one operator, one with a number, several, a kernel.

There are no derivatives here. A `TapeOp` runs the rules that stand beside its operator in
``tape/ops``, on Nodes; a `Composite` is pulled back through the operators that it is made of.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, Sequence

import numpy as np

from tape import ops
from tape.lazy.gradients import pull_back
from tape.lazy.node import BuiltIn, Node, as_node, constant, is_number
from tape.ops import arithmetic, reductions
from tape.primitive import IDENTITY, Fused, Primitive


class TapeOp(BuiltIn):
    """One of tape's operators as a step of a graph. Make one with `op_of`."""

    def __init__(self, operator: Primitive, name: str = ""):
        self.operator = operator
        self.name = name or operator.name
        self.symbol = _SYMBOLS.get(operator, "")
        self.needs = _without_default(operator.defaults)
        self.__doc__ = operator.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        named = [kwargs.pop(f"node_{letter}") for letter in "ABC" if f"node_{letter}" in kwargs]
        inputs, attributes = self.operator.bind((*args, *named), kwargs)
        for key, value in attributes.items():
            if isinstance(value, Node):
                raise TypeError(f"{self.name}: {key} must be known when the graph is built, got the "
                                f"node {value.name}")
            if isinstance(value, np.generic):
                attributes[key] = value.item()        # weak, as a number is
        return _node(self, inputs, attributes)

    def operands(self, node: Node) -> list:
        """What the operator is applied to."""
        return node.inputs

    def compute(self, node: Node, input_values: list) -> Any:
        return forward_of(self.operator)(*input_values, **self.attributes(node.attrs))

    def attributes(self, attrs: dict) -> dict:
        """The operator's own among a node's attributes, where a user may have put others."""
        return {name: value for name, value in attrs.items() if name in self.operator.defaults}

    def pull(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        operator = self.operator
        values = {"out": node if out is None else out, **node.attrs}
        if operator.variadic:
            values[operator.inputs[0]] = tuple(node.inputs)
        else:
            values.update(zip(operator.inputs, self.operands(node)))
        values.update({f"like_{name}": values[name] for name in operator.inputs})

        def call(rule: Any, names: list[str]) -> Any:
            return rule(output_grad, *(values[name] for name in names))

        if isinstance(operator, Fused):
            parts = {i: _kernel_gradient(operator)(output_grad, node, i) for i in wanted
                     if not _is_none(node.inputs[i])}
        elif operator.joint:
            (names,) = operator.needs
            pulled = call(operator.rules[0], names)
            parts = {i: pulled[i] for i in wanted}
        else:
            parts = {i: call(operator.rules[i], operator.needs[i]) for i in wanted
                     if operator.rules[i] is not None}
        return {i: _fitting(self, part, node, i, output_grad) for i, part in parts.items()}

    def formula(self, names: list[str], attrs: dict) -> str:
        if self.symbol and len(names) == 1:
            return f"({self.symbol}{names[0]})"
        if self.operator is arithmetic.power_number:
            return f"({names[0]}**{attrs['exponent']!r})"
        return super().formula(names, attrs)

    def __reduce__(self) -> tuple:
        return op_of, (self.operator,)


class WithNumber(TapeOp):
    """An operator whose second operand is a number: ``node.constant``."""

    def __init__(self, operator: Primitive, name: str):
        super().__init__(operator, name)
        self.needs = ("constant",)

    def __call__(self, node_A: Any, const_val: Any) -> Node:
        if not is_number(const_val):
            raise TypeError(f"{self.name}: const_val must be a number, got "
                            f"{type(const_val).__name__}")
        return Node([as_node(node_A)], self, {"constant": _item(const_val)})

    def operands(self, node: Node) -> list:
        return [*node.inputs, node.attrs["constant"]]

    def compute(self, node: Node, input_values: list) -> Any:
        return self.operator.forward(*input_values, node.attrs["constant"])

    def formula(self, names: list[str], attrs: dict) -> str:
        value = attrs["constant"]
        if self.symbol == "+" and value < 0:
            return f"({names[0]}{value!r})"
        return f"({names[0]}{self.symbol}{value!r})"

    __reduce__ = BuiltIn.__reduce__


def _without_default(defaults: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, value in defaults.items() if value is inspect.Parameter.empty)


def _fitting(op: TapeOp, part: Any, node: Node, i: int, output_grad: Node) -> Node:
    """What the eager walk does with each contribution: zeros where g is zero, x's shape and dtype."""
    operator, x = op.operator, node.inputs[i]
    part = as_node(part)
    if operator.elementwise and not _surely_zero(part, output_grad):
        part = arithmetic.zero_where_undefined(part, output_grad)
    alone = all(other is x for other in node.inputs)       # nothing broadcasts it or widens it
    return part if operator.elementwise and alone or _like(part) is x \
        else reductions.sum_to_like(part, x)


def _surely_zero(part: Node, g: Node) -> bool:
    """Whether a gradient is surely 0 where g is: it is g, -g, or g times something finite."""
    if part is g:
        return True
    if g not in part.inputs:
        return False
    others = [x for x in part.inputs if x is not g]
    if part.op is WITH_NUMBER[ops.mul]:
        return bool(np.isfinite(part.attrs["constant"]))
    return part.op is op_of(ops.neg) or part.op is op_of(ops.mul) and all(
        getattr(x.op, "operator", None) in _COMPARISONS for x in others)


def _like(node: Node) -> Node | None:
    """The node whose shape and dtype this one takes by its nature."""
    operator = getattr(node.op, "operator", None)
    if operator is None or "like" not in operator.inputs or operator.variadic:
        return None
    return node.inputs[operator.inputs.index("like")]


def _is_none(node: Node) -> bool:
    return node.op is constant and node.attrs["value"] is None


def op_of(operator: Primitive, name: str = "") -> TapeOp:
    """The one `TapeOp` of an operator; its first use may give it another name."""
    if operator not in _TAPE_OPS:
        _TAPE_OPS[operator] = TapeOp(operator, name)
    return _TAPE_OPS[operator]


_TAPE_OPS: dict[Primitive, TapeOp] = {}
_SYMBOLS = {ops.add: "+", ops.sub: "-", ops.mul: "*", ops.div: "/", ops.neg: "-", ops.matmul: "@",
            arithmetic.less: "<", arithmetic.less_equal: "<=", arithmetic.greater: ">",
            arithmetic.greater_equal: ">="}
_COMPARISONS = set(arithmetic.COMPARISONS.values())


@functools.lru_cache(maxsize=None)
def forward_of(operator: Primitive) -> Callable:
    """The forward on arrays, where integers take the dtype of floats beside them, as on the tape."""
    mixes = operator.differentiable and (operator.variadic or sum(map(bool, operator.rules)) > 1)
    if isinstance(operator, Fused) or not mixes:
        return operator.on_arrays if operator.residuals else operator.forward
    forward = operator.forward

    def weak(*values: Any, **attributes: Any) -> Any:
        dtypes = {getattr(value, "dtype", None) for value in values}
        if len(dtypes) > 1:
            values = _with_floats(operator, values)
        return forward(*values, **attributes)
    return weak


def _with_floats(operator: Primitive, values: tuple) -> tuple:
    floating = [x.dtype for x in values if hasattr(x, "dtype") and x.dtype.kind == "f"]
    return tuple(x.astype(floating[0]) if floating and bit and hasattr(x, "dtype")
                 and x.dtype.kind != "f" else x for x, bit in zip(values, operator.bits))


class Composite(BuiltIn):
    """Several of tape's operators under one name. Its gradient is pulled back through them."""

    def compute(self, node: Node, input_values: list) -> Any:
        raise NotImplementedError

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        """What it is made of, as a graph on these inputs."""
        raise NotImplementedError

    def pull(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        seen: set[Node] = set()
        # An input that occurs twice must be told apart from itself: each has a gradient of its own.
        inputs: list[Node] = []
        for x in node.inputs:
            inputs.append(op_of(IDENTITY)(x) if x in seen else x)
            seen.add(x)
        found = pull_back(self.expand(inputs, node.attrs), output_grad, [inputs[i] for i in wanted],
                          stop=frozenset(inputs), stands_for=node if out is None else out)
        return {i: found[inputs[i]] for i in wanted if inputs[i] in found}


class KernelGradient(Composite):
    """The gradient of one input of a fused operator, by its backward kernel.

    Inputs: the gradient of the result, then those of the fused operator. Its own derivative is that
    of the composed definition, pulled back twice.
    """

    def __init__(self, operator: Fused):
        self.operator = operator
        self.name = f"{operator.name}_gradient"
        assert not (operator.residuals and "out" in operator.needs[0])     # `made` is one of them

    def __call__(self, output_grad: Node, node: Node, i: int) -> Node:
        return Node([output_grad, *node.inputs], self, {**node.attrs, "input": i})

    def attributes(self, attrs: dict) -> dict:
        """Those of the fused operator."""
        return {name: value for name, value in attrs.items() if name in self.operator.defaults}

    def compute(self, node: Node, input_values: list) -> Any:
        g, *inputs = input_values
        attributes = self.attributes(node.attrs)
        made = self.operator.forward(*inputs, **attributes)
        made = made[1] if self.operator.residuals else made
        i = node.attrs["input"]
        return or_zeros(self.backward(g, made, *inputs, attributes=attributes)[i], inputs[i])

    def backward(self, g: Any, made: Any, *inputs: Any, attributes: dict) -> Sequence:
        """The gradients of all inputs, by the kernel, which asks for what it needs by name.

        `made` is what the forward kernel left for it: the residuals, or else its result.
        """
        left = made if self.operator.residuals else {"out": made}
        named = {**dict(zip(self.operator.inputs, inputs)), **attributes, **left}
        kernel: Any = self.operator.rules[0]
        return kernel(g, *(named[name] for name in self.operator.needs[0]))

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        g, *rest = inputs
        x = rest[attrs["input"]]
        out = self.operator.composed(*(None if _is_none(node) else node for node in rest),
                                     **self.attributes(attrs))
        found = pull_back(out, g, [x], stop=frozenset(rest))
        return found[x] if x in found else ops.zeros_like(x)

    def __reduce__(self) -> tuple:
        return _kernel_gradient, (self.operator,)


def or_zeros(gradient: Any, x: Any) -> Any:
    """What a kernel gives for an input; None, say for targets, stands for no gradient."""
    return np.zeros_like(x) if gradient is None else gradient


@functools.lru_cache(maxsize=None)
def _kernel_gradient(operator: Fused) -> KernelGradient:
    return KernelGradient(operator)


class Named(Composite):
    """A composite written as a function of its inputs (``node_A``, ...) and attributes."""

    def __init__(self, function: Callable):
        self.function = function
        self.name = function.__name__
        self.__signature__ = self.signature = inspect.signature(function)
        self.needs = _without_default({name: parameter.default for name, parameter in
                                       self.signature.parameters.items() if name[:5] != "node_"})
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            near = " ".join(f"Did you mean {_OTHER_NAMES[name]!r}?" for name in kwargs
                            if name in _OTHER_NAMES)
            raise TypeError(f"{self.name}{self.signature}: {error}. {near}".rstrip(" ")) from error
        bound.apply_defaults()
        inputs, attrs = [], {}
        for name, value in bound.arguments.items():
            if name.startswith("node_"):
                inputs.append(as_node(value))
            else:
                attrs[name] = tuple(value) if isinstance(value, list) else value
                if name in ("dim", "dim0", "dim1"):
                    _check_dim(self, name, attrs[name])
        return Node(inputs, self, attrs)

    def compute(self, node: Node, input_values: list) -> Any:
        return self.function(*input_values, **self._attributes(node.attrs))

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        return self.function(*inputs, **self._attributes(attrs))

    def _attributes(self, attrs: dict) -> dict:
        return {name: value for name, value in attrs.items() if name in self.signature.parameters}


_OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def _check_dim(op: Named, name: str, value: Any) -> None:
    several = value if isinstance(value, tuple) else (value,)
    optional = value is None and op.signature.parameters[name].default is None
    if not optional and not all(isinstance(dim, (int, np.integer)) for dim in several):
        raise TypeError(f"{op.name}: {name} must be an integer, or several where the operator takes "
                        f"them; got {value!r}")


# --- tape's operators meet Nodes ---


def apply(operator: Primitive, inputs: Sequence, attributes: dict) -> Node:
    """What an operator does that is given a Node: make another. See `Primitive.__call__`."""
    if operator in WITH_NUMBER and is_number(inputs[1]):
        return WITH_NUMBER[operator](*inputs)
    if operator is ops.sub and is_number(inputs[1]):
        return inputs[0] + -_item(inputs[1])
    if operator is ops.sub and is_number(inputs[0]):
        return -inputs[1] + inputs[0]
    if operator in (ops.add, ops.mul) and is_number(inputs[0]):
        return WITH_NUMBER[operator](inputs[1], inputs[0])
    return _node(op_of(operator), inputs, attributes)


def _node(op: TapeOp, inputs: Sequence, attributes: dict) -> Node:
    if op.operator is ops.where and isinstance(inputs[0], (bool, np.bool_)):
        raise TypeError(f"where: the condition must be a node or an array, got {inputs[0]}. Between "
                        f"nodes == says whether they are the same; np.equal(x, y) compares values.")
    optional = isinstance(op.operator, Fused)        # layer_norm, say, may have no weight
    return Node([constant(None) if x is None and optional else as_node(x) for x in inputs], op,
                attributes)


def _item(number: Any) -> Any:
    return number.item() if isinstance(number, np.generic) else number


Node.__tape_apply__ = staticmethod(apply)
WITH_NUMBER = {ops.add: WithNumber(ops.add, "add_by_const"),
               ops.mul: WithNumber(ops.mul, "mul_by_const"),
               ops.div: WithNumber(ops.div, "div_by_const")}
