"""GPT-2's decoder, forward and backward by hand, as one writes it in NumPy for speed.

The weights of all blocks are stacked: ``w["w_up"][i]`` is the matrix of block i. `forward` gives the
loss and a cache of the activations that `backward` needs, which gives a dict of gradients with the
names and shapes of the weights:

    tokens (V, C), positions (block, C)                    both added; tokens are the output weights too
    gamma1, beta1 (L, C)                                   pre-norm: x + attention(norm(x)), and
    w_qkv (L, C, 3C), b_qkv (L, 3C), w_out (L, C, C), b_out (L, C)
    gamma2, beta2 (L, C)                                   x + down(gelu(up(norm(x))))
    w_up (L, C, 4C), b_up (L, 4C), w_down (L, 4C, C), b_down (L, C)
    gamma, beta (C,)                                       of the last norm

Activations are (N, C) with N = B T, so that a linear layer is one matrix product. What is no longer
needed is overwritten, and products are written where their result belongs (out=): in NumPy a pass
over memory costs as much as the arithmetic.
"""

import functools

import numpy as np

EPS = 1e-5                                                       # of the layer norms
A, CUBIC = np.sqrt(2 / np.pi).item(), 0.044715                   # of GELU


# --- layers ---


def linear(x, weight, bias):
    y = x @ weight
    y += bias
    return y


def linear_backward(dy, x, weight, dweight, dbias):
    """Writes dW = x^T dy and db = sum dy to their places; returns dx = dy W^T."""
    np.matmul(x.T, dy, out=dweight)
    np.sum(dy, axis=0, out=dbias)
    return dy @ weight.T


def row_sums(x):
    """sum(x, axis=-1, keepdims=True), as a product with ones, which is faster on short rows."""
    return x @ np.ones((x.shape[-1], 1), x.dtype)


def layer_norm(x, gamma, beta):
    """n gamma + beta with n = (x - mean) r and r = 1 / sqrt(variance + eps)."""
    width = x.shape[-1]
    n = x - row_sums(x) / width
    r = 1 / np.sqrt(np.einsum("ij,ij->i", n, n)[:, None] / width + EPS)      # (N, 1)
    n *= r
    y = n * gamma
    y += beta
    return y, (n, r)


def layer_norm_backward(dy, kept, gamma, dgamma, dbeta):
    """dx = r (dn - mean(dn) - n mean(dn n)): through n itself, the mean and the variance."""
    n, r = kept
    width = dy.shape[-1]
    np.einsum("ij,ij->j", dy, n, out=dgamma)
    np.sum(dy, axis=0, out=dbeta)
    dn = dy * gamma
    along = np.einsum("ij,ij->i", dn, n)[:, None] / width
    dn -= row_sums(dn) / width
    dn -= n * along
    dn *= r
    return dn


def gelu(x):
    """x s with s = (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3); its slope.

    The slope is s + x ds/dx = s (1 + x (1 - s) 2 du/dx).
    """
    square = x * x
    s = square * (-2 * A * CUBIC)
    s -= 2 * A
    s *= x                                                       # -2u
    with np.errstate(over="ignore"):                             # exp = inf is s = 0, as it should be
        np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
    y = x * s
    slope = square
    slope *= 6 * A * CUBIC
    slope += 2 * A                                               # 2 du/dx
    slope *= x - y
    slope += 1
    slope *= s
    return y, slope


@functools.lru_cache(maxsize=8)
def causal_mask(T, dtype):
    """(T, T): -inf where a key lies in the future of its query, else 0. Made once for each length."""
    return np.triu(np.full((T, T), -np.inf, dtype), 1)


