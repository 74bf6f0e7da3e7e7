"""The gradient checker itself: what it accepts, what it rejects, and what it says."""

import numpy as np
import pytest

import tape
from tape import ops
from tape.gradcheck import cases, gradcheck, worst_error
from tape.gradcheck.__main__ import main
from tests.checks import run_python

X = np.array([[0.5, -1.5, 2.0], [1.25, 0.75, -0.25]])


def operator(rule, forward=lambda x, /: x ** 3):
    return tape.primitive(forward, rule, name="made_up", elementwise=True)


right = operator(lambda g, x: g * 3 * x ** 2)
wrong_by_a_thousandth = operator(lambda g, x: g * 3 * x ** 2 * 1.001)


def test_a_right_rule_is_accepted():
    assert gradcheck(right, [X], order=2) is True


def test_a_rule_wrong_by_a_thousandth_is_rejected():
    with pytest.raises(ValueError, match="made_up") as caught:
        gradcheck(wrong_by_a_thousandth, [X])
    assert "the derivative is wrong" in str(caught.value)


@pytest.mark.parametrize("case", cases.CASES[:8], ids=lambda case: case.name)
def test_a_thousandth_is_rejected_for_each_of_the_eight(case):
    # The forward is the operator's own; all of its gradients come out a thousandth too large.
    stretch = tape.primitive(lambda x, /: x * 1.0, lambda g: g * 1.001)

    def scaled(*tensors):
        return case.function(*map(stretch, tensors))
    with pytest.raises(ValueError, match="the derivative is wrong"):
        gradcheck(scaled, case.inputs())


def test_a_missing_term_is_rejected():
    # Softmax without the part that normalisation brings back.
    softmax = tape.primitive(lambda x, /: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
                             lambda g, out: g * out)
    with pytest.raises(ValueError, match="order 1"):
        gradcheck(softmax, [X])


def test_a_missing_input_is_rejected():
    product = tape.primitive(lambda x, y, /: x * y, lambda g, y: g * y, None, name="half_product")
    with pytest.raises(ValueError, match="input 1, index"):
        gradcheck(product, [X, X + 1])


def test_a_detached_branch_is_rejected():
    with pytest.raises(ValueError, match="analytic 0"):
        gradcheck(lambda x: x.detach() * 2, [X])


def test_the_message_names_the_worst_element_and_both_numbers():
    def one_wrong(g):
        return g * np.where(np.arange(6).reshape(2, 3) == 4, 2.5, 2.0)
    with pytest.raises(ValueError) as caught:
        gradcheck(operator(one_wrong, lambda x, /: 2 * x), [X], seed=3)
    assert "input 0, index (1, 1)" in str(caught.value)
    error, index, place, analytic, numeric = worst_error(
        operator(one_wrong, lambda x, /: 2 * x), [X], seed=3)
    assert (index, place) == (0, (1, 1))
    assert analytic == pytest.approx(1.25 * numeric) and error == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_is_rejected_wherever_it_stands(place):
    slopes = np.full(3, 2.0)
    slopes[place] = np.nan
    with pytest.raises(ValueError, match=rf"index \({place},\): analytic nan"):
        gradcheck(operator(lambda g: g * slopes, lambda x, /: x * 2), [np.ones(3)])


def test_an_infinite_derivative_is_rejected():
    with pytest.raises(ValueError, match="analytic inf"):
        gradcheck(operator(lambda g: g * np.array([2, np.inf, 2]), lambda x, /: x * 2),
                  [np.ones(3)])


# --- kink or bug ---


@pytest.mark.parametrize("function, at", [
    (ops.relu, [1.0, 1e-6]), (ops.abs, [2e-6, -1.0]),
    (lambda x: ops.where(x > 0, 1.0 + x, x), [0.0, 1.0])], ids=["relu", "abs", "jump"])
def test_a_kink_is_told_from_a_bug(function, at):
    with pytest.raises(ValueError, match="kink") as caught:
        gradcheck(function, [at])
    assert "is wrong" not in str(caught.value)


def test_away_from_the_kink_the_same_functions_pass():
    assert gradcheck(ops.relu, [[1.0, -1e-2]], order=2)
    assert gradcheck(ops.abs, [[1.0, -1e-2]], order=2)


# --- second order ---


