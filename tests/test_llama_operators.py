"""RMSNorm, SwiGLU and rotary positions as operators: against formulas in float64, by both sets."""

import numpy as np
import pytest

import tape
from tape import Tensor

RNG = np.random.default_rng(0)


def gradients(f, arrays, g, dtype=np.float64):
    leaves = [Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    out = f(*leaves)
    out.backward(g.astype(dtype))
    return out.data, *(t.grad for t in leaves)


def near(found, expected, dtype):
    assert found.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found, expected, rtol=30 * eps, atol=30 * eps * np.abs(expected).max())


# --- RMSNorm ---


@pytest.mark.parametrize("shape", [(5,), (4, 6), (2, 3, 300), (50, 1), (700, 130)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rms_norm_by_its_formula(kernel_set, shape, dtype):
    x, g = RNG.standard_normal((2, *shape))
    weight = RNG.standard_normal(shape[-1])
    x, weight, g = (a.astype(dtype).astype(np.float64) for a in (x, weight, g))
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 0.1)
    n, h = x * r, g * weight
    expected = (n * weight, r * (h - n * (h * n).mean(-1, keepdims=True)),
                (g * n).reshape(-1, shape[-1]).sum(0))
    found = gradients(lambda x, w: tape.rms_norm(x, w, eps=0.1), (x, weight), g, dtype)
    for a, b in zip(found, expected):
        near(a, b, dtype)
    plain = gradients(lambda x: tape.rms_norm(x, eps=0.1), (x,), g, dtype)
    near(plain[0], n, dtype)
    near(plain[1], r * (g - n * (g * n).mean(-1, keepdims=True)), dtype)


def test_rms_norm_of_float16_whose_squares_are_infinite_there(kernel_set):
    x = np.array([[300, -400, 500, 60000]], np.float16)
    out, slope = gradients(tape.rms_norm, (x,), np.array([[1.0, 0, 0, 0]]), np.float16)
    wide = x.astype(np.float64)
    r = 1 / np.sqrt((wide ** 2).mean())
    near(out, wide * r, np.float16)
    assert np.isfinite(slope).all() and slope.dtype == np.float16


def test_rms_norm_of_zeros_and_of_no_rows(kernel_set):
    out, slope, of_weight = gradients(tape.rms_norm, (np.zeros((2, 3)), np.ones(3)), np.ones((2, 3)))
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_allclose(slope, 1 / np.sqrt(1e-5))
    np.testing.assert_array_equal(of_weight, 0)
    empty = gradients(tape.rms_norm, (np.zeros((0, 3)), np.ones(3)), np.ones((0, 3)))
    assert empty[0].shape == (0, 3) and not empty[2].any()


def test_rms_norm_of_mixed_types(kernel_set):
    x = Tensor(RNG.standard_normal((4, 6)).astype(np.float32), requires_grad=True)
    weight = Tensor(RNG.standard_normal(6), requires_grad=True)             # float64
    out = tape.rms_norm(x, weight)
    out.sum().backward()
    assert (out.dtype, x.grad.dtype, weight.grad.dtype) == (np.float64, np.float32, np.float64)
    np.testing.assert_allclose(weight.grad, (out.data / weight.data).sum(0), rtol=1e-6)   # as x has


def test_rms_norm_keeps_the_digits_of_many_rows_and_of_long_ones(kernel_set):
    for shape in ((20_000, 3), (2, 20_000)):
        x, g = RNG.random((2, *shape)) + 0.1
        weight = RNG.random(shape[-1]) + 0.5
        single, double = (gradients(tape.rms_norm, (x, weight), g, dtype)
                          for dtype in (np.float32, np.float64))
        for a, b in zip(single, double):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6 * np.abs(b).max())


def test_rms_norm_says_what_is_wrong_with_a_weight(kernel_set):
    with pytest.raises(ValueError, match=r"rms_norm: weight must .* of x's last axis, \(6,\)"):
        tape.rms_norm(np.zeros((4, 6)), np.ones(4))
    with pytest.raises(ValueError, match="Did you mean eps=1e-06?"):
        tape.rms_norm(np.zeros((4, 6)), 1e-6)


@pytest.mark.parametrize("norm", [tape.rms_norm, tape.layer_norm])
def test_norms_of_what_takes_no_memory(kernel_set, norm):
    for shape in ((2, 3, 4), (5, 1), (4,)):
        x = Tensor(tape.hollow(shape), requires_grad=True)
        with tape.measure():
            out = norm(x, np.ones(shape[-1], np.float32))
            out.sum().backward()
        assert out.shape == x.grad.shape == shape


@pytest.mark.parametrize("norm", [tape.rms_norm, tape.layer_norm])
def test_norms_of_a_number_and_an_eps_of_any_kind(kernel_set, norm):
    with pytest.raises(ValueError, match="must have an axis"):
        norm(np.array(2.0))
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(norm(x, eps=np.array(0.5)), norm(x, eps=0.5))