def three_heads(qkv, B, n_head):
    """q, k and v (B, H, T, D), as views of (N, 3C)."""
    N, C = qkv.shape[0], qkv.shape[1] // 3
    return qkv.reshape(B, N // B, 3, n_head, C // n_head).transpose(2, 0, 3, 1, 4)


def attention(qkv, B, n_head):
    """The heads' softmax(q k^T / sqrt(D) + mask) v, side by side: (N, 3C) -> (N, C); the softmax."""
    q, k, v = three_heads(qkv, B, n_head)
    _, H, T, D = q.shape
    S = (q * D ** -0.5) @ k.swapaxes(-1, -2)                     # (B, H, T, T)
    S += causal_mask(T, S.dtype)
    S -= S.max(-1, keepdims=True)
    np.exp(S, out=S)
    S /= row_sums(S)
    mixed = np.empty((B, T, H, D), S.dtype)
    np.matmul(S, v, out=mixed.swapaxes(1, 2))
    return mixed.reshape(B * T, H * D), S


def attention_backward(dmixed, qkv, S):
    """Of q, k and v, side by side: (N, C) -> (N, 3C)."""
    B, H, T, _ = S.shape
    dqkv = np.empty_like(qkv)
    (q, k, v), (dq, dk, dv) = three_heads(qkv, B, H), three_heads(dqkv, B, H)
    dmixed = dmixed.reshape(B, T, H, -1).swapaxes(1, 2)          # (B, H, T, D)
    np.matmul(S.swapaxes(-1, -2), dmixed, out=dv)
    dZ = dmixed @ v.swapaxes(-1, -2)                             # dS, for now
    dZ -= np.einsum("bhts,bhts->bht", dZ, S)[..., None]
    dZ *= S                                                      # S (dS - sum(dS S))
    dZ *= q.shape[-1] ** -0.5
    np.matmul(dZ, k, out=dq)
    np.matmul(dZ.swapaxes(-1, -2), q, out=dk)
    return dqkv


def cross_entropy(logits, targets):
    """The mean of -log softmax(logits)[target], and its slope, (probs - one_hot) / count.

    Targets of -1 are ignored. The slope takes the memory of the logits.
    """
    logits -= logits.max(-1, keepdims=True)
    counted, = np.nonzero(targets >= 0)
    picks = targets[counted]
    chosen = logits[counted, picks]
    probs = np.exp(logits, out=logits)
    totals = row_sums(probs)
    loss = (np.log(totals[counted, 0]) - chosen).mean()
    probs /= totals
    probs[counted, picks] -= 1
    probs[targets < 0] = 0
    probs /= len(counted)
    return loss, probs


def scatter_add(dx, ids, out):
    """out[v] = the sum of the dx[n] with ids[n] = v, by one-hot rows: for few tokens they are fast."""
    one_hot = np.equal.outer(np.arange(len(out)), ids.reshape(-1)).astype(dx.dtype)    # (V, N)
    np.matmul(one_hot, dx, out=out)


# --- the decoder ---


def forward(w, ids, targets, n_head):
    """The loss of ids and targets (B, T), and the cache."""
    (B, T), C = ids.shape, w["tokens"].shape[1]
    x = (w["tokens"][ids] + w["positions"][:T]).reshape(B * T, C)
    blocks = []
    for i in range(len(w["w_qkv"])):
        n1, of_norm1 = layer_norm(x, w["gamma1"][i], w["beta1"][i])
        qkv = linear(n1, w["w_qkv"][i], w["b_qkv"][i])           # (N, 3C)
        mixed, S = attention(qkv, B, n_head)
        y = linear(mixed, w["w_out"][i], w["b_out"][i])
        y += x
        n2, of_norm2 = layer_norm(y, w["gamma2"][i], w["beta2"][i])
        hidden, slope = gelu(linear(n2, w["w_up"][i], w["b_up"][i]))         # (N, 4C)
        x = linear(hidden, w["w_down"][i], w["b_down"][i])
        x += y
        blocks.append((n1, of_norm1, qkv, mixed, S, n2, of_norm2, hidden, slope))
    last, of_norm = layer_norm(x, w["gamma"], w["beta"])
    loss, dlogits = cross_entropy(last @ w["tokens"].T, targets.reshape(-1))
    return loss, (ids, blocks, last, of_norm, dlogits)


def backward(w, cache):
    """The gradient of the loss by each of the weights."""
    ids, blocks, last, of_norm, dlogits = cache
    d = {name: np.empty_like(array) for name, array in w.items()}
    dx = layer_norm_backward(dlogits @ w["tokens"], of_norm, w["gamma"], d["gamma"], d["beta"])
    for i, (n1, of_norm1, qkv, mixed, S, n2, of_norm2, hidden, slope) in reversed(
            list(enumerate(blocks))):
        dup = linear_backward(dx, hidden, w["w_down"][i], d["w_down"][i], d["b_down"][i])
        dup *= slope
        dn = linear_backward(dup, n2, w["w_up"][i], d["w_up"][i], d["b_up"][i])
        dx += layer_norm_backward(dn, of_norm2, w["gamma2"][i], d["gamma2"][i], d["beta2"][i])
        dmixed = linear_backward(dx, mixed, w["w_out"][i], d["w_out"][i], d["b_out"][i])
        dqkv = attention_backward(dmixed, qkv, S)
        dn = linear_backward(dqkv, n1, w["w_qkv"][i], d["w_qkv"][i], d["b_qkv"][i])
        dx += layer_norm_backward(dn, of_norm1, w["gamma1"][i], d["gamma1"][i], d["beta1"][i])
    (B, T), C = ids.shape, dx.shape[1]
    d["positions"][:T] = dx.reshape(B, T, C).sum(0)              # one vector served the whole batch
    d["positions"][T:] = 0
    scatter_add(dx, ids, d["tokens"])
    d["tokens"] += dlogits.T @ last                              # the table is used twice: the sum
    return d


# --- the names of nn.GPT ---

PARTS = {"gamma1": "norm1.weight", "beta1": "norm1.bias", "w_out": "attention.output.weight",
         "b_out": "attention.output.bias", "gamma2": "norm2.weight", "beta2": "norm2.bias",
         "w_up": "feed_forward.hidden.weight", "b_up": "feed_forward.hidden.bias",
         "w_down": "feed_forward.output.weight", "b_down": "feed_forward.output.bias"}
WHOLE = {"tokens": "tokens.weight", "positions": "positions.weight", "gamma": "norm.weight",
         "beta": "norm.bias"}
QKV = {"w_qkv": "weight", "b_qkv": "bias"}


def stacked(state, n_layer):
    """The weights of an `nn.GPT` with these names."""
    w = {name: np.array(state[other]) for name, other in WHOLE.items()}
    for name, other in PARTS.items():
        w[name] = np.stack([state[f"blocks.{i}.{other}"] for i in range(n_layer)])
    for name, kind in QKV.items():
        w[name] = np.stack([np.concatenate(
            [state[f"blocks.{i}.attention.{part}.{kind}"] for part in ("query", "key", "value")], -1)
            for i in range(n_layer)])
    return w


def unstacked(w):
    """The reverse of `stacked`, of weights or gradients."""
    state = {other: w[name] for name, other in WHOLE.items()}
    for i in range(len(w["w_qkv"])):
        state |= {f"blocks.{i}.{other}": w[name][i] for name, other in PARTS.items()}
        for name, kind in QKV.items():
            parts = zip(("query", "key", "value"), np.split(w[name][i], 3, axis=-1))
            state |= {f"blocks.{i}.attention.{part}.{kind}": array for part, array in parts}
    return state
