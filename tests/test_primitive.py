"""`tape.primitive`: operators defined by the user, and what it says when a definition is wrong."""

import pydoc

import numpy as np
import pytest

import tape
from tape import Tensor, grad, no_grad
from tape.gradcheck.cases import case, positive
from tape.gradcheck import gradcheck
from tape.primitive import NUMPY_FUNCTIONS, derivative
from tests.checks import added_at, check_op, leaf

X = np.array([[0.5, 1.5, 0.75], [1.25, 0.25, 2.0]])


@pytest.fixture(autouse=True)
def numpy_functions_stay_as_they_were():
    """NumPy's own function leads to the operator made from it: let it do so for one test only."""
    before = dict(NUMPY_FUNCTIONS)
    yield
    NUMPY_FUNCTIONS.clear()
    NUMPY_FUNCTIONS.update(before)


def saved(tensor):
    """What the record of a result keeps: one tuple of arguments for each rule it may call."""
    return tensor._record.saved


# --- forwards of all kinds ---


def test_a_ufunc():
    arctan = tape.primitive(np.arctan, lambda g, x: g / (1 + x * x))
    check_op(case("arctan", arctan, (2, 3)))
    assert arctan.__name__ == arctan.name == "arctan"
    # From now on NumPy's function is recorded too.
    np.testing.assert_array_equal(np.arctan(leaf(X)).data, np.arctan(X))
    assert np.arctan(leaf(X)).requires_grad


def test_a_ufunc_of_two():
    hypot = tape.primitive(np.hypot, lambda g, x, out: g * x / out, lambda g, y, out: g * y / out)
    check_op(case("hypot", hypot, (2, 3), (3,), draw=positive))


def test_a_function_with_a_slash_and_attributes():
    def scaled_sum(x, y, /, axis=0, scale=1.0):
        return scale * np.sum(x * y, axis=axis)

    operator = tape.primitive(
        scaled_sum,
        lambda g, y, axis, scale: scale * np.expand_dims(g, axis) * y,
        lambda g, x, axis, scale: scale * np.expand_dims(g, axis) * x)
    assert operator.inputs == ("x", "y")
    for call in (lambda x, y: operator(x, y), lambda x, y: operator(x, y, 1),
                 lambda x, y: operator(x, y, 1, 3.0),
                 lambda x, y: operator(x, y, axis=1, scale=3.0),
                 lambda x, y: operator(x, y, 1, scale=3.0), lambda x, y: operator(x, y, scale=2)):
        check_op(case("scaled_sum", call, (2, 3), (2, 3)))
    np.testing.assert_array_equal(operator(X, X, 1, 3.0), 3 * (X * X).sum(axis=1))


def test_a_function_without_a_slash():
    def shifted(x, y, amount=1.0):
        return x * y + amount
    operator = tape.primitive(shifted, lambda g, y: g * y, lambda g, x: g * x)
    assert operator.inputs == ("x", "y")
    check_op(case("shifted", lambda x, y: operator(x, y, amount=2.0), (2, 3), (3,)))
    assert operator(1.0, 2.0, 5.0) == 7.0


def test_attributes_without_a_default_behind_the_slash_are_required():
    operator = tape.primitive(lambda x, /, power: x ** power, lambda g, x, power: g * power * x,
                              name="raised")
    with pytest.raises(TypeError, match=r"raised: takes raised\(x, power\); 'power' is missing"):
        operator(leaf(X))
    assert gradcheck(lambda x: operator(x, 2), [X])


def test_keyword_only_attributes():
    operator = tape.primitive(lambda x, /, *, factor: x * factor, lambda g, factor: g * factor)
    assert gradcheck(lambda x: operator(x, factor=3.0), [X], order=2)
    np.testing.assert_array_equal(operator(X, 3.0), operator(leaf(X), 3.0).numpy())


