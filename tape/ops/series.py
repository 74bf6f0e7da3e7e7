"""Functions of a series of numbers: differences, integrals, interpolation, convolution, polynomials."""

from __future__ import annotations

import numpy as np

from tape.ops.arithmetic import greater, less, where, zeros_like
from tape.ops.elementwise import positive
from tape.ops.indexing import getitem
from tape.ops.joining import concatenate, cut, stack
from tape.ops.picking import take_along_axis
from tape.ops.reductions import sum
from tape.ops.shapes import moveaxis, reshape, reshape_like
from tape.primitive import derivative, implements
from tape.promotion import is_number


def _part(x, axis, *bounds):
    """x[start:stop] along an axis."""
    part = slice(*bounds)
    if axis >= 0:
        return getitem(x, (*(slice(None),) * axis, part))
    return getitem(x, (Ellipsis, part, *(slice(None),) * (-1 - axis)))


# --- differences and integrals ---


@implements(np.diff)
def diff(x, n=1, axis=-1, prepend=None, append=None):
    """The n-th differences of neighbours along `axis`; `prepend` and `append` are joined to x first."""
    if n < 0:
        raise ValueError(f"diff: n must be 0 or more, got {n}")
    ends = [(e if np.ndim(e) else zeros_like(_part(x, axis, 0, 1)) + e) if e is not None else None
            for e in (prepend, append)]
    parts = [part for part in (ends[0], x, ends[1]) if part is not None]
    if len(parts) > 1:
        x = concatenate(parts, axis)
    elif not n:
        x = positive(x)                                   # a copy, and not x itself
    for _ in range(n):
        x = _part(x, axis, 1, None) - _part(x, axis, 0, -1)
    return x


@implements(np.ediff1d)
def ediff1d(x, to_end=None, to_begin=None):
    """The differences of neighbours of the flattened x, between `to_begin` and `to_end`."""
    x = reshape(x, (-1,))
    parts = [to_begin, _part(x, 0, 1, None) - _part(x, 0, 0, -1), to_end]
    parts = [part if isinstance(part, (list, tuple)) else reshape(part, (-1,))
             for part in parts if part is not None]
    return concatenate(parts) if len(parts) > 1 else parts[0]


def _slope(f, h, edge_order):
    """Slopes along the last axis: h is a number, or the distances of neighbours."""
    def at(*bounds):
        return _part(f, -1, *bounds)

    def line(d1, d2, position):
        """Weights of three neighbours, d1 and d2 apart, for the slope at the first, second or third."""
        x = (-d1, 0 * d1, d2)[position]            # measured from the second
        return (2 * x - d2) / (d1 * (d1 + d2)), (d2 - d1 - 2 * x) / (d1 * d2), (
            2 * x + d1) / (d2 * (d1 + d2))

    def of(d, a, b):
        return _part(d, -1, a, b) if np.ndim(d) else d
    a, b, c = line(of(h, 0, -1), of(h, 1, None), 1)
    inner = a * at(0, -2) + b * at(1, -1) + c * at(2, None)
    if edge_order == 1:
        first, last = (at(1, 2) - at(0, 1)) / of(h, 0, 1), (at(-1, None) - at(-2, -1)) / of(h, -1, None)
    else:
        a, b, c = line(of(h, 0, 1), of(h, 1, 2), 0)
        first = a * at(0, 1) + b * at(1, 2) + c * at(2, 3)
        a, b, c = line(of(h, -2, -1), of(h, -1, None), 2)
        last = a * at(-3, -2) + b * at(-2, -1) + c * at(-1, None)
    return concatenate([first, inner, last], -1)


@implements(np.gradient)
def gradient(f, *varargs, axis=None, edge_order=1):
    """np.gradient: slopes by differences, central inside and one-sided at the ends.

    The slope of the parabola through three neighbours, and at the ends of the line through two
    (`edge_order` 2: the parabola through three). `varargs` is one spacing, or one an axis: a number,
    or the coordinates along the axis. A list over several axes, as NumPy's.
    """
    if edge_order not in (1, 2):
        raise ValueError(f"gradient: edge_order must be 1 or 2, got {edge_order}")
    several = axis is None and np.ndim(f) != 1 or isinstance(axis, (tuple, list))
    axes = range(np.ndim(f)) if axis is None else axis if several else [axis]
    spacings = varargs if len(varargs) == len(axes) else [*varargs, 1.0][:1] * len(axes)
    if len(varargs) not in (0, 1, len(axes)):
        raise TypeError(f"gradient: takes one spacing, or one for each of {len(axes)} axes; got "
                        f"{len(varargs)}")
    for a in axes if hasattr(f, "shape") else ():            # a node has no shape yet
        if f.shape[a] <= edge_order:
            raise ValueError(f"gradient: axis {a} must have {edge_order + 1} places at least for "
                             f"edge_order={edge_order}, got shape {f.shape}")
    found = [moveaxis(_slope(moveaxis(f, a, -1), diff(h) if np.ndim(h) else h, edge_order), -1, a)
             for a, h in zip(axes, spacings)]
    return tuple(found) if several and len(found) > 1 else found[0]


