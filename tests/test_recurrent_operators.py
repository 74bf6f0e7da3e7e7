"""RNN, LSTM and GRU as one operator each: against loops in float64, PyTorch, and as layers."""

import numpy as np
import pytest

import nn
import tape
from tape import Tensor
from tests.checks import Recorder, leaf
from tests.reference_recurrent import sigmoid

RNG = np.random.default_rng(0)
SIZES = [(1, 1, 1), (3, 2, 5), (7, 1, 4), (2, 30, 70)]           # T, B, H
NAMES = pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
PARTS = {"rnn": 1, "lstm": 4, "gru": 3}
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def operands(name, steps, rows, width, dtype=np.float64):
    """What the operator takes, (projected, weight, ...), and a gradient of its result."""
    wide, state, result = PARTS[name] * width, (rows, width), (steps, rows, width)
    others = {"rnn": [state], "lstm": [state, state], "gru": [(width,), state]}[name]
    shapes = (steps, rows, wide), (width, wide), *others
    arrays = [RNG.standard_normal(shape).astype(dtype) / max(1, shape[0] ** 0.5) for shape in shapes]
    return arrays, RNG.standard_normal((2, *result) if name == "lstm" else result).astype(dtype)


# --- loops, by backpropagation through time in float64: the states, and all gradients ---


def rnn(projected, weight, h, g):
    before, states = [], []
    for a in projected:
        before.append(h)
        h = np.tanh(a + h @ weight)
        states.append(h)
    slopes, of_weight, dh = np.zeros_like(projected), np.zeros_like(weight), 0
    for t in reversed(range(len(projected))):
        slopes[t] = (g[t] + dh) * (1 - states[t] ** 2)
        of_weight += before[t].T @ slopes[t]
        dh = slopes[t] @ weight.T
    return np.array(states), slopes, of_weight, dh


def lstm(projected, weight, h, c, g):
    states, gates, before = [], [], []
    for a in projected:
        before.append((h, c))
        i, f, w, o = np.split(a + h @ weight, 4, axis=1)
        i, f, w, o = sigmoid(i), sigmoid(f), np.tanh(w), sigmoid(o)
        c = f * c + i * w
        h = o * np.tanh(c)
        states.append([h, c])
        gates.append((i, f, w, o))
    slopes, of_weight, dh, dc = np.zeros_like(projected), np.zeros_like(weight), 0, 0
    for t in reversed(range(len(projected))):
        (i, f, w, o), y, (h, c) = gates[t], np.tanh(states[t][1]), before[t]
        dh = dh + g[0, t]
        dc = dc + g[1, t] + dh * o * (1 - y ** 2)
        slopes[t] = np.concatenate([dc * w * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - w ** 2),
                                    dh * y * o * (1 - o)], axis=1)
        of_weight += h.T @ slopes[t]
        dh, dc = slopes[t] @ weight.T, dc * f
    return np.swapaxes(states, 0, 1), slopes, of_weight, dh, dc


def gru(projected, weight, bias, h, g):
    states, gates, before = [], [], []
    for a in projected:
        before.append(h)
        (a_r, a_z, a_n), (u_r, u_z, u_n) = np.split(a, 3, axis=1), np.split(h @ weight, 3, axis=1)
        r, z, m = sigmoid(a_r + u_r), sigmoid(a_z + u_z), u_n + bias
        n = np.tanh(a_n + r * m)
        h = (1 - z) * n + z * h
        states.append(h)
        gates.append((r, z, n, m))
    slopes, of_weight, of_bias, dh = np.zeros_like(projected), np.zeros_like(weight), 0 * bias, 0
    for t in reversed(range(len(projected))):
        r, z, n, m = gates[t]
        dh = dh + g[t]
        dn = dh * (1 - z) * (1 - n ** 2)
        dr, dz = dn * m * r * (1 - r), dh * (before[t] - n) * z * (1 - z)
        slopes[t], du = np.concatenate([dr, dz, dn], axis=1), np.concatenate([dr, dz, dn * r], axis=1)
        of_weight += before[t].T @ du
        of_bias += (dn * r).sum(0)
        dh = dh * z + du @ weight.T
    return np.array(states), slopes, of_weight, of_bias, dh


LOOPS = {"rnn": rnn, "lstm": lstm, "gru": gru}


