"""Attention block by block: against plain NumPy and the form that keeps the weights, and its memory."""

import tracemalloc

import numpy as np
import pytest

import tape
from tape import grad, no_grad, ops
from tests.checks import leaf

RNG = np.random.default_rng(11)
FORMS = {"keys": (1, 1, 1, 7), "rows": (2, 1, 5, 1), "all": (2, 3, 5, 7), "one row": (7,),
         "plane": (5, 7)}


def drawn(*shapes):
    return [RNG.standard_normal(shape) for shape in shapes]


def by_hand(q, k, v, g, added):
    """The result and the gradients of q, k, v and of what is added to the scores."""
    scores = np.einsum("...td,...sd->...ts", q, k) / np.sqrt(q.shape[-1]) + added
    e = np.exp(scores)
    total = e.sum(-1, keepdims=True)
    a = np.divide(e, total, out=np.zeros_like(e), where=total > 0)
    da = np.einsum("...td,...sd->...ts", g, v)
    ds = a * (da - (a * da).sum(-1, keepdims=True))
    scaled = ds / np.sqrt(q.shape[-1])
    return (a @ v, np.einsum("...ts,...sd->...td", scaled, k),
            np.einsum("...ts,...td->...sd", scaled, q), np.einsum("...ts,...td->...sd", a, g), ds)


