"""Layers, each with its backward below it: formulas in NumPy, in the order in which they are derived.

`w` are the weights by the names of `nn.GPT`; a backward adds the gradients of its own to the dict `d`
and returns that of its input. The package's docstring explains the letters.
"""

import numpy as np

EPS = 1e-5                                                       # of the layer norms


def rows(A):
    """(B, T, n) -> (B T, n)."""
    return A.reshape(-1, A.shape[-1])


def embedding_backward(dX, ids, vocab_size):
    """Each position adds its gradient to the row of its token: a scatter-add."""
    d = np.zeros((vocab_size, dX.shape[-1]))
    np.add.at(d, ids, dX)
    return d


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
    B, T, C = A.shape
    return A.reshape(B, T, n_head, C // n_head).transpose(0, 2, 1, 3)


def joined(A):
    """(B, H, T, D) -> (B, T, C)."""
    B, H, T, D = A.shape
    return A.transpose(0, 2, 1, 3).reshape(B, T, H * D)


def attention(X, w, name, n_head):
    """(S V) W_o + b_o with S = softmax(Z), Z = Q K^T / sqrt(D), and -inf in the future."""
    Q, K, V = (heads(linear(X, w, f"{name}.{part}"), n_head) for part in ("query", "key", "value"))
    Z = Q @ K.transpose(0, 1, 3, 2) / np.sqrt(Q.shape[-1])       # (B, H, T, T)
    E = np.where(np.tri(X.shape[1], dtype=bool), np.exp(Z), 0)
    S = E / E.sum(-1, keepdims=True)
    MIXED = joined(S @ V)                                        # (B, T, C)
    return linear(MIXED, w, f"{name}.output"), (X, Q, K, V, S, MIXED)


def attention_backward(dY, kept, w, name, d):
    """Backwards through W_o, the product S V, the softmax, the product Q K^T, and W_q, W_k, W_v."""
    X, Q, K, V, S, MIXED = kept
    dMIXED = heads(linear_backward(dY, MIXED, w, f"{name}.output", d), Q.shape[1])
    dV = S.transpose(0, 1, 3, 2) @ dMIXED
    dS = dMIXED @ V.transpose(0, 1, 3, 2)
    dZ = S * (dS - (dS * S).sum(-1, keepdims=True))              # (diag(S) - S S^T) dS
    dZ = dZ / np.sqrt(Q.shape[-1])
    dQ, dK = dZ @ K, dZ.transpose(0, 1, 3, 2) @ Q
    # X is multiplied by three matrices: the total derivative is the sum.
    return sum(linear_backward(joined(dA), X, w, f"{name}.{part}", d)
               for part, dA in (("query", dQ), ("key", dK), ("value", dV)))


def relu_layer(X, w, name):
    """max(X W + b, 0) V + c."""
    H = linear(X, w, f"{name}.hidden")
    return linear(np.maximum(H, 0), w, f"{name}.output"), (X, H)


def relu_layer_backward(dY, kept, w, name, d):
    """What is negative passes nothing."""
    X, H = kept
    dF = linear_backward(dY, np.maximum(H, 0), w, f"{name}.output", d)
    return linear_backward(dF * (H > 0), X, w, f"{name}.hidden", d)


def swiglu_layer(X, w, name):
    """(silu(G) * H) V + c with the gate G = X W_g + a, H = X W + b and silu(G) = G sigmoid(G)."""
    G, H = linear(X, w, f"{name}.gate"), linear(X, w, f"{name}.hidden")
    F = G / (1 + np.exp(-G)) * H
    return linear(F, w, f"{name}.output"), (X, G, H, F)


def swiglu_layer_backward(dY, kept, w, name, d):
    """Each branch is multiplied by the other; their gradients meet again in X."""
    X, G, H, F = kept
    dF = linear_backward(dY, F, w, f"{name}.output", d)
    SIGMOID = 1 / (1 + np.exp(-G))
    dG = dF * H * SIGMOID * (1 + G * (1 - SIGMOID))              # through silu
    dH = dF * G * SIGMOID
    return (linear_backward(dG, X, w, f"{name}.gate", d)
            + linear_backward(dH, X, w, f"{name}.hidden", d))


def cross_entropy(LOGITS, targets):
    """The loss, and dLOGITS = (probs - one_hot) / count; zeros where the target is -1."""
    E = np.exp(LOGITS - LOGITS.max(-1, keepdims=True))
    probs = E / E.sum(-1, keepdims=True)
    counts = targets >= 0
    chosen = probs[(*np.nonzero(counts), targets[counts])]
    one_hot = np.eye(LOGITS.shape[-1])[targets]                  # of -1 a row that is not used
    dLOGITS = np.where(counts[..., None], probs - one_hot, 0) / counts.sum()
    return -np.log(chosen).mean(), dLOGITS
