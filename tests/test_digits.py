"""Results keep their digits where a straightforward formula loses them: float64 is the yardstick."""

import numpy as np
import pytest

import nn
import tape
from tape import Tensor, grad
from tests.checks import leaf

FAR = (1e7 + np.arange(1000) % 3).astype(np.float32)                       # exact
NEAR = FAR.astype(float) - 1e7


@pytest.mark.parametrize("spread, power", [
    (tape.var, 1), (tape.std, 0.5), (np.nanvar, 1), (np.nanstd, 0.5), (lambda x: np.cov(x, ddof=0), 1)],
    ids=["var", "std", "nanvar", "nanstd", "cov"])
def test_spreads_far_from_zero(spread, power):
    x = leaf(FAR, np.float32)
    out = spread(x)
    out.backward()
    wanted = NEAR.var() ** power
    np.testing.assert_allclose(out.data, wanted, rtol=1e-6)
    slope = 2 * (NEAR - NEAR.mean()) / NEAR.size * (1 if power == 1 else 0.5 / wanted)
    np.testing.assert_allclose(x.grad, slope, rtol=1e-4, atol=1e-7)


def test_correlations_far_from_zero():
    rows = np.stack([FAR, FAR[::-1]])
    found = np.corrcoef(Tensor(rows)).data
    np.testing.assert_allclose(found, np.corrcoef(rows.astype(float)), rtol=1e-6)


def test_the_gradient_of_logsumexp_is_the_softmax_far_from_zero():
    x = leaf(np.array([[1e7, 1e7 + 1, 1e7 + 2], [-np.inf] * 3]), np.float32)
    tape.logsumexp(x, axis=1).sum().backward()
    np.testing.assert_allclose(x.grad, tape.softmax(x).data, rtol=1e-6)
    assert grad(grad(tape.logsumexp(x[0]), x, create_graph=True)[0, 0], x).data[0].sum() < 1e-6


@pytest.mark.parametrize("mean", [np.average, np.nanmean, tape.mean])
def test_means_of_many_in_float16(mean):
    x = leaf(np.full(70_000, 0.5), np.float16)
    out = mean(x)
    out.backward(np.float16(1000))
    assert out.dtype == np.float16 and out.item() == 0.5
    np.testing.assert_allclose(x.grad.astype(float), 1000 / 70_000, rtol=1e-3)


@pytest.mark.parametrize("spread, wanted", [(np.nanvar, 1), (np.nanstd, 1), (np.cov, 1), (np.var, 1)])
def test_spreads_of_many_in_float16(spread, wanted):
    x = Tensor(np.random.default_rng(0).standard_normal(100_000).astype(np.float16))
    assert spread(x).dtype == np.float16
    np.testing.assert_allclose(spread(x).item(), wanted, rtol=1e-2)


def test_label_smoothing_of_many_rows_in_float16():
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((3_000, 50)), rng.integers(0, 50, 3_000)
    half = nn.cross_entropy(Tensor(logits.astype(np.float16)), targets, label_smoothing=0.1)
    np.testing.assert_allclose(
        half.item(), nn.cross_entropy(Tensor(logits), targets, label_smoothing=0.1).item(), rtol=2e-3)


def test_values_that_are_close_are_not_taken_for_equal():
    x = leaf(np.diag(1 + 1e-5 * np.arange(100)), np.float32)
    tape.linalg.eigvalsh(x)[0].backward()
    np.testing.assert_allclose(x.grad.diagonal(), np.eye(100)[0], atol=1e-2)


def test_the_pseudo_inverse_of_a_matrix_of_lower_rank_in_float32():
    a = np.random.default_rng(0).standard_normal((2, 8, 3)).astype(np.float32)
    product = a[0] @ a[1, :6].T                                            # (8, 6), of rank 3
    assert np.abs(np.linalg.pinv(Tensor(product)).data).max() < 10


@pytest.mark.parametrize("schedule", [nn.warmup_linear, nn.warmup_cosine])
def test_a_schedule_that_only_rises_ends_at_its_floor(schedule):
    assert schedule(5, peak=1.0, warmup=5, total=5, floor=0.1) == 0.1
    assert schedule(4, peak=1.0, warmup=5, total=5, floor=0.1) == 1.0


