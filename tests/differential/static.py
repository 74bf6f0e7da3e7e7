"""The routes of the static graph: built node by node, and frozen from an eager run."""

from __future__ import annotations

import numpy as np

import tape
import tape.lazy as ad
from tape import Tensor
from tests.differential.answers import Answer, Mismatch, agree, directions, identical, precision
from tests.differential.freeze import freeze
from tests.differential.engine import engine
from tests.differential.program import Program


def node_by_node(program: Program, wanted: Answer, orders: int) -> None:
    """The program on Variables: value, gradient, and the gradient of the gradient."""
    variables = [ad.Variable(name) for name in program.leaves]
    node = program.function(engine, "nodes")(*variables)      # nodes and Tensors do not mix
    feed = dict(zip(variables, program.arrays()))
    if not isinstance(node, ad.Node):
        return                       # the result does not depend on any leaf
    slopes = ad.gradients(node, variables)
    evaluated = [[node], slopes]
    if orders > 1:
        total = sum((tape.sum(tape.mul(s, d)) for s, d in
                     zip(slopes[1:], directions(program)[0][1:])),
                    tape.sum(tape.mul(slopes[0], directions(program)[0][0])))
        evaluated.append(ad.gradients(total, variables))
    found = iter(ad.Evaluator([x for nodes in evaluated for x in nodes]).run(feed))
    for order, nodes in enumerate(evaluated):
        arrays = [next(found) for _ in nodes]
        agree("static", arrays, wanted, order, precision(program))
        wrong = [a.dtype for a, x in zip(arrays, feed.values()) if order and a.dtype != x.dtype]
        # Tensors without a gradient are arrays here, beside which a NumPy scalar is not weak.
        as_eager = order == 0 and not any(name.startswith("t") for name in program.constants)
        if wrong or as_eager and arrays[0].dtype != program.dtype:
            raise Mismatch(f"static: order {order}: dtype of {[a.dtype for a in arrays]}")


def frozen(program: Program, wanted: Answer, orders: int) -> None:
    """Frozen on one set of numbers and run on another: the eager run on those, to the last bit."""
    leaves = {name: Tensor(a, requires_grad=True) for name, a in program.leaves.items()}
    function = program.function(engine, "spelled", make=Tensor)
    if not getattr(function(*leaves.values()), "requires_grad", False):
        return
    node, variables = freeze(function, leaves)
    fresh = {name: a.copy() if program.compares else other_numbers(a)
             for name, a in program.leaves.items()}
    compare_with_eager("frozen", program, node, variables, fresh)


def other_numbers(array: np.ndarray) -> np.ndarray:
    """Near the ones given, and without their zeros and ties."""
    rng = np.random.default_rng(5)
    return (array * 0.9 + rng.uniform(0.01, 0.1, array.shape)).astype(array.dtype)


def compare_with_eager(route: str, program: Program, node: ad.Node, variables: dict,
                       fresh: dict[str, np.ndarray]) -> None:
    leaves = {name: Tensor(array, requires_grad=True) for name, array in fresh.items()}
    out = program.function(engine, "spelled", make=Tensor)(*leaves.values())
    out.backward()
    names = list(variables)
    slopes = ad.gradients(node, [variables[name] for name in names])
    value, *found = ad.Evaluator([node, *slopes]).run(
        {variables[name]: fresh[name] for name in names})
    identical(route, "value", value, out.data)
    for name, slope in zip(names, found):
        grad = leaves[name].grad
        identical(route, f"gradient of {name}", slope,
                  np.zeros_like(fresh[name]) if grad is None else grad)


ROUTES = {"static": node_by_node, "frozen": frozen}
