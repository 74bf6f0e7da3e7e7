"""Every operator with its derivative beside it.

The eight that the README derives, which suffice for a Transformer:

    div          arithmetic.py     x / y
    power        arithmetic.py     x ** n
    mean         reductions.py     (1/n) sum x
    matmul       linalg.py         x @ y
    transpose    shapes.py         axes permuted
    relu         activations.py    max(x, 0)
    softmax      activations.py    exp(x) / sum exp(x), derived step by step
    layer_norm   fused.py          (x - mean) / std, derived step by step
"""

from tape.ops.activations import dropout, log_softmax, relu, sigmoid, softmax, tanh
from tape.ops.arithmetic import (
    abs, add, astype, clip, cos, div, exp, expm1, log, log1p, maximum, minimum, mul, neg,
    ones_like, power, sign, sin, sqrt, square, sub, where, zeros_like)
from tape.ops.diagonals import diag, diagflat, diagonal, matrix_transpose, trace
from tape.ops.contraction import einsum
from tape.ops.fused import causal_attention, cross_entropy, gelu, layer_norm
from tape.ops.indexing import embedding, getitem
from tape.ops.joining import concatenate, pad, split, stack
from tape.ops.linalg import matmul
from tape.ops.products import (
    cross, dot, inner, kron, matvec, outer, tensordot, vdot, vecdot, vecmat)
from tape.ops.reductions import logsumexp, max, mean, min, norm, std, sum, var
from tape.ops.shapes import (
    broadcast_to, expand_dims, moveaxis, reshape, squeeze, swapaxes, transpose)

__all__ = [
    "div", "power", "mean", "matmul", "transpose", "relu", "softmax", "layer_norm", "abs", "add",
    "astype", "broadcast_to", "causal_attention", "clip", "concatenate", "cos", "cross_entropy",
    "dot", "dropout", "embedding", "exp", "expand_dims", "expm1", "gelu", "getitem", "log",
    "log1p", "log_softmax", "logsumexp", "max", "maximum", "min", "minimum", "moveaxis", "mul",
    "neg", "norm", "ones_like", "pad", "reshape", "sigmoid", "sign", "sin", "split", "sqrt",
    "square", "squeeze", "stack", "std", "sub", "sum", "swapaxes", "tanh", "var", "where",
    "zeros_like",
    "cross", "diag", "diagflat", "diagonal", "einsum", "inner", "kron", "matrix_transpose", "matvec",
    "outer", "tensordot", "trace", "vdot", "vecdot", "vecmat",
]
