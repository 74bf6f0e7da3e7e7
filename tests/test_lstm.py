"""The LSTM as one operator: against a loop in float64, PyTorch, and itself as a layer."""

import numpy as np
import pytest

import nn
import tape
from tape import Tensor
from tests.checks import Recorder
from tests.reference_recurrent import sigmoid

RNG = np.random.default_rng(0)
SIZES = [(1, 1, 1), (3, 2, 5), (7, 1, 4), (2, 30, 70)]           # T, B, H


def operands(steps, rows, width, dtype=np.float64):
    shapes = (steps, rows, 4 * width), (width, 4 * width), (rows, width), (rows, width)
    return [RNG.standard_normal(shape).astype(dtype) / max(1, shape[0] ** 0.5) for shape in shapes]


def by_loop(projected, weight, h, c, g):
    """The states, and the gradients, by backpropagation through time in float64."""
    projected, weight, h, c, g = (a.astype(np.float64) for a in (projected, weight, h, c, g))
    states, gates, before = [], [], [(h, c)]
    for a in projected:
        i, f, w, o = np.split(a + h @ weight, 4, axis=1)
        i, f, w, o = sigmoid(i), sigmoid(f), np.tanh(w), sigmoid(o)
        c = f * c + i * w
        h = o * np.tanh(c)
        states.append([h, c])
        gates.append((i, f, w, o))
        before.append((h, c))
    slopes, of_weight, dh, dc = np.zeros_like(projected), np.zeros_like(weight), 0 * h, 0 * c
    for t in reversed(range(len(projected))):
        (i, f, w, o), y, (h, c) = gates[t], np.tanh(states[t][1]), before[t]
        dh = dh + g[0, t]
        dc = dc + g[1, t] + dh * o * (1 - y ** 2)
        slopes[t] = np.concatenate([dc * w * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - w ** 2),
                                    dh * y * o * (1 - o)], axis=1)
        of_weight += h.T @ slopes[t]
        dh, dc = slopes[t] @ weight.T, dc * f
    return np.swapaxes(states, 0, 1), slopes, of_weight, dh, dc


def by_tape(arrays, g):
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    out = tape.lstm(*leaves)
    out.backward(g)
    return out.data, *(t.grad for t in leaves)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_states_and_gradients_are_those_of_a_loop(kernel_set, sizes, dtype):
    arrays = operands(*sizes, dtype)
    g = RNG.standard_normal((2, *sizes)).astype(dtype)
    for found, expected in zip(by_tape(arrays, g), by_loop(*arrays, g), strict=True):
        eps = np.finfo(dtype).eps
        assert found.dtype == dtype and found.shape == expected.shape
        near = 50 * eps * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=50 * eps, atol=near)


def test_a_long_sequence_keeps_its_digits(kernel_set):
    arrays, g = operands(400, 3, 8, np.float32), RNG.standard_normal((2, 400, 3, 8)).astype(np.float32)
    for found, expected in zip(by_tape(arrays, g), by_loop(*arrays, g), strict=True):
        np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())


def test_float16_is_computed_in_float32_and_rounded_once(kernel_set):
    arrays, g = operands(4, 2, 3, np.float16), np.ones((2, 4, 2, 3), np.float16)
    for found, expected in zip(by_tape(arrays, g), by_loop(*arrays, g), strict=True):
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, rtol=1.01 * 2.0 ** -11, atol=1e-6)


def test_operands_of_mixed_types_and_in_any_layout(kernel_set):
    projected, weight, h, c = operands(3, 4, 5)
    g = RNG.standard_normal((2, 3, 4, 5))
    expected = by_loop(projected, weight, h, c, g)
    columns = [np.asfortranarray(a) for a in (projected, weight, h, c)]
    for arrays, near in ((columns, 1e-13), ([projected, weight.astype(np.float32), h, c], 1e-6),
                         ([projected.astype(np.float32), weight, h.astype(np.float32), c], 1e-6)):
        for array, found, exact in zip([g, *arrays], by_tape(arrays, g), expected, strict=True):
            assert found.dtype == array.dtype
            np.testing.assert_allclose(found, exact, rtol=near, atol=near)
    np.testing.assert_allclose(tape.lstm(*(a.tolist() for a in (projected, weight, h, c))), expected[0])


