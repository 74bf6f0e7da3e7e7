"""Linear algebra where derivatives end or nearly do, and what its functions return and refuse.

That each agrees with differences is in test_operators.py, with PyTorch and autograd in
test_peers_linalg.py.
"""

import re

import numpy as np
import pytest

import tape
from tape import Tensor, grad, linalg, ops
from tape.gradcheck import gradcheck
from tests.checks import differences, leaf

RNG = np.random.default_rng(4)
A = RNG.standard_normal((3, 3))
ORTHONORMAL = np.linalg.qr(A)[0]
B = RNG.standard_normal((4, 3))


def with_eigenvalues(*values):
    """A symmetric matrix with these eigenvalues, whose eigenvectors are not the axes."""
    return ORTHONORMAL * values @ ORTHONORMAL.T


TWICE = with_eigenvalues(1.0, 2.0, 2.0)


def symmetric_differences(function, a, step=1e-6):
    """The gradient of a function of symmetric matrices."""
    slope = np.zeros(a.shape)
    for i, j in np.ndindex(a.shape):
        move = np.zeros(a.shape)
        move[i, j] += step / 2
        move[j, i] += step / 2
        slope[i, j] = (function(a + move) - function(a - move)) / (2 * step)
    return slope


# --- products ---


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (2, 1, 0, 3)])
def test_inner_with_a_matrix_has_the_bits_of_the_product_with_its_transpose(shape):
    arrays = [RNG.standard_normal(s).astype(np.float32) for s in (shape, (4, 3))]
    found = []
    for product in (tape.inner, lambda x, y: x @ y.T):
        x, y = (leaf(a, np.float32) for a in arrays)
        out = product(x, y)
        out.backward(np.cos(np.arange(out.size, dtype=np.float32)).reshape(out.shape))
        found.append((out.data, x.grad, y.grad))
    for a, b in zip(*found, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


def test_inner_with_a_matrix_copies_no_operand():
    x, y = leaf(np.ones((2, 3))), leaf(np.ones((4, 3)))
    saved = tape.inner(x, y)._record.saved
    assert all(np.shares_memory(kept, t.data) for kept, t in zip(saved, (y, x), strict=False))


def test_inner_refuses_axes_of_other_lengths():
    for make in (np.zeros, lambda shape: Tensor(np.zeros(shape))):
        with pytest.raises(ValueError, match=r"last axes .* equally long, got shapes .*3.* and .*4, 5"):
            tape.inner(make((2, 3)), make((4, 5)))


# --- equal eigenvalues and singular values ---


def test_a_function_of_the_eigenvalues_alone_has_a_gradient_where_some_are_equal():
    for a in (TWICE, np.eye(3), np.zeros((3, 3))):
        x = leaf(a)
        (np.linalg.eigvalsh(x) ** 3).sum().backward()
        np.testing.assert_allclose(x.grad, 3 * a @ a, atol=1e-12)        # of trace(a^3)


def test_the_vector_of_a_single_eigenvalue_has_a_gradient_where_others_are_equal():
    x = leaf(TWICE)
    projected = (np.linalg.eigh(x).eigenvectors[:, 0] * np.array([1.0, 2.0, 3.0])).sum() ** 2
    projected.backward()
    expected = symmetric_differences(
        lambda a: (np.linalg.eigh(a)[1][:, 0] @ [1.0, 2.0, 3.0]) ** 2, TWICE)
    np.testing.assert_allclose(x.grad, expected, atol=1e-7)


def test_vectors_of_equal_eigenvalues_have_no_gradient():
    for a in (TWICE, np.eye(3)):
        loss = (np.linalg.eigh(leaf(a)).eigenvectors[:, 2] * np.array([1.0, 2.0, 3.0])).sum() ** 2
        with pytest.raises(np.linalg.LinAlgError, match="eigh: where eigenvalues are equal"):
            loss.backward()


def test_the_matrix_put_together_again_is_refused_rather_than_wrong():
    # d(v w v^T) is da, but where eigenvalues are equal the formula is 0 / 0.
    w, v = np.linalg.eigh(leaf(TWICE))
    with pytest.raises(np.linalg.LinAlgError, match="eigh"):
        (v * w @ v.T)[0, 1].backward()


def test_the_second_derivative_where_eigenvalues_are_equal_is_refused():
    x = leaf(TWICE)
    slope = grad((np.linalg.eigvalsh(x) ** 2).sum(), x, create_graph=True)
    np.testing.assert_allclose(slope.data, 2 * TWICE, atol=1e-12)
    with pytest.raises(np.linalg.LinAlgError, match="eigh"):
        grad(slope[0, 1], x)


def test_close_eigenvalues_are_not_equal():
    a = with_eigenvalues(1.0, 2.0, 2.001)
    x = leaf(a)
    (np.linalg.eigh(x).eigenvectors[0, 2] ** 2).backward()
    expected = symmetric_differences(lambda a: np.linalg.eigh(a)[1][0, 2] ** 2, a, 1e-7)
    np.testing.assert_allclose(x.grad, expected, rtol=1e-4, atol=1e-4)


def test_equal_singular_values():
    a = ORTHONORMAL * [3.0, 2.0, 2.0] @ ORTHONORMAL
    x = leaf(a)
    np.linalg.svd(x, compute_uv=False).sum().backward()
    np.testing.assert_allclose(x.grad, ORTHONORMAL @ ORTHONORMAL, atol=1e-12)      # U V^T
    with pytest.raises(np.linalg.LinAlgError, match="svd: where singular values are equal"):
        (np.linalg.svd(leaf(a)).U[:, 1] ** 2)[0].backward()


def test_a_singular_value_that_is_zero():
    a = B.copy()
    a[:, 2] = a[:, 0] + a[:, 1]
    x = leaf(a)
    np.linalg.norm(x, 2).backward()
    np.testing.assert_allclose(x.grad, differences(lambda a: np.linalg.norm(a, 2), [a], 0), atol=1e-8)
    _, s, vt = np.linalg.svd(leaf(a), full_matrices=False)      # V is square, and so it is no trouble
    (vt[2, 0] ** 2).backward()
    with pytest.raises(np.linalg.LinAlgError, match="svd: where singular values are 0"):
        (np.linalg.svd(leaf(a), full_matrices=False).U[0, 2] ** 2).backward()


def test_the_batch_is_refused_only_if_a_matrix_with_equal_eigenvalues_is_asked_for_its_vectors():
    x = leaf([np.eye(3), with_eigenvalues(1.0, 2.0, 4.0)])
    vectors = np.linalg.eigh(x).eigenvectors
    (vectors[1, 0, 0] ** 2).backward()
    np.testing.assert_array_equal(x.grad[0], 0)
    assert np.abs(x.grad[1]).max() > 0.01


# --- singular matrices and lost ranks ---


SINGULAR = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])


