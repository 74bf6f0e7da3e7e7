"""Forwards and rules of a user's that write to what they are given, or keep it; strict mode.

A forward gets arrays that cannot be written to; a rule may write to its cotangent, which is its own,
and to nothing else.
"""

import numpy as np
import pytest

import tape
from tape import Tensor, grad, ops
from tests.checks import leaf


# --- rules ---


@pytest.mark.parametrize("shape", [(2,), ()])
def test_a_rule_that_writes_to_its_cotangent(shape):
    def doubled(g):
        g *= 2
        return g
    operator = tape.primitive(lambda x, y: x + y, doubled, lambda g: g, name="doubled")
    x, y = leaf(np.ones(shape)), leaf(np.ones(shape))
    upstream = np.ones(shape)
    operator(x, y).backward(upstream)
    np.testing.assert_array_equal(x.grad, 2 * np.ones(shape))
    np.testing.assert_array_equal(y.grad, np.ones(shape))
    np.testing.assert_array_equal(upstream, np.ones(shape))


def test_a_cotangent_that_a_rule_passes_on_stays_the_users():
    upstream = np.ones(3)
    x = leaf(np.ones(3))
    (x + 0.0).backward(upstream)
    assert upstream.flags.writeable and x.grad.flags.writeable
    x.grad[0] = 5
    np.testing.assert_array_equal(upstream, 1)


# --- forwards and rules ---


def test_a_forward_that_keeps_its_argument():
    kept = []
    hoard = tape.primitive(lambda x: (kept.append(x), x * 2)[1], lambda g: g * 2, name="hoard")
    t = leaf([1.0, 2.0])
    y = t * t
    z = hoard(t)
    with pytest.raises(ValueError, match="read-only"):
        kept[0][:] = 10
    (y + z).sum().backward()
    np.testing.assert_array_equal(t.grad, [4, 6])


def test_a_forward_that_writes_to_its_argument():
    def bump(x):
        x += 1
        return x * 2
    operator = tape.primitive(bump, lambda g: g * 2, name="bump")
    t = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match="bump: .*read-only"):
        operator(t)
    np.testing.assert_array_equal(t.data, [1, 2])


@pytest.mark.parametrize("source", [lambda t: t, lambda t: t * 1], ids=["leaf", "result"])
def test_a_rule_that_writes_to_what_the_tape_keeps(source):
    def scaled(g, x):
        x *= g
        return x
    operator = tape.primitive(lambda x: x * x / 2, scaled, name="scaled")
    t = leaf([1.0, 2.0])
    h = source(t)
    y = (operator(h) + h * h).sum()
    with pytest.raises(ValueError, match="scaled: a derivative rule must not write to what the tape"):
        y.backward()
    np.testing.assert_array_equal(h.data, [1, 2])


def test_a_result_of_a_subclass_that_views_its_input():
    class Marked(np.ndarray):
        """A subclass, as np.matrix is."""
    operator = tape.primitive(lambda x: x.view(Marked), lambda g: g, name="marked")
    t = leaf([1.0, 2.0])
    z = operator(t)
    y = (z * z).sum()
    t.data[:] = 10
    assert type(z.data) is np.ndarray
    np.testing.assert_array_equal(z.data, [1, 2])
    y.backward()
    np.testing.assert_array_equal(t.grad, [2, 4])


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_rule_that_writes_to_an_attribute(create_graph):
    def doubled(g, w):
        w *= 2
        return g * w
    scale = tape.primitive(lambda x, /, w: x * w, doubled, name="scale")
    x = leaf([1.0])
    y = scale(x, w=np.array([5.0]))
    with pytest.raises(ValueError, match="scale: .* must not write"):
        grad(y, x, create_graph=create_graph)


def test_a_tensor_is_no_attribute():
    scale = tape.primitive(lambda x, /, w: x * w, lambda g, w: g * w, name="scale")
    with pytest.raises(TypeError, match="scale: w is an attribute, .* cannot be a Tensor"):
        scale(leaf([1.0]), w=Tensor([5.0]))


def test_a_forward_that_needs_to_write_is_told_how():
    def ordered(x):
        x.sort()
        return x
    operator = tape.primitive(ordered, lambda g: g, name="ordered")
    with pytest.raises(ValueError, match=r"ordered: .*work on a copy, x.copy\(\)"):
        operator(leaf([2.0, 1.0]))


# --- strict mode ---


def test_strict_names_what_was_changed():
    buffer = np.zeros(3)
    square = tape.primitive(lambda x: np.multiply(x, x, out=buffer), lambda g, out, x: g * 2 * x,
                            name="square")
    x = leaf([1.0, 2.0, 3.0])
    with tape.strict():
        y = square(x * 1)
        square(x * 2)                        # overwrites the first result
    with pytest.raises(RuntimeError, match=r"square: its out, of shape \(3,\), was changed in place"):
        y.sum().backward()


def test_strict_changes_no_number():
    def gradients():
        x, w = (leaf(np.random.default_rng(0).uniform(1, 2, shape)) for shape in ((3, 4), (4, 4)))
        h = ops.layer_norm(ops.gelu(x @ w)) + ops.causal_attention(x, x, x)
        ops.cross_entropy(ops.concatenate([h, x]), [0, 1, 2, 3, 0, 1]).backward()
        return x.grad, w.grad
    with tape.strict():
        strictly = gradients()
    for a, b in zip(strictly, gradients(), strict=True):
        np.testing.assert_array_equal(a, b)
