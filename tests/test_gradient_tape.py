"""`GradientTape`: gradients as a with block."""

import numpy as np
import pytest

import tape
from tape import GradientTape, Tensor, no_grad
from tests.checks import leaf


def test_a_watched_tensor_has_a_gradient():
    x = Tensor(np.array([1.0, 2.0]))
    with GradientTape() as t:
        t.watch(x)
        y = x ** 2
    assert t.gradient(y, x).tolist() == [2.0, 4.0]


def test_parameters_are_watched_and_no_grad_outside_does_not_matter():
    w = leaf([1.0, 2.0])
    with no_grad(), GradientTape() as t:
        y = (w * w).sum()
    assert t.gradient(y, w).tolist() == [2.0, 4.0]
    assert w.grad is None


def test_the_result_is_built_like_the_sources():
    w, b, other = leaf([1.0]), leaf([2.0]), leaf([3.0])
    with GradientTape() as t:
        y = w * b
    found = t.gradient(y, {"w": w, "rest": [b, other]})
    assert found["w"].item() == 2.0 and found["rest"][0].item() == 1.0 and found["rest"][1] is None


def test_seeds_and_several_targets():
    x = leaf([1.0, 2.0])
    with GradientTape(persistent=True) as t:
        y, z = x * 2, x * x
    assert t.gradient([y, z], x).tolist() == [4.0, 6.0]
    assert t.gradient(z, x, np.array([1.0, 10.0])).tolist() == [2.0, 40.0]
    assert t.gradient([y, z], x, [np.zeros(2), np.ones(2)]).tolist() == [2.0, 4.0]
    with pytest.raises(ValueError):
        t.gradient([y, z], x, [np.zeros(2)])


def test_only_a_persistent_tape_is_asked_twice():
    x = leaf(2.0)
    with GradientTape() as t:
        y = x * x
    t.gradient(y, x)
    with pytest.raises(RuntimeError, match="already walked and released"):
        t.gradient(y, x)


def test_nested_tapes_give_higher_derivatives():
    x = leaf(2.0)
    with GradientTape() as a:
        with GradientTape() as b:
            with GradientTape() as c:
                y = x ** 4
            first = c.gradient(y, x)
        second = b.gradient(first, x)
    assert (first.item(), second.item(), a.gradient(second, x).item()) == (32.0, 48.0, 48.0)


def test_what_was_not_recorded_has_none():
    x = Tensor(2.0)
    with GradientTape() as t:
        y = x * 3
    assert t.gradient(y, x) is None
    with pytest.raises(TypeError, match="watch: takes Tensors, got float"):
        t.watch(2.0)


def test_what_is_no_tensor_is_refused_in_words():
    x = Tensor([1.0])
    with GradientTape() as recorded:
        recorded.watch(x)
        y = x * 2
    for target, source in [(y, np.ones(1)), (2.0, x)]:
        with pytest.raises(TypeError, match="gradient: takes Tensors, got"):
            recorded.gradient(target, source)


def test_a_released_intermediate_as_a_target_does_not_hide_others():
    x = Tensor(2.0)
    with GradientTape() as t:
        t.watch(x)
        y = x * x
        z = y * y
    t.gradient(y, x)
    with pytest.raises(RuntimeError, match="walked and released; the record in question is mul"):
        t.gradient(z, [x, y])
    assert t.gradient(z, y).item() == 8


def test_a_target_that_is_reached_beside_a_released_one_is_not_taken_for_complete():
    x = Tensor(2.0, requires_grad=True)
    y = x * x
    z = y * y + x
    u = y * 3
    tape.grad(y, x)
    with pytest.raises(RuntimeError, match="walked and released"):
        tape.grad(z, [x, y])
    later = u * u + z
    assert [g.item() for g in tape.grad(later, [y, u])] == [8 + 2 * 12 * 3, 2 * 12]
