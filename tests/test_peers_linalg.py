"""Linear algebra against PyTorch, and products against autograd; see test_peers.py."""

import numpy as np
import pytest

from tape import linalg, ops
from tests.checks import peer
from tests.test_peers import OPERATORS as OTHERS
from tests.test_peers import assert_agree, by_autograd, by_tape, by_torch

torch = peer("torch")
anp = peer("autograd.numpy")
tla = torch.linalg


def definite(x):
    """x x^T and a multiple of the identity, by whichever library x is of."""
    return x @ x.swapaxes(-1, -2) + 2 * np.eye(3) if not isinstance(x, torch.Tensor) else (
        x @ x.mT + 2 * torch.eye(3, dtype=x.dtype))


def einsum(subscripts, *shapes):
    return (lambda *xs: ops.einsum(subscripts, *xs), lambda *xs: torch.einsum(subscripts, *xs), *shapes)


def norm(ord, dim, shape=(2, 3, 4)):
    return (lambda x: linalg.norm(x, ord, dim), lambda x: tla.norm(x, ord, dim), shape)


def of_eigh(eigh):
    def function(x):
        values, vectors = eigh(definite(x))
        return values + (vectors * vectors)[..., 0, :]
    return function


def of_svd(svd):
    def function(x):
        u, s, vt = svd(x, full_matrices=False)
        return (u * u)[..., :2, :] * s + (vt * vt)[..., :, :2].mT + (u @ vt)[..., :2, :2].sum()
    return function


def of_qr(qr):
    def function(x):
        q, r = qr(x)
        return q[..., :2, :] * r[..., :2, :]
    return function


# name: (tape's, PyTorch's, the shapes of the operands)
OPERATORS = {
    "einsum": einsum("ij,jk->ik", (2, 3), (3, 2)),
    "einsum/implicit": einsum("cb,ba", (2, 3), (3, 2)),
    "einsum/ellipsis": einsum("...ij,jk...->...ik", (3, 2, 2), (2, 2, 1)),
    "einsum/diagonal": einsum("iij,ji->j", (2, 2, 3), (3, 2)),
    "einsum/trace": einsum("ii", (3, 3)),
    "einsum/lone": einsum("ijk,k->i", (2, 3, 2), (2,)),
    "einsum/three": einsum("ij,ik,il->jkl", (2, 3), (2, 2), (2, 4)),
    "tensordot": (lambda x, y: ops.tensordot(x, y, 2), lambda x, y: torch.tensordot(x, y, 2),
                  (4, 2, 3), (2, 3, 2)),
    "tensordot/axes": (lambda x, y: ops.tensordot(x, y, ([0, 2], [1, 0])),
                       lambda x, y: torch.tensordot(x, y, ([0, 2], [1, 0])), (4, 2, 3), (3, 4, 2)),
    "inner": (ops.inner, torch.inner, (2, 3), (4, 2, 3)),
    "inner/matrix": (ops.inner, torch.inner, (2, 2, 3), (4, 3)),
    "inner/row": (ops.inner, torch.inner, (3,), (4, 3)),
    "outer": (ops.outer, torch.outer, (2,), (3,)),
    "kron": (ops.kron, torch.kron, (2, 3), (2, 1, 2)),
    "cross": (ops.cross, tla.cross, (2, 3), (2, 3)),
    "vdot": (ops.vdot, torch.vdot, (4,), (4,)),
    "vecdot": (ops.vecdot, tla.vecdot, (2, 3), (3,)),
    "matvec": (ops.matvec, lambda x, y: torch.einsum("bij,j->bi", x, y), (2, 2, 3), (3,)),
    "vecmat": (ops.vecmat, lambda x, y: torch.einsum("i,bij->bj", x, y), (2,), (2, 2, 3)),
    "multi_dot": (lambda *xs: linalg.multi_dot(xs), lambda *xs: tla.multi_dot(xs),
                  (3,), (3, 4), (4, 2), (2,)),
    "trace": (ops.trace, torch.trace, (2, 3)),
    "diag": (lambda x: ops.diag(x, 1), lambda x: torch.diag(x, 1), (3,)),
    "diag/matrix": (lambda x: ops.diag(x, -1), lambda x: torch.diag(x, -1), (3, 2)),
    "diagflat": (lambda x: ops.diagflat(x, -1), lambda x: torch.diagflat(x, -1), (2, 2)),
    "diagonal": (lambda x: ops.diagonal(x, 1, 2, 0), lambda x: torch.diagonal(x, 1, 2, 0), (3, 2, 4)),
    "matrix_transpose": (ops.matrix_transpose, lambda x: x.mT, (2, 3, 4)),
    "solve": (lambda a, b: linalg.solve(definite(a), b), lambda a, b: tla.solve(definite(a), b),
              (2, 3, 3), (2, 3, 4)),
    "solve/vector": (lambda a, b: linalg.solve(definite(a), b), lambda a, b: tla.solve(definite(a), b),
                     (3, 3), (3,)),
    "inv": (lambda a: linalg.inv(definite(a)), lambda a: tla.inv(definite(a)), (2, 3, 3)),
    "det": (linalg.det, tla.det, (2, 3, 3)),
    "slogdet": (lambda a: linalg.slogdet(a).logabsdet, lambda a: tla.slogdet(a).logabsdet, (2, 3, 3)),
    "pinv": (linalg.pinv, tla.pinv, (2, 3, 2)),
    "lstsq": (lambda a, b: linalg.lstsq(a, b)[0], lambda a, b: tla.lstsq(a, b).solution,
              (4, 2), (4, 3)),
    "tensorsolve": (linalg.tensorsolve, tla.tensorsolve, (2, 3, 6), (2, 3)),
    "tensorinv": (linalg.tensorinv, tla.tensorinv, (2, 3, 6)),
    "matrix_power": (lambda a: linalg.matrix_power(a, 3), lambda a: tla.matrix_power(a, 3), (2, 3, 3)),
    "matrix_power/negative": (lambda a: linalg.matrix_power(definite(a), -2),
                              lambda a: tla.matrix_power(definite(a), -2), (3, 3)),
    "cholesky": (lambda a: linalg.cholesky(definite(a)), lambda a: tla.cholesky(definite(a)),
                 (2, 3, 3)),
    "cholesky/upper": (lambda a: linalg.cholesky(definite(a), upper=True),
                       lambda a: tla.cholesky(definite(a), upper=True), (3, 3)),
    "eigh": (of_eigh(linalg.eigh), of_eigh(tla.eigh), (3, 3)),
    "eigvalsh": (lambda a: linalg.eigvalsh(definite(a)), lambda a: tla.eigvalsh(definite(a)), (3, 3)),
    "eigvals": (lambda a: linalg.eigvals(definite(a)).sum(),
                lambda a: tla.eigvals(definite(a)).real.sum(), (3, 3)),
    "svd": (of_svd(linalg.svd), of_svd(tla.svd), (2, 2)),
    "svd/tall": (of_svd(linalg.svd), of_svd(tla.svd), (4, 2)),
    "svd/wide": (of_svd(linalg.svd), of_svd(tla.svd), (2, 4)),
    "svdvals": (linalg.svdvals, tla.svdvals, (2, 3, 2)),
    "qr": (of_qr(linalg.qr), of_qr(tla.qr), (4, 2)),
    "qr/square": (of_qr(linalg.qr), of_qr(tla.qr), (2, 2)),
    "vector_norm": (lambda x: linalg.vector_norm(x, ord=3), lambda x: tla.vector_norm(x, 3), (2, 3)),
    "matrix_norm": (lambda x: linalg.matrix_norm(x, ord="nuc"), lambda x: tla.matrix_norm(x, "nuc"),
                    (2, 3, 4)),
    "cond": (linalg.cond, tla.cond, (3, 2)),
    "cond/fro": (lambda x: linalg.cond(x, "fro"), lambda x: tla.norm(x) * tla.norm(tla.inv(x)), (3, 3)),
    **{f"norm/{ord}": norm(ord, 1) for ord in (1, 2, 3, -1, 0.5, np.inf, -np.inf)},
    **{f"norm/matrix {ord}": norm(ord, (2, 0))
       for ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)},
}


