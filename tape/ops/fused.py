"""Operators defined twice: composed of primitives, which explains them, and as kernels, for speed.

The body of each function is the composed definition. It is what a reader should read, what the
tests hold the kernels against, and what gives derivatives of higher order. The kernels are in
``tape/kernels/``; ``tests/bench/bench_fused.py`` prints what each one gains.
"""

from __future__ import annotations

import numpy as np

from tape import kernels
from tape.fusion import fused
from tape.ops.activations import log_softmax, sigmoid, softmax
from tape.ops.arithmetic import widened
from tape.ops.reductions import mean
from tape.ops.shapes import merge_heads, split_heads
from tape.primitive import Primitive, derivative
from tape.promotion import as_python


def recompute(operator: Primitive, inputs, attributes):
    """The composed definition of an operator, run in float32 on what is in float16, as kernels do."""
    assert operator.composed is not None
    return operator.composed(*(None if x is None else widened(x) for x in inputs), **attributes)


@fused("layer_norm", name="layer_norm")
def _layer_norm(x, weight, bias, /, eps):
    centred = x - mean(x, -1, True)
    out = centred / np.sqrt(mean(centred * centred, -1, True) + eps)
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias


def layer_norm(x, weight=None, bias=None, eps=1e-5):
    """Normalise each row to mean 0 and variance 1, then scale and shift it.

    out = (x - m) / sqrt(v + eps) * weight + bias, where m and v are the mean and the variance
    over the last axis. Ba, Kiros and Hinton 2016, arXiv:1607.06450, eq. 3 and 4.

    Parameters
    ----------
    x : Tensor (..., D)
    weight, bias : Tensor (D,), optional
        The scale and the shift; without them the row stays normalised.
    eps : float
        Keeps a constant row, whose variance is 0, from dividing by zero.

    Notes
    -----
    The backward, step by step, for one row of D elements. Write c_i = x_i - m, r = 1/sqrt(v + eps),
    n_i = c_i r (the normalised row), out_i = w_i n_i + b_i.

    1. Past the scale and the shift: dL/db_i = g_i, dL/dw_i = g_i n_i (both summed over the rows),
       and h_i = dL/dn_i = g_i w_i is what reaches the normalisation.
    2. x_k enters n_i in three ways: as itself (if i = k), through the mean, and through r:
           dn_i/dx_k = r dc_i/dx_k + c_i dr/dx_k
    3. The mean moves every c_i: dc_i/dx_k = [i = k] - 1/D.
    4. The variance v = (1/D) sum_j c_j^2 moves by dv/dx_k = (2/D) sum_j c_j ([j = k] - 1/D)
       = (2/D) c_k, since the deviations sum to zero. Then r = (v + eps)^(-1/2) moves by
           dr/dx_k = -(1/2) (v + eps)^(-3/2) dv/dx_k = -r^3 c_k / D = -r^2 n_k / D
    5. Put 3 and 4 into 2, with c_i r = n_i:
           dn_i/dx_k = r ([i = k] - 1/D - n_i n_k / D)
    6. The chain rule sums over i:
           dL/dx_k = r (h_k - (1/D) sum_i h_i - n_k (1/D) sum_i h_i n_i)

       dL/dx = r * (h - mean(h) - n * mean(h * n)).

    The gradient has neither a part along the row of ones nor (up to eps) along n: shifting or
    scaling x changes nothing, because the normalisation takes both away again.
    """
    return _layer_norm(x, weight, bias, eps)


@fused("gelu")
def gelu(x, /):
    """x * P(Z <= x) for a standard normal Z, by its tanh approximation.

        out = x (1 + t) / 2,  t = tanh(u),  u = sqrt(2/pi) (x + 0.044715 x^3)

    By the product rule and dt/du = 1 - t^2,

        dout/dx = (1 + t) / 2 + x (1 - t^2) / 2 * du/dx,  du/dx = sqrt(2/pi) (1 + 3 * 0.044715 x^2).

    The kernels write s for (1 + t) / 2, which is 1 / (1 + exp(-2u)). Then 1 - t^2 = 4 s (1 - s), so
    out = x s and dout/dx = s (1 + x (1 - s) * 2 du/dx).

    Hendrycks and Gimpel 2016, arXiv:1606.08415; the variant of GPT-2.
    """
    u = kernels.SQRT_2_OVER_PI * (x + kernels.GELU_CUBIC * x ** 3)
    return x * sigmoid(2 * u)                      # where t is nearly -1, 1 + t has lost its digits


@derivative(None, None)
def one_hot_like(targets, like, /, ignore_index):
    """(..., V) of the shape and dtype of `like`: 1 at each target, zeros where it is ignored."""
    return kernels.one_hot(targets, like.shape[-1], like.dtype, ignore_index)


@derivative(None)
def count_targets(targets, /, ignore_index):
    """How many targets are not ignored, and at least 1."""
    return max(int(np.count_nonzero(np.not_equal(targets, ignore_index))), 1)


