"""`causal_self_attention`: against its parts to the last bit, and when `nn` calls it."""

import numpy as np
import pytest

import nn
import tape
from nn.layers.arrays import on_arrays
from tape import Tensor
from tests.checks import leaf

RNG = np.random.default_rng(3)
B, T, C, H = 2, 5, 8, 4


def drawn(dtype, biased=True, values=C, out=C):
    """x, the four weights, and their biases or None."""
    shapes = [(B, T, C), (C, C), (C, C), (C, values), (values, out), (C,), (C,), (values,), (out,)]
    arrays = [RNG.standard_normal(shape).astype(dtype) for shape in shapes]
    return arrays if biased else arrays[:5] + [None] * 4


def by_parts(x, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o):
    """The same by an operator for each step, in the order of `MultiHeadAttention`."""
    def linear(x, weight, bias):
        return x @ weight if bias is None else x @ weight + bias

    q = tape.split_heads(linear(x, w_q, b_q), H)
    k = tape.split_heads(linear(x, w_k, b_k), H)
    v = tape.split_heads(linear(x, w_v, b_v), H)
    return linear(tape.merge_heads(tape.causal_attention(q, k, v), H), w_o, b_o)


def whole(x, *weights):
    return tape.causal_self_attention(x, H, *weights)


def taped(function, arrays, residual):
    """The result and the gradients; with a residual connection x has another use."""
    leaves = [None if array is None else leaf(array, array.dtype) for array in arrays]
    out = function(*leaves)
    out = out + leaves[0] if residual else out
    g = np.cos(np.arange(out.size)).reshape(out.shape).astype(np.float16)
    out.backward(g.astype(out.dtype))
    return [out.data, *(t.grad for t in leaves if t is not None)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_it_has_the_bits_of_its_parts(kernel_set, dtype, biased, residual):
    arrays = drawn(dtype, biased)
    for a, b in zip(taped(whole, arrays, residual), taped(by_parts, arrays, residual), strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)


def test_values_and_results_of_other_widths(kernel_set):
    arrays = drawn(np.float64, values=12, out=3)
    for a, b in zip(taped(whole, arrays, False), taped(by_parts, arrays, False), strict=True):
        np.testing.assert_array_equal(a, b)


def test_in_float16_the_result_and_its_gradients_are_rounded_once(kernel_set):
    arrays = drawn(np.float16)
    wide = taped(whole, [array.astype(np.float32) for array in arrays], False)
    for a, b in zip(taped(whole, arrays, False), wide, strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float16))


def test_plain_arrays_give_an_array(kernel_set):
    arrays = drawn(np.float32)
    out = whole(*arrays)
    assert type(out) is np.ndarray
    np.testing.assert_array_equal(out, taped(whole, arrays, False)[0])


@pytest.mark.parametrize("change", [
    {0: (C,)}, {0: (B, T, 6)}, {1: (C, 4)}, {1: (C, 6), 2: (C, 6)}, {3: (6, C)}, {4: (6, C)},
    {1: (C,), 2: (C,)}, {4: (C,)}])
def test_shapes_that_do_not_fit_are_refused(change):
    arrays = drawn(np.float32)
    for i, shape in change.items():
        arrays[i] = np.zeros(shape, np.float32)
    message = r"causal_self_attention: x must have shape \(\.\.\., T, C\), w_q and w_k .* for 4 heads"
    for make in (np.array, Tensor):
        with pytest.raises(ValueError, match=message):
            whole(*map(make, arrays))
    with pytest.raises(ValueError, match="for 0 heads"):
        tape.causal_self_attention(arrays[0], 0, *drawn(np.float32)[1:])


# --- in nn ---


class Doubled(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def watch(attention):
    attention.value.forward = attention.value.forward


def freeze(attention):
    attention.key.weight.requires_grad = False


def replace(attention):
    attention.output = Doubled(C, C, rng=1)


@pytest.mark.parametrize("change", [watch, freeze, replace])
def test_layers_that_do_more_than_linear_are_called(change):
    attention, x = nn.MultiHeadAttention(C, H, causal=True, rng=0), Tensor(drawn(np.float32)[0])
    assert "causal_self_attention" in tape.show(attention(x)).split()
    before = attention(x).data
    change(attention)
    out = attention(x)
    assert {"causal_attention", "matmul"} <= {*tape.show(out).split()}
    assert np.array_equal(out.data, before) == (change is not replace)


@pytest.mark.parametrize("settings", [{"n_kv_head": 2}, {"rotary": True}, {"alibi": True},
                                      {"dropout": 0.5}, {"causal": False}])
def test_what_it_does_not_compute_is_left_to_the_parts(settings):
    attention = nn.MultiHeadAttention(C, H, **{"causal": True, **settings}, rng=0)
    x = Tensor(drawn(np.float32)[0])
    assert "causal_self_attention" not in tape.show(attention(x)).split()
    fused = settings.get("dropout", 0) > 0
    assert ("causal_self_attention" in tape.show(attention.eval()(x)).split()) == fused


@pytest.mark.parametrize("settings", [{}, {"norm": "post"}, {"bias": False}])
def test_a_model_learns_the_same_to_the_last_bit_either_way(kernel_set, settings):
    idx = RNG.integers(0, 11, (2, 3, 7))
    found = []
    for watched in (True, False):
        model = nn.GPT(nn.GPTConfig(11, 8, 2, 2, 16, **settings), rng=0)
        if watched:
            for block in model.blocks:
                watch(block.attention)
        optimizer = nn.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            _, loss = model(*idx)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append([loss.data, *(p.data for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_on_arrays_a_row_does_not_depend_on_the_others():
    attention = on_arrays(nn.MultiHeadAttention(512, H, causal=True, rng=0))
    x = RNG.standard_normal((5, 2, 512), np.float32)            # wide: one product has other bits
    for row, of_all in zip(x, attention(x), strict=True):
        np.testing.assert_array_equal(attention(row[None])[0], of_all)