def by_loop(name, arrays, g):
    return LOOPS[name](*(a.astype(np.float64) for a in (*arrays, g)))


def by_tape(name, arrays, g):
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    out = getattr(tape, name)(*leaves)
    out.backward(g)
    return out.data, *(t.grad for t in leaves)


@NAMES
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_states_and_gradients_are_those_of_a_loop(kernel_set, name, sizes, dtype):
    arrays, g = operands(name, *sizes, dtype)
    for found, expected in zip(by_tape(name, arrays, g), by_loop(name, arrays, g), strict=True):
        eps = np.finfo(dtype).eps
        assert found.dtype == dtype and found.shape == expected.shape
        near = 50 * eps * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=50 * eps, atol=near)


@NAMES
def test_a_long_sequence_keeps_its_digits(kernel_set, name):
    arrays, g = operands(name, 400, 3, 8, np.float32)
    for found, expected in zip(by_tape(name, arrays, g), by_loop(name, arrays, g), strict=True):
        np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())


@NAMES
def test_float16_is_computed_in_float32_and_rounded_once(kernel_set, name):
    arrays, g = operands(name, 4, 2, 3, np.float16)
    for found, expected in zip(by_tape(name, arrays, g), by_loop(name, arrays, g), strict=True):
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, rtol=1.01 * 2.0 ** -11, atol=1e-6)


@NAMES
def test_operands_of_mixed_types_and_in_any_layout(kernel_set, name):
    arrays, g = operands(name, 3, 4, 5)
    expected = by_loop(name, arrays, g)
    single = [[a.astype(np.float32) if i % 2 == odd else a for i, a in enumerate(arrays)]
              for odd in (0, 1)]
    for given, near in (([np.asfortranarray(a) for a in arrays], 1e-13), *((a, 1e-6) for a in single)):
        for array, found, exact in zip([g, *given], by_tape(name, given, g), expected, strict=True):
            assert found.dtype == array.dtype
            np.testing.assert_allclose(found, exact, rtol=near, atol=near)
    found = by_tape(name, arrays, np.asfortranarray(g))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(getattr(tape, name)(*(a.tolist() for a in arrays)), expected[0])


@NAMES
def test_no_rows_and_no_width(kernel_set, name):
    for sizes in ((2, 0, 3), (2, 3, 0)):
        arrays, g = operands(name, *sizes, np.float32)
        for found, like in zip(by_tape(name, arrays, g), [g, *arrays], strict=True):
            assert found.shape == like.shape and not found.any()


@pytest.mark.parametrize("size", [50, 200, 1e4, 1e30, np.inf])
def test_gates_that_are_shut_and_open(kernel_set, size):
    near = {"rtol": 1e-6, "atol": 1e-20}
    nothing = np.zeros((3, 12), np.float32)
    # i shut, f open, o open: c stays, and h is tanh(c).
    projected = np.repeat(np.float32([-size, size, 0.5, size]), 3)[None, None]
    c = np.float32([[0.5, -2, 0]])
    out, slope, _, _, of_c = by_tape("lstm", [projected, nothing, 0 * c, c],
                                     np.ones((2, 1, 1, 3), np.float32))
    np.testing.assert_allclose(out[:, 0, 0], [np.tanh(c[0]), c[0]], **near)
    np.testing.assert_allclose(of_c, 2 - np.tanh(c) ** 2, **near)
    np.testing.assert_allclose(slope, 0, **near)
    # z open: h stays; shut, and r too: h' is tanh(a_n), whatever h and the bias are.
    for z, r, expected, of_h in ((size, size, c[0], 1), (-size, -size, np.tanh(np.full(3, 0.5)), 0)):
        projected = np.repeat(np.float32([r, z, 0.5]), 3)[None, None]
        out, slope, _, of_bias, found = by_tape("gru", [projected, nothing[:, :9], np.ones(
            3, np.float32), c], np.ones((1, 1, 3), np.float32))
        np.testing.assert_allclose(out[0, 0], expected, **near)
        np.testing.assert_allclose(found, of_h, **near)
        np.testing.assert_allclose([*slope[0, 0, :6], *of_bias], 0, **near)


