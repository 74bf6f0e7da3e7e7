"""Causal attention in blocks of queries, with each set of kernels, against plain NumPy."""

import numpy as np
import pytest

import tape
from tape import Tensor
from tape.kernels import causal
from tape.kernels.choice import find
from tests.checks import leaf

RNG = np.random.default_rng(0)
# Few weights at once, also of more queries than a block has; more than one block; a last block that is
# short; parts of the first axis, of which the last is short; no first axis to part.
SHAPES = [((), 1, 1), ((2, 3), 5, 9), ((), 128, 128), ((4,), 64, 64), ((12,), 64, 65),
          ((2, 2), 65, 65), ((3,), 130, 200), ((5, 2), 160, 200), ((), 530, 530)]


def drawn(leading, queries, keys, width=8, value_width=8, dtype=np.float64):
    return [RNG.standard_normal((*leading, *shape)).astype(dtype) for shape in (
        (queries, width), (keys, width), (keys, value_width), (queries, value_width))]


def by_hand(q, k, v, g, scale):
    """The result and the gradients of q, k, v, as derived in `tape.causal_attention`."""
    scores = scale * np.einsum("...id,...jd->...ij", q, k)
    future = np.arange(k.shape[-2]) > np.arange(q.shape[-2])[:, None] + k.shape[-2] - q.shape[-2]
    a = np.where(future, 0, np.exp(scores - np.where(future, -np.inf, scores).max(-1, keepdims=True)))
    a /= a.sum(axis=-1, keepdims=True)
    slope = np.einsum("...id,...jd->...ij", g, v)
    slope = scale * a * (slope - (slope * a).sum(axis=-1, keepdims=True))
    return (a @ v, np.einsum("...ij,...jd->...id", slope, k), np.einsum("...ij,...id->...jd", slope, q),
            np.einsum("...ij,...id->...jd", a, g))


def taped(q, k, v, g, scale=None):
    leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
    out = tape.causal_attention(*leaves, scale=scale)
    out.backward(g)
    return (out.data, *(x.grad for x in leaves))


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("leading, queries, keys", SHAPES)
def test_values_and_gradients_are_those_of_the_definition(kernel_set, leading, queries, keys, dtype,
                                                          tolerance):
    arrays = drawn(leading, queries, keys, value_width=5, dtype=dtype)
    for scale in (None, -0.5):
        found = taped(*arrays, scale=scale)
        wide = [x.astype(np.float64) for x in arrays]
        wanted = by_hand(*wide, 8 ** -0.5 if scale is None else scale)
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == dtype and a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


def test_the_sizes_reach_every_branch():
    sizes = [int(np.prod(leading)) * queries * keys for leading, queries, keys in SHAPES]
    assert min(sizes) < causal.FEW < max(size for (_, queries, _), size in zip(SHAPES, sizes)
                                         if queries < causal.BLOCK * 2)
    assert [len([*causal._parts((*leading, t, s))]) for leading, t, s in SHAPES][-2:] == [2, 1]
    assert [len([*causal._blocks(t, s)]) for _, t, s in SHAPES] == [1, 1, 2, 1, 1, 2, 3, 3, 9]