def test_gates_that_are_shut_and_open(kernel_set):
    for size in (50, 200, 1e4, 1e30, np.inf):
        # i shut, f open, o open: c stays, and h is tanh(c).
        projected = np.repeat(np.float32([-size, size, 0.5, size]), 3)[None, None]
        c = np.float32([[0.5, -2, 0]])
        out, slope, _, _, of_c = by_tape([projected, np.zeros((3, 12), np.float32), 0 * c, c],
                                         np.ones((2, 1, 1, 3), np.float32))
        np.testing.assert_allclose(out[:, 0, 0], [np.tanh(c[0]), c[0]], rtol=1e-6, atol=1e-20)
        np.testing.assert_allclose(of_c, 2 - np.tanh(c) ** 2, rtol=1e-6)
        np.testing.assert_allclose(slope, 0, atol=1e-20)


@pytest.mark.parametrize("change", [
    lambda p, w, h, c: (p[0], w, h, c), lambda p, w, h, c: (p[:0], w, h, c),
    lambda p, w, h, c: (p, w.T, h, c), lambda p, w, h, c: (p, w, h[:1], c),
    lambda p, w, h, c: (p, w, h, c[0]), lambda p, w, h, c: (p, w, h, c, 2)])
def test_what_does_not_fit_is_refused_in_words(kernel_set, change):
    with pytest.raises(ValueError, match=r"lstm: projected must have shape \(T, B, 4 H\).*; got \("):
        tape.lstm(*change(*operands(3, 2, 4)))


def test_of_nodes_the_steps_must_be_given():
    import tape.lazy as ad
    with pytest.raises(TypeError, match="lstm: how many steps a node has is not known.*give steps=T"):
        tape.lstm(*map(ad.Variable, "xwhc"))


def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    x, (h, c) = RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 1, 2, 4))
    ours, theirs = nn.LSTM(3, 4, rng=0), torch.nn.LSTM(3, 4, batch_first=True).double()
    (layer,) = ours.layers
    for p in ours.parameters():
        p.data = p.data.astype(np.float64).astype(np.float32)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(layer.input.weight.data.T))
        theirs.weight_hh_l0.copy_(torch.tensor(layer.hidden.weight.data.T))
        theirs.bias_ih_l0.copy_(torch.tensor(layer.input.bias.data))
        theirs.bias_hh_l0.zero_()
    out, (h_after, c_after) = ours(Tensor(x), (h, c))
    expected, (h_last, c_last) = theirs(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
    for a, b in ((out, expected), (h_after, h_last), (c_after, c_last)):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-6, atol=1e-7)
    ((out * out).sum() + c_after.sum()).backward()
    ((expected * expected).sum() + c_last.sum()).backward()
    np.testing.assert_allclose(layer.hidden.weight.grad, theirs.weight_hh_l0.grad.numpy().T, rtol=1e-4,
                               atol=1e-5)
    np.testing.assert_allclose(layer.input.weight.grad, theirs.weight_ih_l0.grad.numpy().T, rtol=1e-4,
                               atol=1e-5)


# --- the layer ---


def test_the_layer_is_one_operator_unless_its_products_are_watched_or_its_weight_is_frozen():
    x = RNG.standard_normal((2, 5, 3)).astype(np.float32)

    def run(change=lambda layer: None):
        module = nn.LSTM(3, 4, rng=0)
        change(module.layers[0])
        out, _ = module(Tensor(x, requires_grad=True))
        return out.data, tape.show(out)

    def watched(layer):
        layer.hidden.forward = Recorder(layer.hidden.forward)

    def frozen(layer):
        layer.hidden.weight.requires_grad = False

    def with_bias(layer):
        layer.hidden.bias = nn.Parameter(np.zeros(16))
    out, shown = run()
    assert " lstm " in shown and "tanh" not in shown
    for change in (watched, frozen, with_bias):
        again, shown = run(change)
        assert " lstm " not in shown and "tanh" in shown
        np.testing.assert_allclose(again, out, rtol=1e-5, atol=1e-6)


def test_who_watches_the_products_sees_each():
    module = nn.LSTM(3, 4, rng=0)
    watch = module.layers[0].hidden.forward = Recorder(module.layers[0].hidden.forward)
    module(Tensor(np.ones((2, 5, 3), np.float32)))
    assert len(watch.calls) == 5