def test_name_and_doc_and_repr():
    operator = tape.primitive(lambda x, /, n=2: x * n, lambda g, n: g * n, name="times",
                              doc="Text.")
    assert (operator.__name__, operator.__doc__) == ("times", "Text.")
    assert repr(operator) == "<operator times(x, n=2)>"
    assert (operator(leaf(1.0)))._record.name == "times"


def test_on_arrays_and_numbers_it_just_computes():
    operator = tape.primitive(lambda x, y, /: x * y, lambda g, y: g * y, lambda g, x: g * x)
    result = operator(X, 2.0)
    assert type(result) is np.ndarray
    assert operator(3.0, 2.0) == 6.0
    with no_grad():
        assert not operator(leaf(X), X).requires_grad


def test_elementwise_operators_have_zero_gradient_for_a_zero_cotangent():
    root = tape.primitive(lambda x, /: x ** 0.5, lambda g, out: g / (2 * out), elementwise=True)
    x = leaf([0.0, 4.0])
    tape.where(x > 0, root(x), 0).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0.25])


def test_composed_rules_may_call_the_operator_itself():
    operator = tape.primitive(lambda x, /: np.exp(2 * x), lambda g, x: 2 * g * operator(x))
    check_op(case("exp2x", operator, (3,)))


def test_rules_written_with_numpy_are_differentiated_again():
    softplus = tape.primitive(lambda x, /: np.log1p(np.exp(x)), lambda g, x: g / (1 + np.exp(-x)),
                              name="softplus", elementwise=True)
    check_op(case("softplus", softplus, (2, 3)))


def test_the_engine_undoes_broadcasting_and_keeps_the_dtype():
    operator = tape.primitive(lambda x, y, /: x * y, lambda g, y: g * y, lambda g, x: g * x)
    x, y = leaf(X, np.float32), leaf([[2.0]], np.float32)
    operator(x, y).backward(np.ones((2, 3)))
    assert x.grad.shape == (2, 3) and y.grad.shape == (1, 1)
    assert x.grad.dtype == y.grad.dtype == np.float32
    z = leaf(X, np.float32)
    wide = tape.primitive(lambda x, /: x * 1, lambda g: g.astype(np.float64))
    wide(z).backward(np.ones((2, 3)))
    assert z.grad.dtype == np.float32


# --- what is kept ---


@pytest.mark.parametrize("rule, kept", [
    (lambda g: g, ()), (lambda g, out: g, ("out",)), (lambda g, x: g, ("x",)),
    (lambda g, y, x: g, ("y", "x")), (lambda g, n: g, ("n",)), (lambda g, like_x: g, ("like_x",)),
    (lambda cotangent, out, n, y: cotangent, ("out", "n", "y"))],
    ids=["nothing", "out", "x", "y, x", "attribute", "like", "several"])
def test_the_tape_keeps_what_the_rule_names_and_nothing_else(rule, kept):
    operator = tape.primitive(lambda x, y, /, n=3: x * y * n, rule, None)
    x, y = leaf(X), X + 1
    out = operator(x, y)
    values = {"x": x.data, "y": y, "out": out.data, "n": 3, "like_x": np.zeros_like(X)}
    args = saved(out)
    assert len(args) == len(kept)
    for arg, name in zip(args, kept):
        np.testing.assert_array_equal(arg, values[name])
        if name == "x":
            assert arg is x.data          # the leaf's own array, not a copy
    held = 48 * (("out" in kept) + ("y" in kept))
    assert tape.show(out).endswith(f"1 records, {held} bytes kept")


def test_like_is_a_stand_in_of_shape_and_dtype_without_memory():
    seen = []

    def rule(g, like_x):
        seen.append(like_x)
        return g
    operator = tape.primitive(lambda x, /: x * 1, rule)
    x = leaf(np.ones((1000, 1000)), np.float32)
    operator(x).backward(np.ones(x.shape))
    (like,) = seen
    assert like.shape == x.shape and like.dtype == np.float32 and not any(like.strides)
    assert not like.flags.writeable and not like.any()


