"""Arrays that carry their directional derivatives to third order: the reference's arithmetic.

A `Jet` is a polynomial in three symbols e1, e2, e3 whose squares are zero:

    x = x0 + x1 e1 + x2 e2 + x12 e1 e2 + ... + x123 e1 e2 e3

Put x + w e1 + u e2 + d e3 into a program f, and the coefficient of e3 is the derivative of f along
d, that of e1 e3 is d^T H w with the Hessian H, and that of e1 e2 e3 is the third derivative along
w, u and d. Nothing is walked back and nothing is transposed, so no mistake of a reverse mode engine
can occur here too.

A product with an exact zero is zero, whatever the other factor. That is the engine's convention
for cotangents that are exactly zero, read forwards.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

E1, E2, E3 = 1, 2, 4            # a subset of the symbols is the sum of its members
EXACT = 16.0                    # multiples of 1/16 are computed without rounding in every dtype


class NearKink(ArithmeticError):
    """A choice (x > 0, the larger of x and y) that other rounding could have made differently."""


class Jet:
    """``parts[subset]`` is the coefficient of the product of that subset; absent ones are zero."""

    __array_ufunc__ = None          # so that an array beside a Jet leaves the operator to the Jet

    def __init__(self, parts: dict[int, np.ndarray]):
        self.parts = parts

    @property
    def value(self) -> np.ndarray:
        return self.parts[0]

    @property
    def shape(self) -> tuple:
        return self.parts[0].shape

    def part(self, subset: int) -> np.ndarray:
        return self.parts.get(subset, np.zeros(self.shape))

    def __add__(self, other): return added(self, other)
    def __radd__(self, other): return added(other, self)
    def __sub__(self, other): return added(self, scaled(other, -1.0))
    def __rsub__(self, other): return added(other, scaled(self, -1.0))
    def __mul__(self, other): return product(self, other)
    def __rmul__(self, other): return product(other, self)
    def __gt__(self, other): return decided(self.value - value_of(other)) > 0


def jet(x: Any) -> Jet:
    """A Jet as it is; a number, array or list as one without derivatives."""
    return x if isinstance(x, Jet) else Jet({0: np.asarray(x, np.float64)})


def value_of(x: Any) -> np.ndarray:
    return x.value if isinstance(x, Jet) else np.asarray(x)


def times(a: np.ndarray, b: Any) -> np.ndarray:
    """a * b, and 0 where either is exactly 0."""
    out = np.multiply(a, b)
    if np.isnan(out).any():
        out = np.where(np.equal(a, 0) | np.equal(b, 0), 0.0, out)
    return out


def linear(function: Callable, *operands: Any) -> Jet:
    """A function that is linear in all operands together: it acts on each coefficient alone."""
    jets = [jet(x) for x in operands]
    subsets = sorted(set().union(*(x.parts for x in jets)))
    return Jet({s: np.asarray(function(*(x.part(s) for x in jets))) for s in subsets})


def added(x: Any, y: Any) -> Jet:
    return linear(np.add, x, y)


def scaled(x: Any, factor: Any) -> Jet:
    """x times a number or array that has no derivatives."""
    return Jet({s: times(part, factor) for s, part in jet(x).parts.items()})


def bilinear(function: Callable, x: Any, y: Any) -> Jet:
    """A function that is linear in each operand, such as a product: pairs of disjoint subsets."""
    parts: dict[int, np.ndarray] = {}
    for s, a in jet(x).parts.items():
        for t, b in jet(y).parts.items():
            if s & t == 0:
                term = np.asarray(function(a, b))
                parts[s | t] = parts[s | t] + term if s | t in parts else term
    return Jet(parts)


def product(x: Any, y: Any) -> Jet:
    return bilinear(times, x, y)


def elementwise(x: Any, *derivatives: Callable) -> Jet:
    """f(x), given f and its first three derivatives as functions of an array: Taylor's formula."""
    x = jet(x)
    moved = Jet({s: part for s, part in x.parts.items() if s})      # what is infinitesimal of x
    out = Jet({0: np.asarray(derivatives[0](x.value))})
    power: Any = 1.0
    for n, derivative in enumerate(derivatives[1:], start=1):
        power = bilinear(times, power, moved)
        if not power.parts:
            break
        factor = np.asarray(derivative(x.value)) / (1, 1, 2, 6)[n]
        for s, part in power.parts.items():
            term = times(part, factor)
            out.parts[s] = out.parts[s] + term if s in out.parts else term
    return out


def chosen(condition: np.ndarray, x: Any, y: Any) -> Jet:
    """x where the condition holds, else y; what is not chosen may be infinite or NaN."""
    return linear(lambda a, b: np.where(condition, a, b), x, y)


def decided(difference: np.ndarray, margin: float = 1e-6) -> np.ndarray:
    """A difference whose sign is asked for; refused where rounding could turn it over."""
    size = np.abs(difference)
    if ((size > 0) & (size < margin)).any():
        raise NearKink
    return difference


def decided_tie(difference: np.ndarray, *values: np.ndarray) -> np.ndarray:
    """As `decided`, for values that may tie: only ties of exactly computed numbers are taken."""
    tied = np.equal(decided(difference), 0)
    for value in values:
        value = np.broadcast_to(value, difference.shape)[tied]
        if not np.equal(value * EXACT, np.round(value * EXACT)).all():
            raise NearKink
    return difference


def seeds(arrays: Sequence[np.ndarray], w: Sequence[np.ndarray], u: Sequence[np.ndarray],
          leaf: int, place: int) -> list[Jet]:
    """The leaves plus w e1 + u e2 + d e3, with d the unit vector of one element of one leaf."""
    jets = []
    for i, array in enumerate(arrays):
        parts = {0: np.asarray(array, np.float64), E1: w[i], E2: u[i]}
        if i == leaf:
            unit = np.zeros(array.size)
            unit[place] = 1
            parts[E3] = unit.reshape(array.shape)
        jets.append(Jet(parts))
    return jets