@implements(np.trapezoid)
def trapezoid(y, x=None, dx=1.0, axis=-1):
    """The integral of y along `axis` by trapezoids, at the places x, or at a distance dx."""
    y = moveaxis(y, axis, -1)
    if x is not None:
        dx = diff(x) if np.ndim(x) == 1 else diff(moveaxis(x, axis, -1))
    return sum((_part(y, -1, 1, None) + _part(y, -1, 0, -1)) * dx, -1) / 2


# --- interpolation ---


@derivative(None, None)
def bracket(x, xp, /, last):
    """For each x the place of the piece of the sorted `xp` that it lies on, or of its other end."""
    xp = np.asarray(xp)
    if len(xp) < 2:
        raise ValueError(f"interp: xp must have two points at least, got {len(xp)}")
    return np.clip(np.searchsorted(xp, x, "right") - 1, 0, len(xp) - 2) + last


@implements(np.interp)
def interp(x, xp, fp, left=None, right=None, period=None):
    """The straight lines through the points (xp, fp), at x; `left` and `right` of them fp's ends.

    Differentiable in x, where it gives the slope of the piece to the right at a point, in fp, and in
    xp, which must ascend.
    """
    if period is not None:
        raise TypeError("interp: period= has no rule here; write x % period, and join the first point "
                        "to the end of xp and fp")
    flat = reshape(x, (-1,))
    i, j = bracket(flat, xp, 0), bracket(flat, xp, 1)
    x0, x1, y0, y1 = (take_along_axis(values, k, 0) for values in (xp, fp) for k in (i, j))
    found = y0 + (flat - x0) * ((y1 - y0) / (x1 - x0))
    low, high = getitem(fp, 0), getitem(fp, -1)
    found = where(less.as_operator(flat, getitem(xp, 0)), low if left is None else left, found)
    found = where(greater.as_operator(flat, getitem(xp, -1)), high if right is None else right, found)
    return reshape_like(found, np.asarray(x) if isinstance(x, (int, float, list, tuple)) else x)


# --- convolution: bilinear, so each derivative is another convolution ---


@derivative(lambda g, y: slide(g, y), lambda g, x: slide(g, x))
def spread_sum(x, y, /):
    """out_n = sum_k x_k y_(n-k), over all n: one-dimensional, of N and M to N + M - 1 elements.

    x_k has a part y_(n-k) in out_n, so dL/dx_k = sum_m g_(k+m) y_m.
    """
    return np.convolve(x, y)


@derivative(lambda g, y: spread_sum(g, y), lambda g, x: slide(x, g))
def slide(x, y, /):
    """out_n = sum_k x_(n+k) y_k, where y, the shorter, lies inside x: N - M + 1 elements."""
    return np.correlate(x, y, "valid")


@derivative(None)
def convolution_bounds(*like, mode):
    """Which part of the full convolution of two series each of NumPy's modes is."""
    short, long = sorted(len(x) for x in like)
    start, length = {"full": (0, short + long - 1), "same": ((short - 1) // 2, long),
                     "valid": (short - 1, long - short + 1)}[mode]
    return np.array([start, start + length])


@implements(np.convolve)
def convolve(x, y, mode="full"):
    """out_n = sum_k x_k y_(n-k) of two series; `mode`: 'full', 'same' (as the longer), 'valid'."""
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"convolve: mode must be 'full', 'same' or 'valid', got {mode!r}")
    x, y = _series(x), _series(y)
    out = spread_sum(x, y)
    return out if mode == "full" else cut(out, convolution_bounds(x, y, mode=mode), axis=0, i=0)


@implements(np.correlate)
def correlate(x, y, mode="valid"):
    """out_n = sum_k x_(n+k) y_k of two series: `convolve` with y reversed."""
    x, y = _series(x), _series(y)
    if mode == "same" and np.shape(y)[0] > np.shape(x)[0]:
        raise ValueError("correlate: with mode='same' the second series must not be the longer one; "
                         "np.flip(np.correlate(y, x, 'same')) is the same but for one place")
    return convolve(x, np.flip(y), mode)


def _series(x):
    """A number as a series of one; a node as it is."""
    return reshape(x, (1,)) if is_number(x) or getattr(x, "ndim", 1) == 0 else x


# --- polynomials ---


@implements(np.polyval)
def polyval(p, x):
    """p[0] x^(n-1) + ... + p[n-1], by Horner's rule; differentiable in the coefficients and in x."""
    out = zeros_like(x)
    for coefficient in p:
        out = out * x + coefficient
    return out


@implements(np.vander)
def vander(x, N=None, increasing=False):
    """The matrix of powers of x (K,): x^(N-1), ..., x, 1 in each row, or the reverse."""
    powers = range(np.shape(x)[0] if N is None else N)
    return stack([x ** n for n in (powers if increasing else reversed(powers))], 1)


@implements(np.linspace)
def linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0, *, device=None):
    """`num` numbers from `start` to `stop`, which may be tensors, along a new axis."""
    if retstep or dtype is not None:
        raise TypeError("linspace: of tensors without retstep= and dtype=; the step is "
                        "(stop - start) / (num - 1)")
    share = np.linspace(0.0, 1.0, num, endpoint).tolist()
    return stack([stop * 1.0 if s == 1 else start + (stop - start) * s for s in share], axis)


@implements(np.logspace)
def logspace(start, stop, num=50, endpoint=True, base=10.0, dtype=None, axis=0):
    """`base` to the powers of `linspace`."""
    return base ** linspace(start, stop, num, endpoint, dtype=dtype, axis=axis)
