"""Random programs as static graphs, built node by node or frozen, against the eager run."""

import numpy as np
from hypothesis import given, settings

import tape.lazy as ad
from tape import grad, ops
from tests.checks import leaf
from tests.program_checks import (
    LEAVES, PROGRAMS, SETTINGS, TAPE, assert_close, by_reference, by_tape, loss, run)

STATIC = {**TAPE, "transpose": lambda a: ops.transpose(a), "total": lambda a: ops.sum(a),
          "rows": lambda a: ad.sum_op(a, dim=0)}


def by_graph(program):
    """(loss, variables) as nodes; a program chooses its operands by shape, so it is told shapes."""
    shapes = {}

    def shape_of(node):
        if node not in shapes:
            values = ad.Evaluator([node]).run(dict(zip(variables, LEAVES)))
            shapes[node] = values[0].shape
        return shapes[node]
    variables = [ad.Variable(f"x{i}") for i in range(len(LEAVES))]
    return loss(run(program, variables, STATIC, shape_of), ops.sum, ops.add), variables


@settings(SETTINGS, max_examples=80)
@given(PROGRAMS)
def test_a_program_of_nodes(program):
    value, gradients = by_reference(program)
    node, variables = by_graph(program)
    result, *found = ad.Evaluator([node, *ad.gradients(node, variables)]).run(
        dict(zip(variables, LEAVES)))
    np.testing.assert_allclose(result, value, rtol=1e-10, atol=1e-10)
    assert_close(found, gradients)


@settings(SETTINGS, max_examples=80)
@given(PROGRAMS)
def test_a_frozen_program_on_other_numbers_is_the_eager_one_to_the_last_bit(program):
    by_reference(program)
    with ad.tracing():
        result, leaves = by_tape(program)
    used = [x for x, g in zip(leaves, grad(result, leaves, allow_unused=True, retain_graph=True))
            if g is not None]
    node, variables = ad.from_tape(result, used)
    fresh = [leaf(array * 0.9 + 0.05) for array in LEAVES]
    expected = loss(run(program, fresh, TAPE), ops.sum, ops.add)
    expected.backward()
    values = [x for x, old in zip(fresh, leaves) if any(old is u for u in used)]
    value, *found = ad.Evaluator([node, *ad.gradients(node, variables)]).run(
        {v: x.data for v, x in zip(variables, values)})
    np.testing.assert_array_equal(value, expected.data)
    for slope, x in zip(found, values, strict=True):
        np.testing.assert_array_equal(slope, x.grad)


@settings(SETTINGS, max_examples=40)
@given(PROGRAMS)
def test_second_derivatives_of_a_program_of_nodes(program):
    by_reference(program)
    node, variables = by_graph(program)
    slopes = ad.gradients(node, variables)
    length = sum((ops.sum(s * s) for s in slopes[1:]), ops.sum(slopes[0] * slopes[0]))
    found = ad.Evaluator(ad.gradients(length, variables)).run(dict(zip(variables, LEAVES)))
    result, leaves = by_tape(program)
    first = grad(result, leaves, create_graph=True, allow_unused=True)
    parts = [(g * g).sum() for g in first if g is not None]
    total = sum(parts[1:], parts[0])
    second = grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(leaves)
    assert_close(found, [np.zeros(a.shape) if g is None else g.data for g, a in zip(second, LEAVES)])
