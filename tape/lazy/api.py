"""The operators of the static graph by the names of its API: each is one of tape's, or a few."""

from __future__ import annotations

import inspect
import re
from typing import Any, Callable, Mapping

import numpy as np

from tape import ops
from tape.lazy.node import NOT_ON_NODES, REQUIRED, Node, placeholder, singleton
from tape.lazy.tape_ops import WITH_NUMBER, Composite, as_node, constant, op_of
from tape.ops import arithmetic, indexing, reductions, shapes
from tape.primitive import Primitive

__all__ = ["constant", "placeholder"]       # besides what is defined here


class Named(Composite):
    """A composite written as a function of its inputs (``node_A``, ...) and attributes."""

    def __init__(self, function: Callable):
        self.function = function
        self.name = function.__name__
        self.__signature__ = self.signature = inspect.signature(function)
        self.takes = {name: p.default for name, p in self.signature.parameters.items()
                      if not name.startswith("node_")}
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            near = " ".join(f"Did you mean {_NUMPY_NAMES[name]!r}?" for name in kwargs
                            if name in _NUMPY_NAMES)
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

    def value_of(self, node: Node, input_values: list) -> Any:
        return self.function(*input_values, **self.attributes(node.attrs))

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        return self.function(*inputs, **self.attributes(attrs))


_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def _check_dim(op: Named, name: str, value: Any) -> None:
    several = value if isinstance(value, tuple) else (value,)
    optional = value is None and op.takes[name] is None
    if not optional and not all(isinstance(dim, (int, np.integer)) for dim in several):
        raise TypeError(f"{op.name}: {name} must be an integer, or several where the operator takes "
                        f"them; got {value!r}")


def composite(function: Callable) -> Any:
    """Decorator: the Op of a `Named` composite."""
    return singleton(Named(function))


add = op_of(ops.add)
sub = op_of(ops.sub)
mul = op_of(ops.mul)
div = op_of(ops.div)
neg = op_of(ops.neg)
power = op_of(arithmetic.power_number)
sqrt = op_of(ops.sqrt)
log = op_of(ops.log)
exp = op_of(ops.exp)
tanh = op_of(ops.tanh)
relu = op_of(ops.relu)
gelu = op_of(ops.gelu)
where = op_of(ops.where)
greater = op_of(arithmetic.greater_as_number, name="greater")
zeros_like = op_of(arithmetic.zeros_like)
ones_like = op_of(arithmetic.ones_like)
expand_as = op_of(reductions.expand_like, name="expand_as")
reshape = op_of(ops.reshape)
embedding = op_of(indexing._embedding)

add_by_const = WITH_NUMBER[ops.add]
mul_by_const = WITH_NUMBER[ops.mul]
div_by_const = WITH_NUMBER[ops.div]


@composite
def sum_op(node_A, dim=None, keepdim=False):
    """Sum over `dim`, an int or several, negatives allowed."""
    return ops.sum(node_A, dim, keepdim)


@composite
def mean(node_A, dim=None, keepdim=False):
    """Mean over `dim`, an int or several, negatives allowed."""
    return ops.mean(node_A, dim, keepdim)


@composite
def expand_as_3d(node_A, node_B):
    """A (n, c) with a new axis 1, broadcast to B (n, t, c)."""
    return reductions.expand_like(ops.expand_dims(node_A, 1), node_B)


@composite
def broadcast(node_A, input_shape, target_shape):
    """A broadcast to `target_shape`. The gradient sums back to the shape that A has when it runs,
    which need not be `input_shape`."""
    return ops.broadcast_to(node_A, target_shape)


@composite
def transpose(node_A, dim0, dim1):
    """A with two axes exchanged."""
    return ops.swapaxes(node_A, dim0, dim1)


@composite
def matmul(node_A, node_B, trans_A=False, trans_B=False):
    """A @ B, each with its last two axes exchanged first where asked for."""
    return ops.matmul(ops.swapaxes(node_A, -1, -2) if trans_A else node_A,
                      ops.swapaxes(node_B, -1, -2) if trans_B else node_B)


