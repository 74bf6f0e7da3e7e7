"""Random programs over a few operators, and their values and gradients by the naive engine.

What is drawn is a list of instructions (operator, operand, operand); operands are positions counted
back from the newest value, so a program runs whatever it holds, and what it computes in the end is
the sum of all its results.
"""

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st

from tape import ops
from tests import reference_engine
from tests.checks import leaf

MATRICES = {"matmul", "transpose", "rows"}      # these need a 2 x 2 operand
BINARY = {"add", "sub", "mul", "div", "maximum", "matmul"}

TAPE = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (1 + b * b), "maximum": ops.maximum, "matmul": lambda a, b: a @ b,
    "neg": lambda a: -a, "tanh": ops.tanh, "sin": ops.sin, "cube": lambda a: a ** 3,
    "transpose": lambda a: a.T, "total": lambda a: a.sum(), "rows": lambda a: a.sum(axis=0),
}

# A matrix, a row that broadcasts against it, a column, a number.
LEAVES = [np.array([[0.3, -0.7], [1.1, 0.4]]), np.array([0.9, -0.2]), np.array([[0.6], [-1.2]]),
          np.array(0.8)]

INSTRUCTIONS = st.tuples(st.sampled_from(sorted(TAPE)), st.integers(0, 20), st.integers(0, 20))
PROGRAMS = st.lists(INSTRUCTIONS, min_size=1, max_size=11)


def run(program, leaves, table, shape_of=np.shape):
    """All values of a program, the leaves first."""
    values = list(leaves)
    for name, i, j in program:
        usable = [v for v in values if shape_of(v) == (2, 2)] if name in MATRICES else values
        operands = [usable[-1 - i % len(usable)]]
        if name in BINARY:
            operands.append(usable[-1 - j % len(usable)])
        values.append(table[name](*operands))
    return values


def loss(values, total, add):
    """The sum of everything that was computed."""
    result = total(values[len(LEAVES)])
    for value in values[len(LEAVES) + 1:]:
        result = add(result, total(value))
    return result


def by_reference(program):
    """(loss, gradients) of the naive engine."""
    table = reference_engine.TABLE
    leaves = [reference_engine.Value(array) for array in LEAVES]
    values = run(program, leaves, table, lambda v: v.data.shape)
    result = loss(values, table["total"], table["add"])
    # Beyond this the programs test floating-point arithmetic rather than the engines.
    assume(all(np.abs(v.data).max() < 1e3 for v in values))
    result.pull(1.0)
    return result.data, [v.grad for v in leaves]


def by_tape(program, dtype=np.float64):
    leaves = [leaf(array, dtype) for array in LEAVES]
    return loss(run(program, leaves, TAPE), ops.sum, ops.add), leaves


def filled(gradients):
    """Gradients as arrays, zeros for the leaves that took no part."""
    return [np.zeros(a.shape) if g is None else np.asarray(getattr(g, "data", g))
            for g, a in zip(gradients, LEAVES)]


def assert_close(got, wanted, rtol=1e-9):
    scale = max(1.0, *(np.abs(w).max() for w in wanted))
    for g, w in zip(filled(got), wanted, strict=True):
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol * scale)


SETTINGS = settings(max_examples=150, deadline=None, derandomize=True, database=None)
