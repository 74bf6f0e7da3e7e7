"""Decoders of one block: the loss and the gradient of every weight, of which `w` are the arrays.

`w` and the gradients have the names of `nn.GPT`. X is (B, T, C) throughout.
"""

from tests.hand_written.layers import (
    attention, attention_backward, cross_entropy, embedding_backward, layer_norm, layer_norm_backward,
    relu_layer, relu_layer_backward, rows, swiglu_layer, swiglu_layer_backward)


def embed(w, ids, sinusoids=None):
    """The vectors of tokens, and of positions where the model has any."""
    X = w["tokens.weight"][ids]                                  # (B, T, C)
    if sinusoids is not None:
        return X + sinusoids[:ids.shape[1]]
    return X + w["positions.weight"] if "positions.weight" in w else X


def embed_backward(dX, w, ids, d):
    """The total derivative into both tables."""
    if "positions.weight" in w:
        d["positions.weight"] = dX.sum(0)                        # one vector served the whole batch
    d["tokens.weight"] = embedding_backward(dX, ids, len(w["tokens.weight"]))


def post_norm(w, ids, targets, n_head, sinusoids=None):
    """Attention and a ReLU layer, each with a residual and then a norm; a head of its own."""
    d = {}
    X = embed(w, ids, sinusoids)
    A, of_attention = attention(X, w, "blocks.0.attention", n_head)
    Y = layer_norm(X + A, w, "blocks.0.norm1")
    F, of_layer = relu_layer(Y, w, "blocks.0.feed_forward")
    L = layer_norm(Y + F, w, "blocks.0.norm2")
    loss, dLOGITS = cross_entropy(L @ w["head.weight"], targets)

    d["head.weight"] = rows(L).T @ rows(dLOGITS)
    dF = layer_norm_backward(dLOGITS @ w["head.weight"].T, Y + F, w, "blocks.0.norm2", d)
    dY = dF + relu_layer_backward(dF, of_layer, w, "blocks.0.feed_forward", d)
    dA = layer_norm_backward(dY, X + A, w, "blocks.0.norm1", d)
    dX = dA + attention_backward(dA, of_attention, w, "blocks.0.attention", d)
    embed_backward(dX, w, ids, d)
    return loss, d


def pre_norm_swiglu(w, ids, targets, n_head):
    """A norm and attention, a norm and a SwiGLU layer, each with a residual; a norm; a head."""
    d = {}
    X = embed(w, ids)
    A, of_attention = attention(layer_norm(X, w, "blocks.0.norm1"), w, "blocks.0.attention", n_head)
    Y = X + A
    F, of_layer = swiglu_layer(layer_norm(Y, w, "blocks.0.norm2"), w, "blocks.0.feed_forward")
    Z = Y + F
    L = layer_norm(Z, w, "norm")
    loss, dLOGITS = cross_entropy(L @ w["head.weight"], targets)

    d["head.weight"] = rows(L).T @ rows(dLOGITS)
    dZ = layer_norm_backward(dLOGITS @ w["head.weight"].T, Z, w, "norm", d)
    dN = swiglu_layer_backward(dZ, of_layer, w, "blocks.0.feed_forward", d)
    dY = dZ + layer_norm_backward(dN, Y, w, "blocks.0.norm2", d)             # the residual passes dZ on
    dN = attention_backward(dY, of_attention, w, "blocks.0.attention", d)
    dX = dY + layer_norm_backward(dN, X, w, "blocks.0.norm1", d)
    embed_backward(dX, w, ids, d)
    return loss, d
