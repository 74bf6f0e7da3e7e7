"""The operators of the static graph. Each is one of tape's, or a few of tape's under one name.

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
from tape.lazy.node import Node, Op, as_node, constant, is_number
from tape.ops import arithmetic, reductions, shapes
from tape.primitive import Fused, Primitive, derivative


class TapeOp(Op):
    """One of tape's operators as a step of a graph. Make one with `op_of`."""

    def __init__(self, operator: Primitive, name: str = "", symbol: str = ""):
        self.operator = operator
        self._name = name or operator.name
        self.symbol = symbol

    @property
    def name(self) -> str:
        return self._name

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        named = [kwargs.pop(f"node_{letter}") for letter in "ABC" if f"node_{letter}" in kwargs]
        inputs, attributes = self.operator.bind((*args, *named), kwargs)
        return Node(map(as_node, inputs), self, attributes)

    def operands(self, node: Node) -> list:
        """What the operator is applied to."""
        return node.inputs

    def compute(self, node: Node, input_values: list) -> Any:
        return forward_of(self.operator)(*input_values, **node.attrs)

    def gradient(self, node: Node, output_grad: Node) -> list[Node]:
        found = self.pull(node, output_grad, range(len(node.inputs)))
        return [found[i] if i in found else ops.zeros_like(x) for i, x in enumerate(node.inputs)]

    def pull(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        operator = self.operator
        values = {"out": out or node, **node.attrs}
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
        return super().formula(names, attrs)

    def __reduce__(self) -> tuple:
        return op_of, (self.operator,)


class WithNumber(TapeOp):
    """An operator whose second operand is a number: ``node.constant``."""

    def __call__(self, node_A: Any, const_val: Any) -> Node:
        if not is_number(const_val):
            raise TypeError(f"{self.name}: const_val must be a number, got "
                            f"{type(const_val).__name__}")
        value = const_val.item() if isinstance(const_val, np.generic) else const_val
        return Node([as_node(node_A)], self, {"constant": value})

    def operands(self, node: Node) -> list:
        return [*node.inputs, node.attrs["constant"]]

    def compute(self, node: Node, input_values: list) -> Any:
        return self.operator.forward(*input_values, node.attrs["constant"])

    def formula(self, names: list[str], attrs: dict) -> str:
        return f"({names[0]}{self.symbol}{attrs['constant']!r})"

    def __reduce__(self) -> str:
        return self.name


def _fitting(op: TapeOp, part: Any, node: Node, i: int, output_grad: Node) -> Node:
    """What the eager walk does with each contribution: zeros where g is zero, x's shape and dtype."""
    operator, x = op.operator, node.inputs[i]
    part = as_node(part)
    if operator.elementwise and not _surely_zero(part, output_grad):
        part = arithmetic.zero_where_undefined(part, output_grad)
    # A number does not broadcast what stands beside it, nor (in these) change its dtype.
    alone = len(node.inputs) == 1 or node.op in (add, sub, mul, div) and not _is_number(x) and all(
        other is x or _is_number(other) for other in node.inputs)
    return part if operator.elementwise and alone or _like(part) is x \
        else reductions.sum_to_like(part, x)


def _surely_zero(part: Node, g: Node) -> bool:
    """Whether a gradient is surely 0 where g is: it is g, -g, or g times something finite."""
    if part is g:
        return True
    if g not in part.inputs:
        return False
    others = [x for x in part.inputs if x is not g]
    return part.op is neg or part.op is mul_by_const and np.isfinite(part.attrs["constant"]) or (
        part.op is mul and all(getattr(x.op, "operator", None) in _COMPARISONS for x in others))


def _is_number(node: Node) -> bool:
    return isinstance(node.attrs.get("value"), (int, float)) and node.op is constant


def _like(node: Node) -> Node | None:
    """The node whose shape and dtype this one takes by its nature."""
    operator = getattr(node.op, "operator", None)
    if operator is None or "like" not in operator.inputs or operator.variadic:
        return None
    return node.inputs[operator.inputs.index("like")]


def _is_none(node: Node) -> bool:
    return node.op is constant and node.attrs["value"] is None


def op_of(operator: Primitive, name: str = "", symbol: str = "") -> TapeOp:
    """The one `TapeOp` of an operator; its first use may give it a name and a symbol."""
    if operator not in _TAPE_OPS:
        _TAPE_OPS[operator] = TapeOp(operator, name, symbol)
    return _TAPE_OPS[operator]


_TAPE_OPS: dict[Primitive, TapeOp] = {}
_COMPARISONS = set(arithmetic.COMPARISONS.values())


@functools.lru_cache(maxsize=None)
def forward_of(operator: Primitive) -> Callable:
    """The forward on arrays, where integers take the dtype of floats beside them, as on the tape."""
    mixes = operator.variadic or sum(map(bool, operator.rules)) > 1
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


class Composite(Op):
    """Several of tape's operators under one name. Its gradient is pulled back through them."""

    def compute(self, node: Node, input_values: list) -> Any:
        raise NotImplementedError

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        """What it is made of, as a graph on these inputs."""
        raise NotImplementedError

    def gradient(self, node: Node, output_grad: Node) -> list[Node]:
        found = self.pull(node, output_grad, range(len(node.inputs)))
        return [found[i] if i in found else ops.zeros_like(x) for i, x in enumerate(node.inputs)]

    def pull(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        # An input that occurs twice must be told apart from itself: each has a gradient of its own.
        inputs = [op_of(IDENTITY)(x) if x in node.inputs[:i] else x
                  for i, x in enumerate(node.inputs)]
        found = pull_back(self.expand(inputs, node.attrs), output_grad, [inputs[i] for i in wanted],
                          stop=frozenset(inputs), stands_for=out or node)
        return {i: found[inputs[i]] for i in wanted if inputs[i] in found}


class KernelGradient(Composite):
    """The gradient of one input of a fused operator, by its backward kernel.

    Inputs: the gradient of the result, then those of the fused operator. Its own derivative is that
    of the composed definition, pulled back twice.
    """

    def __init__(self, operator: Fused):
        self.operator = operator

    @property
    def name(self) -> str:
        return f"{self.operator.name}_gradient"

    def __call__(self, output_grad: Node, node: Node, i: int) -> Node:
        return Node([output_grad, *node.inputs], self, {**node.attrs, "input": i})

    def attributes(self, attrs: dict) -> dict:
        """Those of the fused operator."""
        return {name: value for name, value in attrs.items() if name != "input"}

    def compute(self, node: Node, input_values: list) -> Any:
        g, *inputs = input_values
        out = self.operator.forward(*inputs, **self.attributes(node.attrs))
        out, residuals = out if self.operator.residuals else (out, {})
        return self.backward(g, inputs, out, residuals, node.attrs)[node.attrs["input"]]

    def backward(self, g: Any, inputs: Sequence, out: Any, residuals: dict, attrs: dict) -> Sequence:
        """The gradients of all inputs, by the kernel, which asks for what it needs by name."""
        named = {**dict(zip(self.operator.inputs, inputs)), "out": out, **attrs, **residuals}
        kernel: Any = self.operator.rules[0]
        return kernel(g, *(named[name] for name in self.operator.needs[0]))

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        g, *rest = inputs
        x = rest[attrs["input"]]
        out = self.operator.composed(*(None if _is_none(node) else node for node in rest),
                                     **self.attributes(attrs))
        return pull_back(out, g, [x], stop=frozenset(rest)).get(x) or ops.zeros_like(x)

    def __reduce__(self) -> tuple:
        return _kernel_gradient, (self.operator,)


@functools.lru_cache(maxsize=None)
def _kernel_gradient(operator: Fused) -> KernelGradient:
    return KernelGradient(operator)


class Named(Composite):
    """A composite written as a function of its inputs (``node_A``, ...) and attributes."""

    def __init__(self, function: Callable):
        self.function = function
        self.signature = inspect.signature(function)
        self.__doc__ = function.__doc__

    @property
    def name(self) -> str:
        return self.function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}") from error
        bound.apply_defaults()
        inputs, attrs = [], {}
        for name, value in bound.arguments.items():
            if name.startswith("node_"):
                inputs.append(as_node(value))
            else:
                attrs[name] = tuple(value) if isinstance(value, list) else value
        return Node(inputs, self, attrs)

    def compute(self, node: Node, input_values: list) -> Any:
        return self.function(*input_values, **node.attrs)

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        return self.function(*inputs, **attrs)

    def __reduce__(self) -> str:
        return self.name


# --- tape's operators meet Nodes ---


def apply(operator: Primitive, inputs: Sequence, attributes: dict) -> Node:
    """What an operator does that is given a Node: make another. See `Primitive.__call__`."""
    if operator in WITH_NUMBER and is_number(inputs[1]):
        return WITH_NUMBER[operator](*inputs)
    if operator in (ops.add, ops.mul) and is_number(inputs[0]):
        return WITH_NUMBER[operator](inputs[1], inputs[0])
    return Node(map(as_node, inputs), op_of(operator), attributes)


Node.__tape_apply__ = staticmethod(apply)


# --- the names of the API ---

IDENTITY = Primitive(lambda x, /: x, (lambda g: g,), name="identity", elementwise=True)


@derivative(None, None)
def _greater(x, y, /):
    return np.greater(x, y).astype(np.result_type(x, y))


@derivative(lambda g: g)
def _of_size(x, /, input_shape):
    """x, checked: its elements fill `input_shape`."""
    if np.size(x) != np.prod(input_shape, dtype=int):
        raise ValueError(f"broadcast: input_shape must be that of the node, {np.shape(x)}; got "
                         f"{tuple(input_shape)}")
    return x


@derivative(lambda g, like_x: shapes.reshape_like(g, like_x))
def _merge_last(x, /, shape):
    """x (..., *shape) with its last axes, which must have this shape, made one."""
    if x.shape[-len(shape):] != shape:
        raise ValueError(f"layernorm: normalized_shape must be that of the last axes of the node, "
                         f"whose shape is {x.shape}; got {shape}")
    return x.reshape(*x.shape[:-len(shape)], -1)


add = op_of(ops.add, symbol="+")
sub = op_of(ops.sub, symbol="-")
mul = op_of(ops.mul, symbol="*")
div = op_of(ops.div, symbol="/")
neg = op_of(ops.neg, symbol="-")
op_of(ops.matmul, symbol="@")
power = op_of(arithmetic.power_number)
sqrt = op_of(ops.sqrt)
log = op_of(ops.log)
exp = op_of(ops.exp)
tanh = op_of(ops.tanh)
relu = op_of(ops.relu)
gelu = op_of(ops.gelu)
where = op_of(ops.where)
greater = op_of(_greater, name="greater")
zeros_like = op_of(arithmetic.zeros_like)
ones_like = op_of(arithmetic.ones_like)
expand_as = op_of(reductions.expand_like, name="expand_as")
reshape = op_of(ops.reshape)
embedding = op_of(shapes._embedding)

add_by_const = WithNumber(ops.add, "add_by_const", "+")
mul_by_const = WithNumber(ops.mul, "mul_by_const", "*")
div_by_const = WithNumber(ops.div, "div_by_const", "/")
WITH_NUMBER = {ops.add: add_by_const, ops.mul: mul_by_const, ops.div: div_by_const}


@Named
def sum_op(node_A, dim=None, keepdim=False):
    """Sum over `dim`, an int or several, negatives allowed."""
    return ops.sum(node_A, dim, keepdim)


@Named
def mean(node_A, dim=None, keepdim=False):
    """Mean over `dim`, an int or several, negatives allowed."""
    return ops.mean(node_A, dim, keepdim)


@Named
def expand_as_3d(node_A, node_B):
    """A (n, c) with a new axis 1, broadcast to B (n, t, c)."""
    return reductions.expand_like(ops.expand_dims(node_A, 1), node_B)


@Named
def broadcast(node_A, input_shape, target_shape):
    """A, of shape `input_shape`, broadcast to `target_shape`."""
    return ops.broadcast_to(_of_size(node_A, input_shape=input_shape), target_shape)


@Named
def transpose(node_A, dim0, dim1):
    """A with two axes exchanged."""
    return ops.swapaxes(node_A, dim0, dim1)


@Named
def matmul(node_A, node_B, trans_A=False, trans_B=False):
    """A @ B, each with its last two axes exchanged first where asked for."""
    return ops.matmul(ops.swapaxes(node_A, -1, -2) if trans_A else node_A,
                      ops.swapaxes(node_B, -1, -2) if trans_B else node_B)


@Named
def softmax(node_A, dim=-1):
    """exp(A) / sum(exp(A)) along `dim`."""
    return ops.softmax(node_A, dim)


@Named
def log_softmax(node_A, dim=-1):
    """log(softmax(A)) along `dim`, without overflow."""
    return ops.log_softmax(node_A, dim)


@Named
def layernorm(node_A, normalized_shape, eps=1e-5):
    """A with mean 0 and variance 1 over its trailing axes, of shape `normalized_shape`."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    merged = _merge_last(node_A, shape=shape)
    return shapes.reshape_like(ops.layer_norm(merged, eps=eps), node_A)


@Named
def matmul_layernorm(node_A, node_B, normalized_shape, eps=1e-5):
    """layernorm(A @ B), in one node."""
    return layernorm.function(ops.matmul(node_A, node_B), normalized_shape, eps)


@Named
def matmul_softmax(node_A, node_B, dim=-1):
    """softmax(A @ B), in one node."""
    return ops.softmax(ops.matmul(node_A, node_B), dim)


@Named
def cross_entropy(node_A, node_B, ignore_index=-1, reduction="mean"):
    """-log softmax(logits A)[targets B], integers, averaged over the targets not ignored."""
    return ops.cross_entropy(node_A, node_B, ignore_index, reduction)


class Concat(Composite):
    """``concat([a, b, ...], dim=0)``, or with the nodes one by one: joined along `dim`."""

    name = "concat"

    def __call__(self, *nodes: Any, dim: int = 0) -> Node:
        if nodes and isinstance(nodes[0], (list, tuple)):
            (dim,) = nodes[1:] or (dim,)
            nodes = tuple(nodes[0])
        return Node([as_node(node) for node in nodes], self, {"dim": dim})

    def compute(self, node: Node, input_values: list) -> Any:
        return ops.concatenate(input_values, node.attrs["dim"])

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        return ops.concatenate(inputs, attrs["dim"])

    def __reduce__(self) -> str:
        return self.name


concat = Concat()