@pytest.mark.parametrize("queries", [7, 150])
def test_heads_that_are_views_and_read_only(kernel_set, queries):
    wanted = drawn((2, 3), queries, queries)
    views = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in wanted]
    views[1] = views[1][..., ::-1, :].copy()[..., ::-1, :]
    for x in views:
        x.flags.writeable = False
    for a, b in zip(taped(*views), taped(*wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    if queries == 150:                   # laid out as q, so that joining the heads takes no copy
        assert tape.causal_attention(*views[:3]).swapaxes(1, 2).flags.c_contiguous


@pytest.mark.parametrize("queries", [5, 150])
def test_leading_axes_that_are_exchanged_in_memory(kernel_set, queries):
    arrays = [x.swapaxes(0, 1) for x in drawn((2, 3), queries, queries)]
    for a, b in zip(taped(*arrays), taped(*(x.copy() for x in arrays)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("queries", [6, 100])
def test_leading_axes_broadcast(kernel_set, queries):
    q, k, v, g = drawn((2, 3), queries, queries)
    k, v = k[:, :1], v[:1]
    repeated = (np.broadcast_to(x, q.shape) for x in (k, v))
    out, g_q, g_k, g_v = taped(q, k, v, g)
    wanted = by_hand(q, *repeated, g, 8 ** -0.5)
    for a, b in zip((out, g_q, g_k, g_v), (*wanted[:2], wanted[2].sum(1, keepdims=True),
                                           wanted[3].sum(0, keepdims=True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("same", [(slice(None), slice(1)), (slice(1),), (slice(1), slice(1))])
def test_heads_that_are_one_in_memory(kernel_set, same):
    q, k, v, g = (np.broadcast_to(x[same], x.shape) for x in drawn((2, 3), 70, 70))
    out, kept = find("causal_attention")(q, k, v, None)
    found = out, *find("causal_attention_backward")(g, q, k, v, None, **kept)
    for a, b in zip(found, by_hand(q, k, v, g, 8 ** -0.5), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("leading, queries, keys", [((2,), 3, 4), ((2,), 64, 130)])
def test_central_differences(kernel_set, leading, queries, keys):
    arrays = drawn(leading, queries, keys, width=2, value_width=1)[:3]
    assert tape.gradcheck(tape.causal_attention, arrays)


def test_a_query_that_is_not_a_number_spoils_its_own_row_alone(kernel_set):
    q, k, v, _ = drawn((2,), 120, 120)
    whole = tape.causal_attention(q, k, v)
    q[1, 70, 0] = np.nan
    out = tape.causal_attention(q, k, v)
    np.testing.assert_array_equal(np.argwhere(np.isnan(out).any(-1)), [[1, 70]])
    np.testing.assert_array_equal(np.delete(out[1], 70, 0), np.delete(whole[1], 70, 0))


def test_huge_scores_pick_one_key(kernel_set):
    q, k, v, g = drawn((2,), 120, 120, dtype=np.float32)
    out, *slopes = taped(q * 1e7, k, v, g)
    scores = np.where(np.tri(120, dtype=bool), q @ k.swapaxes(-1, -2), -np.inf)
    np.testing.assert_allclose(out, np.take_along_axis(v, scores.argmax(-1)[..., None], 1), atol=1e-5)
    assert all(np.isfinite(x).all() for x in slopes)


def test_two_runs_give_the_same_bits(kernel_set):
    arrays = drawn((3, 2), 150, 150, dtype=np.float32)
    for a, b in zip(taped(*arrays), taped(*arrays), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("queries", [5, 150])
def test_values_wider_than_the_weights(kernel_set, queries):
    arrays = drawn((2,), queries, queries)
    mixed = [x.astype(dtype) for x, dtype in zip(arrays, (np.float32, np.float32, float, float))]
    found = taped(*mixed)
    assert [x.dtype for x in found] == [np.float64, np.float32, np.float32, np.float64]
    for a, b in zip(found, by_hand(*arrays, 8 ** -0.5), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("broadcast", [0, 1, 2])
def test_heads_that_were_broadcast(kernel_set, broadcast):
    arrays = [RNG.standard_normal((3, 2, 4, 5)) for _ in range(3)]
    arrays[broadcast] = np.broadcast_to(arrays[broadcast][0], (3, 2, 4, 5))
    expected = tape.causal_attention(*map(np.array, arrays))
    np.testing.assert_allclose(tape.causal_attention(*arrays), expected, atol=1e-12)

    def gradients(*heads):
        tape.causal_attention(*heads).backward(np.cos(np.arange(120.0)).reshape(3, 2, 4, 5))

    small = [leaf(a[0] if i == broadcast else a) for i, a in enumerate(arrays)]
    gradients(*(tape.broadcast_to(t, (3, 2, 4, 5)) for t in small))
    whole = [leaf(np.array(a)) for a in arrays]
    gradients(*whole)
    for i, (a, b) in enumerate(zip(small, whole, strict=True)):
        np.testing.assert_allclose(a.grad, b.grad.sum(0) if i == broadcast else b.grad, atol=1e-12)


@pytest.mark.parametrize("leading, length, width", [((1, 1), 70, 64), ((1, 3), 70, 8), ((2, 1), 80, 8),
                                                    ((1, 1), 128, 32), ((2, 2), 200, 16)])
@pytest.mark.parametrize("lay", [
    lambda g: g.swapaxes(-1, -2).copy().swapaxes(-1, -2), lambda g: np.repeat(g, 2, -1)[..., ::2],
    lambda g: np.ascontiguousarray(g[..., ::-1, :])[..., ::-1, :]])
def test_weights_that_the_compiled_kernel_does_not_set_are_not_read(leading, length, width, lay):
    """Wherever the elements of the gradient lie; behind a swapaxes they lie in columns."""
    pytest.importorskip("numba")
    q, k, v, g = drawn(leading, length, length, width, width, np.float32)
    with tape.use_kernels("numba"):
        _, kept = find("causal_attention")(q, k, v, None)
        kept["weights"][..., :length - 64, length - 64:] = np.nan
        backward = find("causal_attention_backward")
        expected, found = (backward(a, q, k, v, None, **kept) for a in (g, lay(g)))
    for a, b in zip(found, expected, strict=True):
        assert np.isfinite(b).all()
        np.testing.assert_array_equal(a, b)