def summed(g, shape):
    """A gradient summed over the axes along which its input was broadcast."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def added_by(mask):
    return np.where(mask, 0, -np.inf) if mask.dtype == bool else mask


# --- values ---


@pytest.mark.parametrize("block_size", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["none", *FORMS, *(f"{name} booleans" for name in FORMS)])
def test_values_and_gradients_are_those_of_plain_numpy(kind, causal, block_size):
    q, k, v, g = drawn((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6), (2, 3, 5, 6))
    mask = None
    if kind != "none":
        mask = RNG.standard_normal(FORMS[kind.removesuffix(" booleans")])
        mask = mask > -0.5 if kind.endswith("booleans") else mask
    added = np.zeros((2, 3, 5, 7)) + (0 if mask is None else added_by(mask))
    if causal:
        added = added + np.where(np.tri(5, 7, 2, dtype=bool), 0, -np.inf)
    learned = kind in FORMS
    leaves = [*map(leaf, (q, k, v)), *([leaf(mask)] if learned else [])]
    out = tape.attention(*leaves, *(() if learned else (mask,)), causal=causal, block_size=block_size)
    out.backward(g)
    value, *slopes, bias = by_hand(q, k, v, g, added)
    np.testing.assert_allclose(out.data, value, rtol=1e-12, atol=1e-13)
    slopes += [summed(bias, mask.shape)] if learned else []
    for x, slope in zip(leaves, slopes, strict=True):
        np.testing.assert_allclose(x.grad, slope, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("queries, keys", [(300, 300), (130, 300), (1, 257), (128, 128), (129, 129)])
def test_blocks_and_kept_weights_give_the_same(queries, keys, dtype, tolerance):
    arrays = [x.astype(dtype) for x in drawn((2, 2, queries, 16), (2, 2, keys, 16), (2, 2, keys, 8))]
    g = RNG.standard_normal((2, 2, queries, 8)).astype(dtype)
    found = []
    for function in (tape.causal_attention, lambda *x: tape.attention(*x, causal=True)):
        leaves = [leaf(x, dtype) for x in arrays]
        out = function(*leaves)
        out.backward(g)
        found.append([out.data, *(x.grad for x in leaves)])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def test_grouped_queries_share_keys_by_broadcasting():
    q, k, v, bias = map(leaf, drawn((2, 2, 3, 6, 4), (2, 2, 1, 6, 4), (2, 1, 1, 6, 4), (3, 1, 1)))
    repeated = [leaf(np.broadcast_to(x.data, (2, 2, 3, 6, 4))) for x in (q, k, v)]
    g = RNG.standard_normal((2, 2, 3, 6, 4))
    out, wanted = tape.attention(q, k, v, bias, True, block_size=4), tape.causal_attention(*repeated)
    out.backward(g)
    wanted.backward(g)
    np.testing.assert_allclose(out.data, wanted.data, rtol=1e-12, atol=1e-13)    # one bias for a row
    for x, y in zip((q, k, v), repeated):
        assert x.grad.shape == x.shape
        np.testing.assert_allclose(x.grad, y.grad.sum(
            tuple(i for i, n in enumerate(x.shape) if n == 1), keepdims=True), rtol=1e-11, atol=1e-12)
    assert bias.grad.shape == (3, 1, 1) and np.abs(bias.grad).max() < 1e-12      # which changes nothing


def test_heads_come_from_the_keys_alone_and_not_from_the_mask():
    q, k, v, bias = drawn((5, 4), (3, 5, 4), (5, 4), (2, 3, 5, 5))
    for mask in (np.zeros((5, 5)), bias[0]):
        value = by_hand(q, k, v, np.zeros((3, 5, 4)), mask)[0]
        np.testing.assert_allclose(tape.attention(q, k, v, mask, block_size=2), value, rtol=1e-12)
    with pytest.raises(ValueError, match=r"must broadcast .*\(3, 5, 5\), got shape \(2, 3, 5, 5\)"):
        tape.attention(q, k, v, bias)


@pytest.mark.parametrize("block_size", [1, 2, None])
def test_a_row_that_sees_nothing_is_zero_and_passes_nothing(block_size):
    q, k, v = map(leaf, drawn((2, 4, 3), (2, 5, 3), (2, 5, 3)))
    allowed = np.ones((2, 4, 5), bool)
    allowed[0, 1], allowed[1, :, 2] = False, False
    out = tape.attention(q, k, v, allowed, block_size=block_size)
    out.backward(RNG.standard_normal(out.shape))
    assert not out.data[0, 1].any() and not q.grad[0, 1].any()
    assert not k.grad[1, 2].any() and not v.grad[1, 2].any()
    assert np.isfinite(q.grad).all() and q.grad[0, 0].all() and k.grad[1, 1].all()
    slopes = grad(tape.attention(q, k, v, allowed).sum(), [q, k, v], create_graph=True)
    assert all(np.isfinite(x.data).all() for x in slopes)


def test_blocks_in_which_a_row_sees_nothing_before_and_after_those_in_which_it_does():
    q, k, v = drawn((6, 4), (6, 4), (6, 4))
    band = np.tri(6, dtype=bool) & ~np.tri(6, k=-3, dtype=bool)       # the last three keys
    value = by_hand(q, k, v, np.zeros((6, 4)), added_by(band))[0]
    for causal in (False, True):
        found = tape.attention(q, k, v, band, causal, block_size=2)
        np.testing.assert_allclose(found, value, rtol=1e-12)


def test_large_scores_do_not_overflow():
    q = leaf([[[300.0], [-300.0]]], np.float32)
    k, v = leaf([[[30.0], [-30.0], [0.0]]], np.float32), leaf([[[1.0], [2.0], [3.0]]], np.float32)
    out = tape.attention(q, k, v, block_size=1)
    np.testing.assert_array_equal(out.data, [[[1], [2]]])
    out.sum().backward()
    assert np.isfinite(q.grad).all() and np.isfinite(k.grad).all()


@pytest.mark.parametrize("q, k, v", [
    ((0, 4), (3, 4), (3, 2)), ((3, 4), (0, 4), (0, 2)), ((0, 2, 3, 4), (2, 3, 4), (2, 3, 2)),
    ((2, 0, 3, 4), (3, 4), (3, 2)), ((1, 4), (1, 4), (1, 2)), ((3, 4), (3, 4), (3, 0))])
def test_nothing_and_one(q, k, v):
    leaves = [leaf(np.ones(shape)) for shape in (q, k, v)]
    for causal in (False, True)[:1 + (q[-2] <= k[-2])]:
        out = tape.attention(*leaves, causal=causal)
        assert out.shape == (*q[:-1], v[-1]) and (out.data == (k[-2] > 0)).all()
        out.sum().backward()
        assert all(np.isfinite(x.grad).all() and x.grad.shape == x.shape for x in leaves)


# --- dtypes ---


def test_float16_is_computed_in_float32_and_rounded_once():
    arrays = [x.astype(np.float16) for x in drawn((2, 40, 8), (2, 40, 8), (2, 40, 8))]
    mask = RNG.standard_normal((40, 40)).astype(np.float16)
    g = RNG.standard_normal((2, 40, 8)).astype(np.float16)
    found = []
    for dtype in (np.float16, np.float64):
        leaves = [leaf(x, dtype) for x in arrays]
        out = tape.attention(*leaves, mask, causal=True, block_size=16)
        out.backward(g.astype(dtype))
        found.append([out.data, *(x.grad for x in leaves)])
        assert {x.dtype for x in found[-1]} == {np.dtype(dtype)}
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=2.0 ** -11, atol=2e-6)       # half a last digit


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_mask_takes_the_dtype_of_the_scores(dtype):
    x = leaf(RNG.standard_normal((3, 4)), dtype)
    for mask_dtype in (np.float16, np.float32, np.float64):
        mask = leaf(np.zeros((3, 3)), mask_dtype)
        out = tape.attention(x, x, x, mask)
        assert out.dtype == dtype == ops.fused._attention.composed(
            x, x, x, mask, causal=False, scale=None, block_size=None).dtype
        out.backward(np.ones((3, 4), dtype) * np.arange(4, dtype=dtype))
        assert x.grad.dtype == dtype and mask.grad.dtype == mask_dtype


@pytest.mark.parametrize("function", [tape.attention, tape.causal_attention])
def test_a_scale_of_numpys_widens_nothing(function):
    x = leaf(RNG.standard_normal((3, 4)), np.float32)
    out = function(x, x, x, scale=np.float64(0.3))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out.data, function(x, x, x, scale=0.3).data)


# --- what is refused ---


@pytest.mark.parametrize("call, error, message", [
    (lambda x: tape.attention(x, x, x, np.ones((2, 2))), ValueError,
     r"attention: mask must broadcast to \(..., T, S\) = \(3, 3\), got shape \(2, 2\)"),
    (lambda x: tape.attention(x, x, x, np.ones((3, 3), int)), TypeError,
     r"attention: mask must be of booleans .* got int64. Use mask.astype\(bool\)"),
    (lambda x: tape.attention(x, x[:2], x[:2], causal=True), ValueError,
     r"with T <= S; got \(3, 2\), \(2, 2\), \(2, 2\)"),
    (lambda x: tape.attention(x, x[:, :1], x), ValueError, r"S, D_v\); got \(3, 2\), \(3, 1\)"),
    (lambda x: tape.attention(x[0], x, x), ValueError, r"got \(2,\), \(3, 2\), \(3, 2\)"),
    (lambda x: tape.attention(x, x, x, scale=x), TypeError, r"scale must be a number.*q \* s"),
    (lambda x: tape.attention(x, x, x, block_size=0), ValueError, "block_size must be a positive .* 0"),
    (lambda x: tape.attention(x, x, x, block_size=2.0), ValueError, "block_size must be a posi.* 2.0")])
@pytest.mark.parametrize("form", [np.asarray, leaf], ids=["array", "tensor"])
def test_what_does_not_fit_is_refused(form, call, error, message):
    with pytest.raises(error, match=message):
        call(form(np.ones((3, 2))))


# --- memory ---


def peak_of(length, function):
    """The most bytes that a forward and backward take besides q, k, v of 2 heads of 8."""
    leaves = [leaf(RNG.standard_normal((2, length, 8)), np.float32) for _ in range(3)]
    g = np.ones((2, length, 8), np.float32)
    tracemalloc.start()
    function(*leaves).backward(g)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("settings", [{"causal": True}, {"mask": np.zeros((1, 1), np.float32)}],
                         ids=["causal", "mask"])
def test_memory_grows_with_the_length_and_not_with_its_square(settings):
    lengths = [512, 1024, 2048, 4096]
    peaks = [peak_of(n, lambda *x: tape.attention(*x, **settings)) for n in lengths]
    assert all(after < 2.1 * before for before, after in zip(peaks, peaks[1:]))
    assert peaks[-1] < 2 * 4096 ** 2 * 4 / 50         # a fiftieth of one matrix of weights


def test_what_is_kept_is_the_operands_the_result_and_two_numbers_for_each_row():
    q, k, v = (leaf(x, np.float32) for x in drawn((2, 300, 8), (2, 300, 8), (2, 300, 8)))
    out = tape.attention(q, k, v, causal=True)
    kept = int(tape.show(out).splitlines()[-1].split(", ")[1].split()[0].replace(",", ""))
    assert kept == out.data.nbytes + 2 * (2 * 300 * 4)
    with no_grad():
        np.testing.assert_array_equal(tape.attention(q, k, v, causal=True).data, out.data)


@pytest.mark.parametrize("low", [-1e4, -1e9, np.finfo(np.float32).min])
def test_a_row_whose_keys_all_have_a_large_mask_has_the_gradients_of_the_others(low):
    """The logarithm of the sum of its weights would be lost beside the mask."""
    q, k, v, g = drawn(*[(300, 8)] * 4)
    mask = np.zeros((300, 300), np.float32)
    mask[0] = low
    found = []
    for plain in (False, True):
        tensors = [leaf(x, np.float32) for x in (q, k, v)]
        if plain:
            scores = tensors[0] @ tensors[1].T * 8 ** -0.5 + mask
            out = tape.softmax(scores) @ tensors[2]
        else:
            out = tape.attention(*tensors, mask)
        out.backward(g.astype(np.float32))
        found.append([out.data, *(t.grad for t in tensors)])
    for ours, wanted in zip(*found):
        np.testing.assert_allclose(ours, wanted, atol=2e-5 * np.abs(wanted).max())