def test_the_gradient_of_the_determinant_of_a_singular_matrix_is_its_cofactors():
    for a in (SINGULAR, np.zeros((3, 3)), np.outer([1.0, 2, 3], [3.0, 2, 1])):
        x = leaf(a)
        np.linalg.det(x).backward()
        np.testing.assert_allclose(x.grad, differences(np.linalg.det, [a], 0, 1e-4), atol=1e-8)


@pytest.mark.parametrize("function", [
    np.linalg.inv, lambda a: np.linalg.solve(a, np.ones(2)), np.linalg.cholesky])
def test_what_numpy_refuses_is_refused_with_the_operators_name(function):
    with pytest.raises(np.linalg.LinAlgError, match="(inv|solve|cholesky): .*shape"):
        function(leaf(-np.ones((2, 2))))


def test_the_logarithm_of_a_determinant_that_is_zero_has_no_gradient():
    sign, logarithm = np.linalg.slogdet(leaf(np.ones((2, 2))))
    assert sign.item() == 0 and logarithm.item() == -np.inf
    with pytest.raises(np.linalg.LinAlgError, match="inv: a singular matrix.*no gradient"):
        logarithm.backward()


def test_qr_of_dependent_columns_has_no_gradient():
    q, _ = np.linalg.qr(leaf(SINGULAR))
    with pytest.raises(np.linalg.LinAlgError, match="qr: where columns depend"):
        q[0, 0].backward()


