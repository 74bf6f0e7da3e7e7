"""Recurrent layers: against loops of plain NumPy written from the papers, and by differences."""

import numpy as np
import pytest

import nn
import tape
from tape import Tensor, gradcheck
from tests.checks import Recorder, differences, in_float64, leaf, replaced_parameters
from tests.reference_recurrent import STEPS, arrays_of, by_loops

KINDS = pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])


def example(make, n_layer=2):
    """A module of float64 whose biases are not zero, an input (2, 4, 3), and a state before it."""
    rng = np.random.default_rng(1)
    module = in_float64(make(3, 2, n_layer, rng=0))
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.5 * rng.standard_normal(parameter.shape)
    state = 0.5 * rng.standard_normal((len(make.parts), n_layer, 2, 2))
    return module, rng.standard_normal((2, 4, 3)), state


@KINDS
def test_outputs_and_state_equal_loops(make):
    module, x, state = example(make)
    for before in (state, np.zeros_like(state)):
        out, after = module(Tensor(x), tuple(before) if before.any() else None)
        wanted, wanted_after = by_loops(STEPS[make], x, arrays_of(module), before)
        np.testing.assert_allclose(out.data, wanted, rtol=1e-12)
        np.testing.assert_allclose([part.data for part in after], wanted_after, rtol=1e-12)


@KINDS
def test_gradients_are_those_of_the_loops_by_differences(make):
    module, x, state = example(make)
    t, before = leaf(x), [leaf(part) for part in state]
    out, after = module(t, tuple(before))
    (out.sum() + sum((part * part).sum() for part in after)).backward()
    flat = [array for arrays in arrays_of(module) for array in arrays]
    per_layer = len(flat) // 2

    def loss(x, *arrays):
        weights, before = arrays[:len(flat)], np.array(arrays[len(flat):])
        out, after = by_loops(STEPS[make], x, [weights[:per_layer], weights[per_layer:]], before)
        return out.sum() + (after ** 2).sum()

    gradients = [t.grad] + [
        parameter.grad for layer in module.layers for parameter in (
            layer.input.weight, layer.input.bias, layer.hidden.weight,
            *([layer.candidate_bias] if make is nn.GRU else []))] + [part.grad for part in before]
    inputs = [x, *flat, *state]
    assert len(gradients) == len(inputs)
    for i, gradient in enumerate(gradients):
        np.testing.assert_allclose(gradient, differences(loss, inputs, i), rtol=1e-6, atol=1e-8)


@KINDS
def test_gradients_of_first_and_second_order_by_differences(make):
    module, x, state = example(make)
    call = replaced_parameters(module)

    def run(x, *arrays):
        out, after = call(arrays[len(state):])(x, arrays[:len(state)])
        return (out, *after)
    parameters = [parameter.data for parameter in module.parameters()]
    assert gradcheck(run, [x[:, :3], *state, *parameters], order=2, tolerance=1e-6)


@KINDS
def test_float32_stays_float32(make):
    module = make(3, 2, 2, rng=0)
    x = leaf(np.ones((2, 4, 3)), np.float32)
    out, after = module(x)
    (out * out).sum().backward()
    assert {a.dtype for a in (out, *after, x.grad, *(p.grad for p in module.parameters()))} == {
        np.dtype(np.float32)}


@KINDS
def test_windows_with_their_state_give_what_the_whole_sequence_gives(make):
    module, x, _ = example(make)
    whole, wanted = module(Tensor(x))
    first, state = module(Tensor(x[:, :3]))
    second, after = module(Tensor(x[:, 3:]), state)
    np.testing.assert_array_equal(np.concatenate([first.data, second.data], axis=1), whole.data)
    for part, w in zip(after, wanted):
        np.testing.assert_array_equal(part.data, w.data)


@KINDS
@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_goes_through_the_state_unless_it_is_detached(make, detach):
    module, x, _ = example(make)
    early, late = leaf(x[:, :2]), leaf(x[:, 2:])
    _, state = module(early, detach=detach)
    out, _ = module(late, state)
    out.sum().backward()
    assert (late.grad != 0).all()
    assert early.grad is None if detach else (early.grad != 0).all()