# --- SwiGLU ---


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (300, 1000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_swiglu_by_its_formula(kernel_set, shape, dtype):
    gate, x, g = (3 * RNG.standard_normal(shape) for _ in range(3))
    gate, x, g = (np.asarray(a).astype(dtype).astype(np.float64) for a in (gate, x, g))
    s = 1 / (1 + np.exp(-gate))
    expected = gate * s * x, g * x * (s + gate * s * (1 - s)), g * gate * s
    for a, b in zip(gradients(tape.swiglu, (gate, x), g, dtype), expected):
        near(a, b, dtype)


def test_swiglu_of_gates_that_are_shut_and_open(kernel_set):
    gate = np.array([-1e4, -200, -90, 0, 90, 1e4])
    out, of_gate, of_x = gradients(tape.swiglu, (gate, np.full(6, 2.0)), np.ones(6), np.float32)
    np.testing.assert_allclose(out, [0, 0, 0, 0, 180, 2e4], atol=1e-30)
    np.testing.assert_allclose(of_gate, [0, 0, 0, 1, 2, 2], atol=1e-30)
    np.testing.assert_allclose(of_x, [0, 0, 0, 0, 90, 1e4], atol=1e-30)


@pytest.mark.parametrize("size", [4, 400_000])
def test_a_gradient_of_zero_stays_zero_beside_infinities(kernel_set, size):
    gate, x, g = np.ones(size), np.ones(size), np.ones(size)
    gate[0], x[1], gate[2] = np.inf, np.inf, np.nan
    g[:3] = 0
    _, of_gate, of_x = gradients(tape.swiglu, (gate, x), g, np.float32)
    assert not of_gate[:3].any() and not of_x[:3].any()
    assert np.isfinite(of_gate).all() and of_gate[3:].all() and of_x[3:].all()


def test_swiglu_takes_one_shape(kernel_set):
    with pytest.raises(ValueError, match=r"swiglu: .* one shape, got \(2, 3\) and \(3,\)"):
        tape.swiglu(np.zeros((2, 3)), np.zeros(3))


# --- rotations ---


def angles(length, pairs):
    angle = RNG.standard_normal((length, pairs)) * 10
    return np.cos(angle), np.sin(angle)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairs_turn_as_by_a_matrix(lead, dtype):
    (cos, sin), x = angles(5, 4), RNG.standard_normal((*lead, 5, 8))
    g = RNG.standard_normal(x.shape)
    matrix = np.zeros((5, 8, 8))                                           # of each position
    for i in range(4):
        two, c, s = slice(2 * i, 2 * i + 2), cos[:, i], sin[:, i]
        matrix[:, two, two] = np.moveaxis(np.array([[c, -s], [s, c]]), 2, 0)
    cos, sin = cos.astype(dtype), sin.astype(dtype)
    out, slope = gradients(lambda x: tape.rotate_pairs(x, cos, sin), (x,), g, dtype)
    near(out, np.einsum("tij,...tj->...ti", matrix, x), dtype)
    near(slope, np.einsum("tij,...ti->...tj", matrix, g), dtype)


def test_rotations_of_any_layout_and_type():
    (cos, sin), x = angles(5, 4), RNG.standard_normal((2, 5, 8))
    expected = tape.rotate_pairs(x, cos, sin)
    wide = np.zeros((2, 5, 16))
    wide[..., ::2] = x
    odd = np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
    for same in (wide[..., ::2], np.asfortranarray(x), x.swapaxes(0, 1).copy().swapaxes(0, 1), odd,
                 x[:, ::-1].copy()[:, ::-1], x[..., ::-1].copy()[..., ::-1]):
        np.testing.assert_array_equal(tape.rotate_pairs(same, cos, sin), expected)
    half = tape.rotate_pairs(x.astype(np.float16), cos.astype(np.float16), sin.astype(np.float16))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, expected, atol=0.02)
    assert tape.rotate_pairs(x.astype(np.float32), cos, sin).dtype == np.float64
    assert tape.rotate_pairs(x[:, :0], cos[:0], sin[:0]).shape == (2, 0, 8)


def test_angles_of_their_own_for_each_sequence():
    cos, sin = (np.stack(both) for both in zip(angles(5, 4), angles(5, 4)))       # (2, 5, 4)
    x = RNG.standard_normal((5, 8))
    out, slope = gradients(lambda x: tape.rotate_pairs(x, cos, sin), (x,), np.ones((2, 5, 8)))
    for i in range(2):
        np.testing.assert_array_equal(out[i], tape.rotate_pairs(x, cos[i], sin[i]))
    np.testing.assert_allclose(slope, tape.rotate_pairs(np.ones((2, 5, 8)), cos, -sin).sum(0))


def test_angles_that_are_learned():
    angle, (x, g) = RNG.standard_normal((5, 4)), RNG.standard_normal((2, 2, 5, 8))

    def composed(x, angle):
        even, odd, cos, sin = x[..., ::2], x[..., 1::2], tape.cos(angle), tape.sin(angle)
        return tape.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)
    found = gradients(lambda x, a: tape.rotate_pairs(x, tape.cos(a), tape.sin(a)), (x, angle), g)
    for a, b in zip(found, gradients(composed, (x, angle), g)):
        near(a, b, np.float64)


def test_what_has_no_angles():
    with pytest.raises(ValueError, match=r"takes cosines and sines \(T, D/2\), got shapes"):
        tape.rotate_pairs(np.ones((5, 8)), 1.0, 0.0)


@pytest.mark.parametrize("shape", [(5, 7), (5, 6), ()])
def test_rotations_say_what_fits(shape):
    with pytest.raises(ValueError, match=r"rotate_pairs: x \(..., T, D\) takes cosines and sines"):
        tape.rotate_pairs(np.zeros(shape), *angles(5, 4))