def test_the_pseudo_inverse_of_a_constant_rank_below_the_smaller_side():
    def function(x, y):
        return np.linalg.pinv(x @ y, rcond=1e-9)
    assert gradcheck(function, [B[:, :2], A[:2]], order=2)


def test_least_squares_gives_what_numpys_does():
    for a, b in ((B, B[:, 0] ** 2), (B.T, A), (SINGULAR, A)):
        for ours, numpys in zip(np.linalg.lstsq(leaf(a), leaf(b), rcond=None),
                                np.linalg.lstsq(a, b, rcond=None), strict=True):
            np.testing.assert_allclose(getattr(ours, "data", ours), numpys, atol=1e-12)


def test_norms_at_zero_have_the_gradient_zero():
    for ord in (None, 1, 2, 3, 0.5, np.inf):
        x = leaf(np.zeros(3))
        np.linalg.norm(x, ord).backward()
        np.testing.assert_array_equal(x.grad, 0)


# --- what is returned and what is refused ---


def test_results_have_numpys_names():
    x = leaf(A @ A.T)
    for function in (np.linalg.eigh, np.linalg.eig, np.linalg.svd, np.linalg.qr, np.linalg.slogdet):
        ours, numpys = function(x), function(x.data)
        assert ours._fields == numpys._fields and type(ours).__name__ == type(numpys).__name__
        for field in ours._fields:
            value = getattr(ours, field)
            assert isinstance(value, Tensor)
            np.testing.assert_allclose(value.data, getattr(numpys, field), atol=1e-12)


def test_the_number_of_elements_that_are_not_zero_is_a_constant():
    count = np.linalg.norm(leaf([[1.0, 0.0], [2.0, 3.0]]), 0, axis=1)
    assert count.tolist() == [1, 2] and not count.requires_grad
    assert np.linalg.matrix_rank(leaf(SINGULAR)) == 2
    assert linalg.matrix_power(leaf(A), 0).tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("call, error, message", [
    (lambda x: np.linalg.eig(x - x.T), TypeError, "eig: here eigenvalues must be real.*eigh"),
    (lambda x: np.linalg.svd(x[:2]), ValueError, "svd: .*arbitrary.*full_matrices=False"),
    (lambda x: np.linalg.svd(x, hermitian=True), TypeError, "svd: hermitian=True .*eigh"),
    (lambda x: np.linalg.pinv(x, hermitian=True), TypeError, "pinv: hermitian=True .*eigh"),
    (lambda x: np.linalg.qr(x, "complete"), ValueError, "qr: mode must be 'reduced' or 'r'"),
    (lambda x: np.linalg.norm(x, "nucular"), ValueError, "norm: of a matrix ord must be .*'nucular'"),
    (lambda x: np.linalg.norm(x[0], "fro"), ValueError, "norm: of a vector ord must be a number"),
    (lambda x: np.linalg.norm(x[None], 1), ValueError, "norm: .*one axis or two; got 3"),
    (lambda x: np.linalg.matrix_power(x, 0.5), TypeError, "matrix_power: .*integer, got float"),
    (lambda x: np.linalg.tensorinv(x), ValueError, "tensorinv: the first ind=2"),
    (lambda x: np.linalg.multi_dot([x]), ValueError, "multi_dot: two arrays or more"),
    (lambda x: np.cross(x[:, :2], x), ValueError, "cross: .*3 elements.*got 2 and 3"),
    (lambda x: np.tensordot(x, x, ([0, 1], [0])), ValueError, "tensordot: as many axes"),
    (lambda x: np.einsum(x, [0, 1], [1]), TypeError, "einsum: the subscripts must be a text"),
    (lambda x: np.einsum("ij,jk", x), ValueError, "einsum: .* are for 2 operands; got 1"),
    (lambda x: np.einsum("...i->i", x), ValueError, "einsum: the result of .* must have the axes"),
    (lambda x: np.einsum("ijk", x), ValueError, "einsum: ")])
def test_what_is_refused_says_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call(leaf(A))


# --- einsum ---


