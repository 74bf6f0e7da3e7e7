"""Attention in all its forms, forward and gradients, against plain NumPy and PyTorch."""

import numpy as np
import pytest

import nn
import tape
from tape import Tensor, grad, gradcheck
from tests.checks import in_float64, leaf, peer
from tests.test_nn_blocks import differences_agree

RNG = np.random.default_rng(8)
B, T, S, C, H = 2, 3, 5, 8, 4
X, CONTEXT, U = (RNG.standard_normal((B, n, C)) for n in (T, S, T))
ALLOWED = RNG.random((B, 1, T, S)) < 0.6
ALLOWED[0, 0, 1] = False                         # a query that may see nothing
ALLOWED[1, 0, :, 2] = False                      # a key that none may see


def by_hand(w, x, context, allowed, kv, bias=0):
    """The result, the weights and the gradients of U . result, as the chain rule gives them."""
    def heads(a):
        return a.reshape(B, a.shape[1], -1, D).transpose(0, 2, 1, 3)

    def joined(a):
        return a.transpose(0, 2, 1, 3).reshape(B, a.shape[2], -1)

    D = C // H
    q, k, v = (heads(a @ w[f"{part}.weight"] + w[f"{part}.bias"])
               for part, a in (("query", x), ("key", context), ("value", context)))
    k, v = (np.repeat(a, H // kv, axis=1) for a in (k, v))
    e = np.where(allowed, np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(D) + bias), 0)
    total = e.sum(-1, keepdims=True)
    a = np.divide(e, total, out=np.zeros_like(e), where=total > 0)
    mixed = joined(a @ v)
    out = mixed @ w["output.weight"] + w["output.bias"]
    g = heads(U @ w["output.weight"].T)
    da = g @ v.swapaxes(-1, -2)
    ds = a * (da - (da * a).sum(-1, keepdims=True)) / np.sqrt(D)
    dq, dk, dv = ds @ k, ds.swapaxes(-1, -2) @ q, a.swapaxes(-1, -2) @ g
    dk, dv = (d.reshape(B, kv, H // kv, -1, D).sum(2) for d in (dk, dv))     # back to the shared heads
    slopes = {"output.weight": np.einsum("btc,btd->cd", mixed, U), "output.bias": U.sum((0, 1))}
    of = {"x": 0, "context": 0}
    for part, name, source, d in (("query", "x", x, dq), ("key", "context", context, dk),
                                  ("value", "context", context, dv)):
        slopes[f"{part}.weight"] = np.einsum("btc,btd->cd", source, joined(d))
        slopes[f"{part}.bias"] = joined(d).sum((0, 1))
        of[name] = of[name] + joined(d) @ w[f"{part}.weight"].T
    return out, a, slopes, of


def attention(kv, **settings):
    """In float64, with biases that are not zero."""
    module = in_float64(nn.MultiHeadAttention(C, H, rng=0, n_kv_head=kv, **settings))
    for p in module.parameters():
        p.data = p.data + 0.3 * RNG.standard_normal(p.shape)
    return module


@pytest.mark.parametrize("kv", [4, 2, 1])
def test_attention_to_a_context_forward_and_backward(kv):
    module = attention(kv)
    w = module.state_dict()
    assert w["key.weight"].shape == w["value.weight"].shape == (C, C // H * kv)
    wanted, weights, slopes, of = by_hand(w, X, CONTEXT, ALLOWED, kv)
    x, context = leaf(X), leaf(CONTEXT)
    out, found = module(x, context, mask=ALLOWED, return_weights=True)
    np.testing.assert_allclose(out.data, wanted, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found.data, weights, rtol=1e-11, atol=1e-14)
    out.backward(U)
    for name, p in module.named_parameters():
        np.testing.assert_allclose(p.grad, slopes[name], rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(x.grad, of["x"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(context.grad, of["context"], rtol=1e-9, atol=1e-12)


def test_a_row_that_is_masked_is_zero_and_so_are_its_gradients():
    module = attention(2)
    x, context = leaf(X), leaf(CONTEXT)
    out, weights = module(x, context, ALLOWED, return_weights=True)
    assert (weights.data[0, :, 1] == 0).all() and (weights.data[1, :, :, 2] == 0).all()
    np.testing.assert_array_equal(out.data[0, 1], module.output.bias.data)
    out.backward(U)
    assert (x.grad[0, 1] == 0).all() and (context.grad[1, 2] == 0).all()
    assert np.isfinite(x.grad).all() and (x.grad[0, 0] != 0).all()


@pytest.mark.parametrize("kv, rotary", [(4, True), (2, False)])
def test_gradients_by_differences(kv, rotary):
    module = nn.MultiHeadAttention(C, H, rng=0, n_kv_head=kv, rotary=rotary)
    assert differences_agree(module, X[:1], CONTEXT[:1], call=lambda x, c: module(x, c, ALLOWED[:1]))


@pytest.mark.parametrize("kv", [4, 2])
def test_masked_attention_is_pytorchs(kv):
    torch = peer("torch")
    module = attention(kv)
    w = {name: torch.tensor(array, requires_grad=True) for name, array in module.state_dict().items()}
    allowed = ALLOWED.copy()
    allowed[0, 0, 1, 3] = True                   # PyTorch gives NaN where nothing may be seen
    q, k, v = ((torch.tensor(a) @ w[f"{part}.weight"] + w[f"{part}.bias"]).unflatten(
        -1, (-1, C // H)).transpose(1, 2) for part, a in (("query", X), ("key", CONTEXT),
                                                          ("value", CONTEXT)))
    k, v = (a.repeat_interleave(H // kv, dim=1) for a in (k, v))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, torch.tensor(allowed))
    wanted = mixed.transpose(1, 2).flatten(-2) @ w["output.weight"] + w["output.bias"]
    out = module(leaf(X), leaf(CONTEXT), allowed)
    np.testing.assert_allclose(out.data, wanted.detach(), rtol=1e-10, atol=1e-12)
    out.backward(U)
    wanted.backward(torch.tensor(U))
    for name, p in module.named_parameters():
        np.testing.assert_allclose(p.grad, w[name].grad, rtol=1e-8, atol=1e-11, err_msg=name)


def test_a_boolean_mask_is_one_of_zeros_and_minus_infinities():
    module, x = attention(4), leaf(X)
    causal = np.tri(T, dtype=bool)
    added = nn.causal_mask(T)
    np.testing.assert_array_equal(module(x, mask=causal).data, module(x, mask=added).data)
    np.testing.assert_array_equal(module(x, mask=causal.tolist()).data,
                                  module(x, mask=Tensor(added)).data)
    assert np.abs(module(x).data - module(x, mask=causal).data).max() > 1e-3


def test_a_mask_that_is_added_may_be_learned():
    module, bias = attention(4), leaf(RNG.standard_normal((H, T, T)))
    module(leaf(X), mask=bias).backward(U)
    assert bias.grad.shape == (H, T, T) and (bias.grad != 0).all()


def test_float32_stays_whatever_the_dtype_of_the_mask():
    module = nn.MultiHeadAttention(C, H, causal=True, rng=0, n_kv_head=2, rotary=True)
    x, biased = leaf(X, np.float32), nn.MultiHeadAttention(C, H, causal=True, alibi=True)
    assert biased(x).dtype == np.float32
    for mask in (None, np.zeros((T, T)), np.ones((T, T), bool)):
        out, weights = module(x, mask=mask, return_weights=True)
        out.sum().backward()
        assert {t.dtype for t in (out, weights)} == {x.grad.dtype} == {np.dtype(np.float32)}
        np.testing.assert_allclose(module(x).data, out.data, atol=1e-6)      # the fused operator


def test_causal_queries_are_the_last_positions_with_rotations_too():
    module = attention(2, causal=True, rotary=True)
    whole, last = module(leaf(X)).data, module(leaf(X[:, 1:]), leaf(X)).data
    np.testing.assert_allclose(last, whole[:, 1:], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("heads, wanted", [
    (8, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]), (1, [2.0 ** -8]),
    (4, [1 / 4, 1 / 16, 1 / 64, 1 / 256]), (3, [1 / 16, 1 / 256, 1 / 4]),
    (6, [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8])])
def test_slopes_of_linear_biases(heads, wanted):
    np.testing.assert_allclose(nn.ALiBi(heads).slopes.data, wanted, rtol=1e-15)


@pytest.mark.parametrize("kv", [4, 1])
def test_linear_biases_forward_and_backward(kv):
    """The scores of head h at distance n are lower by 4^-h n, for four heads."""
    module = attention(kv, causal=True, alibi=True)
    i, j = np.arange(T)[:, None], np.arange(T)
    bias = np.stack([-(4.0 ** -h) * (i - j) for h in (1, 2, 3, 4)])
    wanted, weights, slopes, of = by_hand(module.state_dict(), X, X, j <= i, kv, bias)
    x = leaf(X)
    out, found = module(x, return_weights=True)
    np.testing.assert_allclose(out.data, wanted, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found.data, weights, rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(module(x).data, out.data)
    out.backward(U)
    for name, p in module.named_parameters():
        np.testing.assert_allclose(p.grad, slopes[name], rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(x.grad, of["x"] + of["context"], rtol=1e-9, atol=1e-12)


def test_linear_biases_by_differences_and_of_the_last_queries():
    module = nn.MultiHeadAttention(C, H, causal=True, rng=0, n_kv_head=2, alibi=True)
    assert differences_agree(module, X[:1])
    assert module.parameter_count() == sum(a.size for a in module.state_dict().values())
    whole, last = module(leaf(X)).data, module(leaf(X[:, 1:]), leaf(X)).data
    np.testing.assert_allclose(last, whole[:, 1:], rtol=1e-11, atol=1e-13)
    scores = np.random.default_rng(1).standard_normal((1, 4, 2, 3))
    assert gradcheck(nn.ALiBi(4), [scores], order=2, tolerance=1e-6)


def _go_block_by_block_from(scores, monkeypatch):
    for name in ("BLOCKWISE_SCORES", "BLOCKWISE_CAUSAL"):
        monkeypatch.setattr(nn.layers.attention, name, scores)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, ALLOWED, np.where(ALLOWED, 0, -np.inf), leaf(np.ones((T, S)))],
                         ids=["none", "booleans", "floats", "learned"])
def test_block_by_block_attention_is_the_same(mask, causal, monkeypatch):
    module = attention(2, causal=causal)
    found = []
    for limit in (T * S + 1, T * S):
        _go_block_by_block_from(limit, monkeypatch)
        leaves = [leaf(X), leaf(CONTEXT), *module.parameters()]
        out = module(*leaves[:2], mask=mask)
        operators = {line.split()[1] for line in tape.show(out).splitlines()[1:-1]}
        assert ("attention" in operators) == (limit == T * S)
        leaves += [mask] if isinstance(mask, Tensor) else []
        found.append([out, *grad(out, leaves, U)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("length, settings, call, operator", [
    (767, {"causal": True}, {}, "causal_self_attention"), (768, {"causal": True}, {}, "attention"),
    (191, {}, {}, "softmax"), (192, {}, {"mask": np.ones((192, 192), bool)}, "attention"),
    (192, {}, {"return_weights": True}, "softmax"), (192, {"dropout": 0.1}, {}, "softmax")])
def test_which_operator_attends(length, settings, call, operator):
    module = nn.MultiHeadAttention(4, 1, rng=0, **settings)
    out = module(leaf(np.ones((1, length, 4)), np.float32), **call)
    text = tape.show(out[0] if call.get("return_weights") else out)
    assert {"attention", "causal_attention", "causal_self_attention", "softmax"} & {
        *text.split()} == {operator}
    assert module.eval()(Tensor(np.ones((1, length, 4)))).shape == (1, length, 4)


@pytest.mark.parametrize("limit", [1, 1000])
def test_a_mask_that_does_not_fit_is_refused_block_by_block_too(limit, monkeypatch):
    _go_block_by_block_from(limit, monkeypatch)
    with pytest.raises(ValueError, match=r"\(B, H, T, S\) = \(2, 4, 3, 3\).* make a padding_mask"):
        attention(4)(leaf(X), mask=np.ones((B, T), bool))


def test_dropout_leaves_the_returned_weights_alone():
    module = attention(4, dropout=0.5)
    out, weights = module(leaf(X), return_weights=True)
    np.testing.assert_allclose(weights.data.sum(-1), 1)
    assert (out.data != module.eval()(leaf(X)).data).any()


@pytest.mark.parametrize("mask, error, message", [
    (np.ones((B, S), bool), ValueError, r"\(B, H, T, S\) = \(2, 4, 3, 5\), got shape \(2, 5"),
    (np.ones((1, 1, 1, T, S), bool), ValueError, r"= \(2, 4, 3, 5\), got shape \(1, 1, 1, 3, 5\)"),
    (np.ones((T, S), int), TypeError, "of booleans .* or of floats .*got int64. Use mask.astype")])
def test_a_mask_that_does_not_fit_is_refused(mask, error, message):
    with pytest.raises(error, match=message):
        attention(4)(leaf(X), leaf(CONTEXT), mask)


def test_heads_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="n_kv_head must divide n_head, got 3 and 4"):
        nn.MultiHeadAttention(C, H, n_kv_head=3)
    with pytest.raises(ValueError, match="alibi must come with causal=True"):
        nn.MultiHeadAttention(C, H, alibi=True)
    with pytest.raises(ValueError, match="ALiBi: n_head must be a positive integer, got 0"):
        nn.ALiBi(0)
    with pytest.raises(ValueError, match=r"and \(B, S, C\), got \(2, 3, 8\) and \(1, 5, 8\)"):
        attention(4)(leaf(X), leaf(CONTEXT[:1]))


@pytest.mark.parametrize("how", [{"dropout": 0.1}, {"alibi": True}, {"mask": np.ones((3, 3), bool)},
                                 {"return_weights": True}, {}], ids=str)
def test_float16_stays_float16_whichever_way_attention_takes(how):
    given = {name: how.pop(name) for name in ("mask", "return_weights") if name in (how := dict(how))}
    layer = nn.MultiHeadAttention(C, H, causal=True, rng=0, **how)
    for parameter in layer.parameters():
        parameter.__init__(parameter.data.astype(np.float16))
    for module in (layer.train(), layer.eval()):
        out = module(Tensor(X.astype(np.float16)), **given)
        assert all(x.dtype == np.float16 for x in (out if isinstance(out, tuple) else (out,)))


@pytest.mark.parametrize("how", [{"dropout": 0.1}, {}, {"rotary": True}])
def test_more_causal_queries_than_keys_are_refused_in_every_mode(how):
    layer = nn.MultiHeadAttention(C, H, causal=True, rng=0, **how)
    for module in (layer.train(), layer.eval()):
        with pytest.raises(ValueError, match="T must be at most S, got 5 queries and a context of 3"):
            module(Tensor(CONTEXT), Tensor(X))
