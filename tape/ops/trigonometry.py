"""Angles and hyperbolic functions; `sin` and `cos` are in ``arithmetic.py``."""

from __future__ import annotations

import math

import numpy as np

from tape import kernels
from tape.ops.reductions import _over
from tape.primitive import derivative, implements, primitive


@derivative(lambda g, x: -2 * x * g)
def one_less_square(x, /):
    """1 - x^2 as (1 - x)(1 + x), which keeps its digits near 1; derivative -2x, which does near 0."""
    return (1 - x) * (1 + x)


tan = primitive(np.tan, lambda g, out: g * (1 + out * out), doc="Tangent; derivative 1 + tan(x)^2.")
arcsin = primitive(np.arcsin, lambda g, x: g / np.sqrt(one_less_square(x)),
                   doc="Inverse sine; derivative 1 / sqrt(1 - x^2).")
arccos = primitive(np.arccos, lambda g, x: -g / np.sqrt(one_less_square(x)),
                   doc="Inverse cosine; derivative -1 / sqrt(1 - x^2).")
arctan = primitive(np.arctan, lambda g, x: g / (1 + x * x),
                   doc="Inverse tangent; derivative 1 / (1 + x^2).")

sinh = primitive(np.sinh, lambda g, x: g * np.cosh(x), doc="Hyperbolic sine; derivative cosh(x).")
cosh = primitive(np.cosh, lambda g, x: g * np.sinh(x), doc="Hyperbolic cosine; derivative sinh(x).")
arcsinh = primitive(np.arcsinh, lambda g, x: g / np.sqrt(x * x + 1),
                    doc="Inverse hyperbolic sine; derivative 1 / sqrt(x^2 + 1).")
arccosh = primitive(np.arccosh, lambda g, x: g / np.sqrt((x - 1) * (x + 1)),
                    doc="Inverse hyperbolic cosine; derivative 1 / sqrt(x^2 - 1).")
arctanh = primitive(np.arctanh, lambda g, x: g / one_less_square(x),
                    doc="Inverse hyperbolic tangent; derivative 1 / (1 - x^2).")

# Linear: the gradient is converted as the angle was.
deg2rad = primitive(np.deg2rad, lambda g: np.deg2rad(g), doc="Degrees to radians: times pi / 180.")
radians = primitive(np.radians, lambda g: np.radians(g), doc="Degrees to radians: times pi / 180.")
rad2deg = primitive(np.rad2deg, lambda g: np.rad2deg(g), doc="Radians to degrees: times 180 / pi.")
degrees = primitive(np.degrees, lambda g: np.degrees(g), doc="Radians to degrees: times 180 / pi.")


def _over_square(z, x, y):
    """z / (x^2 + y^2), whose square may overflow, or vanish, where the quotient does not."""
    length = np.hypot(x, y)
    return z / length / length


# The inputs of a ufunc are called x and y in their order, so arctan2(y, x) has them exchanged.
arctan2 = primitive(
    np.arctan2,
    lambda g, x, y: g * _over_square(y, x, y),
    lambda g, x, y: -g * _over_square(x, x, y),
    doc="""The angle of the point (y, x), given its second coordinate first.

    With r^2 = x^2 + y^2 for arctan2(x, y), the derivatives are y / r^2 and -x / r^2; at the origin,
    where no direction is an angle, they are NaN.
    """)

hypot = primitive(np.hypot,
                  lambda g, out, x: g * _over(x, out),
                  lambda g, out, y: g * _over(y, out),
                  doc="sqrt(x^2 + y^2); derivatives x / out, y / out, 0 at the origin (as of `norm`).")


@derivative(lambda g: g, name="unwrap")
def _unwrap(x, /, discont, axis, period):
    return np.unwrap(x, discont, axis, period=period)


@implements(np.unwrap)
def unwrap(x, discont=None, axis=-1, *, period=2 * math.pi):
    """x plus multiples of `period`, so that it does not jump; the derivative is 1 between jumps."""
    return _unwrap(x, discont, axis, period)


# --- sin(pi x) / (pi x), with all derivatives right at 0 too ---


@derivative(lambda g, x, order: g * sinc_derivative(x, order + 1), elementwise=True)
def sinc_derivative(x, /, order):
    """The derivative of sinc of this order.

    sinc(x) = sum_k (-1)^k (pi x)^(2k) / (2k + 1)!, differentiated term by term, where |x| < 1. Beyond
    that, x sinc(x) = sin(pi x) / pi differentiated n times (Leibniz) gives a recurrence,

        x s_n + n s_(n-1) = pi^(n-1) sin(pi x + n pi / 2),

    which loses its digits near 0 and so is used away from it alone.
    """
    wide = np.asarray(x, np.float64)
    inside = np.abs(wide) < 1
    near, far = np.where(inside, wide, 0), np.where(inside, 1, wide)
    series = np.zeros(wide.shape)
    for k in range((order + 1) // 2, 16 + order):
        n = 2 * k - order
        series = series + (-1) ** k * math.pi ** (2 * k) / ((2 * k + 1) * math.factorial(n)) * near ** n
    value = np.sinc(far)
    for n in range(1, order + 1):
        value = (math.pi ** (n - 1) * np.sin(math.pi * far + n * math.pi / 2) - n * value) / far
    return np.where(inside, series, value).astype(np.asarray(x).dtype)


_sinc = kernels.in_float32(np.sinc)


@derivative(lambda g, x: g * sinc_derivative(x, 1), numpy=np.sinc, elementwise=True)
def sinc(x, /):
    """sin(pi x) / (pi x), and 1 at 0; its derivatives there are 0, -pi^2/3, 0, ..."""
    return _sinc(x)
