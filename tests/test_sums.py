"""What is added up is added up in float32 at least, and with a small rounding error."""

import functools
import itertools

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import Tensor, grad, kernels, ops
from tests.checks import leaf

RNG = np.random.default_rng(3)
MANY = 70_000          # more than float16 can count

half = functools.partial(leaf, dtype=np.float16)


# --- float16 ---


@pytest.mark.parametrize("width", [1024, 4096, MANY])
@pytest.mark.parametrize("scale", [1, 200])
def test_layer_norm_in_float16(width, scale):
    x = (RNG.standard_normal((2, width)) * scale).astype(np.float16)
    t, w, b = half(x), half(np.ones(width)), half(np.zeros(width))
    out = ops.layer_norm(t, w, b)
    wide = leaf(x)
    expected = ops.layer_norm(wide)
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.data, expected.data, atol=4e-3)
    g = RNG.standard_normal(x.shape).astype(np.float16)
    out.backward(g)
    expected.backward(g.astype(np.float64))
    np.testing.assert_allclose(t.grad * scale, wide.grad * scale, atol=1e-2)
    np.testing.assert_allclose(b.grad, g.astype(float).sum(axis=0), rtol=1e-3)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("function", [ops.mean, ops.var, ops.std])
def test_the_gradient_of_a_mean_in_float16(function, create_graph):
    values = RNG.standard_normal(MANY).astype(np.float16)
    x, wide = half(values), leaf(values)
    slope = grad(function(x), x, create_graph=create_graph)
    expected = grad(function(wide), wide)
    assert slope.dtype == np.float16
    np.testing.assert_allclose(slope.data, expected.data, atol=6e-8, rtol=2e-3)


def test_the_gradient_of_a_mean_of_nodes_in_float16():
    x = ad.Variable("x")
    (slope,) = ad.Evaluator(ad.gradients(tape.mean(x), [x])).run({x: np.ones(MANY, np.float16)})
    assert slope.dtype == np.float16
    np.testing.assert_allclose(slope, 1 / MANY, rtol=5e-3)


def test_the_gradient_of_a_loss_over_many_rows_in_float16():
    logits, targets = half(np.zeros((MANY, 4))), np.zeros(MANY, int)
    loss = ops.cross_entropy(logits, targets)
    np.testing.assert_allclose(loss.data, np.log(4), rtol=1e-3)
    loss.backward()
    np.testing.assert_allclose(logits.grad[0], np.array([-.75, .25, .25, .25]) / MANY, rtol=2e-2)


@pytest.mark.parametrize("function, values, expected", [
    (ops.norm, np.full(4, 300.0), 600), (ops.norm, np.full(MANY, 0.01), 0.01 * MANY ** 0.5),
    (ops.mean, np.full(MANY, 100.0), 100), (lambda x: ops.sum(x, axis=0), np.ones((10_000, 2)), 10_000),
    (lambda x: ops.sum(x, axis=(0, 1)), np.ones((100, 100, 2)), 10_000),
    (ops.logsumexp, np.zeros(MANY), np.log(MANY)), (lambda x: ops.softmax(x).sum(), np.zeros(MANY), 1),
    (ops.var, np.array([-300.0, 300.0] * 5) / 2, 150 ** 2)])
def test_reductions_in_float16(function, values, expected):
    out = function(half(values))
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.data, expected, rtol=3e-3)


def test_gelu_and_attention_in_float16():
    x = half([-300.0, -2.0, 0.5, 2.0, 300.0])
    ops.gelu(x).backward(np.ones(5, np.float16))
    np.testing.assert_allclose(x.grad, [0, -0.0861, 0.8673, 1.0861, 1], atol=2e-3)
    q = half(np.full((3, 4), 100.0))
    np.testing.assert_allclose(ops.causal_attention(q, q, q).data, 100)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("use", [
    lambda b: b + np.ones((10_000, 3), np.float16), lambda b: ops.stack([b] * 5000 + [b] * 5000),
    lambda b: ops.broadcast_to(b, (100, 100, 3)), lambda b: b[np.zeros(10_000, int)] if b.ndim > 1
    else b.reshape(1, 3)[np.zeros(10_000, int)],
    lambda b: ops.embedding(b.reshape(1, 3), np.zeros(10_000, int)),
    lambda b: b.reshape(1, 3)[(np.zeros(10_000, int), slice(None))]],
    ids=["bias", "many uses", "broadcast", "getitem", "embedding", "two indices"])
