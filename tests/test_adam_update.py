"""`adam_update`, by each set of kernels, against the algorithm as printed."""

import importlib.util

import numpy as np
import pytest

import tape

SETS = [pytest.param(name, marks=pytest.mark.skipif(
    name == "numba" and importlib.util.find_spec("numba") is None, reason="Numba is not installed"))
    for name in ("numpy", "numba")]
SHAPES = [(3, 4), (), (0, 2), (50,), (7, 5)]


def drawn(seed, dtype):
    rng = np.random.default_rng(seed)
    return [np.array(rng.standard_normal(shape), dtype) for shape in SHAPES]


def means():
    return np.zeros(98), np.zeros(98)           # of all elements of SHAPES


def as_printed(arrays, gradients, steps, lr, betas, eps, decay, decoupled):
    """Algorithm 1 of Kingma and Ba, and algorithm 2 of Loshchilov and Hutter, in float64."""
    found = []
    for p, g in zip(arrays, gradients):
        p, m, v = p.astype(np.float64), 0, 0
        for t in range(1, steps + 1):
            h = g.astype(np.float64) + (0 if decoupled else decay * p)
            m, v = betas[0] * m + (1 - betas[0]) * h, betas[1] * v + (1 - betas[1]) * h ** 2
            ratio = m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
            p = p - lr * (ratio + (decay * p if decoupled else 0))
        found.append(p)
    return found


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("dtype, tolerance", [
    (np.float64, 1e-13), (np.float32, 1e-5), (np.float16, 2e-2)])
@pytest.mark.parametrize("kernels", SETS)
def test_it_is_the_algorithm_as_printed(kernels, dtype, tolerance, decay, decoupled):
    arrays, gradients = drawn(0, dtype), drawn(1, dtype)
    expected = as_printed(arrays, gradients, 5, 0.1, (0.8, 0.95), 1e-3, decay, decoupled)
    wide = np.result_type(dtype, np.float32)
    m, v = (mean.astype(wide) for mean in means())
    with tape.use_kernels(kernels):
        for t in range(1, 6):
            tape.adam_update(arrays, gradients, m, v, t, 0.1, (0.8, 0.95), 1e-3, decay, decoupled)
    assert {p.dtype for p in arrays} == {np.dtype(dtype)}
    for p, value, g, before in zip(arrays, expected, gradients, drawn(1, dtype)):
        np.testing.assert_allclose(p, value, rtol=tolerance, atol=tolerance)
        assert np.array_equal(g, before)


@pytest.mark.parametrize("kernels", SETS)
def test_columns_in_a_row_and_read_only_gradients_are_taken_too(kernels):
    p, g = np.ones((3, 4), order="F"), np.arange(12.0).reshape(4, 3).T
    g.flags.writeable = False
    expected, = as_printed([p], [g], 1, 0.1, (0.9, 0.99), 1e-8, 0.1, True)
    with tape.use_kernels(kernels):
        tape.adam_update([p], [g], np.zeros(12), np.zeros(12), 1, 0.1, (0.9, 0.99), 1e-8, 0.1, True)
    np.testing.assert_allclose(p, expected, rtol=1e-13)


@pytest.mark.parametrize("kernels", SETS)
def test_without_decay_what_is_infinite_stays_so_and_the_others_are_as_alone(kernels):
    p, alone = np.array([np.inf, 1.0], np.float32), np.array([1.0], np.float32)
    with tape.use_kernels(kernels):
        for array in (p, alone):
            n = array.size
            tape.adam_update([array], [np.ones(n, np.float32)], np.zeros(n, np.float32),
                             np.zeros(n, np.float32), 1, 0.1, (0.9, 0.99), 1e-8)
    assert p[0] == np.inf and p[1] == alone[0] < 1


def test_the_arrays_of_leaves_are_changed():
    arrays = drawn(0, np.float64)
    leaves = [tape.Tensor(array, requires_grad=True) for array in arrays]
    for given in (arrays, leaves):
        tape.adam_update(given, drawn(1, np.float64), *means(), 1, 0.1, (0.9, 0.99), 1e-8)
    for array, t in zip(arrays, leaves, strict=True):
        np.testing.assert_array_equal(t.data, array)


def test_a_tape_that_needs_the_old_values_of_a_leaf_notices():
    x = tape.Tensor(np.ones((2, 2)), requires_grad=True)
    for step in range(3):               # the first tape is done with when x changes, and so no matter
        out = (x @ x).sum()
        if step < 2:
            out.backward()
        tape.adam_update([x], [np.ones((2, 2))], np.zeros(4), np.zeros(4), 1, 0.1, (0.9, 0.99), 1e-8)
    with pytest.raises(RuntimeError, match="matmul: .* was changed in place after this operation"):
        out.backward()
    out = (x @ x).sum()
    kept = x.data                       # the caller can change it from here on
    kept += 1
    with pytest.raises(RuntimeError, match="was changed in place"):
        out.backward()


@pytest.mark.parametrize("kernels", SETS)
def test_means_of_any_kind_are_updated_where_they_lie_or_refused(kernels):
    """Beside a parameter of float32: strided, reversed, of another byte order, read-only, integers."""
    n = 5000
    p, g, near = np.ones(n, np.float32), np.linspace(-1, 1, n).astype(np.float32), {"rtol": 1e-6}

    def updated(make, p=p, g=g):
        p, (m, v) = p.copy(), (make(np.zeros(3 * n, np.float32)) for _ in range(2))
        with tape.use_kernels(kernels):
            tape.adam_update([p], [g], m, v, 1, 0.1, (0.9, 0.99), 1e-8)
        return p, m, v

    expected = updated(lambda memory: memory[:n])
    around = []
    for make in (lambda x: around.append(x) or x[n:2 * n][::-1],
                 lambda x: around.append(x) or x[:2 * n:2],
                 lambda x: x[:n].astype(">f4"), lambda x: x[:n].astype(np.float64)):
        for found, wanted in zip(updated(make), expected, strict=True):
            np.testing.assert_allclose(found, wanted, **near)
    assert [np.count_nonzero(memory) for memory in around] == [n] * 4

    def read_only(memory):
        memory.flags.writeable = False
        return memory[:n]
    for make in (read_only, lambda x: x[:n].astype(int)):
        with pytest.raises((ValueError, TypeError)):
            updated(make)


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("gradient, m, v", [((5,), 5, 6), ((6,), 5, 5), ((6,), 6, 7), ((2, 3), 6, 6),
                                            ((6,), (6, 1), (6, 1)), ((6,), (1, 6), 6)])
def test_shapes_that_do_not_fit_are_refused(kernels, gradient, m, v):
    with tape.use_kernels(kernels), pytest.raises(ValueError, match="adam_update: .* m and v of shape"):
        tape.adam_update([np.zeros(6)], [np.ones(gradient)], np.zeros(m), np.zeros(v), 1, 0.1,
                         (0.9, 0.99), 1e-8)
