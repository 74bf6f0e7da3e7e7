"""Parameters in float16: what optimisers remember and compute is float32, and rounded once."""

import numpy as np
import pytest

from nn import SGD, AdamW, Parameter, clip_grad_norm


def pair(values, **settings):
    """The same values in float16 and in float32."""
    half = Parameter(np.array(values, np.float16))
    return half, Parameter(half.data.astype(np.float32))


@pytest.mark.parametrize("make", [
    lambda p: SGD([p], lr=1e-3), lambda p: SGD([p], lr=0.1, momentum=0.9, weight_decay=1e-4),
    lambda p: AdamW([p], lr=1e-3), lambda p: AdamW([p], lr=0.05, weight_decay=1e-5),
    lambda p: AdamW([{"params": [p], "eps": 1e-8, "lr": 0.01}])])
@pytest.mark.parametrize("shape", [(5,), ()])
def test_a_step_is_that_of_float32_rounded_once(make, shape):
    rng = np.random.default_rng(0)
    half, single = pair(rng.standard_normal(shape))
    ours, theirs = make(half), make(single)
    for scale in (1.0, 1e-4, 1e-7, 300.0, 0.0):
        single.data = half.data.astype(np.float32)
        half.grad = rng.standard_normal(shape) * scale
        single.grad = half.grad
        ours.step()
        theirs.step()
        np.testing.assert_array_equal(half.data, single.data.astype(np.float16))
    assert half.dtype == half.grad.dtype == np.float16


@pytest.mark.parametrize("gradient", [1e-4, 6e-8, 60_000.0])
def test_adamw_moves_by_the_learning_rate_however_small_or_large_the_gradient(gradient):
    half, _ = pair([1.0, -1.0])
    half.grad = [gradient, gradient]
    AdamW([half], lr=0.25, weight_decay=0.0, eps=1e-12).step()
    np.testing.assert_allclose(half.data, [0.75, -1.25], rtol=1e-3)


def test_what_is_remembered_is_float32_at_least():
    for dtype, expected in [(np.float16, np.float32), (np.float32, np.float32),
                            (np.float64, np.float64)]:
        p = Parameter(np.ones(2, dtype))
        p.grad = np.ones(2)
        adam, sgd = AdamW([p]), SGD([p], lr=0.1, momentum=0.9)
        adam.step()
        sgd.step()
        assert adam.m[0].dtype == adam.v[0].dtype == sgd.velocity[0].dtype == expected
        assert p.dtype == dtype


def test_an_update_beyond_the_range_is_not_silent():
    half, _ = pair([60_000.0])
    half.grad = [-60_000.0]
    with pytest.warns(RuntimeWarning, match="overflow"):
        SGD([half], lr=1.0).step()


def test_small_gradients_add_up_in_the_momentum():
    half, _ = pair([0.0])
    optimizer = SGD([half], lr=1.0, momentum=0.999)
    for _ in range(200):
        half.grad = [2e-7]
        optimizer.step()
    t = np.arange(1, 201)
    expected = -np.sum(3 * 2 ** -24 * (1 - 0.999 ** t) / (1 - 0.999))
    assert half.item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("values", [[300.0, 400.0], [60_000.0] * 100, [6e-8, 6e-8], [1e-3] * 1000])
def test_clipping_measures_and_scales_in_float32(values):
    half, _ = pair(values)
    half.grad = values
    exact = half.grad.astype(np.float64)
    norm = np.linalg.norm(exact)
    assert clip_grad_norm([half], norm / 3) == pytest.approx(norm, rel=1e-6)
    assert half.grad.dtype == np.float16
    np.testing.assert_allclose(half.grad, (exact / 3).astype(np.float16), atol=6e-8, rtol=1e-3)


def test_clipping_by_a_factor_that_float16_has_not():
    half, _ = pair([1.0])
    single = Parameter(np.ones(1, np.float32))
    half.grad, single.grad = [60_000.0], [1e12]
    clip_grad_norm([half, single], 1e7)        # by 1e-5
    assert half.grad == np.float16(0.6)