def test_ten_thousand_contributions_in_float16(use, create_graph):
    b = half(np.ones(3))
    out = use(b)
    slope = grad(out, b, np.ones(out.shape, np.float16), create_graph=create_graph)
    assert slope.dtype == np.float16
    np.testing.assert_array_equal(slope.data, 10_000)


def test_many_scalar_contributions_in_float16():
    x = half(1.0)
    out = ops.stack([x * 1 for _ in range(5000)])
    out.backward(np.ones(5000, np.float16))
    assert x.grad == 5000 and x.grad.dtype == np.float16


# --- float32: a few units in the last place ---


def ulps(found, exact):
    return np.max(np.abs(found - exact) / np.spacing(np.abs(exact).astype(found.dtype)))


@pytest.mark.parametrize("shape, axis", [
    ((10_000, 3), 0), ((100_000, 1), 0), ((4, 3000, 5), 1), ((50, 200, 3), (0, 1)), ((17, 2), 0),
    ((3000, 4, 5), (0, 2)), ((3000,), 0), ((3, 3000), -1), ((300, 300), None), ((257, 3), (-2,))])
@pytest.mark.parametrize("values", ["tenth", "random"])
def test_a_sum_in_float32(shape, axis, values):
    x = np.full(shape, 0.1, np.float32) if values == "tenth" else RNG.random(shape, np.float32)
    exact = x.sum(axis=axis, dtype=np.float64)
    assert ulps(kernels.reduce_sum(x, axis), exact) < 5
    assert ulps(kernels.reduce_sum(np.asfortranarray(x), axis), exact) < 5
    assert ulps(ops.mean(x, axis), exact / (x.size / exact.size)) < 5
    assert kernels.reduce_sum(x, axis, keepdims=True).shape == x.sum(axis=axis, keepdims=True).shape


@pytest.mark.parametrize("use", [
    lambda b, x: x + b, lambda b, x: ops.layer_norm(x, None, b), lambda b, x: b * np.ones_like(x)])
def test_a_bias_gradient_in_float32(use):
    b, g = leaf(np.zeros(8), np.float32), RNG.random((10_000, 8), np.float32)
    use(b, RNG.standard_normal((10_000, 8)).astype(np.float32)).backward(g)
    assert ulps(b.grad, g.sum(axis=0, dtype=np.float64)) < 5


def test_a_scale_gradient_in_float32():
    x = np.abs(RNG.standard_normal((10_001, 8))).astype(np.float32)
    w, g = leaf(np.ones(8), np.float32), RNG.random((10_001, 8), np.float32)
    ops.layer_norm(Tensor(x), w).backward(g)
    normalised = ops.layer_norm(Tensor(x)).data.astype(np.float64)
    exact = (g * normalised).sum(axis=0)
    scale = np.abs(g * normalised).sum(axis=0)        # the terms have both signs
    assert np.max(np.abs(w.grad - exact) / scale) < 1e-6


@pytest.mark.parametrize("dtypes", list(itertools.product("efd", repeat=3)), ids="".join)
@pytest.mark.parametrize("operator, shapes", [
    (ops.layer_norm, [(4, 5), (5,), (5,)]), (ops.causal_attention, [(4, 5)] * 3),
    (ops.attention, [(4, 5)] * 3)], ids=["layer_norm", "causal attention", "attention"])
