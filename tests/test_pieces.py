"""Large arrays in pieces: NumPy's kernels give the bits that they give in one piece."""

import numpy as np
import pytest

import tape
from tape.kernels import pieces

RNG = np.random.default_rng(0)


def drawn(dtype, shape=(7, 30)):
    return (4 * RNG.standard_normal(shape)).astype(dtype)


def in_both(monkeypatch, function):
    """What the function gives with pieces of 16 elements, and with one."""
    results = []
    for size in (16, 2 ** 30):
        monkeypatch.setattr(pieces, "PIECE", size)
        with tape.use_kernels("numpy"):
            results.append(function())
    return results


def test_pieces_cover_each_element_once_and_in_place(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 8)
    x, y = np.zeros((5, 7)), np.arange(35.0).reshape(5, 7)
    found = [*pieces.pieces(x, y)]
    assert [len(a) for a, _ in found] == [8, 8, 8, 8, 3]
    for a, b in found:
        a += b
    assert np.array_equal(x, y)
    assert len([*pieces.pieces(x[:4], y[:4])]) == 1             # 28 elements, which are four pieces


@pytest.mark.parametrize("other", [np.zeros((7, 5)).T, np.zeros(7), np.zeros((5, 14))[:, ::2]],
                         ids=["transposed", "broadcast", "strided"])
def test_arrays_that_lie_otherwise_are_one_piece(monkeypatch, other):
    monkeypatch.setattr(pieces, "PIECE", 8)
    x = np.zeros((5, 7))
    (a, b), = pieces.pieces(x, other)
    assert a is x and b is other


@pytest.mark.parametrize("lay", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("gelu", [tape.gelu, tape.gelu_exact])
def test_gelu_in_pieces(monkeypatch, gelu, dtype, lay):
    x, g = lay(drawn(dtype)), lay(drawn(dtype))
    x[0, :4], g[0, 2] = (1e4, -1e4, np.inf, np.nan), 0
    if dtype != np.float16:
        x[3, 5:7] = np.finfo(dtype).max, -np.finfo(dtype).max

    def run():
        leaf = tape.Tensor(x, requires_grad=True)
        out = gelu(leaf)
        out.backward(g)
        return out.data, leaf.grad
    with np.errstate(all="ignore"):
        some, whole = in_both(monkeypatch, run)
    for a, b in zip(some, whole, strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_adam_in_pieces(monkeypatch, dtype, decoupled):
    start, gradients = drawn(dtype), [drawn(dtype) for _ in range(3)]

    def run():
        p, wide = start.copy(), np.result_type(dtype, np.float32)
        m, v = np.zeros(p.size, wide), np.zeros(p.size, wide)
        for t, g in enumerate(gradients, 1):
            tape.adam_update([p], [g], m, v, t, 0.1, (0.8, 0.95), 1e-3, 0.3, decoupled)
        return p, m, v
    for a, b in zip(*in_both(monkeypatch, run), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(start, in_both(monkeypatch, run)[0][0])