@fused("cross_entropy", name="cross_entropy", constants=("targets",))
def _cross_entropy(logits, targets, /, ignore_index, reduction):
    picked = one_hot_like(targets, logits, ignore_index)        # (..., V), 1 at the target
    total = -np.sum(np.where(np.equal(picked, 1), log_softmax(logits), 0))
    return total / count_targets(targets, ignore_index) if reduction == "mean" else total


def cross_entropy(logits, targets, ignore_index=-1, reduction="mean"):
    """-log softmax(logits)[target], averaged over the targets: how surprised the model was, in nats.

    Parameters
    ----------
    logits : Tensor (..., V)
    targets : integer array (...)
        In [0, V), or `ignore_index` for positions that do not count (padding).
    reduction : "mean" or "sum"

    Notes
    -----
    For one row, L = logsumexp(z) - z_t. The derivative of logsumexp is the softmax (see there), and
    z_t contributes -1 at the target: dL/dz = softmax(z) - one_hot(t), times g / count. A row whose
    target is ignored gets zeros; when all are, the loss is 0.
    """
    if isinstance(targets, (int, list, tuple)):
        targets = np.array(targets)
    if type(ignore_index) is not int and np.ndim(ignore_index):
        raise TypeError(f"cross_entropy: ignore_index must be a number, got a "
                        f"{type(ignore_index).__name__}. For weights of the classes, w, multiply the "
                        f"loss of each row, -tape.log_softmax(logits)[rows, targets] with rows = "
                        f"np.arange(len(targets)), by w[targets]: it takes no weights of classes")
    return _cross_entropy(logits, targets, ignore_index, reduction)


@derivative(None)
def future_mask_like(like, /):
    """-inf where a key lies in the future of its query, else 0, for scores (..., T, S)."""
    return kernels.future_mask(*like.shape[-2:], like.dtype)


@derivative(None)
def attention_scale(like, /):
    """1/sqrt(D) for queries (..., T, D), in their dtype."""
    return like.dtype.type(kernels.attention_scale(like))


@fused("causal_attention", name="causal_attention")
def _causal_attention(q, k, v, /, scale):
    scores = q * (attention_scale(q) if scale is None else scale)
    scores = scores @ np.swapaxes(k, -1, -2)            # (..., T, S)
    return softmax(scores + future_mask_like(scores)) @ v    # (..., T, D)


def causal_attention(q, k, v, scale=None):
    """softmax(q k^T / sqrt(D) + mask) v, where a query sees the keys up to its own position.

    Vaswani et al. 2017, arXiv:1706.03762, eq. 1, with the mask of section 3.2.3. The future is
    given -inf, so its weight is exactly zero.

    Parameters
    ----------
    q : Tensor (..., T, D)
    k, v : Tensor (..., S, D) with S >= T; the queries are the last T of S positions.
    scale : float, optional
        Default 1/sqrt(D): for independent entries of variance 1, q . k has variance D.

    Notes
    -----
    With a = softmax(s), s = scale * q k^T and out = a v, each step is one already derived:
    dL/dv = a^T g and dL/da = g v^T (matmul), dL/ds = a * (dL/da - sum(dL/da * a)) (softmax),
    dL/dq = scale * dL/ds k and dL/dk = scale * dL/ds^T q (matmul). Masked entries have a = 0, and
    so pass nothing.
    """
    return _causal_attention(q, k, v, _scale("causal_attention", scale))


@fused("causal_attention", name="causal_self_attention", around=kernels.self_attention)
def _causal_self_attention(x_v, x_k, x_q, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o, /, n_head):
    def linear(x, weight, bias):
        return x @ weight if bias is None else x @ weight + bias

    q = split_heads(linear(x_q, w_q, b_q), n_head)                          # (..., H, T, D)
    k = split_heads(linear(x_k, w_k, b_k), n_head)
    v = split_heads(linear(x_v, w_v, b_v), n_head)                          # (..., H, T, E)
    return linear(merge_heads(_causal_attention(q, k, v, None), n_head), w_o, b_o)


def causal_self_attention(x, n_head, w_q, w_k, w_v, w_o, b_q=None, b_k=None, b_v=None, b_o=None):
    """Multi-head attention of a sequence to itself, where a position sees those up to its own.

        q, k, v = split(x w_q + b_q), split(x w_k + b_k), split(x w_v + b_v)
        out = merge(causal_attention(q, k, v)) w_o + b_o

    with `split_heads` and `merge_heads`: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2, with the
    mask of section 3.2.3. It is what these operators compute one after the other, to the last bit of
    result and gradients; as one operator it takes a small model's step a tenth less time.

    Parameters
    ----------
    x : Tensor (..., T, C)
    n_head : int
        H; divides the widths of the three projections.
    w_q, w_k : Tensor (C, H D)
    w_v : Tensor (C, H E)
    w_o : Tensor (H E, C_out)
    b_q, b_k, b_v, b_o : Tensor, optional
        Of the length of the second axis of their weight.

    Raises
    ------
    ValueError
        The shapes do not fit.

    Notes
    -----
    With g = dL/d(out) and m = merge(a), where a is the result of the attention:

    1. Through the last layer: dL/dm = g w_o^T, dL/dw_o = m^T g (matmul), and dL/db_o = sum(g) over all
       axes but the last, along which the bias was broadcast.
    2. To split and to merge move elements and change none, so dL/da = split(dL/dm), and the rule of
       `causal_attention` gives dL/dq, dL/dk and dL/dv. Write d_q = merge(dL/dq), and d_k, d_v likewise:
       the gradients of the three projections.
    3. Of each projection dL/dw_q = x^T d_q and dL/db_q = sum(d_q), as in 1. x has a part in all three:
           dL/dx = d_q w_q^T + d_k w_k^T + d_v w_v^T.
       The operator has x as an input three times, so that it is the walk that adds these to each other
       and to what other uses of x contribute, in the order in which it meets three operators.
    """
    return _causal_self_attention(x, x, x, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o, n_head)


