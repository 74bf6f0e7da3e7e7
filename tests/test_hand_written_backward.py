"""The backward pass of two whole models, derived by hand and written out in plain NumPy.

This is how a Transformer is differentiated without a tape: a line for each line of the forward, in
reverse order. The tape must give the same for every parameter. Capital letters are arrays of the
forward; dX is the derivative of the loss by X, of the shape of X.
"""

import numpy as np
import pytest

import nn
from nn.jobs.sentences import ARCHS
from tests.checks import in_float64

EPS = 1e-5                                       # of the layer norms
B, T, V = 3, 6, 9
IDS, TARGETS = np.random.default_rng(3).integers(0, V, (2, B, T))
TARGETS[1, 4:] = -1                              # padding, which does not count


def rows(A):
    """(B, T, n) -> (B T, n)."""
    return A.reshape(-1, A.shape[-1])


# --- one layer each: what its forward needs, and its backward ---


def linear(X, w, name):
    return X @ w[f"{name}.weight"] + w[f"{name}.bias"]


def linear_backward(dY, X, w, name, d):
    """Y = X W + b: dX = dY W^T, dW = X^T dY, db = the sum of dY over batch and positions."""
    d[f"{name}.weight"] = rows(X).T @ rows(dY)
    d[f"{name}.bias"] = rows(dY).sum(0)
    return dY @ w[f"{name}.weight"].T


def layer_norm(X, w, name):
    """Y = N gamma + beta with N = (X - mean) / sqrt(variance + eps)."""
    N = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + EPS)
    return N * w[f"{name}.weight"] + w[f"{name}.bias"]


def layer_norm_backward(dY, X, w, name, d):
    """X reaches N by three ways: itself, the variance, the mean. Each has its term in dX."""
    width = X.shape[-1]
    centred = X - X.mean(-1, keepdims=True)
    variance = X.var(-1, keepdims=True) + EPS
    N = centred / np.sqrt(variance)
    d[f"{name}.weight"] = rows(dY * N).sum(0)
    d[f"{name}.bias"] = rows(dY).sum(0)
    dN = dY * w[f"{name}.weight"]
    d_variance = (dN * centred).sum(-1, keepdims=True) * -0.5 * variance ** -1.5
    d_mean = -(dN / np.sqrt(variance)).sum(-1, keepdims=True)    # the deviations sum to 0
    return dN / np.sqrt(variance) + d_variance * 2 * centred / width + d_mean / width


def heads(A, n_head):
    """(B, T, C) -> (B, H, T, D)."""
    return A.reshape(B, T, n_head, -1).transpose(0, 2, 1, 3)


def joined(A):
    """(B, H, T, D) -> (B, T, C)."""
    return A.transpose(0, 2, 1, 3).reshape(B, T, -1)


def attention(X, w, name, n_head):
    """(S V) W_o + b_o with S = softmax(Z), Z = Q K^T / sqrt(D), and -inf in the future."""
    Q, K, VALUES = (heads(linear(X, w, f"{name}.{part}"), n_head) for part in ("query", "key", "value"))
    Z = Q @ K.transpose(0, 1, 3, 2) / np.sqrt(Q.shape[-1])       # (B, H, T, T)
    E = np.where(np.tri(T, dtype=bool), np.exp(Z), 0)
    S = E / E.sum(-1, keepdims=True)
    MIXED = joined(S @ VALUES)                                   # (B, T, C)
    return linear(MIXED, w, f"{name}.output"), (X, Q, K, VALUES, S, MIXED)


def attention_backward(dY, kept, w, name, d):
    """Backwards through W_o, the product S V, the softmax, the product Q K^T, and W_q, W_k, W_v."""
    X, Q, K, VALUES, S, MIXED = kept
    dMIXED = heads(linear_backward(dY, MIXED, w, f"{name}.output", d), Q.shape[1])
    dVALUES = S.transpose(0, 1, 3, 2) @ dMIXED
    dS = dMIXED @ VALUES.transpose(0, 1, 3, 2)
    dZ = S * (dS - (dS * S).sum(-1, keepdims=True)) / np.sqrt(Q.shape[-1])
    dQ, dK = dZ @ K, dZ.transpose(0, 1, 3, 2) @ Q
    # X is multiplied by three matrices: the total derivative is the sum.
    return sum(linear_backward(joined(dA), X, w, f"{name}.{part}", d)
               for part, dA in (("query", dQ), ("key", dK), ("value", dVALUES)))


def gelu(X):
    return 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X ** 3)))


def gelu_slope(X):
    """(1 + t) / 2 + x (1 - t^2) / 2 du/dx with t = tanh(u)."""
    t = np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X ** 3))
    return (1 + t) / 2 + X * (1 - t * t) / 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * X * X)


