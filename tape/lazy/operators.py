"""The operators of the static graph by the names of its API: each is one of tape's, or a few."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tape import ops
from tape.lazy.composites import Composite, Named
from tape.lazy.kinds import WITH_NUMBER, op_of
from tape.lazy.node import REQUIRED, Node, as_node, constant, placeholder
from tape.ops import arithmetic, reductions, shapes
from tape.primitive import derivative

__all__ = ["constant", "placeholder"]       # besides what is defined here: where pickle finds them


@derivative(None, None)
def _greater(x, y, /):
    """1 where x > y, else 0, in the dtype of the operands; its gradient is zero."""
    floats = [v for v in (x, y) if getattr(getattr(v, "dtype", None), "kind", "") == "f"]
    return np.greater(x, y).astype(np.result_type(*floats) if floats else np.result_type(x, y))


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
    return x.reshape(*x.shape[:-len(shape)], math.prod(shape))


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
greater = op_of(_greater, name="greater")
zeros_like = op_of(arithmetic.zeros_like)
ones_like = op_of(arithmetic.ones_like)
expand_as = op_of(reductions.expand_like, name="expand_as")
reshape = op_of(ops.reshape)
embedding = op_of(shapes._embedding)

add_by_const = WITH_NUMBER[ops.add]
mul_by_const = WITH_NUMBER[ops.mul]
div_by_const = WITH_NUMBER[ops.div]


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
    number = isinstance(normalized_shape, (int, np.integer))
    shape = (normalized_shape,) if number else tuple(normalized_shape)
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
    takes = {"dim": REQUIRED}

    def __call__(self, *nodes: Any, dim: int = 0) -> Node:
        if nodes and isinstance(nodes[0], (list, tuple)):
            (dim,) = nodes[1:] or (dim,)
            nodes = tuple(nodes[0])
        if not nodes:
            raise ValueError("concat: needs at least one node")
        return Node([as_node(node) for node in nodes], self, {"dim": dim})

    def compute(self, node: Node, input_values: list) -> Any:
        return ops.concatenate(input_values, node.attrs["dim"])

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        return ops.concatenate(inputs, attrs["dim"])


concat = Concat()