def operands(name, shapes):
    rng = np.random.default_rng(len(name))
    return [rng.standard_normal(shape) for shape in shapes]


def cotangent(function, arrays):
    return np.random.default_rng(9).uniform(0.5, 1.5, np.shape(function(*arrays)))


@pytest.mark.parametrize("name", OPERATORS)
def test_pytorch_agrees(name):
    ours, theirs, *shapes = OPERATORS[name]
    arrays = operands(name, shapes)
    # Of arrays without .mT, as NumPy's are, the shape alone is wanted.
    u = cotangent(lambda *xs: theirs(*map(torch.tensor, xs)).numpy(), arrays)
    found, expected = by_tape(ours, arrays, u), by_torch(theirs, arrays, u)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * np.max(np.abs(b), initial=1))


def test_every_operator_is_compared_with_pytorchs():
    names = {name.split("/")[0] for name in {**OTHERS, **OPERATORS}}
    # eig: of PyTorch complex, and here by way of eigvals and of differences.
    assert names == {*ops.__all__, *linalg.__all__} - {"eig", "matrix_rank"} - set(ops.NUMPYS)


# autograd's, which are NumPy's
OF_NUMPY = {
    "einsum": lambda x, y: anp.einsum("ij,jk->ik", x, y), "einsum/implicit":
    lambda x, y: anp.einsum("cb,ba", x, y),
    "einsum/three": lambda x, y, z: anp.einsum("ij,ik,il->jkl", x, y, z),
    "tensordot": lambda x, y: anp.tensordot(x, y, 2), "inner": anp.inner, "outer": anp.outer,
    "trace": anp.trace, "diag": lambda x: anp.diag(x, 1),
    "solve/vector": lambda a, b: anp.linalg.solve(definite(a), b),
    "inv": lambda a: anp.linalg.inv(definite(a)), "det": anp.linalg.det,
    "slogdet": lambda a: anp.linalg.slogdet(a)[1],
    "cholesky": lambda a: anp.linalg.cholesky(definite(a)),
    "eigvalsh": lambda a: anp.linalg.eigh(definite(a))[0],
    "svdvals": lambda a: anp.linalg.svd(a, full_matrices=False, compute_uv=False),
    "norm/matrix nuc": lambda a: anp.linalg.norm(a, "nuc", (2, 0)),
}


@pytest.mark.parametrize("name", OF_NUMPY)
def test_autograd_agrees(name):
    ours, _, *shapes = OPERATORS[name]
    arrays = operands(name, shapes)
    u = cotangent(OF_NUMPY[name], arrays)
    assert_agree(by_tape(ours, arrays, u), by_autograd(OF_NUMPY[name], arrays, u))
