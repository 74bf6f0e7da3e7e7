"""Random programs: the engine against the naive one of reference_engine.py, and against itself by
every route.

A program is a list of instructions (operator, operand, operand). Every result can be an operand
again, any number of times; what it computes in the end is the sum of all its results, so fan-out,
reuse and dead ends by themselves are the rule rather than the exception.
"""

import numpy as np
from hypothesis import assume, given, settings

import tape
from tape import grad, ops
from tests.checks import leaf, peer
from tests.program_checks import (
    LEAVES, PROGRAMS, SETTINGS, TAPE, assert_close, by_reference, by_tape, filled, loss, run)


@SETTINGS
@given(PROGRAMS)
def test_value_and_gradients_are_the_references(program):
    value, gradients = by_reference(program)
    result, leaves = by_tape(program)
    np.testing.assert_allclose(result.data, value, rtol=1e-10, atol=1e-10)
    result.backward()
    assert_close([x.grad for x in leaves], gradients)


@SETTINGS
@given(PROGRAMS)
def test_all_routes_agree(program):
    _, gradients = by_reference(program)
    result, leaves = by_tape(program)
    options = dict(allow_unused=True, retain_graph=True)
    assert_close(grad(result, leaves, **options), gradients)
    assert_close(grad(result, leaves, create_graph=True, **options), gradients)
    # One input at a time, when the walk leaves out all that does not lead to it.
    one_by_one = [grad(result, x, **options) for x in leaves]
    assert_close(one_by_one, gradients)
    assert all(x.grad is None for x in leaves)
    result.backward(retain_graph=True)
    assert_close([x.grad for x in leaves], gradients)
    result.backward()
    assert_close([None if x.grad is None else x.grad / 2 for x in leaves], gradients)


@settings(SETTINGS, max_examples=60)
@given(PROGRAMS)
def test_the_chain_rule_holds_at_every_intermediate_result(program):
    # dL/dx by way of dL/dv for all v of a cut must be what the whole walk gives.
    by_reference(program)
    leaves = [leaf(array) for array in LEAVES]
    shifted = [x * 1 for x in leaves]
    result = loss(run(program, shifted, TAPE), ops.sum, ops.add)
    options = dict(allow_unused=True, retain_graph=True)
    at_the_cut = grad(result, shifted, **options)
    behind = [None if g is None else grad(s, x, g, retain_graph=True)
              for s, x, g in zip(shifted, leaves, at_the_cut)]
    assert_close(behind, filled(grad(result, leaves, **options)), rtol=1e-12)


@settings(SETTINGS, max_examples=60)
@given(PROGRAMS)
def test_float32_is_kept_throughout(program):
    _, gradients = by_reference(program)
    result, leaves = by_tape(program, np.float32)
    result.backward()
    assert result.dtype == np.float32
    assert {x.grad.dtype for x in leaves if x.grad is not None} <= {np.dtype(np.float32)}
    assert_close([x.grad for x in leaves], gradients, rtol=1e-3)


@settings(SETTINGS, max_examples=40)
@given(PROGRAMS)
def test_gradients_of_gradients_pass_the_checker(program):
    # A kink of maximum may lie on the way, and products of many cubes are steep: leave both out.
    program = [instruction for instruction in program if instruction[0] != "maximum"][:6]
    assume(program)
    _, gradients = by_reference(program)
    assume(max(np.abs(g).max() for g in gradients) < 100)
    assert tape.gradcheck(lambda *xs: loss(run(program, xs, TAPE), ops.sum, ops.add), LEAVES,
                          order=2, tolerance=1e-5)


@settings(SETTINGS, max_examples=60)
@given(PROGRAMS)
def test_autograd_agrees(program):
    anp, autograd = peer("autograd.numpy"), peer("autograd")
    table = dict(TAPE, maximum=anp.maximum, tanh=anp.tanh, sin=anp.sin, total=anp.sum,
                 rows=lambda a: anp.sum(a, axis=0))
    by_reference(program)

    def function(*leaves):
        return loss(run(program, leaves, table), anp.sum, lambda a, b: a + b)

    arrays = [np.array(array) for array in LEAVES]
    result, leaves = by_tape(program)
    np.testing.assert_allclose(result.data, function(*arrays), rtol=1e-10)
    wanted = autograd.grad(function, argnum=tuple(range(len(LEAVES))))(*arrays)
    result.backward()
    assert_close([x.grad for x in leaves], list(wanted))