@NAMES
def test_a_gradient_of_zero_stays_zero_beside_what_is_not_finite(kernel_set, name):
    """As in the composed definition: of steps and rows that nothing depends on, say of padding."""
    for bad in (np.nan, np.inf):
        arrays, g = operands(name, 4, 2, 3, np.float32)
        arrays[0][3:, 1] = bad
        g[..., 3:, 1, :] = 0
        found = by_tape(name, arrays, g)
        for slope, like in zip(found[1:], arrays, strict=True):
            assert slope.shape == like.shape and np.isfinite(slope).all()
        assert not found[1][3:, 1].any() and found[1][:3].all() and found[1][3, 0].all()
    arrays, g = operands(name, 1, 2, 3, np.float32)
    arrays[-1][1] = np.inf                          # h or c of a row that is not used
    g[..., 1, :] = 0
    with np.errstate(invalid="ignore"):             # inf times weights of both signs
        of_projected = by_tape(name, arrays, g)[1]
    assert np.isfinite(of_projected).all() and not of_projected[0, 1].any()


@NAMES
def test_a_number_or_a_wrong_count_of_steps_is_refused_in_words(name):
    arrays, _ = operands(name, 1, 2, 4)
    call = getattr(tape, name)
    for projected in (3, Tensor(1.0)):
        with pytest.raises(ValueError, match=r"projected must have shape .*; got \(\) for 0 steps"):
            call(projected, *arrays[1:])
    for steps in (True, 1.0, "1"):
        with pytest.raises(TypeError, match=f"{name}: steps must be an integer, got {steps!r}"):
            call(*arrays, steps=steps)
    np.testing.assert_array_equal(call(*arrays, steps=np.int64(1)), call(*arrays))


@NAMES
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_what_it_costs_is_known_without_a_run(kernel_set, name, dtype):
    arrays, _ = operands(name, 3, 2, 4)
    figures = []
    for make in (np.array, lambda a: tape.hollow(a.shape, a.dtype)):
        with tape.measure() as cost:
            given = [make((3 * a).astype(dtype)) for a in arrays]
            if given[0].dtype.kind == "f":
                given = [Tensor(a, requires_grad=True) for a in given]
            out = getattr(tape, name)(*given)
        figures.append((out.shape, out.dtype, cost.flops, cost.bytes_kept))
    assert figures[0] == figures[1]


@NAMES
@pytest.mark.parametrize("change", [
    lambda p, w, *rest: (p[0], w, *rest), lambda p, w, *rest: (p[:0], w, *rest),
    lambda p, w, *rest: (p, w[:, 1:], *rest), lambda *arrays: (*arrays[:-1], arrays[-1][:1]),
    lambda *arrays: (*arrays[:-1], arrays[-1][0]), lambda *arrays: (*arrays, 2)])
def test_what_does_not_fit_is_refused_in_words(kernel_set, name, change):
    arrays, _ = operands(name, 3, 2, 4)
    with pytest.raises(ValueError, match=rf"{name}: projected must have shape \(T, B, .*H\).*; got \("):
        getattr(tape, name)(*change(*arrays))


@NAMES
def test_of_nodes_the_steps_must_be_given(name):
    import tape.lazy as ad
    arrays, _ = operands(name, 3, 2, 4)
    nodes = [ad.Variable(f"x{i}") for i in range(len(arrays))]
    with pytest.raises(TypeError, match=f"{name}: how many steps a node has is not.*give steps=T"):
        getattr(tape, name)(*nodes)
    (value,) = ad.Evaluator([getattr(tape, name)(*nodes, steps=3)]).run(dict(zip(nodes, arrays)))
    np.testing.assert_array_equal(value, getattr(tape, name)(*arrays))