@composite
def softmax(node_A, dim=-1):
    """exp(A) / sum(exp(A)) along `dim`."""
    return ops.softmax(node_A, dim)


@composite
def log_softmax(node_A, dim=-1):
    """log(softmax(A)) along `dim`, without overflow."""
    return ops.log_softmax(node_A, dim)


@composite
def layernorm(node_A, normalized_shape, eps=1e-5):
    """A with mean 0 and variance 1 over as many trailing axes as `normalized_shape` names.

    Sizes that are not those of the axes are warned of, since programs for this API run with them.
    """
    number = isinstance(normalized_shape, (int, np.integer))
    shape = (normalized_shape,) if number else tuple(normalized_shape)
    merged = shapes.merge_last(node_A, shape=shape)
    return shapes.reshape_like(ops.layer_norm(merged, eps=eps), node_A)


@composite
def matmul_layernorm(node_A, node_B, normalized_shape, eps=1e-5):
    """layernorm(A @ B), in one node."""
    return layernorm.function(ops.matmul(node_A, node_B), normalized_shape, eps)


@composite
def matmul_softmax(node_A, node_B, dim=-1):
    """softmax(A @ B), in one node."""
    return ops.softmax(ops.matmul(node_A, node_B), dim)


@composite
def cross_entropy(node_A, node_B, ignore_index=-1, reduction="mean"):
    """-log softmax(logits A)[targets B], integers, averaged over the targets not ignored."""
    return ops.cross_entropy(node_A, node_B, ignore_index, reduction)


class Concat(Composite):
    """``concat([a, b, ...], dim=0)``, or with the nodes one by one: joined along `dim`."""

    name = "concat"
    takes = {"dim": REQUIRED}

    def __call__(self, *nodes: Any, dim: int = 0) -> Node:
        if nodes and isinstance(nodes[0], (list, tuple)):
            (dim,) = nodes[1:] or (dim,)
            nodes = tuple(nodes[0])
        if not nodes:
            raise ValueError("concat: needs at least one node")
        return Node([as_node(node) for node in nodes], self, {"dim": dim})

    def value_of(self, node: Node, input_values: list) -> Any:
        return ops.concatenate(input_values, node.attrs["dim"])

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        return ops.concatenate(inputs, attrs["dim"])


concat = singleton(Concat())


# --- other names that programs use ---

# By the name in small letters, without underscores and without a last "op".
_ALIASES: dict[str, Any] = {
    "layernorm": layernorm, "layernormalization": layernorm,     # tape's takes a weight and a bias
    "reducesum": sum_op, "sumaxis": sum_op, "summation": sum_op, "reducemean": mean,
    "reducemax": ops.max, "mm": matmul, "bmm": matmul, "batchmatmul": matmul, "matrixmul": matmul,
    "subtract": sub, "minus": sub, "multiply": mul, "divide": div, "negate": neg, "negative": neg,
    "pow": power, "powerbyconst": power, "addconst": add_by_const, "mulconst": mul_by_const,
    "divconst": div_by_const, "greaterthan": greater, "cat": concat, "unsqueeze": ops.expand_dims,
    "permute": ops.transpose, "broadcastto": expand_as,
}


def operator_called(name: str, known: Mapping[str, Any]) -> Any:
    """The operator that a program means by a name that the API has not; None where none is plain.

    One of tape's by its own name (``sigmoid``), else by another usual name (``reduce_sum``), else
    one of `known`, those of the API, with other underscores or with a last ``_op`` (``matmul_op``).
    """
    short = re.sub("op$", "", name.lower().replace("_", ""))
    by_short_name = {re.sub("op$", "", key.replace("_", "")): op for key, op in known.items()}
    tapes = {key: getattr(ops, key) for key in ops.__all__ if key not in NOT_ON_NODES}
    by_short_name = {**{key.replace("_", ""): op for key, op in tapes.items()}, **by_short_name,
                     **_ALIASES}
    found = tapes.get(name) if name != "layer_norm" else layernorm
    found = by_short_name.get(short) if found is None else found
    return op_of(found) if isinstance(found, Primitive) else found