def test_only_the_rules_that_are_wanted_keep_and_run():
    calls = []
    operator = tape.primitive(lambda x, y, /: x * y,
                              lambda g, y: calls.append("x") or g * y,
                              lambda g, x: calls.append("y") or g * x)
    out = operator(leaf(X), X)
    assert len(saved(out)) == 1
    out.backward(np.ones((2, 3)))
    assert calls == ["x"]
    x = leaf(X)
    grad(operator(x, leaf(X)), x, np.ones((2, 3)))
    assert calls == ["x", "x"]


def test_a_rule_may_be_none():
    operator = tape.primitive(lambda x, index, /: x[index], lambda g, like_x, index: added_at(
        like_x.shape, index, g), None, name="pick")
    x = leaf([1.0, 2.0, 3.0])
    operator(x, np.array([0, 0, 2])).backward(np.ones(3))
    np.testing.assert_array_equal(x.grad, [2, 0, 1])
    assert not tape.primitive(lambda x, /: x * 1, None)(leaf(X)).requires_grad


def test_gradients_of_all_inputs_by_one_rule():
    @derivative(lambda g, out, like_arrays: [g * out for _ in like_arrays])
    def product_of_equals(*arrays):
        return np.exp(sum(arrays))
    x, y = leaf([0.5, 1.0]), leaf([0.25, -1.0])
    product_of_equals(x, np.zeros(2), y).sum().backward()
    for t in (x, y):
        np.testing.assert_allclose(t.grad, np.exp(x.data + y.data))


# --- definitions that are wrong ---


@pytest.mark.parametrize("rule, message", [
    (lambda g, z: g, r"op: a rule's parameters .*got 'z'"),
    (lambda g, ot: g, "got 'ot'. Did you mean 'out'"),
    (lambda g, axes: g, "got 'axes'. Did you mean 'axis'"),
    (lambda g, likex: g, "Did you mean 'like_x'")])
def test_an_unknown_name_in_a_rule(rule, message):
    with pytest.raises(TypeError, match=message):
        tape.primitive(lambda x, /, axis=0: x, rule, name="op")


@pytest.mark.parametrize("rules", [(), (lambda g: g,), (lambda g: g,) * 3])
def test_a_wrong_number_of_rules(rules):
    with pytest.raises(TypeError, match=r"op: one rule for each input .*\('x', 'y'\), got "
                                        f"{len(rules)} rules"):
        tape.primitive(lambda x, y, /: x, *rules, name="op")


@pytest.mark.parametrize("forward, rule, message", [
    (lambda x, /: -x, np.negative, "op: a rule is a Python function .* got <ufunc 'negative'>"),
    (lambda *arrays: sum(arrays), lambda g: g, r"op: the rule of .* on \*arrays returns a list")],
    ids=["a ufunc", "no list"])
def test_a_rule_of_the_wrong_kind_is_refused_at_definition(forward, rule, message):
    with pytest.raises(TypeError, match=message):
        tape.primitive(forward, rule, name="op")


@pytest.mark.parametrize("returned", [np.ones(2), np.ones((3, 3)), np.ones((2, 2)), np.ones(())],
                         ids=lambda a: str(a.shape))
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_of_the_wrong_shape_names_operator_input_and_place(returned, create_graph):
    operator = tape.primitive(lambda x, y, /: x * y, None, lambda g: g.sum() * returned, name="bad")
    x = leaf(X)
    with pytest.raises(ValueError) as caught:
        grad(operator(2.0, x).sum(), x, create_graph=create_graph)
    for words in ("bad: ", "input 1", "(2, 3)", str(returned.shape), "test_primitive.py:"):
        assert words in str(caught.value)


@pytest.mark.parametrize("returned", [None, [1.0, 2.0], "text"], ids=str)
def test_a_rule_that_returns_no_array_names_the_operator(returned):
    operator = tape.primitive(lambda x, /: x * 1, lambda g: returned, name="bad")
    with pytest.raises(TypeError, match="bad: the derivative rule for input 0 must return an array"):
        operator(leaf([1.0, 2.0])).sum().backward()


