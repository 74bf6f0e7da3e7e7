"""The static graph: describe a computation first, run it later, as often as wanted.

    Variable, Node, Op                          what a graph is made of
    add, matmul, softmax, layernorm, ...        its operators, each one of tape's
    gradients                                   the graph of the gradient, from tape's own rules
    Evaluator                                   a plan for computing nodes from arrays
    topological_sort, show                      a graph in order, and as a picture
    trace, tracing, from_tape                   the graph of what an eager run recorded
"""

from __future__ import annotations

from typing import Any

from tape import ops
from tape.errors import did_you_mean
from tape.lazy.evaluator import Evaluator
from tape.lazy.gradients import batched_gradients, gradients
from tape.lazy.node import NOT_ON_NODES, Node, Op, Variable, placeholder, topological_sort
from tape.lazy.api import (
    add, add_by_const, broadcast, concat, cross_entropy, div, div_by_const, embedding, exp, expand_as,
    expand_as_3d, gelu, greater, layernorm, log, log_softmax, matmul, matmul_layernorm,
    matmul_softmax, mean, mul, mul_by_const, neg, ones_like, power, relu, reshape, softmax, sqrt, sub,
    sum_op, tanh, transpose, where, zeros_like)
from tape.lazy.api import operator_called
from tape.lazy.show import show
from tape.lazy.trace import from_tape, trace, tracing

__all__ = [
    "Evaluator", "Node", "Op", "Variable", "batched_gradients", "from_tape", "gradients",
    "placeholder", "show", "topological_sort", "trace", "tracing",
    "add", "add_by_const", "broadcast", "concat", "cross_entropy", "div",
    "div_by_const", "embedding", "exp", "expand_as", "expand_as_3d", "gelu", "greater", "layernorm",
    "log", "log_softmax", "matmul", "matmul_layernorm", "matmul_softmax", "mean", "mul",
    "mul_by_const", "neg", "ones_like", "power", "relu", "reshape", "softmax", "sqrt", "sub",
    "sum_op", "tanh", "transpose", "where", "zeros_like",
]


def __getattr__(name: str) -> Any:
    """Another name of an operator; an unknown one is answered with the nearest that is known."""
    operators = {key: globals()[key] for key in __all__ if isinstance(globals()[key], Op)}
    found = None if name.startswith("_") or name in NOT_ON_NODES else operator_called(name, operators)
    if found is None:
        hint = f": {NOT_ON_NODES[name]}" if name in NOT_ON_NODES else (
            did_you_mean(name, {*__all__, *ops.__all__} - NOT_ON_NODES.keys()))
    elif name[0].isupper():
        hint = (f". Of each operator there is one object, no class: write tape.lazy.{found.name}, or "
                f"type(tape.lazy.{found.name})")
    else:
        return found
    raise AttributeError(f"tape.lazy has no {name!r}{hint}")
