"""The error function and the exact GELU, by the standard library's functions; both sets of kernels."""

import math

import numpy as np
import pytest

import tape
from tape import gradcheck

HARD = [0.0, -0.0, 1e-300, 1e-40, -1e-40, 0.46875, 4.0, -4.0, 1e30, -1e30, np.inf, -np.inf, np.nan]


def gelu_of(x):
    return np.array([0.0 if v == -np.inf else 0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x])


def slope_of(x):
    bounded = np.clip(x, -60, 60)                                   # beyond, the density is 0
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) + v * math.exp(-v * v / 2) / math.sqrt(
        2 * math.pi) for v in bounded])


def test_erf_is_that_of_the_standard_library():
    x = np.concatenate([np.linspace(-7, 7, 20_001), HARD])
    wanted = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(tape.erf(x), wanted, rtol=1e-15, atol=0)
    np.testing.assert_array_equal(np.signbit(tape.erf(x)), np.signbit(wanted))
    single = x.astype(np.float32)
    assert tape.erf(single).dtype == np.float32
    np.testing.assert_allclose(tape.erf(single), [math.erf(v) for v in single], rtol=1.2e-7,
                               atol=1e-45)                             # denormal numbers
    assert tape.erf(np.arange(3)).dtype == np.float64
    assert tape.erf(np.array(0.5)).shape == () and tape.erf(np.zeros((2, 0, 3))).shape == (2, 0, 3)


def test_erf_in_pieces(monkeypatch):
    from tape.kernels import pieces
    x = np.linspace(-7, 7, 105).reshape(5, 7, 3)
    whole = tape.erf(x)
    monkeypatch.setattr(pieces, "PIECE", 8)
    for layout in (x, np.asfortranarray(x), x.transpose(2, 0, 1).copy().transpose(1, 2, 0)):
        np.testing.assert_array_equal(tape.erf(layout), whole)


@pytest.mark.parametrize("function", [tape.erf, tape.gelu_exact])
def test_derivatives_to_second_order(kernel_set, function):
    x = np.array([-5.0, -2.0, -0.4, 0.1, 0.3, 1.0, 3.0])
    assert gradcheck(function, [x], order=2, tolerance=1e-6)


@pytest.mark.parametrize("dtype, many", [(np.float32, 1), (np.float64, 1), (np.float32, 40)])
def test_the_exact_gelu_and_its_gradient(kernel_set, dtype, many):
    x = np.tile(np.concatenate([np.linspace(-14, 14, 2_801), HARD]), many).astype(dtype)
    t = tape.Tensor(x, requires_grad=True)
    with np.errstate(all="raise", under="ignore"):                  # nothing is warned of
        out = tape.gelu_exact(t)
        out.backward(np.ones_like(x))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(out.data, gelu_of(x.astype(float)), rtol=2 * eps, atol=2 * eps)
    np.testing.assert_allclose(t.grad, slope_of(x.astype(float)), rtol=2 * eps, atol=2 * eps)


def test_the_exact_gelu_keeps_the_digits_of_small_results(kernel_set):
    """(1 + erf(x / sqrt(2))) / 2 has none of them left at -6 in float32."""
    x = np.linspace(-12, -1, 1_001).astype(np.float32)
    out = tape.gelu_exact(x)
    np.testing.assert_allclose(out, gelu_of(x.astype(float)), rtol=1e-5)      # x^2 / 2 is rounded


def test_a_gradient_of_zero_stays_zero_beside_nan(kernel_set):
    x = tape.Tensor(np.array([np.nan, np.nan, np.inf, 1.0], np.float32), requires_grad=True)
    tape.gelu_exact(x).backward(np.array([0, 1, 0, 0], np.float32))
    np.testing.assert_array_equal(x.grad, [0, np.nan, 0, 0])


@pytest.mark.parametrize("odd", [
    np.ones((3, 4), np.float16), np.zeros((0, 3)), np.array(2.0), np.float32(2), np.arange(3),
    np.ones(3, ">f4"), np.ones((4, 6))[:, ::2]], ids=lambda odd: f"{odd.dtype.str}{odd.shape}")
def test_any_dtype_and_layout(odd):
    pytest.importorskip("numba", reason="numba is not installed; pip install -e '.[fast]'")
    from tape import kernels
    from tape.kernels import numba
    g = np.ones_like(odd, float if odd.dtype.kind != "f" else None)
    (plain, kept), ours = kernels.gelu_exact(odd), numba.gelu_exact(odd)
    (slope,) = kernels.gelu_exact_backward(g, odd, **kept)
    (our_slope,) = numba.gelu_exact_backward(g, odd)
    assert np.asarray(ours).dtype == np.asarray(plain).dtype and np.shape(ours) == np.shape(odd)
    assert np.asarray(our_slope).dtype == np.asarray(slope).dtype
    np.testing.assert_allclose(ours, plain, rtol=1e-6)
    np.testing.assert_allclose(our_slope, slope, rtol=1e-6)


def test_an_array_without_axes_has_the_bits_of_a_number(kernel_set):
    for value in np.linspace(-3, 3, 101):
        for function in (tape.gelu, tape.gelu_exact, tape.sigmoid, tape.relu):
            assert function(np.array(value)).item() == function(np.float64(value)).item()
