"""An eager, define-by-run reverse-mode autodiff engine on NumPy.

    Tensor                              an array that remembers how it was made
    div, power, mean, matmul, ...       the operators, also as methods and as NumPy's functions
    grad, no_grad, enable_grad          gradients as a function; recording off and on
    primitive                           a new operator from a forward and its derivative
    gradcheck                           derivatives against differences
    strict                              check all that the tape keeps for changes
    show, record_lines                  the tape as a table
    tape.lazy                           the static graph over the same operators
"""

import sys as _sys

from tape import foreign_names as _foreign_names
from tape import gradcheck
from tape.dispatch import apply as _apply    # noqa: F401: which Tensor is given as it is imported
from tape.show import show
from tape.grad_mode import enable_grad, no_grad, record_lines, strict
from tape.ops import (
    abs, add, astype, broadcast_to, causal_attention, clip, concatenate, cos, cross_entropy, div,
    dot, dropout, embedding, exp, expand_dims, expm1, gelu, getitem, layer_norm, log, log1p,
    log_softmax, logsumexp, matmul, max, maximum, mean, min, minimum, moveaxis, mul, neg, norm,
    ones_like, pad, power, relu, reshape, sigmoid, sign, sin, softmax, split, sqrt, square,
    squeeze, stack, std, sub, sum, swapaxes, tanh, transpose, var, where, zeros_like)
from tape.primitive import primitive
from tape.tensor import Tensor
from tape.transforms import grad

__all__ = [
    "Tensor", "grad", "no_grad", "enable_grad", "primitive", "gradcheck", "show", "record_lines",
    "strict",
    "abs", "add", "astype", "broadcast_to", "causal_attention", "clip", "concatenate", "cos",
    "cross_entropy", "div", "dot", "dropout", "embedding", "exp", "expand_dims", "expm1", "gelu",
    "getitem", "layer_norm", "log", "log1p", "log_softmax", "logsumexp", "matmul", "max",
    "maximum", "mean", "min", "minimum", "moveaxis", "mul", "neg", "norm", "ones_like", "pad",
    "power", "relu", "reshape", "sigmoid", "sign", "sin", "softmax", "split", "sqrt", "square",
    "squeeze", "stack", "std", "sub", "sum", "swapaxes", "tanh", "transpose", "var", "where",
    "zeros_like",
]

_sys.modules["tape.tensor"].__class__ = _foreign_names.CallableModule


def __getattr__(name: str):
    """A name of PyTorch's is answered with ours, another unknown one with the nearest."""
    raise AttributeError(_foreign_names.missing("tape", name, _foreign_names.TAPE, __all__))
