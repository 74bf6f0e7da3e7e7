"""Matrices with equal eigenvalues or singular values: the gradient is right, or it is refused.

No third outcome: what is derived in tape/ops/degenerate.py is compared with differences, for matrices
and functions that are drawn, and where it is known which of the two it must be.
"""

import numpy as np
import pytest

import tape
from tests.checks import leaf

MATRICES = ("diagonal", "turned", "low rank", "block", "integers", "nearly")
FUNCTIONS = {"w": lambda w: w, "w^2": np.square, "w^2 (w - 1)^2": lambda w: (w * (w - 1)) ** 2,
             "exp": np.exp, "1": lambda w: 0 * w + 1}


def turned(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def drawn_matrix(kind, rng, n, m):
    """A matrix (n, m) with values that occur more than once, or nearly."""
    k = min(n, m)
    values = rng.choice([0.0, 0.0, 1.0, 1.0, 2.0, 0.5], k)
    if kind == "nearly":
        values[0] = 2.0             # or else all of the matrix may be no more than what is added to it
    a = np.zeros((n, m))
    a[:k, :k] = np.diag(values)
    if kind in ("turned", "nearly"):
        u = turned(rng, n)
        a = u @ a @ (u.T if n == m else turned(rng, m))
    if kind == "low rank":
        u = rng.standard_normal((n, max(k - 2, 1)))
        a = u @ (u.T if n == m else rng.standard_normal((u.shape[1], m)))
    if kind == "integers":
        x = rng.integers(-1, 2, (n, n)).astype(float)
        a = x @ x.T if n == m else x @ rng.integers(-1, 2, (n, m))
    if kind == "block":
        a[:2, :2] = [[1.0, 1.0], [1.0, 1.0]]
    if kind == "nearly":
        p = rng.standard_normal((n, m)) * 10.0 ** rng.integers(-9, -5)
        a = a + (p + p.T if n == m else p)
    return (a + a.T) / 2 if n == m else a


def weights(rng, *shape):
    """Of rounded numbers many are 0, so that sums that look for a basis may miss."""
    return rng.standard_normal(shape) if rng.random() < 0.5 else rng.integers(-1, 2, shape) * 1.0


def losses_of_eigh(rng, n, f):
    """Smooth functions of a symmetric matrix, where what they are made of is apart from the rest."""
    A, c, k = weights(rng, n, n), rng.standard_normal(n), int(rng.integers(1, n))
    return {
        "v f(w) v^T": lambda w, v: (A * (v * f(w) @ v.T)).sum(),
        "its distance": lambda w, v: ((v * f(w) @ v.T - A) ** 2).sum(),
        "one element": lambda w, v: (v * f(w) @ v.T)[0, 1],
        "a form": lambda w, v: (f(w) * (c @ v) ** 2).sum(),
        "the largest": lambda w, v: (A * (v[:, -k:] @ v[:, -k:].T)).sum(),
        "the smallest, by values": lambda w, v: (A * (v[:, :k] * f(w[:k]) @ v[:, :k].T)).sum(),
        "values": lambda w, v: f(w).sum(),
        "a share": lambda w, v: (v[:, -1] @ c) ** 2 + w[-1] / (1 + w.sum() ** 2)}


def losses_of_svd(rng, n, m, f):
    A, C, D = weights(rng, n, m), weights(rng, n, n), weights(rng, m, m)
    k = int(rng.integers(1, min(n, m)))
    return {
        "u s v^T": lambda u, s, v: (A * (u * s @ v)).sum(),
        "u s^3 v^T": lambda u, s, v: (A * (u * s ** 3 @ v)).sum(),
        "polar": lambda u, s, v: (A * (u @ v)).sum(),
        "truncated": lambda u, s, v: (A * (u[:, :k] * s[:k] @ v[:k])).sum(),
        "u f(s^2) u^T": lambda u, s, v: (C * (u * f(s * s) @ u.T)).sum(),
        "v f(s^2) v^T": lambda u, s, v: (D * (v.T * f(s * s) @ v)).sum(),
        "u u^T": lambda u, s, v: (C * (u[:, :k] @ u[:, :k].T)).sum(),
        "v v^T": lambda u, s, v: (D * (v[k:].T @ v[k:])).sum(),
        "values": lambda u, s, v: f(s * s).sum()}


def slopes(loss, a, rng, symmetric):
    """Directions, and the slopes of `loss` along them; None where it is not smooth there."""
    for _ in range(5):
        move = rng.standard_normal(a.shape)
        move = move + move.T if symmetric else move
        move /= np.linalg.norm(move)
        here = loss(a)
        found = [side * (loss(a + side * h * move) - here) / h
                 for h in (1e-4, 1e-5) for side in (1, -1)]
        smooth = np.ptp(found) < 1e-2 * (1 + np.abs(found).max())
        yield move, (found[2] + found[3]) / 2 if smooth else None


# They take some vectors and leave others. Between values that are 1e-8 apart no difference can tell
# where they change from one to the other.
CUTS = {"the largest", "the smallest, by values", "truncated", "u u^T", "v v^T", "a share"}


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_gradient_is_silently_wrong(kind, dtype):
    rng = np.random.default_rng([MATRICES.index(kind), np.dtype(dtype).itemsize])
    given = refused = 0
    for trial in range(150):
        n = int(rng.integers(2, 6))
        symmetric = trial % 2 == 0
        m = n if symmetric else n + 1 if trial % 4 == 1 else max(n - 1, 2)
        symmetric = n == m
        f = FUNCTIONS[rng.choice(list(FUNCTIONS))]
        parts, losses = (np.linalg.eigh, losses_of_eigh(rng, n, f)) if symmetric else (
            lambda x: np.linalg.svd(x, full_matrices=False), losses_of_svd(rng, n, m, f))
        name = rng.choice([name for name in losses if kind != "nearly" or name not in CUTS])
        a = drawn_matrix(kind, rng, n, m).astype(dtype)
        x = leaf(a, dtype)
        try:
            losses[name](*parts(x)).backward()
        except np.linalg.LinAlgError:
            refused += 1
            continue
        assert x.grad.dtype == dtype and np.isfinite(x.grad).all()
        for move, slope in slopes(lambda y: float(losses[name](*parts(y))), a.astype(float), rng,
                                  symmetric):
            if slope is not None:
                given += 1
                allowed = (2e-3 if dtype == np.float64 else 3e-2) * (1 + np.linalg.norm(x.grad))
                assert abs((x.grad * move).sum() - slope) < allowed, (name, a)
    assert given > 200 and (refused > 5 or kind == "nearly")


# --- where it is known what must come out ---

NULL_SPACE = {"zeros": np.zeros((3, 3)), "axes": np.diag([1.0, 0, 0]), "ones": np.ones((3, 3)) / 3}
REBUILT = {
    "eigh": lambda x: (lambda w, v: v * w @ v.T)(*np.linalg.eigh(x)),
    "eig": lambda x: (lambda w, v: v * w @ np.linalg.inv(v))(*np.linalg.eig(x)),
    "svd": lambda x: (lambda u, s, v: u * s @ v)(*np.linalg.svd(x))}


@pytest.mark.parametrize("name", NULL_SPACE)
@pytest.mark.parametrize("decomposition", REBUILT)
def test_a_matrix_put_together_again_is_refused_in_its_null_space(decomposition, name):
    # Elements in the null space: the cotangents of its vectors are 0, and often those of the values.
    for i, j in ((2, 1), (1, 2), (2, 2)):
        out = REBUILT[decomposition](leaf(NULL_SPACE[name]))
        with pytest.raises(np.linalg.LinAlgError, match=f"{decomposition}: where .* solve"):
            out[i, j].backward()


@pytest.mark.parametrize("name", ["axes", "ones"])
def test_the_first_component_of_a_matrix_with_a_null_space(name):
    # Of a = p p^T with |p| = 1: dv = (1 - p p^T) da p.
    a, c = NULL_SPACE[name], np.array([1.0, 2.0, -1.0])
    p = np.sqrt(np.diag(a))
    expected = 2 * (c @ p) * np.outer(c - p * (c @ p), p)
    for top, symmetric in ((lambda x: np.linalg.eigh(x).eigenvectors[:, -1], True),
                           (lambda x: np.linalg.svd(x).U[:, 0], False)):
        x = leaf(a)
        ((top(x) * c).sum() ** 2).backward()
        wanted = (expected + expected.T) / 2 if symmetric else expected
        np.testing.assert_allclose(x.grad, wanted, atol=1e-12)


def test_the_projection_on_the_vectors_of_equal_eigenvalues():
    # Of the eigenvalues 1, 1, 2: with Q = 1 - P, dP = -(P da Q + Q da P).
    rng = np.random.default_rng(3)
    q, c = turned(rng, 3), rng.standard_normal((3, 3))
    x = leaf(q * [1.0, 1.0, 2.0] @ q.T)
    v = np.linalg.eigh(x).eigenvectors[:, :2]
    (v @ v.T * c).sum().backward()
    p = q[:, :2] @ q[:, :2].T
    slope = -(p @ c @ (np.eye(3) - p) + (np.eye(3) - p) @ c @ p)
    np.testing.assert_allclose(x.grad, (slope + slope.T) / 2, atol=1e-12)


def test_the_nearest_rotation_to_the_identity():
    # U V^T of 1 + t S, with S symmetric, is 1, and of 1 + t N, with N antisymmetric, 1 + t N.
    c = np.arange(9.0).reshape(3, 3) ** 2
    x = leaf(np.eye(3))
    u, _, vt = np.linalg.svd(x)
    (u @ vt * c).sum().backward()
    np.testing.assert_allclose(x.grad, (c - c.T) / 2, atol=1e-12)


def test_equal_values_share_their_gradient_and_zeros_have_none():
    x = leaf(np.diag([1.0, 2.0, 2.0]))
    np.linalg.eigvalsh(x)[2].backward()
    np.testing.assert_allclose(x.grad, np.diag([0, 0.5, 0.5]), atol=1e-12)
    for function in (lambda x: np.linalg.norm(x, "nuc"), lambda x: np.linalg.svdvals(x).sum()):
        x = leaf(np.diag([2.0, 2.0, 0.0, 0.0])[:, :3])
        function(x).backward()
        np.testing.assert_allclose(x.grad, np.diag([1.0, 1, 0, 0])[:, :3], atol=1e-12)


def test_the_slope_of_values_is_not_differentiated_where_they_are_equal():
    for function in (np.linalg.eigvalsh, np.linalg.svdvals, np.linalg.eigvals):
        x = leaf(np.zeros((2, 2)))
        slope = tape.grad((function(x) ** 2).sum(), x, create_graph=True)
        with pytest.raises(np.linalg.LinAlgError):
            tape.grad(slope[0, 1], x)                       # that of 2 x, which is not 0


def test_the_null_vector_of_a_square_matrix_has_a_gradient_and_a_product_of_both_has_none():
    x = leaf(np.diag([2.0, 1.0, 0.0]))
    ((np.linalg.svd(x).Vh[2] * np.array([1.0, 1.0, 0.0])).sum() ** 2 / 2).backward()
    np.testing.assert_array_equal(x.grad, 0)
    u, _, vt = np.linalg.svd(leaf(np.diag([2.0, 1.0, 0.0])))
    with pytest.raises(np.linalg.LinAlgError, match="svd: where singular values are 0"):
        (u @ vt)[2, 2].backward()                           # 1 or -1


def test_too_few_eigenvectors():
    with pytest.raises(np.linalg.LinAlgError, match="eig: where the eigenvectors depend"):
        np.linalg.eigvals(leaf([[0.0, 1.0], [0.0, 0.0]])).sum().backward()


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_a_basis_of_equal_values_is_one_of_their_space(scale):
    rng = np.random.default_rng(5)
    a = scale * np.stack([
        np.eye(4), np.diag([1.0, 1, 0, 0]), with_values(rng, [3, 3, 3, 1]), np.zeros((4, 4))])
    w, v = (part.data for part in np.linalg.eigh(leaf(a)))
    u, s, vt = (part.data for part in np.linalg.svd(leaf(a[..., :3]), full_matrices=False))
    np.testing.assert_allclose(a @ v, v * w[:, None, :], atol=1e-14 * scale)
    np.testing.assert_allclose(u * s[:, None, :] @ vt, a[..., :3], atol=1e-14 * scale)
    for basis in (v, u, vt.mT):
        np.testing.assert_allclose(basis.mT @ basis, np.broadcast_to(np.eye(basis.shape[-1]), (
            4, basis.shape[-1], basis.shape[-1])), atol=1e-14)


def with_values(rng, values):
    q = turned(rng, len(values))
    return q * values @ q.T