def test_a_fused_operator_promotes_dtypes_as_numpy_does(operator, shapes, dtypes):
    inputs = [leaf(RNG.standard_normal(shape), dtype) for shape, dtype in zip(shapes, dtypes)]
    out = operator(*inputs)
    assert out.dtype == np.result_type(*dtypes)
    expected = operator(*(leaf(t.data) for t in inputs))
    np.testing.assert_allclose(out.data, expected.data, rtol=4e-3, atol=4e-3)
    out.sum().backward()
    assert [t.grad.dtype for t in inputs] == [t.dtype for t in inputs]


@pytest.mark.parametrize("shape, axis", [
    ((0, 3), 0), ((3, 0), 1), ((3, 0), 0), ((), None), ((0,), None)])
def test_sums_of_nothing_and_of_a_number(shape, axis):
    x = np.ones(shape, np.float32)
    out = kernels.reduce_sum(x, axis)
    np.testing.assert_array_equal(out, np.sum(x, axis=axis))
    assert out.dtype == np.float32 and out.shape == np.sum(x, axis=axis).shape


def test_sums_of_integers_and_booleans_are_numpys():
    for x in (np.arange(40, dtype=np.uint8).reshape(20, 2), np.ones((30, 2), bool)):
        for found, expected in ((ops.sum(x, 0), np.sum(x, 0)), (ops.mean(x, 0), np.mean(x, 0))):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


# --- float16 in second order and in large products ---


@pytest.mark.parametrize("function, values", [
    (ops.layer_norm, RNG.standard_normal((2, 64)) * 400),
    (lambda x: ops.causal_attention(x, x, x), RNG.standard_normal((4, 16)) * 20),
    (lambda x: ops.cross_entropy(x, np.zeros(len(x), int)) * 1000, np.zeros((MANY // 4, 2))),
    (lambda x: ops.max(x) * 1000, np.zeros(MANY))], ids=["norm", "attention", "loss", "max"])
def test_a_recorded_gradient_in_float16_is_the_plain_one(function, values):
    x = half(values)
    out = function(x)
    g = np.ones(out.shape, np.float16)
    if g.ndim:
        g[..., ::2] *= 2
    recorded = grad(out, x, g, create_graph=True)
    plain = grad(out, x, g)
    assert recorded.dtype == plain.dtype == np.float16
    assert np.isfinite(recorded.data).all() and np.abs(plain.data).max() > 0
    np.testing.assert_allclose(recorded.data, plain.data, atol=2e-3 * np.abs(plain.data).max())


def test_contributions_beyond_float16_cancel():
    b, ones = half([1.0]), np.ones((80_000, 1), np.float16)
    up, down = b * ones, b * -ones                            # 80,000 is no float16
    slope = grad([up, down, b * 1], b, [ones, ones, np.ones(1, np.float16)])
    assert slope.data == 1


def test_many_uses_of_a_node_in_float16():
    x = ad.Variable("x")
    total = x * 1
    for _ in range(2999):
        total = total + x * 1
    (slope,) = ad.Evaluator(ad.gradients(total, [x])).run({x: np.ones(2, np.float16)})
    assert slope.dtype == np.float16
    np.testing.assert_array_equal(slope, 3000)


# --- layouts ---


@pytest.mark.parametrize("layout", [
    lambda rng: np.broadcast_to(rng.random(3, np.float32), (100_000, 3)),
    lambda rng: np.broadcast_to(rng.random((1, 50, 1), np.float32), (400, 50, 3)),
    lambda rng: rng.random((3000, 8), np.float32)[:, ::2],
    lambda rng: rng.random((6, 3000), np.float32).T,
    lambda rng: rng.random((40, 50, 60), np.float32).transpose(1, 2, 0),
    lambda rng: rng.random((3000, 4), np.float32)[::-1]])
def test_a_sum_in_float32_of_any_layout(layout):
    x = layout(np.random.default_rng(0))
    for axis in (*range(x.ndim), None, tuple(range(x.ndim - 1))):
        assert ulps(kernels.reduce_sum(x, axis), x.sum(axis=axis, dtype=np.float64)) < 8


def test_layer_norm_of_columns():
    x = RNG.standard_normal((50, 20_000)).astype(np.float32)
    columns = ops.layer_norm(np.asfortranarray(x))
    np.testing.assert_allclose(columns, ops.layer_norm(x), atol=2e-5)


# --- integers ---


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint16])
def test_functions_with_real_values_of_integers(dtype):
    x = np.array([3, 100, 7], dtype)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(ops.sigmoid(x), ops.sigmoid(wide))
    np.testing.assert_allclose(ops.norm(x), np.linalg.norm(wide))
    np.testing.assert_allclose(ops.cross_entropy(x[None], [1]), ops.cross_entropy(wide[None], [1]))
    q = np.tile(x, (3, 1))
    np.testing.assert_allclose(ops.causal_attention(q, q, q, scale=1),
                               ops.causal_attention(q.astype(float), q.astype(float), q.astype(float),
                                                    scale=1))
    v = ad.Variable("x")
    for node, expected in ((2.5 - v, 2.5 - wide), (v - 2.5, wide - 2.5), (2.5 + v, wide + 2.5)):
        np.testing.assert_allclose(ad.Evaluator([node]).run({v: x})[0], expected)


@pytest.mark.parametrize("create_graph", [False, True])
def test_picks_and_sums_of_one_array_in_float16(create_graph):
    x = half(np.ones(3))
    with np.errstate(over="ignore"):
        y = ops.sum(x * -60000.0) + x[0] * 60000.0 + x[0] * 60000.0
    slope = grad(y, x, np.float16(1), create_graph=create_graph)
    np.testing.assert_array_equal(slope.data, np.array([6e4, -6e4, -6e4], np.float16))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3), (50, 100, 3)])