def test_order_two_catches_a_rule_that_cannot_be_differentiated():
    # Right on arrays; but t.numpy() cuts the tape, so the second derivative lacks a factor.
    def cut(g, x):
        return g * (3 * (x if isinstance(x, np.ndarray) else x.numpy()) ** 2)
    assert gradcheck(operator(cut), [X])
    with pytest.raises(ValueError, match="order 2"):
        gradcheck(operator(cut), [X], order=2)


def test_order_two_catches_a_wrong_second_derivative():
    # The slope of x^3 by an operator of its own, whose own rule is a thousandth wrong.
    slope = tape.primitive(lambda x, /: 3 * x ** 2, lambda g, x: g * 6.006 * x)
    bent = operator(lambda g, x: g * slope(x))
    assert gradcheck(bent, [X])
    with pytest.raises(ValueError, match="order 2.*derivative is wrong"):
        gradcheck(bent, [X], order=2)


# --- what functions it takes ---


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_outputs(kind):
    assert gradcheck(lambda x: kind([x * 2, x.sum(), x.exp()]), [X], order=2)
    with pytest.raises(ValueError, match="derivative is wrong"):
        gradcheck(lambda x: kind([x * 2, wrong_by_a_thousandth(x)]), [X])


def test_inputs_are_cast_to_float64_and_left_alone():
    x = X.astype(np.float32)
    t = tape.Tensor(x, requires_grad=True)
    assert gradcheck(lambda a, b: (a * b).tanh(), [x, t])
    assert t.grad is None and t.dtype == np.float32
    np.testing.assert_array_equal(x, X.astype(np.float32))
    assert gradcheck(ops.exp, [[1, 2]]) and gradcheck(ops.exp, [3])


def test_it_works_under_no_grad():
    with tape.no_grad():
        assert gradcheck(right, [X], order=2)
        with pytest.raises(ValueError):
            gradcheck(wrong_by_a_thousandth, [X])


def test_an_input_that_plays_no_part_is_right_at_zero():
    assert gradcheck(lambda x, y: x * 2, [X, X], order=2)


def test_a_seeded_dropout_can_be_checked():
    assert gradcheck(lambda x: ops.dropout(x, 0.5, rng=4), [X], order=2)


# --- the command and the name ---


def test_the_command_prints_the_table_and_passes():
    """Of the eight of the README; test_operators.py checks all, and .ci/run prints the whole table."""
    operators = {name.split("/")[0] for name in cases.EIGHT}
    chosen = [case for case in cases.CASES if case.operator in operators]
    run = run_python("-W", "error", "-m", "tape.gradcheck", *sorted(operators))
    assert run.returncode == 0
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    for name in cases.EIGHT:
        (line,) = [line for line in lines if line.startswith(f"* {name} ")]
        assert line.endswith("pass")
    assert sum(line.endswith("pass") for line in lines) == len(chosen) >= 8
    assert lines[-1].startswith(f"{len(chosen)} passed, 0 failed")


def test_main_returns_one_and_names_what_failed(monkeypatch, capsys):
    made_up = [cases.case("fine", ops.exp, (2,)),
               cases.case("bent", wrong_by_a_thousandth, (2,))]
    monkeypatch.setattr(cases, "CASES", made_up)
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert "1 passed, 1 failed: bent" in printed
    assert [line.split()[-1] for line in printed.splitlines()[3:5]] == ["pass", "FAIL"]


def test_main_returns_zero_when_all_pass(monkeypatch, capsys):
    monkeypatch.setattr(cases, "CASES", [cases.case("fine", ops.exp, (2,))])
    assert main() == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize("import_first", ["", "from tape.gradcheck import gradcheck",
                                          "import tape.gradcheck", "from tape import gradcheck"])
def test_the_name_is_callable_however_it_was_imported(import_first):
    code = f"import tape\n{import_first}\nassert tape.gradcheck(tape.exp, [[1.0, 2.0]]) is True\n" \
           f"from tape.gradcheck import gradcheck\nassert gradcheck(tape.exp, [[1.0]], order=2)\n" \
           f"assert tape.gradcheck(tape.exp, [[1.0, 2.0]], order=2) is True"
    run = run_python("-W", "error", "-c", code)
    assert run.returncode == 0, run.stderr


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'gradchek'"):
        tape.gradchek