def _scale(name, scale):
    """A scale as one of Python's numbers, which never widens the operands, or None."""
    if not (scale is None or isinstance(scale, (int, float, np.number))) or isinstance(scale, bool):
        raise TypeError(f"{name}: scale must be a number, got {type(scale).__name__}. One that is "
                        f"learned multiplies q: {name}(q * scale, k, v, scale=1)")
    return as_python(scale)


@derivative(lambda g: g, None, elementwise=True)
def added_mask(mask, like, /):
    """What a mask adds to scores, in the dtype of `like`: of booleans 0 where it holds, else -inf."""
    mask = np.asarray(mask)
    return (np.where(mask, 0, -np.inf) if mask.dtype.kind == "b" else mask).astype(like.dtype)


@fused("attention", name="attention", constants=("mask",))
def _attention(q, k, v, mask, /, causal, scale, block_size):
    scores = q * (attention_scale(q) if scale is None else scale)
    scores = scores @ np.swapaxes(k, -1, -2)            # (..., T, S)
    if mask is not None:
        scores = scores + added_mask(mask, scores)
    if causal:
        scores = scores + future_mask_like(scores)
    return softmax(scores) @ v                          # (..., T, D_v); block_size is the kernels'


def attention(q, k, v, mask=None, causal=False, scale=None, block_size=None):
    """softmax(scale * q k^T + mask) v, in memory that grows with the length and not with its square.

    Exact, and computed block by block, so that there is never more than a block of the (T, S)
    weights: none are kept, and the backward computes them again. The result is that of
    `causal_attention`, or of `softmax` between two products, to rounding; those two keep the weights,
    which is faster up to about 128 tokens.

    Parameters
    ----------
    q : Tensor (..., T, D)
    k : Tensor (..., S, D)
    v : Tensor (..., S, D_v)
        The leading axes broadcast.
    mask : array or Tensor, optional
        Broadcasts to (..., T, S). Of booleans: True where a query may attend to a key. Of floats:
        added to the scores, in their dtype; it gets a gradient if it wants one.
    causal : bool
        A query sees only keys up to its own position; the queries are the last T of S positions.
    scale : float, optional
        Default 1/sqrt(D); see `causal_attention`.
    block_size : int, optional
        Queries, and keys, in a block: 128 by default. It changes speed, memory and rounding alone.

    Raises
    ------
    ValueError, TypeError
        Shapes, the mask or the block size do not fit.

    Notes
    -----
    A query that may see no key gets zeros, and passes gradients of zero.

    Forward. For one query with the scores s_j, out = sum_j e^(s_j - m) v_j / sum_j e^(s_j - m) for
    any m, and m = max_j s_j avoids overflow. Both sums can be taken over one block of keys after the
    other: when a block raises the maximum from m to m', what was summed so far is multiplied by
    e^(m - m') (Milakov and Gimelshein 2018, arXiv:1805.02867; over blocks, Rabe and Staats 2021,
    arXiv:2112.05682; Dao et al. 2022, arXiv:2205.14135, algorithm 1). Of each row m and the sum
    l = sum_j e^(s_j - m) are kept; one number, m + log l, would lose l where a mask makes m large.

    Backward. The weights are a_j = e^(s_j - m) / l, from these two, block by block (the same,
    algorithm 4). With g = dL/d(out), as for `causal_attention`:

    1. dL/dv_j = sum over the queries of a_j g, and da_j = dL/da_j = g . v_j.
    2. ds_j = a_j (da_j - c) with c = sum_j a_j da_j, which needs the whole row. But
           c = sum_j a_j (g . v_j) = g . sum_j a_j v_j = g . out,
       which is known before the first block.
    3. dL/dq = scale sum_j ds_j k_j, dL/dk_j = scale (sum over the queries of ds_j q), dL/d(mask) = ds.
    """
    scale = _scale("attention", scale)
    if not (block_size is None or isinstance(block_size, (int, np.integer)) and block_size > 0):
        raise ValueError(f"attention: block_size must be a positive integer, got {block_size!r}")
    if not isinstance(causal, (bool, np.bool_)):
        raise TypeError(f"attention: causal must be True or False, got {causal!r}")
    return _attention(q, k, v, mask, bool(causal), scale, block_size)
