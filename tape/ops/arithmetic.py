"""Elementwise operators, a line of derivative for each input.

Read a table entry as the chain rule: with out = f(x, y) and g = dL/d(out), the rule for x gives
dL/dx = g * df/dx. Where x was broadcast, the engine sums the gradient back to x's shape.
"""

from __future__ import annotations

import numpy as np

from tape import kernels
from tape.comparison import Comparison
from tape.primitive import NUMPY_FUNCTIONS, derivative, implements, primitive
from tape.promotion import as_python, is_number, promote

# --- the four operations ---

add = primitive(np.add,
                lambda g: g,
                lambda g: g, name="add", symbol="+", doc="x + y, elementwise.")

sub = primitive(np.subtract,
                lambda g: g,
                lambda g: -g, name="sub", symbol="-", doc="x - y, elementwise.")

mul = primitive(np.multiply,
                lambda g, y: g * y,
                lambda g, x: g * x, name="mul", symbol="*", doc="x * y, elementwise.")

div = primitive(np.divide,
                lambda g, y:      g / y,
                lambda g, out, y: -g * out / y,       # d(x/y)/dy = -x/y^2 = -out/y
                name="div", symbol="/", doc="x / y, elementwise.")

neg = primitive(np.negative, lambda g: -g, name="neg", symbol="-", doc="-x, elementwise.")
neg.counts_booleans = True


# --- powers ---

def _power_rule(g, x, exponent):
    # The exponent is known, so the derivative of a constant is exactly 0: in the third derivative
    # of x^2 at 0 there is no 0 * x^(-1).
    if exponent == 0:
        return np.zeros_like(g)
    return g * (exponent * (x if exponent == 2 else power_number(x, exponent - 1)))


@derivative(_power_rule, name="power", symbol="**", elementwise=True)
def power_number(x, /, exponent):
    """x to the power of a number, elementwise: d/dx x^n = n x^(n-1)."""
    return kernels.power(x, exponent)


def _power_slope_y(g, out, x):
    zero = np.equal(x, 0)
    return g * where(zero, 0, out * np.log(where(zero, 1, x)))


def _power_slope_x(g, x, y):
    # At x = y = 0 the product y x^(y-1) is taken as 0, though the second factor is infinite. Elsewhere
    # the exponent stays y - 1 at y = 0 too, for the derivative of y x^(y-1) by y, which is 1/x there.
    both = np.logical_and(np.equal(x, 0), np.equal(y, 0))
    return g * y * power_elementwise(x, where(both, 1, y - 1))


# d/dx x^y = y x^(y-1), and 0 at y = 0; d/dy x^y = x^y log x, and 0 at x = 0 (its limit for y > 0).
power_elementwise = primitive(
    np.power,
    _power_slope_x,
    _power_slope_y,
    name="power", doc="x to the power of y, elementwise, where y is an array or tensor.")


@implements(np.power, np.float_power)
def power(x, exponent):
    """x ** exponent, elementwise, for a number or a tensor as exponent.

    Derivatives: d/dx x^n = n x^(n-1). With y a tensor, x^y = exp(y log x), so
    d/dy x^y = x^y log x. By convention that is 0 at x = 0, and d/dx x^0 = 0 at x = 0 too.
    """
    if is_number(exponent):
        return power_number(x, as_python(exponent))
    return power_elementwise(x, exponent)


sqrt = primitive(np.sqrt, lambda g, out: g / (2 * out), doc="Square root; derivative 1 / (2 sqrt(x)).")


@implements(np.square)
def square(x):
    """x ** 2."""
    return power_number(x, exponent=2)


# --- exponentials and friends ---

exp = primitive(np.exp, lambda g, out: g * out, doc="e to the x.")
log = primitive(np.log, lambda g, x: g / x, doc="Natural logarithm.")
log1p = primitive(np.log1p, lambda g, x: g / (1 + x), doc="log(1 + x), exact for small x.")
expm1 = primitive(np.expm1, lambda g, out: g * (out + 1), doc="exp(x) - 1, exact for small x.")
sin = primitive(np.sin, lambda g, x: g * np.cos(x), doc="Sine of x in radians.")
cos = primitive(np.cos, lambda g, x: -g * np.sin(x), doc="Cosine of x in radians.")


# --- kinks: a choice of subgradient at each ---

# sign(0) = 0, so |x| has derivative 0 at 0.
abs = primitive(np.absolute, lambda g, x: g * np.sign(x), name="abs", doc="|x|; derivative 0 at 0.")

# Ties share: each side gets half, so that the two derivatives always sum to 1.
maximum = primitive(
    np.maximum,
    lambda g, x, y: share_of_larger(g, x, y),
    lambda g, x, y: share_of_larger(g, y, x),
    doc="The larger of x and y, elementwise; where they tie, each gets half of the gradient.")

minimum = primitive(
    np.minimum,
    lambda g, x, y: share_of_larger(g, y, x),
    lambda g, x, y: share_of_larger(g, x, y),
    doc="The smaller of x and y, elementwise; where they tie, each gets half of the gradient.")