@pytest.mark.parametrize("returned", [0, 0.0, np.float64(0)], ids=repr)
def test_a_number_is_no_gradient_of_an_array(returned):
    operator = tape.primitive(lambda x, /: x * 1, lambda g: returned, name="bad")
    with pytest.raises(ValueError, match=r"bad: .* shape \(2,\) broadcasts; it returned shape \(\)"):
        operator(leaf([1.0, 2.0])).sum().backward()


@pytest.mark.parametrize("returned", [3, 3.0, np.float64(3)], ids=repr)
def test_a_number_is_a_gradient_of_a_number(returned):
    operator = tape.primitive(lambda x, /: x * 1, lambda g: returned, name="slope")
    x = leaf(2.0)
    operator(x).backward()
    assert x.grad == 3 and x.grad.dtype == np.float64


def test_a_size_one_axis_may_come_back_broadcast():
    operator = tape.primitive(lambda x, /: x * np.ones((2, 3)), lambda g: g)
    x = leaf([[1.0, 2.0, 3.0]])
    operator(x).backward(np.ones((2, 3)))
    np.testing.assert_array_equal(x.grad, [[2, 2, 2]])


# --- calls that are wrong ---


@pytest.mark.parametrize("call, message", [
    (lambda f: f(), r"op: takes op\(x, y, axis=0\); got 0 positional"),
    (lambda f: f(X), "got 1 positional"), (lambda f: f(X, X, 0, 0), "got 4 positional"),
    (lambda f: f(X, X, axes=1), "got axes=1. Did you mean 'axis'"),
    (lambda f: f(X, X, other=1), "got other=1"), (lambda f: f(X, y=X), "op: takes op")])
def test_wrong_calls_show_the_signature(call, message):
    operator = tape.primitive(lambda x, y, /, axis=0: x, lambda g: g, None, name="op")
    with pytest.raises(TypeError, match=message):
        call(operator)


def test_an_error_of_the_forward_names_the_operator_and_the_shapes():
    def fails(x, /):
        raise ValueError("no such luck")
    operator = tape.primitive(fails, lambda g: g, name="unlucky")
    with pytest.raises(ValueError, match=r"^unlucky: no such luck \(inputs of shape \(2, 3\)\)"):
        operator(leaf(X))


@pytest.mark.parametrize("result", [3, 2.5], ids=str)
def test_a_forward_may_return_a_number(result):
    operator = tape.primitive(lambda x, /: result, lambda g, like_x: np.zeros(like_x.shape),
                              name="constant")
    x = leaf([1.0, 2.0])
    out = operator(x)
    assert isinstance(out, Tensor) and isinstance(out.data, np.ndarray) and out.item() == result
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 0])


@pytest.mark.parametrize("result", [[1.0, 2.0], None], ids=str)
def test_a_forward_that_returns_no_array_is_refused_by_name(result):
    operator = tape.primitive(lambda x, /: result, lambda g, like_x: np.zeros(like_x.shape),
                              name="odd")
    kind = type(result).__name__
    with pytest.raises(TypeError, match=f"odd: the forward must return an array, got {kind}"):
        operator(leaf([1.0, 2.0]))


def test_help_shows_an_operator_as_a_function():
    text = pydoc.plain(pydoc.render_doc(tape.softmax))
    assert "softmax(x, /, axis=-1)" in text and "The backward, step by step" in text
    assert "div(x, y, /)" in pydoc.plain(pydoc.render_doc(tape.div))


def test_an_operator_in_a_class_body_is_a_method():
    class Special(Tensor):
        swish = tape.primitive(lambda x, /: x * 2, lambda g: g * 2, name="swish")

    x = Special([1.0], requires_grad=True)
    x.swish().backward()
    assert x.grad == 2
