"""The error function, and the GELU that is made of it."""

from __future__ import annotations

import math

import numpy as np

from tape import kernels
from tape.fusion import fused
from tape.primitive import derivative

_SLOPE, _DENSITY = 2 / math.sqrt(math.pi), 1 / math.sqrt(2 * math.pi)


@derivative(lambda g, x: g * (_SLOPE * np.exp(-np.square(x))), elementwise=True)
def erf(x, /):
    """erf(x) = 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x, elementwise.

    The derivative is the integrand, 2/sqrt(pi) exp(-x^2). The values come from the approximations of
    W. J. Cody 1969, Math. Comp. 23, in float64, rounded once to the dtype of x: the error is below
    1e-15 in float64 and 6e-8 in float32. Of a standard normal Z,
    P(Z <= x) = (1 + erf(x / sqrt(2))) / 2.
    """
    return kernels.erf(x)


@derivative(lambda g, x: g * (_DENSITY * np.exp(-0.5 * np.square(x))), elementwise=True)
def normal_cdf(x, /):
    """P(Z <= x) for a standard normal Z, elementwise; its derivative is the density of Z.

    It is (1 + erf(x / sqrt(2))) / 2, but keeps its digits where that is a small number.
    """
    return kernels.normal_cdf(x)


@fused("gelu_exact")
def gelu_exact(x, /):
    """x P(Z <= x) for a standard normal Z, elementwise: x (1 + erf(x / sqrt(2))) / 2.

    The derivative of P(Z <= x) is the density exp(-x^2 / 2) / sqrt(2 pi): with the derivative of erf,
    (1/2) (2/sqrt(pi)) exp(-x^2 / 2) (1/sqrt(2)). So by the product rule

        dout/dx = P(Z <= x) + x exp(-x^2 / 2) / sqrt(2 pi).

    The kernels write u for |x|, and P(Z > u) for the part that is small: P(Z <= x) is P(Z > u) of
    negative x, and 1 - P(Z > u) of others. In both cases out = max(x, 0) - u P(Z > u), which keeps its
    digits where x is far below 0 and erf(x / sqrt(2)) nearly -1.

    Hendrycks and Gimpel 2016, arXiv:1606.08415, eq. 1; the variant of BERT. `gelu`, the approximation
    by a tanh, differs by up to 5e-4.
    """
    return x * normal_cdf(x)
