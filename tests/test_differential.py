"""The differential tester of ``tests/differential``: half a minute of it, and what it finds.

``python -m tests.differential --seconds 600 --seed 0`` runs it for as long as wanted.
"""

import numpy as np
import pytest

import tape
from tape import primitive
from tests.differential import eager, mutation, runner
from tests.differential.answers import by_reference
from tests.differential.draw import draw_program
from tests.differential.engine import engine

PROGRAMS = 700           # half a minute on one core


def test_random_programs_agree_by_every_route():
    report = runner.run(seed=0, programs=PROGRAMS, most_reports=3, enough=lambda failure: True)
    assert not report.failures, report.failures[0].report()
    skipped = report.programs - report.orders[3] - report.orders[1]
    assert skipped <= 0.05 * report.programs, report.text()


def test_programs_are_drawn_the_same_every_time():
    for number in range(20):
        assert draw_program(3, number).listing() == draw_program(3, number).listing()


def test_every_operator_is_drawn():
    drawn = {step.operator for number in range(600)
             for step in draw_program(1, number).instructions}
    # Not drawn: NumPy's other functions.
    assert set(tape.ops.__all__) - set(tape.ops.NUMPYS) <= drawn


def test_a_listing_can_be_run():
    for number in range(30):
        program = draw_program(2, number)
        namespace = {}
        with np.errstate(all="ignore"):
            exec(program.listing(), namespace)
            value = by_reference(program, 1).value
        np.testing.assert_allclose(namespace["out"].data, value, rtol=0.05, atol=0.05)


# --- planted faults ---


def found(operator, replacement, monkeypatch, route, programs=400):
    """Whether a run with `operator` replaced ends with a short program that has this operator."""
    monkeypatch.setattr(engine, operator, replacement, raising=False)
    report = runner.run(seed=7, programs=programs, routes={route: eager.ROUTES[route]},
                        enough=lambda failure: failure.program.uses(operator))
    return report.failures and report.failures[-1].program.uses(operator)


def _first_copy(g, shape):
    """A wrong way to undo broadcasting: the first of the copies, not their sum."""
    g = g[(0,) * (g.ndim - len(shape))]
    return g[tuple(slice(0, n) for n in shape)]


def _written_once(g, like_x, index):
    """A wrong way to undo picking: an element picked twice gets one of its two gradients."""
    out = np.zeros(like_x.shape, g.dtype)
    out[index] = g
    return out


forgets_its_mask = primitive(lambda g, c, /: np.where(c, g, 0), lambda g: g, None)

PLANTED = {
    "wrong by 0.1 %": ("tanh", "backward", primitive(
        np.tanh, lambda g, out: g * (1 - out * out) * 1.001, name="tanh")),
    "a lost broadcast sum": ("mul", "backward", primitive(
        lambda x, y, /: np.multiply(x, y),
        lambda g, y, like_x: _first_copy(g * y, like_x.shape),
        lambda g, x, like_y: _first_copy(g * x, like_y.shape), name="mul")),
    "a dropped repeated index": ("getitem", "backward", primitive(
        lambda x, /, index: x[index], _written_once, name="getitem")),
    "a mask lost in second order": ("relu", "create_graph", primitive(
        lambda x, /: np.maximum(x, 0), lambda g, x: forgets_its_mask(g, np.greater(x, 0)),
        name="relu")),
    "a wrong third derivative": ("sin", "create_graph", primitive(
        np.sin, lambda g, x: g * wrong_cos(x), name="sin"))}

wrong_cos = primitive(np.cos, lambda g, x: -g * (np.sin(x) + 1e-3 * np.cos(x)), name="wrong_cos")


@pytest.mark.parametrize("operator, route, replacement", PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_found(operator, route, replacement, monkeypatch):
    assert found(operator, replacement, monkeypatch, route)


def test_nothing_is_found_where_only_the_implementation_differs(monkeypatch):
    right = primitive(np.tanh, lambda g, x: g * (1 - tape.tanh(x)) * (1 + tape.tanh(x)),
                      name="tanh")
    assert not found("tanh", right, monkeypatch, "create_graph", programs=60)


def test_a_constant_that_is_not_copied_is_found(monkeypatch):
    """An operator that keeps the very array that it was given."""
    def leaky(x, y):
        if not isinstance(y, np.ndarray) or not isinstance(x, tape.Tensor):
            return tape.mul(x, y)
        return primitive(lambda x, /: x * y, lambda g: g * y, name="mul")(x)
    monkeypatch.setattr(engine, "mul", leaky, raising=False)
    report = runner.run(seed=7, programs=400, routes=mutation.ROUTES, most_reports=0,
                        enough=_of_a_constant)
    assert _of_a_constant(report.failures[-1])


def _of_a_constant(failure):
    return "constant c" in str(failure.error) and failure.program.uses("mul")


def test_shortened_programs_fail_alike(monkeypatch):
    name, route, replacement = PLANTED["wrong by 0.1 %"]
    monkeypatch.setattr(engine, name, replacement, raising=False)
    report = runner.run(seed=7, programs=400, routes={route: eager.ROUTES[route]},
                        enough=lambda failure: failure.program.uses(name))
    shortest = report.failures[-1]
    assert len(shortest.program.instructions) <= 6
    with pytest.raises(AssertionError, match="but the reference says"), np.errstate(all="ignore"):
        eager.ROUTES[route](shortest.program, by_reference(shortest.program, 1), 1)
