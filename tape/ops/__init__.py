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

from tape.foreign_names import in_our_words
from tape.ops.activations import dropout, log_softmax, relu, sigmoid, softmax, tanh
from tape.ops.arithmetic import (
    abs, add, astype, clip, cos, div, exp, expm1, log, log1p, maximum, minimum, mul, neg,
    ones_like, power, sign, sin, sqrt, square, sub, where, zeros_like)
from tape.ops.contraction import einsum
from tape.ops.diagonals import diag, diagflat, diagonal, trace
from tape.ops.fused import (
    attention, causal_attention, causal_self_attention, cross_entropy, gelu, layer_norm)
from tape.ops.indexing import embedding, getitem
from tape.ops.joining import concatenate, pad, split, stack
from tape.ops.linalg import matmul
from tape.ops.llama import rms_norm, rotate_pairs, swiglu
from tape.ops.normal import erf, gelu_exact
from tape.ops.products import (
    cross, dot, inner, kron, matvec, outer, tensordot, vdot, vecdot, vecmat)
from tape.ops.recurrent import gru, lstm, rnn
from tape.ops.reductions import logsumexp, max, mean, min, norm, std, sum, var
from tape.ops.shapes import (
    broadcast_to, expand_dims, merge_heads, moveaxis, reshape, split_heads, squeeze, swapaxes,
    transpose)
from tape.ops.cumulative import cumprod, cumsum, prod
from tape.ops.elementwise import (
    cbrt, ceil, conjugate, copy, copysign, exp2, fabs, floor, floor_divide, fmax, fmin, fmod,
    heaviside, imag, ldexp, log10, log2, logaddexp, logaddexp2, nan_to_num, positive, real,
    reciprocal, remainder, rint, round, trunc)
from tape.ops.numpy_arguments import cumulative_prod, cumulative_sum, full_like
from tape.ops.ordering import median, partition, percentile, ptp, quantile, sort
from tape.ops.picking import (
    choose, compress, delete, extract, flip, fliplr, flipud, repeat, resize, roll, rollaxis,
    rot90, select, take, take_along_axis, tile, tril, triu)
from tape.ops.series import (
    convolve, correlate, diff, ediff1d, gradient, interp, linspace, logspace, polyval, trapezoid,
    vander)
from tape.ops.shapes import matrix_transpose, ravel
from tape.ops.stacking import (
    append, array_split, atleast_1d, atleast_2d, atleast_3d, block, broadcast_arrays,
    column_stack, dsplit, dstack, hsplit, hstack, meshgrid, unstack, vsplit, vstack)
from tape.ops.statistics import (
    average, corrcoef, cov, nancumprod, nancumsum, nanmax, nanmean, nanmin, nanprod, nanstd,
    nansum, nanvar)
from tape.ops.trigonometry import (
    arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, cosh, deg2rad, degrees, hypot,
    rad2deg, radians, sinc, sinh, tan, unwrap)

__all__ = [
    "div", "power", "mean", "matmul", "transpose", "relu", "softmax", "layer_norm", "abs", "add",
    "astype", "attention", "broadcast_to", "causal_attention", "clip", "concatenate", "cos",
    "cross_entropy",
    "dot", "dropout", "embedding", "exp", "expand_dims", "expm1", "gelu", "getitem", "log",
    "log1p", "log_softmax", "logsumexp", "max", "maximum", "min", "minimum", "moveaxis", "mul",
    "neg", "norm", "ones_like", "pad", "reshape", "sigmoid", "sign", "sin", "split", "sqrt",
    "square", "squeeze", "stack", "std", "sub", "sum", "swapaxes", "tanh", "var", "where",
    "zeros_like", "split_heads", "merge_heads", "causal_self_attention", "rms_norm", "swiglu",
    "rotate_pairs", "rnn", "lstm", "gru", "erf", "gelu_exact",
]

# Linear algebra, by NumPy's names: `LINEAR`; see `tape.linalg` too.
_OWN = len(__all__)
__all__ += [
    "cross", "diag", "diagflat", "diagonal", "einsum", "inner", "kron", "matrix_transpose", "matvec",
    "outer", "tensordot", "trace", "vdot", "vecdot", "vecmat",
]

# NumPy's other functions, by NumPy's names: `NUMPYS`.
_BOTH = len(__all__)
__all__ += [
    "append", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "average", "block",
    "broadcast_arrays", "cbrt", "ceil", "choose", "column_stack", "compress", "conjugate",
    "convolve", "copy", "copysign", "corrcoef", "correlate", "cosh", "cov", "cumprod", "cumsum",
    "cumulative_prod", "cumulative_sum", "deg2rad", "degrees", "delete", "diff", "dsplit",
    "dstack", "ediff1d", "exp2", "extract", "fabs", "flip", "fliplr", "flipud", "floor",
    "floor_divide", "fmax", "fmin", "fmod", "full_like", "gradient", "heaviside", "hsplit",
    "hstack", "hypot", "imag", "interp", "ldexp", "linspace", "log10", "log2", "logaddexp",
    "logaddexp2", "logspace", "median", "meshgrid", "nan_to_num",
    "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmin", "nanprod", "nanstd", "nansum",
    "nanvar", "partition", "percentile", "polyval", "positive", "prod", "ptp", "quantile",
    "rad2deg", "radians", "ravel", "real", "reciprocal", "remainder", "repeat", "resize", "rint",
    "roll", "rollaxis", "rot90", "round", "select", "sinc", "sinh", "sort", "take",
    "take_along_axis", "tan", "tile", "trapezoid", "tril", "triu", "trunc", "unstack", "unwrap",
    "vander", "vsplit", "vstack",
]
LINEAR, NUMPYS = __all__[_OWN:_BOTH], __all__[_BOTH:]

# Operators name an argument that they do not know; here functions made of operators learn to.
for _name in __all__:
    globals()[_name] = in_our_words(globals()[_name])