@pytest.mark.parametrize("given", [(), (1,), (3,)])
def test_broadcast_is_numpys(shape, given):
    x = RNG.standard_normal(given).astype(np.float32)[()]
    try:
        expected = np.broadcast_to(x, shape)
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)):
            kernels.broadcast(x, shape)
        return
    out = kernels.broadcast(x, shape)
    assert out.dtype == np.float32 and out.shape == shape
    np.testing.assert_array_equal(out, expected)
    small = expected.size <= 4096
    assert out.flags.owndata == small and (small or 0 in out.strides)


# --- layer norm ---


@pytest.mark.parametrize("rows, width", [(300, 100), (40, 10_000), (2, 50_257)])
@pytest.mark.parametrize("kind", ["normal", "constant"])
@pytest.mark.parametrize("with_weight", [True, False])
def test_what_is_added_to_all_of_a_row_takes_no_part_in_its_norm(kernel_set, rows, width, kind,
                                                                 with_weight):
    """g = 1 sums up to nothing in a row that is normalised; the view that a sum gives does as well."""
    x = leaf(RNG.standard_normal((rows, width)) if kind == "normal" else np.full((rows, width), 3.0),
             np.float32)
    weight = np.ones(width, np.float32) if with_weight else None
    ops.layer_norm(x, weight).sum().backward()
    assert np.abs(x.grad).max() < (1e-6 if kind == "normal" else 1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_norm_of_a_small_weight_in_half_precision(kernel_set, dtype):
    x, g = RNG.standard_normal((2, 8, 768))
    weight = (1e-4 * RNG.uniform(0.5, 1.5, 768)).astype(np.float16)
    found, expected = leaf(x, dtype), leaf(x)
    ops.layer_norm(found, Tensor(weight)).backward((1 + g).astype(dtype))
    ops.layer_norm(expected, Tensor(weight.astype(float))).backward(1 + g)
    largest, digits = np.abs(expected.grad).max(), 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(found.grad, expected.grad, rtol=0, atol=largest * digits)


@pytest.mark.parametrize("shape", [(65, 0), (5, 30, 0), (0, 3)])
def test_a_layer_norm_of_nothing(kernel_set, shape):
    leaves = [leaf(np.zeros(s), np.float32) for s in (shape, shape[-1:], shape[-1:])]
    with np.errstate(invalid="ignore"):                # the mean of no elements
        ops.layer_norm(*leaves).sum().backward()
    assert [x.grad.shape for x in leaves] == [x.shape for x in leaves]
