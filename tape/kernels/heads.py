"""Causal self-attention with its four linear layers: the kernels of its parts, called in a row.

The operator and its backward are derived in `tape.causal_self_attention`. Nothing is computed here that
its parts would not compute as operators of their own, in the same order, with the same bits; what is
saved is the calling, recording and walking of eight operators.
"""

from __future__ import annotations

from tape.kernels.products import matmul, matmul_gradient_x, matmul_gradient_y
from tape.kernels.sums import gradient_in_float32, in_float32, unbroadcast


def split_heads(x, n_head):
    """(..., T, H D) -> (..., H, T, D)."""
    parts = x.reshape(*x.shape[:-1], n_head, x.shape[-1] // n_head)      # (..., T, H, D)
    return parts.swapaxes(-2, -3)


def merge_heads(x):
    """(..., H, T, D) -> (..., T, H D)."""
    rows = x.swapaxes(-2, -3)                                            # (..., T, H, D)
    return rows.reshape(*rows.shape[:-2], rows.shape[-2] * rows.shape[-1])


def linear(x, weight, bias):
    """x @ weight + bias, of which the bias may be None."""
    out = matmul(x, weight)
    return out if bias is None else out + bias


def linear_backward(g, x, weight, bias):
    """Gradients of x, weight and bias."""
    return (matmul_gradient_x(g, x, weight), matmul_gradient_y(g, x, weight),
            None if bias is None else unbroadcast(g, bias.shape))


def self_attention(attend, attend_backward):
    """The pair of kernels of `causal_self_attention`, made from that of `causal_attention`."""
    @in_float32
    def causal_self_attention(x_v, x_k, x_q, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o, n_head):
        check_self_attention(x_q, w_q, w_k, w_v, w_o, n_head)
        q = split_heads(linear(x_q, w_q, b_q), n_head)                      # (..., H, T, D)
        k = split_heads(linear(x_k, w_k, b_k), n_head)
        v = split_heads(linear(x_v, w_v, b_v), n_head)                      # (..., H, T, E)
        out, kept = attend(q, k, v, None)
        heads = merge_heads(out)                                            # (..., T, H E)
        return linear(heads, w_o, b_o), {"q": q, "k": k, "v": v, "heads": heads, **kept}

    @gradient_in_float32
    def causal_self_attention_backward(g, x_v, x_k, x_q, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o,
                                       n_head, q, k, v, heads, weights):
        g_heads, g_w_o, g_b_o = linear_backward(g, heads, w_o, b_o)
        g_q, g_k, g_v = attend_backward(split_heads(g_heads, n_head), q, k, v, None, weights)
        g_x_v, g_w_v, g_b_v = linear_backward(merge_heads(g_v), x_v, w_v, b_v)
        g_x_k, g_w_k, g_b_k = linear_backward(merge_heads(g_k), x_k, w_k, b_k)
        g_x_q, g_w_q, g_b_q = linear_backward(merge_heads(g_q), x_q, w_q, b_q)
        return (g_x_v, g_x_k, g_x_q, g_w_q, g_w_k, g_w_v, g_w_o, g_b_q, g_b_k, g_b_v, g_b_o)

    return causal_self_attention, causal_self_attention_backward


def check_self_attention(x, w_q, w_k, w_v, w_o, n_head):
    """Raise a ValueError unless the shapes fit."""
    if (n_head >= 1 and x.ndim >= 2 == w_q.ndim == w_v.ndim == w_o.ndim
            and x.shape[-1] == w_q.shape[0] == w_v.shape[0]
            and w_q.shape == w_k.shape and w_v.shape[1] == w_o.shape[0] and not w_q.shape[1] % n_head
            and not w_v.shape[1] % n_head):
        return
    raise ValueError(f"causal_self_attention: x must have shape (..., T, C), w_q and w_k (C, H D), w_v "
                     f"(C, H E) and w_o (H E, any) for H = n_head heads; got {x.shape}, {w_q.shape}, "
                     f"{w_k.shape}, {w_v.shape} and {w_o.shape} for {n_head} heads")