@KINDS
def test_the_inputs_of_all_steps_are_one_matrix_product(make):
    module, x, _ = example(make, n_layer=1)
    product = module.layers[0].input.forward = Recorder(module.layers[0].input.forward)
    module(Tensor(x))
    assert [args[0].shape for args, _ in product.calls] == [(2, 4, 3)]


@KINDS
def test_a_later_input_has_no_influence_on_earlier_outputs(make):
    module, x, _ = example(make)
    changed = np.array(x)
    changed[:, 2:] += 1
    before, after = module(Tensor(x))[0].data, module(Tensor(changed))[0].data
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (before[:, 2:] != after[:, 2:]).all()


@KINDS
def test_dropout_is_between_layers_and_while_training(make):
    x = Tensor(np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32))
    one, two = make(3, 5, 1, dropout=0.5, rng=0), make(3, 5, 2, dropout=0.5, rng=0)
    np.testing.assert_array_equal(one(x)[0].data, one(x)[0].data)
    (a, after), (b, again) = two(x), two(x)
    assert (a.data != b.data).any()
    np.testing.assert_array_equal(after[0].data[0], again[0].data[0])        # h of the lower layer
    assert (after[0].data[1] != again[0].data[1]).any()
    with nn.evaluating(two):
        np.testing.assert_array_equal(two(x)[0].data, make(3, 5, 2, rng=0)(x)[0].data)


@KINDS
def test_a_seed_fixes_the_weights_which_begin_as_is_said(make):
    module, twin = make(30, 50, 2, rng=3), make(30, 50, 2, rng=3)
    for (name, p), q in zip(module.named_parameters(), twin.parameters()):
        np.testing.assert_array_equal(p.data, q.data)
        bound = {"layers.0.input.weight": 30, "layers.1.input.weight": 50, "layers.0.hidden.weight": 50,
                 "layers.1.hidden.weight": 50}.get(name)
        if bound:
            assert 0.95 < np.abs(p.data).max() * bound ** 0.5 <= 1
        else:
            assert set(p.data) == ({0, 1} if make is nn.LSTM else {0})
    if make is nn.LSTM:
        bias = module.layers[1].input.bias.data
        assert (bias[50:100] == 1).all() and bias.sum() == 50


@KINDS
def test_it_runs_as_a_static_graph(make):
    import tape.lazy as ad
    module, x, _ = example(make)
    node, feed = ad.trace(lambda x: module(x)[0], {"x": x})
    (found,) = ad.Evaluator([node]).run({feed["x"]: x + 1})
    np.testing.assert_array_equal(found, module(Tensor(x + 1))[0].data)


@pytest.mark.parametrize("call, message", [
    (lambda: nn.GRU(3, 0), "GRU: n_hidden must be a positive integer, got 0"),
    (lambda: nn.LSTM(3, 2, n_layer=1.5), "LSTM: n_layer must be a positive integer, got 1.5"),
    (lambda: nn.RNN(3, 2, dropout=1.0), r"p must be in \[0, 1\)"),
    (lambda: nn.RNN(3, 2)(tape.zeros_like(leaf(np.ones((4, 3))))), r"x must have shape \(B, T, 3\)"),
    (lambda: nn.RNN(3, 2)(np.ones((1, 0, 3))), r"with T >= 1, got \(1, 0, 3\)"),
    (lambda: nn.RNN(3, 2)(np.ones((1, 4, 2))), r"with T >= 1, got \(1, 4, 2\)"),
    (lambda: nn.LSTM(3, 2)(np.ones((1, 4, 3)), (np.ones((1, 1, 2)),)),
     r"state must be \(h, c,\), each of shape \(L, B, H\) = \(1, 1, 2\), got \[\(1, 1, 2\)\]"),
    (lambda: nn.GRU(3, 2)(np.ones((1, 4, 3)), np.ones((1, 1, 2))), r"state must be \(h,\).*ndarray"),
    (lambda: nn.RNN(3, 2)(np.ones((5, 4, 3)), (np.ones((1, 1, 2)),)), r"= \(1, 5, 2\), got \[\(1, 1")])
def test_what_does_not_fit_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()
