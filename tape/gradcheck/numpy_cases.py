"""A call of each of NumPy's other functions; `cases.py` has those of the engine's own operators."""

from __future__ import annotations

import numpy as np

from tape import ops
from tape.gradcheck.case import Case, case, positive
from tape.ops import (
    cumulative, elementwise, ordering, picking, series, shapes, stacking, statistics, trigonometry)


def inside(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    """Between -0.8 and 0.8."""
    return rng.uniform(-0.8, 0.8, shape)


def beyond(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    """Between 1.2 and 2."""
    return rng.uniform(1.2, 2.0, shape)


def with_zeros(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    """Of both signs, and 0 at the first, the last but one and some other places."""
    x = rng.standard_normal(shape)
    x.reshape(-1)[[0, -2, x.size // 2]] = 0
    return x


def ascending(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    """At distances from 0.5 to 2 along the last axis."""
    return np.cumsum(rng.uniform(0.5, 2.0, shape), axis=-1)


_LIKE = np.zeros((2, 3))
_PLACES = np.array([[0, 2, 2], [1, 0, 1]])
_MASK = np.array([[True, False, True], [False, True, True]])
# Constants are in float32, so that they leave the dtype of the inputs alone.
_HOLES = np.array([[1.0, np.nan, 1.0, 1.0], [1.0, 1.0, 1.0, np.nan]], np.float32)
_POINTS, _KNOTS = np.array([[-0.3, 0.4, 1.7, 9.0], [-0.5, 0.5, 1.0, 2.0]], np.float32)
_SIGNS, _WEIGHTS = np.array([[1.0, -1.0, -0.0], [0.5, 1.5, 1.0]], np.float32)
_EVERY = {"shift": 1, "axis": None}

CASES: list[Case] = [
    # angles and hyperbolic functions
    case("tan", ops.tan, (2, 3), draw=inside),
    case("arcsin", ops.arcsin, (2, 3), draw=inside),
    case("one_less_square", trigonometry.one_less_square, (2, 3)),
    case("arccos", ops.arccos, (2, 3), draw=inside),
    case("arctan", ops.arctan, (2, 3)),
    case("sinh", ops.sinh, (2, 3)),
    case("cosh", ops.cosh, (2, 3)),
    case("arcsinh", ops.arcsinh, (2, 3)),
    case("arccosh", ops.arccosh, (2, 3), draw=beyond),
    case("arctanh", ops.arctanh, (2, 3), draw=inside),
    case("arctan2", ops.arctan2, (2, 3), (3,)),
    case("hypot", ops.hypot, (2, 3), (3,)),
    case("deg2rad", ops.deg2rad, (3,)),
    case("radians", ops.radians, (3,)),
    case("rad2deg", ops.rad2deg, (3,)),
    case("degrees", ops.degrees, (3,)),
    case("unwrap", lambda x: ops.unwrap(4 * x), (6,)),
    case("sinc", ops.sinc, (6,)),
    case("sinc/zero", ops.sinc, (4,), draw=with_zeros),
    case("sinc_derivative", lambda x: trigonometry.sinc_derivative(x, 2), (6,)),
    # elementwise
    case("log2", ops.log2, (3,), draw=positive),
    case("log10", ops.log10, (3,), draw=positive),
    case("exp2", ops.exp2, (3,)),
    case("cbrt", ops.cbrt, (3,)),
    case("reciprocal", ops.reciprocal, (3,)),
    case("positive", ops.positive, (3,)),
    case("fabs", ops.fabs, (3,)),
    case("conjugate", ops.conjugate, (3,)),
    case("real", ops.real, (3,)),
    case("copy", ops.copy, (3,)),
    case("full_like", lambda x: ops.full_like(_LIKE, x), (3,)),
    case("logaddexp", ops.logaddexp, (2, 3), (3,)),
    case("logaddexp/many", lambda x, y: ops.logaddexp(x, ops.repeat(y, 350, 0)), (3,), (3, 1)),
    case("lead", elementwise.lead, (2, 3), (3,)),
    case("logaddexp2", ops.logaddexp2, (2, 3), (3,)),
    case("remainder", ops.remainder, (2, 3), (3,), draw=positive),
    case("remainder/number", lambda x: x % 0.7, (2, 3)),
    case("fmod", ops.fmod, (2, 3), (3,)),
    case("copysign", lambda x: ops.copysign(x, _SIGNS), (2, 3)),
    case("ldexp", lambda x: ops.ldexp(x, np.array([1, -2, 0])), (2, 3)),
    case("heaviside", lambda y: ops.heaviside(_SIGNS, y), (2, 3)),
    case("fmax", ops.fmax, (2, 3), (3,)),
    case("fmin", ops.fmin, (2, 3), (3,)),
    case("nan_to_num", ops.nan_to_num, (3,)),
    # products and running sums
    case("prod", lambda x: ops.prod(x, 1), (2, 3)),
    case("prod/all", ops.prod, (2, 3)),
    case("prod/zeros", lambda x: ops.prod(x, -1), (2, 4), draw=with_zeros),
    case("prod/several", lambda x: ops.prod(x, (0, 2), keepdims=True), (2, 3, 2)),
    case("cumsum", lambda x: ops.cumsum(x, 1), (2, 3)),
    case("cumsum/all", ops.cumsum, (2, 3)),
    case("cumprod", lambda x: ops.cumprod(x, 0), (3, 2)),
    case("cumprod/all", ops.cumprod, (2, 3)),
    case("cumprod/zeros", lambda x: ops.cumprod(x, -1), (2, 4), draw=with_zeros),
    case("cumulative_sum", lambda x: ops.cumulative_sum(x, axis=1, include_initial=True), (2, 3)),
    case("cumulative_prod", lambda x: ops.cumulative_prod(x, axis=1, include_initial=True), (2, 3)),
    case("shift", lambda x: cumulative.shift(x, 1, 2), (2, 3)),
    case("shift/back", lambda x: cumulative.shift(x, 0, 2, True), (3, 2)),
    case("recurrence", lambda x, b: cumulative.recurrence(x, b, -1), (2, 4), (2, 4)),
    case("recurrence/back", lambda x, b: cumulative.recurrence(x, b, 0, True), (4, 2), (4, 2)),
    # elements moved, repeated and left out
    case("roll", lambda x: ops.roll(x, 1, axis=1), (2, 3)),
    case("roll/several", lambda x: ops.roll(x, (1, -1), axis=(0, 1)), (2, 3)),
    case("flip", lambda x: ops.flip(x, -1), (2, 3)),
    case("flip/all", ops.flip, (2, 3)),
    case("fliplr", ops.fliplr, (2, 3)),
    case("flipud", ops.flipud, (2, 3)),
    case("rot90", lambda x: ops.rot90(x, 1), (2, 3)),
    case("repeat", lambda x: ops.repeat(x, 2), (2, 3)),
    case("repeat/several", lambda x: ops.repeat(x, [0, 2, 1], axis=1), (2, 3)),
    case("tile", lambda x: ops.tile(x, (2, 1, 2)), (2, 3)),
    case("repeat/one number for all", lambda x: ops.repeat(x, [3], axis=-2), (2, 3, 2)),
    case("sum_of_repeats", lambda g: picking.sum_of_repeats(g, _LIKE, 2, 1), (2, 6)),
    case("sum_of_repeats/several", lambda g: picking.sum_of_repeats(g, _LIKE, [0, 2, 1], 1), (2, 3)),
    case("sum_of_tiles", lambda g: picking.sum_of_tiles(g, _LIKE, (2, 1, 2)), (2, 2, 6)),
    case("resize", lambda x: ops.resize(x, (2, 4)), (2, 3)),
    case("rollaxis", lambda x: ops.rollaxis(x, 2), (2, 3, 2)),
    case("delete", lambda x: ops.delete(x, [0, 2], axis=1), (2, 4)),
    case("compress", lambda x: ops.compress([True, False, True], x, axis=1), (2, 3)),
    case("extract", lambda x: ops.extract(_MASK, x), (2, 3)),
    case("tril", lambda x: ops.tril(x, 1), (3, 3)),
    case("triu", ops.triu, (2, 3, 3)),
    case("take", lambda x: ops.take(x, _PLACES, axis=1), (2, 3)),
    case("take/all", lambda x: ops.take(x, [5, 0, -1]), (2, 3)),
    case("take/wrap", lambda x: ops.take(x, [7, -4], axis=-1, mode="wrap"), (3,)),
    case("take_along_axis", lambda x: ops.take_along_axis(x, _PLACES, 1), (2, 3)),
    case("take_along_axis/all", lambda x: ops.take_along_axis(x, _PLACES[0], None), (2, 3)),
    case("select", lambda x, y: ops.select([_MASK, _PLACES > 0], [x, y], 2.0), (2, 3), (3,)),
    case("choose", lambda x, y: ops.choose(_PLACES, [x, y, 2.0]), (2, 3), (3,)),
    case("pick", lambda x: picking.pick(x, np.roll, _EVERY), (2, 3)),
    case("put_back", lambda g: picking.put_back(g, _LIKE, np.roll, _EVERY), (2, 3)),
    case("put_along_axis_like",
         lambda g: picking.put_along_axis_like(g, _LIKE, _PLACES, 1), (2, 3)),
    # order
    case("sort", lambda x: ops.sort(x, axis=0), (3, 2)),
    case("sort/all", lambda x: ops.sort(x, None), (2, 3)),
    case("partition", lambda x: ops.partition(x, 2), (2, 5)),
    case("ptp", lambda x: ops.ptp(x, axis=1), (2, 4)),
    case("quantile", lambda x: ops.quantile(x, [0.1, 0.5, 1.0], axis=1), (2, 4)),
    case("quantile/keepdims", lambda x: ops.quantile(x, 0.3, 0, keepdims=True), (4, 2)),
    case("percentile", lambda x: ops.percentile(x, 35), (2, 4)),
    case("median", lambda x: ops.median(x, axis=1), (2, 4)),
    case("median/odd", ops.median, (5,)),
    # series
    case("diff", lambda x: ops.diff(x, axis=0), (4, 2)),
    case("diff/twice", lambda x: ops.diff(x, 2, prepend=1.0), (2, 4)),
    case("ediff1d", lambda x: ops.ediff1d(x, to_begin=[1.0, 2.0]), (2, 3)),
    case("gradient", lambda x: ops.gradient(x, 0.5), (5,)),
    case("gradient/coordinates", lambda f, x: ops.gradient(f, x, axis=-1, edge_order=2), (2, 5), (5,),
         draw=ascending),
    case("gradient/edge", lambda f: ops.gradient(f, 2.0, edge_order=2), (5,)),
    case("trapezoid", lambda y: ops.trapezoid(y, dx=0.5, axis=0), (4, 2)),
    case("trapezoid/coordinates", lambda y, x: ops.trapezoid(y, x), (2, 4), (4,)),
    case("interp", lambda x, y: ops.interp(_POINTS * x, _KNOTS, y), (4,), (4,),
         draw=positive),
    case("interp/coordinates", lambda x, y: ops.interp(_KNOTS[2:] * 2, x, y), (5,), (5,),
         draw=ascending),
    case("convolve", ops.convolve, (4,), (3,)),
    case("convolve/same", lambda x, y: ops.convolve(x, y, "same"), (3,), (4,)),
    case("convolve/valid", lambda x, y: ops.convolve(x, y, "valid"), (5,), (3,)),
    case("correlate", ops.correlate, (5,), (3,)),
    case("correlate/full", lambda x, y: ops.correlate(x, y, "full"), (3,), (5,)),
    case("spread_sum", series.spread_sum, (3,), (2,)),
    case("slide", series.slide, (4,), (2,)),
    case("polyval", lambda x: ops.polyval([2.0, -1.0, 0.5], x), (3,)),
    case("vander", lambda x: ops.vander(x, 4), (3,)),
    case("linspace", lambda x, y: ops.linspace(x, y, 4), (3,), (3,)),
    case("logspace", lambda x, y: ops.logspace(x, y, 3, base=2.0), (2,), (2,)),
    # joining and taking apart
    case("ravel", ops.ravel, (2, 3)),
    case("ravel, columns", lambda x: ops.ravel(x, "F"), (2, 3)),
    case("atleast", lambda x: shapes.atleast(x, 3), (3,)),
    case("atleast_1d", ops.atleast_1d, (3,)),
    case("atleast_2d", ops.atleast_2d, (3,)),
    case("atleast_3d", ops.atleast_3d, (2, 3)),
    case("vstack", lambda x, y: ops.vstack([x, y]), (3,), (2, 3)),
    case("hstack", lambda x, y: ops.hstack([x, y]), (2, 1), (2, 3)),
    case("dstack", lambda x, y: ops.dstack([x, y]), (2, 3), (2, 3)),
    case("column_stack", lambda x, y: ops.column_stack([x, y]), (3,), (3, 2)),
    case("append", lambda x, y: ops.append(x, y, axis=1), (2, 3), (2, 1)),
    case("append/flat", ops.append, (2, 3), (2,)),
    case("block", lambda x, y: ops.block([[x, y], [y, x]]), (2, 2), (2, 2)),
    case("array_split", lambda x: ops.array_split(x, 3, axis=1), (2, 5)),
    case("vsplit", lambda x: ops.vsplit(x, 2), (4, 2)),
    case("hsplit", lambda x: ops.hsplit(x, [1]), (2, 3)),
    case("dsplit", lambda x: ops.dsplit(x, 2), (1, 2, 4)),
    case("unstack", lambda x: [*ops.unstack(x, axis=1)], (2, 3)),
    case("broadcast_arrays", lambda x, y: [*ops.broadcast_arrays(x, y)], (2, 1), (3,)),
    case("meshgrid", lambda x, y: [*ops.meshgrid(x, y)], (3,), (2,)),
    # statistics
    case("average", lambda x: ops.average(x, axis=1, weights=_WEIGHTS), (2, 3)),
    case("average/weights", lambda x, w: ops.average(x, 1, w), (2, 3), (2, 3), draw=positive),
    case("cov", ops.cov, (2, 4)),
    case("cov/two", lambda x, y: ops.cov(x, y, rowvar=False, bias=True), (4, 2), (4, 1)),
    case("corrcoef", ops.corrcoef, (2, 4)),
    case("nansum", lambda x: ops.nansum(x * _HOLES, 1), (2, 4)),
    case("nanprod", lambda x: ops.nanprod(x * _HOLES, 1), (2, 4)),
    case("nanmean", lambda x: ops.nanmean(x * _HOLES, 0), (2, 4)),
    case("nanvar", lambda x: ops.nanvar(x * _HOLES, 1, ddof=1), (2, 4)),
    case("nanstd", lambda x: ops.nanstd(x * _HOLES), (2, 4)),
    case("nanmax", lambda x: ops.nanmax(x * _HOLES, 1), (2, 4)),
    case("nanmin", lambda x: ops.nanmin(x * _HOLES, 1, keepdims=True), (2, 4)),
    case("nancumsum", lambda x: ops.nancumsum(x * _HOLES, 1), (2, 4)),
    case("nancumprod", lambda x: ops.nancumprod(x * _HOLES, 1), (2, 4)),
]

# Where the operators are defined.
DEFINITIONS = (cumulative, elementwise, ordering, picking, series, stacking, statistics, trigonometry)
