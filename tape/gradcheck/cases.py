"""One line for each operator: a call of it that the gradient checker and the tests run.

A name in front of ``/`` is the operator; what follows tells several lines of one operator apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tape import ops
from tape.gradcheck import linear_cases, numpy_cases
from tape.gradcheck.case import Case, case, positive
from tape.ops import (
    activations, arithmetic, fused, indexing, joining, linalg, llama, normal, recurrent, reductions,
    shapes)

EIGHT = ("div", "power", "mean", "matmul", "transpose", "relu", "softmax", "layer_norm")

_IDS = np.array([[0, 2, 2], [3, 0, 2]])
_MASK = np.array([[True, False, True], [False, True, True]])
_LIKE = np.zeros((2, 3))


def _scattered(*pieces: Any) -> Any:
    """Elements of two arrays put back to the places that they were picked from, some of them twice."""
    args = [(None, np.array(rows)) for rows in ([0, 1, 2], [2, 0, 2])]
    return indexing.scatter_add(*pieces, operators=[indexing._getitem] * 2, args=args, shape=(4,))


CASES: list[Case] = [
    # the eight
    case("div", ops.div, (2, 3), (3,), draw=positive),
    case("power", lambda x: ops.power(x, 3), (2, 3)),
    case("mean", lambda x: ops.mean(x, axis=(0, 2)), (2, 3, 2)),
    case("matmul", ops.matmul, (2, 3), (3, 2)),
    case("transpose", lambda x: ops.transpose(x, (2, 0, 1)), (2, 3, 2)),
    case("relu", ops.relu, (3, 4)),
    case("softmax", ops.softmax, (2, 4)),
    case("layer_norm", ops.layer_norm, (2, 4), (4,), (4,)),
    # arithmetic
    case("add", ops.add, (2, 3), (3,)),
    case("sub", ops.sub, (2, 1), (2, 3)),
    case("mul", ops.mul, (2, 3), (2, 1)),
    case("div/scalar", lambda x: 1.0 / x, (3,)),
    case("neg", ops.neg, (3,)),
    case("power/negative", lambda x: ops.power(x, -2), (3,), draw=positive),
    case("power/fraction", lambda x: ops.power(x, 2.5), (3,), draw=positive),
    case("power/tensor", ops.power, (2, 3), (3,), draw=positive),
    case("power/base", lambda y: ops.power(2.0, y), (2, 3)),
    case("square", ops.square, (3,)),
    case("sqrt", ops.sqrt, (3,), draw=positive),
    case("exp", ops.exp, (3,)),
    case("log", ops.log, (3,), draw=positive),
    case("log1p", ops.log1p, (3,), draw=positive),
    case("expm1", ops.expm1, (3,)),
    case("sin", ops.sin, (3,)),
    case("cos", ops.cos, (3,)),
    case("abs", ops.abs, (3,)),
    case("maximum", ops.maximum, (2, 3), (3,)),
    case("minimum", ops.minimum, (2, 3), (3,)),
    case("clip", lambda x: ops.clip(x, -0.5, 0.7), (6,)),
    case("where", lambda x, y: ops.where(_MASK, x, y), (2, 3), (3,)),
    case("astype", lambda x: ops.astype(x, np.float64), (3,)),
    # activations
    case("tanh", ops.tanh, (3,)),
    case("sigmoid", ops.sigmoid, (5,)),
    case("gelu", ops.gelu, (5,)),
    case("gelu_exact", ops.gelu_exact, (5,)),
    case("erf", ops.erf, (5,)),
    case("normal_cdf", normal.normal_cdf, (5,)),
    case("rms_norm", ops.rms_norm, (2, 4), (4,)),
    case("rms_norm/no weight", lambda x: ops.rms_norm(x, eps=0.1), (2, 3)),
    case("swiglu", ops.swiglu, (2, 3), (2, 3)),
    case("rotate_pairs", ops.rotate_pairs, (2, 3, 4), (3, 2), (3, 2)),
    case("log_softmax", ops.log_softmax, (2, 4)),
    case("softmax/axis", lambda x: ops.softmax(x, axis=0), (3, 2)),
    case("dropout", lambda x: ops.dropout(x, 0.5, rng=0), (4, 3)),
    # reductions
    case("sum", lambda x: ops.sum(x, axis=1), (2, 3)),
    case("centred", lambda x: reductions.centred(x, 1), (2, 3)),
    case("sum/all", ops.sum, (2, 3)),
    case("mean/keepdims", lambda x: ops.mean(x, axis=-1, keepdims=True), (2, 3)),
    case("max", lambda x: ops.max(x, axis=1), (2, 3)),
    case("min", lambda x: ops.min(x, axis=0, keepdims=True), (2, 3)),
    case("var", lambda x: ops.var(x, axis=1, ddof=1), (2, 4)),
    case("std", lambda x: ops.std(x, axis=0), (4, 2)),
    case("logsumexp", lambda x: ops.logsumexp(x, axis=1), (2, 4)),
    case("norm", lambda x: ops.norm(x, axis=1), (2, 4)),
    # matrix products, a line for each combination of ranks
    case("matmul/batch", ops.matmul, (2, 2, 3), (2, 3, 2)),
    case("matmul/batch-2d", ops.matmul, (2, 2, 3), (3, 2)),
    case("matmul/2d-batch", ops.matmul, (2, 3), (2, 3, 2)),
    case("matmul/broadcast", ops.matmul, (2, 1, 2, 3), (2, 3, 2)),
    case("matmul/1d-1d", ops.matmul, (3,), (3,)),
    case("matmul/1d-2d", ops.matmul, (3,), (3, 2)),
    case("matmul/2d-1d", ops.matmul, (2, 3), (3,)),
    case("matmul/1d-batch", ops.matmul, (3,), (2, 3, 2)),
    case("matmul/batch-1d", ops.matmul, (2, 2, 3), (3,)),
    case("dot", ops.dot, (2, 3), (3, 2)),
    # shapes
    case("transpose/reverse", ops.transpose, (2, 3)),
    case("swapaxes", lambda x: ops.swapaxes(x, 0, -1), (2, 3, 2)),
    case("split_heads", lambda x: ops.split_heads(x, 2), (2, 3, 4)),
    case("merge_heads", lambda x: ops.merge_heads(x, 2), (2, 2, 3, 2)),
    case("moveaxis", lambda x: ops.moveaxis(x, 0, -1), (2, 3, 2)),
    case("moveaxis/several", lambda x: ops.moveaxis(x, (0, 1), (2, 0)), (2, 3, 4)),
    case("reshape", lambda x: ops.reshape(x, (3, -1)), (2, 3)),
    case("broadcast_to", lambda x: ops.broadcast_to(x, (2, 3, 2)), (3, 1)),
    case("expand_dims", lambda x: ops.expand_dims(x, (0, -1)), (2, 3)),
    case("squeeze", lambda x: ops.squeeze(x, 1), (2, 1, 3)),
    case("concatenate", lambda x, y: ops.concatenate([x, y], axis=1), (2, 3), (2, 1)),
    case("stack", lambda x, y: ops.stack([x, y], axis=1), (2, 3), (2, 3)),
    case("split", lambda x: ops.split(x, [1, 3], axis=1), (2, 5)),
    case("split/equal", lambda x: ops.split(x, 2), (4, 2)),
    case("pad", lambda x: ops.pad(x, ((1, 0), (2, 1))), (2, 3)),
    case("getitem", lambda x: x[1:, ::-1], (3, 2)),
    case("getitem/ellipsis", lambda x: x[..., None, 0], (2, 3)),
    case("getitem/repeats", lambda x: x[[0, 2, 0, -1]], (3, 2)),
    case("getitem/two arrays", lambda x: x[_IDS[0], [0, 1, 1]], (3, 2)),
    case("getitem/mask", lambda x: x[_MASK], (2, 3)),
    case("embedding", lambda x: ops.embedding(x, _IDS), (4, 2)),
    # fused
    case("rnn", lambda x, w, h: ops.rnn(x, w, h, 3), (3, 2, 2), (2, 2), (2, 2)),
    case("gru", lambda x, w, b, h: ops.gru(x, w, b, h, 3), (3, 2, 6), (2, 6), (2,), (2, 2)),
    case("lstm", lambda x, w, h, c: ops.lstm(x, w, h, c, 3), (3, 2, 8), (2, 8), (2, 2), (2, 2)),
    case("layer_norm/plain", ops.layer_norm, (2, 4)),
    case("layer_norm/3d", ops.layer_norm, (2, 2, 3), (3,)),
    case("cross_entropy", lambda x: ops.cross_entropy(x, _IDS), (2, 3, 4)),
    case("cross_entropy/ignored",
         lambda x: ops.cross_entropy(x, _IDS, ignore_index=2, reduction="sum"), (2, 3, 4)),
    case("causal_attention", ops.causal_attention, (2, 3, 2), (2, 3, 2), (2, 3, 2)),
    case("causal_attention/prefix", ops.causal_attention, (2, 3), (4, 3), (4, 2)),
    case("causal_self_attention", lambda x, *weights: ops.causal_self_attention(x, 2, *weights),
         (2, 3, 2), (2, 4), (2, 4), (2, 2), (2, 3), (4,), (4,), (2,), (3,)),
    case("causal_self_attention/unbiased",
         lambda x, *weights: ops.causal_self_attention(x, 1, *weights), (3, 2), *[(2, 2)] * 4),
    case("attention", lambda q, k, v: ops.attention(q, k, v, causal=True, block_size=2),
         (2, 3, 2), (4, 2), (4, 3)),
    case("attention/mask", lambda q, k, v, bias: ops.attention(q, k, v, bias, block_size=2),
         (2, 2, 3, 2), (2, 1, 3, 2), (3, 2), (2, 1, 3)),
    case("attention/padding", lambda q, k, v: ops.attention(q, k, v, _MASK[:, None]),
         (2, 4, 2), (3, 2), (3, 2)),
    # the operators that derivatives are written with
    case("sigmoid_gradient", activations.sigmoid_gradient, (4,), (4,)),
    case("relu_gradient", lambda g: activations.relu_gradient(g, np.array([1.0, -1, 2])), (3,)),
    case("share_of_larger", lambda g: arithmetic.share_of_larger(
        g, np.array([1.0, 2, 3]), np.array([2.0, 2, 2])), (3,)),
    case("softmax_gradient", activations.softmax_gradient, (2, 3), (2, 3)),
    case("softmax_gradient/axis", lambda g, s: activations.softmax_gradient(g, s, 0), (2, 3), (2, 3)),
    case("log_softmax_gradient", activations.log_softmax_gradient, (2, 3), (2, 3)),
    case("broadcast_like", lambda g: reductions.broadcast_like(g, _LIKE, 1, False), (2,)),
    case("spread_mean", lambda g: reductions.spread_mean(g, _LIKE, -1, False), (2,)),
    case("spread_mean/keepdims", lambda g: reductions.spread_mean(g, _LIKE, 0, True), (1, 3)),
    case("expand_like", lambda x: reductions.expand_like(x, _LIKE), (2, 1)),
    case("sum_to_like", lambda x: reductions.sum_to_like(x, _LIKE[:, :1]), (4, 2, 3)),
    case("accumulate", reductions.accumulate, (2, 3), (2, 3)),
    case("rounded_like", lambda x: reductions.rounded_like(x, _LIKE), (3,)),
    case("zero_where_undefined", lambda x: arithmetic.zero_where_undefined(x, np.zeros(3)), (3,)),
    case("as_operand", lambda x: arithmetic.as_operand(x, _LIKE), (3,)),
    case("added_mask", lambda x: fused.added_mask(x, _LIKE), (3,)),
    case("astype_like", lambda x: arithmetic.astype_like(x, _LIKE), (3,)),
    case("cut", lambda x: joining.cut(x, np.array([0, 1, 3]), axis=-1, i=1), (2, 3)),
    case("paste_like",
         lambda x: joining.paste_like(x, _LIKE, np.array([0, 1, 3]), axis=1, i=1), (2, 2)),
    case("reshape_like", lambda g: shapes.reshape_like(g, _LIKE), (3, 2)),
    case("unpad_like", lambda g: joining.unpad_like(g, _LIKE, 1), (4, 5)),
    case("scatter_like", lambda g: indexing.scatter_like(g, _LIKE, np.array([1, 1])), (2, 3)),
    case("embedding_gradient", lambda g: indexing.embedding_gradient(g, _IDS, np.zeros((4, 2))),
         (2, 3, 2)),
    case("scatter_add", _scattered, (3,), (3,)),
    case("identity", arithmetic.identity, (3,)),
    case("widened", arithmetic.widened, (3,)),
    case("merge_last", lambda x: shapes.merge_last(x, shape=(3, 2)), (2, 3, 2)),
    case("alike", lambda x: shapes.alike(x, _LIKE), (2, 3)),
    case("stack_like", lambda x: linalg.stack_like(x, np.zeros((4, 1, 2))), (2, 3)),
    case("matmul_gradient_x", lambda g, y: linalg.matmul_gradient_x(g, _LIKE, y), (2, 4), (3, 4)),
    case("matmul_gradient_y", lambda g, x: linalg.matmul_gradient_y(g, x, _LIKE), (4, 3), (4, 2)),
    *numpy_cases.CASES,
    *linear_cases.CASES,
]

# Where operators are defined: the tests ask that each one found there has a line above.
DEFINITIONS = (arithmetic, fused, indexing, joining, linalg, llama, normal, recurrent, reductions,
               shapes, ops.activations, *numpy_cases.DEFINITIONS, *linear_cases.DEFINITIONS)