@pytest.mark.parametrize("function, slope", [
    (np.arcsin, lambda x: x / (1 - x * x) ** 1.5), (np.arccos, lambda x: -x / (1 - x * x) ** 1.5),
    (np.arctanh, lambda x: 2 * x / (1 - x * x) ** 2)])
def test_second_derivatives_near_zero(function, slope):
    x = leaf(np.array([1e-10, -1e-5, 1e-3, 0.5]), np.float32)
    first = grad(function(x).sum(), x, create_graph=True)
    np.testing.assert_allclose(grad(first.sum(), x).data, slope(x.data.astype(float)), rtol=1e-5)


@pytest.mark.parametrize("gelu", [tape.gelu, tape.gelu_exact])
def test_derivatives_of_a_gelu_far_below_zero_are_those_of_its_kernels(kernel_set, gelu):
    x = leaf(np.array([-10.0, -8, -6, -5, -1, 3]), np.float32)
    gelu(x).sum().backward()
    again = grad(gelu(x).sum(), x, create_graph=True)
    np.testing.assert_allclose(again.data, x.grad, rtol=1e-4)
    wide = leaf(x.data.astype(float))
    first = grad(gelu(wide).sum(), wide, create_graph=True)
    step = 1e-4
    ahead, behind = leaf(wide.data + step), leaf(wide.data - step)
    for moved in (ahead, behind):
        gelu(moved).sum().backward()
    np.testing.assert_allclose(grad(first.sum(), wide).data, (ahead.grad - behind.grad) / (2 * step),
                               rtol=1e-4)


def test_the_angle_of_a_point_near_the_origin():
    y, x = leaf(np.array([1e-30, -1e-30]), np.float32), leaf(np.array([0.0, -1e-30]), np.float32)
    np.arctan2(y, x).sum().backward()
    np.testing.assert_allclose(y.grad, [0, -5e29], rtol=1e-5)
    np.testing.assert_allclose(x.grad, [-1e30, 5e29], rtol=1e-5)
    tiny = leaf(np.array([1e-40]), np.float32)
    np.hypot(tiny, tiny.data).sum().backward()
    np.testing.assert_allclose(tiny.grad, 0.5 ** 0.5, rtol=1e-3)


def test_the_gradient_of_a_norm_of_order_a_half_beside_zero():
    x = leaf(np.array([0.0, 3.0, -4.0]))
    np.linalg.vector_norm(x, ord=0.5).backward()
    s = 3 ** 0.5 + 4 ** 0.5
    np.testing.assert_allclose(x.grad, [0, s / 3 ** 0.5, -s / 2])


@pytest.mark.parametrize("function", [tape.rms_norm, lambda x: tape.layer_norm(x + 1)])
def test_long_rows_are_added_up_with_small_errors(kernel_set, function):
    x = (0.1 + np.arange(70_000) % 2).astype(np.float32)[None]
    wide = function(Tensor(x.astype(float))).data
    np.testing.assert_allclose(function(Tensor(x)).data, wide, rtol=1e-6)


def test_a_line_of_equal_numbers_has_equal_numbers():
    t = leaf(0.1)
    assert len(set(np.linspace(t, 0.1, 50).data.tolist())) == 1
    assert np.linspace(t, 0.7, 9).data[-1] == 0.7


def test_what_is_not_recorded_takes_a_share_that_is_a_tensor():
    with tape.no_grad():
        assert np.quantile(np.arange(5.0), leaf(0.5)).item() == 2


@pytest.mark.parametrize("function", [np.sinc, tape.sigmoid])
def test_float16_is_rounded_once(kernel_set, function):
    x = np.linspace(-120, 120, 4_001).astype(np.float16)
    out = function(Tensor(x)).data
    assert out.dtype == np.float16
    np.testing.assert_array_equal(out, function(Tensor(x.astype(np.float32))).data.astype(np.float16))