@NAMES
def test_pytorch_agrees(name):
    torch = pytest.importorskip("torch")
    kind = LAYERS[name]
    ours = kind(3, 4, rng=0)
    theirs = getattr(torch.nn, kind.__name__)(3, 4, batch_first=True).double()
    (layer,), x = ours.layers, RNG.standard_normal((2, 5, 3))
    state = RNG.standard_normal((len(kind.parts), 1, 2, 4))
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(layer.input.weight.data.T))
        theirs.weight_hh_l0.copy_(torch.tensor(layer.hidden.weight.data.T))
        theirs.bias_ih_l0.copy_(torch.tensor(layer.input.bias.data))
        theirs.bias_hh_l0.zero_()
        if name == "gru":
            layer.candidate_bias.data = np.float32([0.5, -1, 2, 0])
            theirs.bias_hh_l0[8:] = torch.tensor(layer.candidate_bias.data)
    out, after = ours(Tensor(x), tuple(state))
    given = tuple(map(torch.tensor, state))
    expected, last = theirs(torch.tensor(x), given if name == "lstm" else given[0])
    last = last if name == "lstm" else (last,)
    for a, b in zip((out, *after), (expected, *last), strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-6, atol=1e-7)
    sum(((a * a).sum() for a in (out, *after)), Tensor(0.0)).backward()
    sum((a * a).sum() for a in (expected, *last)).backward()
    pairs = [(layer.hidden.weight.grad.T, theirs.weight_hh_l0.grad),
             (layer.input.weight.grad.T, theirs.weight_ih_l0.grad),
             (layer.input.bias.grad, theirs.bias_ih_l0.grad)]
    if name == "gru":
        pairs.append((layer.candidate_bias.grad, theirs.bias_hh_l0.grad[8:]))
    for found, exact in pairs:
        np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4, atol=1e-5)


# --- as layers ---


def shown(module):
    """What the module gives, and its tape."""
    out, _ = module(leaf(np.linspace(-1, 1, 30).reshape(2, 5, 3).astype(np.float32)))
    return out.data, tape.show(out)


def watched(layer):
    layer.hidden.forward = Recorder(layer.hidden.forward)


def frozen(layer):
    layer.hidden.weight.requires_grad = False


def with_bias(layer):
    layer.hidden.bias = nn.Parameter(np.zeros(layer.hidden.weight.shape[1], np.float32))


@NAMES
@pytest.mark.parametrize("change", [watched, frozen, with_bias])
def test_a_layer_is_one_operator_unless_its_products_are_watched_frozen_or_others(name, change):
    module = LAYERS[name](3, 4, rng=0)
    out, at_once = shown(module)
    assert f" {name} " in at_once and "tanh" not in at_once
    change(module.layers[0])
    again, by_steps = shown(module)
    assert f" {name} " not in by_steps and by_steps.count("tanh") >= 5
    np.testing.assert_allclose(again, out, rtol=1e-5, atol=1e-6)


@NAMES
def test_who_watches_the_products_sees_each(name):
    module = LAYERS[name](3, 4, rng=0)
    watched(module.layers[0])
    shown(module)
    assert len(module.layers[0].hidden.forward.calls) == 5


@NAMES
def test_another_step_of_a_subclass_is_taken(name):
    class Doubled(LAYERS[name]):
        def step(self, layer, projected, state):
            return super().step(layer, 2 * projected, state)

    class Same(LAYERS[name]):
        pass

    out, at_once = shown(Same(3, 4, rng=0))
    again, by_steps = shown(Doubled(3, 4, rng=0))
    assert f" {name} " in at_once and f" {name} " not in by_steps
    assert (out != again).all()
    module = LAYERS[name](3, 4, rng=0)
    module.step = Doubled(3, 4, rng=0).step
    np.testing.assert_array_equal(shown(module)[0], again)


@NAMES
def test_a_summary_counts_with_the_products_that_somebody_has_put_in_the_layers_place(name):
    x, module = np.ones((2, 5, 3), np.float32), LAYERS[name](3, 4, rng=0)
    plain = nn.summary(module, x)
    calls, forward = [], module.layers[0].hidden.forward

    def other(h):
        calls.append(h)
        return forward(h) * 2
    module.layers[0].hidden.forward = other
    nn.summary(module, x)
    assert len(calls) == 5 and module.layers[0].hidden.forward is other
    del vars(module.layers[0].hidden)["forward"]
    assert nn.summary(module, x) == plain


@NAMES
def test_a_state_of_integers_does_not_widen_the_layer(name):
    module, x = LAYERS[name](3, 4, rng=0), np.ones((2, 5, 3), np.float32)
    whole = tuple(np.ones((1, 2, 4), int) for _ in module.parts)
    found = module(x, whole)[0]
    assert found.dtype == np.float32
    expected = module(x, tuple(part.astype(np.float32) for part in whole))[0]
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(module(x, [p.tolist() for p in whole])[0].data, expected.data)
