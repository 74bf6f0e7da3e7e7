"""An eager, define-by-run reverse-mode autodiff engine on NumPy.

    Tensor                              an array that remembers how it was made
    div, power, mean, matmul, ...       the operators, also as methods and as NumPy's functions
    grad, no_grad, enable_grad          gradients as a function; recording off and on
    primitive                           a new operator from a forward and its derivative
    implements                          what to call when a NumPy function meets a Tensor
    gradcheck                           derivatives against differences
    strict                              check all that the tape keeps for changes
    show, record_lines                  the tape as a table
    tape.lazy                           the static graph over the same operators
"""

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
from tape.ops import (    # NumPy's other functions
    append, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, array_split, atleast_1d,
    atleast_2d, atleast_3d, average, block, broadcast_arrays, cbrt, ceil, choose, column_stack,
    compress, conjugate, convolve, copy, copysign, corrcoef, correlate, cosh, cov, cumprod,
    cumsum, cumulative_prod, cumulative_sum, deg2rad, degrees, delete, diff, dsplit, dstack,
    ediff1d, exp2, extract, fabs, flip, fliplr, flipud, floor, floor_divide, fmax, fmin, fmod,
    full_like, gradient, heaviside, hsplit, hstack, hypot, imag, interp, ldexp, linspace, log10,
    log2, logaddexp, logaddexp2, logspace, matrix_transpose, median, meshgrid, nan_to_num,
    nancumprod, nancumsum, nanmax, nanmean, nanmin, nanprod, nanstd, nansum, nanvar, partition,
    percentile, polyval, positive, prod, ptp, quantile, rad2deg, radians, ravel, real, reciprocal,
    remainder, repeat, resize, rint, roll, rollaxis, rot90, round, select, sinc, sinh, sort, take,
    take_along_axis, tan, tile, trapezoid, tril, triu, trunc, unstack, unwrap, vander, vsplit,
    vstack)
from tape.primitive import implements, primitive
from tape.tensor import Tensor
from tape.transforms import grad

__all__ = [
    "Tensor", "grad", "no_grad", "enable_grad", "primitive", "gradcheck", "show", "record_lines",
    "strict", "implements",
    "abs", "add", "astype", "broadcast_to", "causal_attention", "clip", "concatenate", "cos",
    "cross_entropy", "div", "dot", "dropout", "embedding", "exp", "expand_dims", "expm1", "gelu",
    "getitem", "layer_norm", "log", "log1p", "log_softmax", "logsumexp", "matmul", "max",
    "maximum", "mean", "min", "minimum", "moveaxis", "mul", "neg", "norm", "ones_like", "pad",
    "power", "relu", "reshape", "sigmoid", "sign", "sin", "softmax", "split", "sqrt", "square",
    "squeeze", "stack", "std", "sub", "sum", "swapaxes", "tanh", "transpose", "var", "where",
    "zeros_like",
]
__all__ += [
    "append", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "average", "block",
    "broadcast_arrays", "cbrt", "ceil", "choose", "column_stack", "compress", "conjugate",
    "convolve", "copy", "copysign", "corrcoef", "correlate", "cosh", "cov", "cumprod", "cumsum",
    "cumulative_prod", "cumulative_sum", "deg2rad", "degrees", "delete", "diff", "dsplit",
    "dstack", "ediff1d", "exp2", "extract", "fabs", "flip", "fliplr", "flipud", "floor",
    "floor_divide", "fmax", "fmin", "fmod", "full_like", "gradient", "heaviside", "hsplit",
    "hstack", "hypot", "imag", "interp", "ldexp", "linspace", "log10", "log2", "logaddexp",
    "logaddexp2", "logspace", "matrix_transpose", "median", "meshgrid", "nan_to_num",
    "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmin", "nanprod", "nanstd", "nansum",
    "nanvar", "partition", "percentile", "polyval", "positive", "prod", "ptp", "quantile",
    "rad2deg", "radians", "ravel", "real", "reciprocal", "remainder", "repeat", "resize", "rint",
    "roll", "rollaxis", "rot90", "round", "select", "sinc", "sinh", "sort", "take",
    "take_along_axis", "tan", "tile", "trapezoid", "tril", "triu", "trunc", "unstack", "unwrap",
    "vander", "vsplit", "vstack",
]
