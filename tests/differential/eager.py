"""The routes of the eager engine: backward(), grad(), create_graph, no_grad, plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

import tape
from tape import Tensor, grad, no_grad
from tests.differential.answers import Answer, Mismatch, agree, directions, identical, precision
from tests.differential.engine import engine
from tests.differential.program import Program


def run(program: Program, spelling: str = "spelled") -> tuple[Tensor, list[Tensor]]:
    """A recorded run: (result, leaves)."""
    leaves = [Tensor(array, requires_grad=True) for array in program.arrays()]
    return program.function(engine, spelling, make=Tensor)(*leaves), leaves


def filled(gradients: Any, leaves: list[Tensor]) -> list[np.ndarray]:
    """Gradients as arrays; zeros for the leaves that took no part."""
    return [np.zeros(x.shape, x.dtype) if g is None else np.asarray(getattr(g, "data", g))
            for g, x in zip(gradients, leaves)]


def backward(program: Program, wanted: Answer, orders: int) -> None:
    """Value and ``.grad`` after ``backward()``, and their dtypes."""
    out, leaves = run(program)
    if np.dtype(out.dtype) != program.dtype:
        raise Mismatch(f"backward: the result has dtype {out.dtype}, not {program.dtype}")
    agree("backward", [out.data], wanted, 0, precision(program))
    if not out.requires_grad:
        return
    out.backward()
    agree("backward", filled([x.grad for x in leaves], leaves), wanted, 1,
          precision(program))
    _gradients_are_in_order(leaves)


def _gradients_are_in_order(leaves: list[Tensor]) -> None:
    """Each has the dtype of its leaf and memory of its own."""
    given = [x.grad for x in leaves if x.grad is not None]
    for x in leaves:
        if x.grad is not None and (type(x.grad) is not np.ndarray or x.grad.dtype != x.dtype):
            raise Mismatch(f"backward: gradient of {x.dtype} is {type(x.grad)} {x.grad.dtype}")
    for i, g in enumerate(given):
        others = given[:i] + [x.data for x in leaves]
        if any(np.shares_memory(g, other) for other in others):
            raise Mismatch("backward: a gradient shares memory")


def grad_function(program: Program, wanted: Answer, orders: int) -> None:
    """grad(), and the same for one leaf at a time: the walk leaves out what leads to others."""
    out, leaves = run(program)
    if not out.requires_grad:
        return
    options: dict = dict(allow_unused=True, retain_graph=True)
    agree("grad", filled(grad(out, leaves, **options), leaves), wanted, 1,
          precision(program))
    single = [grad(out, x, **options) for x in leaves]
    agree("grad of one leaf", filled(single, leaves), wanted, 1, precision(program))
    if any(x.grad is not None for x in leaves):
        raise Mismatch("grad: .grad was written to")


def create_graph(program: Program, wanted: Answer, orders: int) -> None:
    """First to third order, each the gradient of the one before times fixed numbers."""
    out, leaves = run(program, "plain")
    for order in range(1, orders + 1):
        found: Any = [None] * len(leaves)
        if getattr(out, "requires_grad", False):
            found = grad(out, leaves, create_graph=True, allow_unused=True)
        agree("create_graph", filled(found, leaves), wanted, order, precision(program))
        if order < orders:
            terms = [tape.sum(tape.mul(g, d))
                     for g, d in zip(found, directions(program)[order - 1]) if g is not None]
            out = sum(terms[1:], terms[0]) if terms else None


def unrecorded(program: Program, wanted: Answer, orders: int) -> None:
    """Under no_grad, to the last bit, and on plain arrays, where sums may run in another order."""
    out, _ = run(program)
    with no_grad():
        silent, _ = run(program)
    if silent.requires_grad:
        raise Mismatch("no_grad: something was recorded")
    identical("no_grad", "value", silent.data, out.data)
    plain = program.function(engine)(*program.arrays())
    if isinstance(plain, Tensor):
        raise Mismatch("plain arrays: a Tensor came out")
    agree("plain arrays", [plain], wanted, 0, precision(program))


ROUTES = {"backward": backward, "grad": grad_function, "create_graph": create_graph,
          "unrecorded": unrecorded}