@derivative(lambda h, x, y: share_of_larger(h, x, y), None, None, elementwise=True)
def share_of_larger(g, x, y, /):
    """g where x > y, half of it where they tie, else 0: linear in g, and constant between ties.

    Beside NaN, where the result is NaN, both get g, so that it is not hidden.
    """
    share, ties = kernels.where(np.less(x, y), 0, g), np.equal(x, y)
    return kernels.where(ties, g / 2, share) if np.any(ties) else share


@derivative(lambda g, x, min, max: where(_inside(x, min, max), g, 0), elementwise=True)
def clip(x, /, min=None, max=None):
    """x held between the numbers `min` and `max` (None: no bound); derivative 1 on the bounds."""
    if hasattr(min, "__tape_apply__") or hasattr(max, "__tape_apply__"):
        raise TypeError("clip: the bounds must be numbers; with tensors use minimum and maximum")
    if min is None and max is None:           # which some versions of NumPy refuse
        return np.asarray(x)[()]
    return np.clip(x, min, max)


@implements(np.clip)
def _numpy_clip(x, a_min=None, a_max=None, *, min=None, max=None):
    return clip(x, a_min if min is None else min, a_max if max is None else max)


def _inside(x, low, high):
    return np.logical_and(np.greater_equal(x, -np.inf if low is None else low),
                          np.less_equal(x, np.inf if high is None else high))


@derivative(None,
            lambda g, condition: where(condition, g, 0),
            lambda g, condition: where(condition, 0, g), numpy=np.where, elementwise=True)
def where(condition, x, y, /):
    """x where `condition` holds, else y, elementwise."""
    return kernels.where(condition, x, y)


@derivative(lambda g, like_x: astype_like(g, like_x), None, elementwise=True)
def astype_like(x, like, /):
    """x in the dtype of `like`."""
    return np.asarray(x).astype(like.dtype, copy=False)


@derivative(lambda g, like_x: astype_like(g, like_x), name="astype", elementwise=True)
def _astype(x, /, dtype):
    return np.asarray(x).astype(dtype)


@derivative(None, name="astype")
def _round_to(x, /, dtype):
    return np.asarray(x).astype(dtype)


def astype(x, dtype):
    """x in another dtype; integers have no derivative, so a cast to them is a constant."""
    dtype = np.dtype(dtype)
    return _astype(x, dtype) if dtype.kind == "f" else _round_to(x, dtype)


@derivative(lambda g: g, elementwise=True)
def widened(x, /):
    """x in float32 if it is in float16: what is added up is added up in float32 at least."""
    x = np.asarray(x)
    return x.astype(kernels.sum_dtype(x.dtype), copy=False) if x.dtype.kind == "f" else x


@derivative(lambda g: g, None, elementwise=True)
def as_operand(x, like, /, weak=False):
    """x as an operator gets it beside `like`: integers and (`weak`) lists take the dtype of floats."""
    return promote([x, like], [weak, False], [True, True])[0]


@derivative(lambda g: g, elementwise=True)
def identity(x, /):
    """x itself, as a value of its own."""
    return x


@derivative(lambda g, x, cotangent: np.where(_undefined(x, cotangent), 0, g), None)
def zero_where_undefined(x, cotangent, /):
    """A gradient x, with 0 where it is NaN though the cotangent that it was made from is exactly 0.

    This is what the engine does with the gradients of elementwise operators, as an operator; see
    `kernels.zero_where_undefined`.
    """
    return kernels.zero_where_undefined(x, cotangent)


def _undefined(x, cotangent):
    return np.logical_and(np.isnan(x), np.equal(cotangent, 0))


# --- no derivative: constants to the tape ---

@derivative(None, numpy=np.zeros_like)
def zeros_like(x, /):
    """Zeros of x's shape and dtype."""
    return np.zeros_like(x)


@derivative(None, numpy=np.ones_like)
def ones_like(x, /):
    """Ones of x's shape and dtype."""
    return np.ones_like(x)


@derivative(None, elementwise=True)
def stop_gradient(x, /):
    """x as a constant."""
    return x


sign = primitive(np.sign, None, doc="-1, 0 or 1; its derivative is taken as 0.")

equal, not_equal = Comparison(np.equal), Comparison(np.not_equal)
less, less_equal = Comparison(np.less, symbol="<"), Comparison(np.less_equal, symbol="<=")
greater, greater_equal = Comparison(np.greater, symbol=">"), Comparison(np.greater_equal, symbol=">=")
logical_and, logical_or = Comparison(np.logical_and), Comparison(np.logical_or)
logical_not = Comparison(np.logical_not)
isnan, isinf, isfinite = Comparison(np.isnan), Comparison(np.isinf), Comparison(np.isfinite)


@derivative(None, None)
def greater_as_number(x, y, /):
    """1 where x > y, else 0, in the dtype of the operands."""
    floats = [v for v in (x, y) if getattr(getattr(v, "dtype", None), "kind", "") == "f"]
    return np.greater(x, y).astype(np.result_type(*floats) if floats else np.result_type(x, y))


NUMPY_FUNCTIONS[np.power] = power               # power_elementwise registered itself for it