@pytest.mark.parametrize("subscripts, shapes", [
    ("i, ij -> j", [(2,), (2, 3)]), ("...,...", [(2, 3), (3,)]), ("i...->...", [(2, 3, 4)]),
    ("ij,ij,ij->i", [(2, 3), (1, 3), (2, 1)]), ("ba", [(2, 3)]), ("ii,i->i", [(1, 1), (4,)]),
    ("ij,j->j", [(3, 1), (5,)]), (",i->i", [(), (3,)]), ("i,j,k", [(2,), (3,), (4,)]),
    ("...ii->...i", [(2, 3, 3)]), ("a...b,...a->b...", [(2, 3, 2), (4, 3, 2)])])
@pytest.mark.parametrize("optimize", [False, True])
def test_einsum_is_numpys_and_its_gradient_that_of_differences(subscripts, shapes, optimize):
    arrays = [RNG.standard_normal(shape) for shape in shapes]
    result = np.einsum(subscripts, *map(leaf, arrays), optimize=optimize)
    np.testing.assert_allclose(result.data, np.einsum(subscripts, *arrays), rtol=1e-12)
    assert gradcheck(lambda *xs: ops.einsum(subscripts, *xs, optimize=optimize), arrays, order=2)


@pytest.mark.parametrize("seed", range(40))
def test_random_products_of_two_are_those_of_numpys_loop(seed):
    # By matrix products or not: batches, axes of length 0 and 1, orders of letters, lone letters.
    rng = np.random.default_rng(seed)
    sizes = dict(zip("abcd", rng.integers(0 if seed % 5 == 0 else 1, 5, 4).tolist()))
    x, y = ("".join(rng.permutation([*sizes])[:rng.integers(0, 5)]) for _ in range(2))
    letters = sorted({*x, *y})
    out = "".join(rng.permutation(letters)[:rng.integers(0, len(letters) + 1)]) if letters else ""
    arrays = [rng.standard_normal([1 if rng.random() < 0.1 else sizes[a] for a in own])
              for own in (x, y)]
    leaves = [*map(leaf, arrays)]
    result = ops.einsum(f"{x},{y}->{out}", *leaves)
    expected = np.einsum(f"{x},{y}->{out}", *arrays)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.data, expected, rtol=1e-12, atol=1e-12)
    g = rng.standard_normal(expected.shape)
    result.backward(g)
    for i, leaf_ in enumerate(leaves):
        probe = rng.standard_normal(arrays[i].shape)
        moved = [probe if j == i else array for j, array in enumerate(arrays)]
        slope = (np.einsum(f"{x},{y}->{out}", *moved) * g).sum()     # the product is linear in each
        np.testing.assert_allclose((leaf_.grad * probe).sum(), slope, rtol=1e-9, atol=1e-9)


def test_einsum_multiplies_in_the_order_that_is_cheapest():
    x = [leaf(RNG.standard_normal(shape)) for shape in ((40, 50), (50, 60), (60, 1))]
    for result, sizes in ((np.einsum("ij,jk,kl->il", *x), [2400, 40]),
                          (np.einsum("ij,jk,kl->il", *x, optimize=True), [50, 40]),
                          (np.linalg.multi_dot(x), [50, 40])):
        found = [int(n) * int(m) for n, m in
                 re.findall(r"einsum .*\((\d+), (\d+)\)", tape.show(result))]
        np.testing.assert_allclose(result.data, x[0].data @ x[1].data @ x[2].data, atol=1e-10)
        assert found == sizes


def test_a_plain_number_does_not_widen_an_einsum_and_float16_is_added_up_in_float32():
    assert ops.einsum(",i->i", 2.0, leaf([1.0], np.float32)).dtype == np.float32
    x = leaf(np.ones(4096), np.float16)
    total = ops.einsum("i,i->", x, x)
    assert total.dtype == np.float16 and total.item() == 4096


def test_a_vector_of_plane_products():
    x, y = RNG.standard_normal((2, 4, 2))
    np.testing.assert_allclose(ops.cross(leaf(x), leaf(y)).data, x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0])
    assert gradcheck(ops.cross, [x, y], order=2)