def cross_entropy(LOGITS):
    """The loss, and dLOGITS = (probs - one_hot) / count; zeros where the target does not count."""
    E = np.exp(LOGITS - LOGITS.max(-1, keepdims=True))
    probs = E / E.sum(-1, keepdims=True)
    counts = TARGETS >= 0
    chosen = probs[(*np.nonzero(counts), TARGETS[counts])]
    one_hot = np.eye(V)[TARGETS]                                 # of -1 a row that is not used
    dLOGITS = np.where(counts[..., None], probs - one_hot, 0) / counts.sum()
    return -np.log(chosen).mean(), dLOGITS


def embedding_backward(dX):
    """Each position adds its gradient to the row of its token."""
    d = np.zeros((V, dX.shape[-1]))
    np.add.at(d, IDS, dX)
    return d


# --- the two models ---


def single_head(w):
    """Post-norm, one head, ReLU, no positions, a head of its own: the loss and all gradients."""
    d = {}
    X = w["tokens.weight"][IDS]                                  # (B, T, C)
    A, kept = attention(X, w, "blocks.0.attention", 1)
    Y = layer_norm(X + A, w, "blocks.0.norm1")
    H = linear(Y, w, "blocks.0.feed_forward.hidden")
    F = np.maximum(H, 0)
    G = linear(F, w, "blocks.0.feed_forward.output")
    L = layer_norm(Y + G, w, "blocks.0.norm2")
    loss, dLOGITS = cross_entropy(L @ w["head.weight"])

    d["head.weight"] = rows(L).T @ rows(dLOGITS)
    dL = dLOGITS @ w["head.weight"].T
    dG = layer_norm_backward(dL, Y + G, w, "blocks.0.norm2", d)
    dF = linear_backward(dG, F, w, "blocks.0.feed_forward.output", d)
    dY = dG + linear_backward(dF * (H > 0), Y, w, "blocks.0.feed_forward.hidden", d)
    dA = layer_norm_backward(dY, X + A, w, "blocks.0.norm1", d)
    dX = dA + attention_backward(dA, kept, w, "blocks.0.attention", d)
    d["tokens.weight"] = embedding_backward(dX)
    return loss, d


def gelu_blocks(w, n_layer, n_head):
    """Pre-norm, several heads and blocks, tanh GELU, learned positions, tied output weights."""
    d, kept = {}, []
    X = w["tokens.weight"][IDS] + w["positions.weight"]          # (B, T, C)
    for name in (f"blocks.{i}" for i in range(n_layer)):
        A, of_attention = attention(layer_norm(X, w, f"{name}.norm1"), w, f"{name}.attention", n_head)
        M = X + A
        N = layer_norm(M, w, f"{name}.norm2")
        H = linear(N, w, f"{name}.feed_forward.hidden")
        kept.append((name, X, of_attention, M, N, H))
        X = M + linear(gelu(H), w, f"{name}.feed_forward.output")
    L = layer_norm(X, w, "norm")
    loss, dLOGITS = cross_entropy(L @ w["tokens.weight"].T)

    dX = layer_norm_backward(dLOGITS @ w["tokens.weight"], X, w, "norm", d)
    for name, X, of_attention, M, N, H in reversed(kept):
        dF = linear_backward(dX, gelu(H), w, f"{name}.feed_forward.output", d)
        dN = linear_backward(dF * gelu_slope(H), N, w, f"{name}.feed_forward.hidden", d)
        dM = dX + layer_norm_backward(dN, M, w, f"{name}.norm2", d)          # the residual passes dX on
        dA = attention_backward(dM, of_attention, w, f"{name}.attention", d)
        dX = dM + layer_norm_backward(dA, X, w, f"{name}.norm1", d)
    d["positions.weight"] = dX.sum(0)                            # one vector served the whole batch
    # The table is used twice, to embed and for the logits: its derivative is the sum.
    d["tokens.weight"] = embedding_backward(dX) + rows(dLOGITS).T @ rows(L)
    return loss, d


# --- against the tape ---


@pytest.mark.parametrize("arch, by_hand", [
    ("single-head", single_head), ("gelu", lambda w: gelu_blocks(w, n_layer=2, n_head=4))])
def test_the_tape_gives_every_gradient_that_is_derived_by_hand(arch, by_hand):
    model = in_float64(nn.GPT(nn.GPTConfig(V, T, n_embd=16, **ARCHS[arch]), rng=0))
    rng = np.random.default_rng(1)
    for p in model.parameters():                 # large enough for no part to be nearly linear
        p.data = p.data + 0.3 * rng.standard_normal(p.shape)
    loss, slopes = by_hand(model.state_dict())
    _, found = model(IDS, TARGETS)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-12)
    parameters = dict(model.named_parameters())
    assert slopes.keys() == parameters.keys()
    for name, p in parameters.items():
        assert p.grad.dtype == np.float64
        np.testing.assert_allclose(p.grad, slopes[name], rtol=1e-10, atol=1e-10, err_msg=name)
        # That of the keys' bias is 0: it adds the same to all scores of a query.
        assert "key.bias" in name or np.abs(slopes[name]).max() > 1e-3, name
