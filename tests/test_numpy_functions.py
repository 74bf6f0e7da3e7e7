"""NumPy's other functions by several routes: NumPy itself, on Tensors, by tape's name, and autograd.

One table of calls. `m` is a module that has the function: NumPy given arrays, NumPy given Tensors,
tape, and autograd's NumPy, whose first and second derivatives are compared where it has the function.
Differences and other properties are those of the catalogue; see test_operators.py.
"""

import inspect

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import Tensor, grad, ops
from tests.checks import leaf, peer

PLACES = np.array([[0, 2, 2], [1, 0, 1]])
MASK = np.array([[True, False, True], [False, True, True]])
HOLES = np.array([[1.0, np.nan, 1.0], [1.0, 1.0, 2.0]])
KNOTS = np.array([-0.5, 0.5, 1.0, 2.0])

# name: (the call, the shapes of its operands), at numbers from 0.25 to 0.9
UNIT = {
    **{name: (lambda m, x, name=name: getattr(m, name)(x), (2, 3)) for name in [
        "tan", "arcsin", "arccos", "arctan", "arctanh", "log2", "log10", "cbrt"]},
    "arccosh": (lambda m, x: m.arccosh(x + 1), (2, 3)),
    "remainder": (lambda m, x, y: m.remainder(4 * x, y), (2, 3), (3,)),
    "fmod": (lambda m, x, y: m.fmod(4 * x, y), (2, 3), (3,)),
    "average": (lambda m, x, w: m.average(x, axis=1, weights=w), (2, 3), (2, 3)),
}

# the same, at numbers of both signs
SIGNED = {
    **{name: (lambda m, x, name=name: getattr(m, name)(x), (2, 3)) for name in [
        "sinh", "cosh", "arcsinh", "sinc", "exp2", "reciprocal", "fabs", "deg2rad", "radians",
        "rad2deg", "degrees",
        "conjugate", "positive", "real", "imag", "floor", "ceil", "trunc", "rint", "round",
        "nan_to_num", "copy", "flip", "fliplr", "flipud", "rot90", "tril", "triu", "ravel", "cumsum",
        "cumprod", "prod", "sort", "ediff1d", "atleast_1d", "atleast_2d", "atleast_3d", "cov",
        "corrcoef", "median", "ptp"]},
    **{name: (lambda m, x, y, name=name: getattr(m, name)(x, y), (2, 3), (3,)) for name in [
        "arctan2", "hypot", "logaddexp", "logaddexp2", "fmax", "fmin", "floor_divide"]},
    "unwrap": (lambda m, x: m.unwrap(4 * x), (2, 3)),
    "copysign": (lambda m, x: m.copysign(x, PLACES - 1.0), (2, 3)),
    "ldexp": (lambda m, x: m.ldexp(x, PLACES), (2, 3)),
    "heaviside": (lambda m, x: m.heaviside(PLACES - 1.0, x), (2, 3)),
    "full_like": (lambda m, x: m.full_like(x, 3.0) * x, (2, 3)),
    "prod/zero": (lambda m, x: m.prod(x * PLACES, axis=1), (2, 3)),
    "cumprod/zero": (lambda m, x: m.cumprod(x * PLACES, axis=1), (2, 3)),
    "cumsum/axis": (lambda m, x: m.cumsum(x, axis=0), (2, 3)),
    "cumulative_sum": (lambda m, x: m.cumulative_sum(x, axis=1, include_initial=True), (2, 3)),
    "cumulative_prod": (lambda m, x: m.cumulative_prod(x, axis=0, include_initial=True), (2, 3)),
    "roll": (lambda m, x: m.roll(x, 1, axis=1), (2, 3)),
    "repeat": (lambda m, x: m.repeat(x, 2, 1), (2, 3)),
    "tile": (lambda m, x: m.tile(x, (2, 1)), (2, 3)),
    "resize": (lambda m, x: m.resize(x, (2, 4)), (2, 3)),
    "rollaxis": (lambda m, x: m.rollaxis(x, 2), (2, 3, 2)),
    "delete": (lambda m, x: m.delete(x, 1, axis=1), (2, 3)),
    "compress": (lambda m, x: m.compress([False, True], x, axis=0), (2, 3)),
    "extract": (lambda m, x: m.extract(MASK, x), (2, 3)),
    "take": (lambda m, x: m.take(x, PLACES, axis=-1), (2, 3)),
    "take_along_axis": (lambda m, x: m.take_along_axis(x, PLACES, 1), (2, 3)),
    "select": (lambda m, x, y: m.select([MASK, PLACES > 1], [x, y], 2.0), (2, 3), (2, 3)),
    "choose": (lambda m, x, y: m.choose(PLACES, [x, y, 2.0]), (2, 3), (2, 3)),
    "partition": (lambda m, x: m.partition(x, 1, axis=0), (4, 2)),
    "quantile": (lambda m, x: m.quantile(x, [0.2, 0.7], axis=1, keepdims=True), (2, 5)),
    "percentile": (lambda m, x: m.percentile(x, 40.0), (2, 3)),
    "diff": (lambda m, x: m.diff(x, 2, axis=1), (2, 4)),
    "gradient": (lambda m, x: m.gradient(x, axis=1), (2, 4)),
    "gradient/coordinates": (lambda m, x: m.gradient(x, KNOTS, axis=1, edge_order=2), (2, 4)),
    "gradient/both": (lambda m, x: m.gradient(x, 0.5, KNOTS)[1], (2, 4)),
    "trapezoid": (lambda m, x: m.trapezoid(x, KNOTS), (2, 4)),
    "interp": (lambda m, x, y: m.interp(x, KNOTS, y, left=0.5), (2, 3), (4,)),
    "convolve": (lambda m, x, y: m.convolve(x, y, "full"), (4,), (3,)),
    "convolve/same": (lambda m, x, y: m.convolve(x, y, "same"), (3,), (4,)),
    "correlate": (lambda m, x, y: m.correlate(x, y, "valid"), (3,), (5,)),
    "correlate/same": (lambda m, x, y: m.correlate(x, y, "same"), (5,), (4,)),
    "polyval": (lambda m, x: m.polyval(KNOTS, x), (2, 3)),
    "vander": (lambda m, x: m.vander(x, 3), (4,)),
    "linspace": (lambda m, x, y: m.linspace(x, y, 5), (), ()),
    "logspace": (lambda m, x, y: m.logspace(x, y, 4), (), ()),
    "append": (lambda m, x, y: m.append(x, y, axis=0), (2, 3), (1, 3)),
    "vstack": (lambda m, x, y: m.vstack([x, y]), (3,), (2, 3)),
    "hstack": (lambda m, x, y: m.hstack([x, y]), (3,), (2,)),
    "dstack": (lambda m, x, y: m.dstack([x, y]), (2, 3), (2, 3)),
    "column_stack": (lambda m, x, y: m.column_stack([x, y]), (2,), (2, 3)),
    "block": (lambda m, x, y: m.block([[x, y], [y, x]]), (2, 3), (2, 3)),
    "array_split": (lambda m, x: m.array_split(x, 3, axis=1)[0], (2, 5)),
    "vsplit": (lambda m, x: m.vsplit(x, 2)[1], (4, 3)),
    "hsplit": (lambda m, x: m.hsplit(x, 3)[2], (2, 3)),
    "dsplit": (lambda m, x: m.dsplit(x, [1])[1], (1, 2, 4)),
    "unstack": (lambda m, x: m.unstack(x, axis=1)[2], (2, 3)),
    "broadcast_arrays": (lambda m, x, y: m.broadcast_arrays(x, y)[1], (2, 3), (3,)),
    "meshgrid": (lambda m, x, y: m.meshgrid(x, y, indexing="ij")[0], (2,), (3,)),
    **{name: (lambda m, x, name=name: getattr(m, name)(x * HOLES, axis=1), (2, 3)) for name in [
        "nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin", "nancumsum",
        "nancumprod"]},
}
CALLS = {**UNIT, **SIGNED}

# What autograd lacks, or has no second derivative of. Differences check these in test_operators.py.
AUTOGRAD_LACKS = {
    "ediff1d", "flip", "gradient/both", "partition", "sort",
    "cbrt", "fmod", "average", "copy", "imag", "cov", "corrcoef", "median", "ptp", "hypot",
    "floor_divide", "unwrap", "copysign", "ldexp", "heaviside", "prod/zero",
    "cumprod", "cumprod/zero", "cumulative_sum", "cumulative_prod", "resize", "delete", "compress",
    "extract", "take", "take_along_axis", "choose", "quantile", "percentile", "gradient/coordinates",
    "trapezoid", "interp", "convolve", "convolve/same", "correlate", "correlate/same", "polyval",
    "vander", "logspace", "block", "unstack", "broadcast_arrays", "meshgrid", "nanprod", "nanmean",
    "nanvar", "nanstd", "nanmax", "nanmin", "nancumsum", "nancumprod", "nansum", "positive", "copysign",
    "rollaxis/"}


def operands(name):
    call, *shapes = CALLS[name]
    rng = np.random.default_rng(len(name))
    draw = (lambda s: rng.uniform(0.25, 0.9, s)) if name in UNIT else rng.standard_normal
    return call, [np.asarray(draw(shape)) for shape in shapes]


def of_numpy(name):
    if not hasattr(np, name.split("/")[0]):
        pytest.skip(f"this version of NumPy has no {name}")
    return np


@pytest.mark.parametrize("name", CALLS)
def test_numpys_function_on_tensors_gives_what_it_gives_on_arrays(name):
    call, arrays = operands(name)
    expected = call(of_numpy(name), *arrays)
    found = call(np, *map(leaf, arrays))
    assert isinstance(found, Tensor)
    np.testing.assert_allclose(found.data, expected, rtol=1e-12, atol=1e-14)
    assert found.shape == np.shape(expected)


@pytest.mark.parametrize("name", CALLS)
def test_ours_on_arrays_gives_what_numpys_does(name):
    call, arrays = operands(name)
    found, expected = call(tape, *arrays), call(of_numpy(name), *arrays)
    assert not isinstance(found, Tensor)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CALLS)
def test_float32_stays_on_the_way(name):
    call, arrays = operands(name)
    leaves = [leaf(a, np.float32) for a in arrays]
    out = call(np if hasattr(np, name.split("/")[0]) else tape, *leaves)
    if not out.requires_grad:               # a step, which is a constant
        assert name in {"floor", "ceil", "trunc", "rint", "round", "floor_divide", "imag"}
        return
    out.sum().backward()
    assert {x.grad.dtype for x in leaves if x.grad is not None} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", [name for name in CALLS if name not in AUTOGRAD_LACKS])
def test_autograd_agrees(name):
    autograd, anp = peer("autograd"), peer("autograd.numpy")
    call, arrays = operands(name)
    out = call(tape, *arrays)
    u = np.random.default_rng(9).uniform(0.5, 1.5, out.shape)

    def total(m, *xs):
        # With squares in it, so that the gradient of a linear function has a slope too.
        out = call(m, *xs)
        return m.sum(out * u) + m.sum(out * out) / 2 + sum(m.sum(x * x) for x in xs)
    every = tuple(range(len(arrays)))
    slopes = autograd.grad(lambda *xs: total(anp, *xs), every)
    curves = autograd.grad(lambda *xs: sum(anp.sum(s * s) for s in slopes(*xs)), every)

    leaves = [leaf(a) for a in arrays]
    first = grad(total(tape, *leaves), leaves, create_graph=True)
    second = grad(sum((s * s).sum() for s in first), leaves)
    for a, b in zip(first, slopes(*arrays), strict=True):
        np.testing.assert_allclose(a.data, b, rtol=1e-9, atol=1e-12)
    for t, b in zip(second, curves(*arrays), strict=True):
        np.testing.assert_allclose(t.data, b, rtol=1e-8, atol=1e-10)


def test_every_function_is_in_the_table():
    assert {name.split("/")[0] for name in CALLS} == set(ops.NUMPYS)


# --- the arguments that NumPy's reductions have besides ours ---

ARGUMENTS = {
    "sum": lambda x: np.sum(x, 1, where=MASK, initial=2.0), "prod": lambda x: np.prod(
        x, axis=0, where=MASK, initial=3.0),
    "sum, third": lambda x: np.sum(x, 0, np.float64), "mean": lambda x: np.mean(x, 1, where=MASK),
    "max": lambda x: np.max(x, 1, initial=-5.0, where=MASK), "min": lambda x: np.min(x, initial=9.0),
    "std": lambda x: np.std(x, ddof=1), "var": lambda x: np.var(x, 0, correction=1),
    "cumsum": lambda x: np.cumsum(x, 1, np.float64), "clip": lambda x: np.clip(x, None, 0.3),
    **({"clip, min": lambda x: np.clip(x, min=-0.1)}              # since NumPy 2.1
       if "min" in inspect.signature(np.clip).parameters else {}),
    "nanmean": lambda x: np.nanmean(x, where=MASK),
    "add.accumulate": lambda x: np.add.accumulate(x), "multiply.reduce": lambda x:
        np.multiply.reduce(x, axis=1), "multiply.outer": lambda x: np.multiply.outer(x, x[0]),
    "logaddexp.reduce": lambda x: np.logaddexp.reduce(x, axis=0),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_numpys_reductions_take_besides(name):
    x = np.random.default_rng(2).standard_normal((2, 3))
    found = ARGUMENTS[name](leaf(x))
    np.testing.assert_allclose(found.data, ARGUMENTS[name](x), rtol=1e-13)
    assert tape.gradcheck(lambda t: ARGUMENTS[name](t), [x], order=2)


def test_dtype_is_the_dtype_to_compute_in():
    t = leaf([1.0, 2.0], np.float32)
    total = np.sum(t, dtype=np.float64)
    total.backward()
    assert total.dtype == np.float64 and t.grad.dtype == np.float32


def test_a_tensor_as_fill_value_keeps_its_gradient():
    x, value = leaf(np.zeros((2, 3))), leaf(2.0)
    np.full_like(x, value).sum().backward()
    assert value.grad == 6 and type(np.full_like(x, 2)) is np.ndarray


# --- awkward input ---


@pytest.mark.parametrize("reduce", [np.sum, np.max, np.ptp])
@pytest.mark.parametrize("axis", [0, -1])
def test_a_number_is_reduced_over_axis_0_as_in_numpy(reduce, axis):
    x = leaf(np.array(3.0))
    assert reduce(x, axis).item() == reduce(np.array(3.0), axis)
    assert grad(reduce(x, axis), x).item() == (0 if reduce is np.ptp else 1)


def test_weights_of_an_average_that_do_not_fit_are_refused():
    x = leaf(np.arange(12.0).reshape(3, 4))
    for shape, axis in [((4,), None), ((3, 1), 1), ((1,), 0), ((3,), (0, 1))]:
        with pytest.raises(ValueError, match="weights must have the shape of a"):
            np.average(x, axis, np.ones(shape))


def test_slopes_of_too_few_places_are_refused():
    x = leaf(np.ones((2, 4)))
    with pytest.raises(ValueError, match="axis 0 must have 3 places at least"):
        np.gradient(x, edge_order=2)
    with pytest.raises(ValueError, match="axis 0 must have 2 places"):
        np.gradient(x[0, :1])


def test_interpolation_at_one_number():
    fp = leaf(np.array([1.0, 3.0, 2.0]))
    found = np.interp(0.25, [0.0, 1.0, 2.0], fp)
    assert found.shape == () and found.item() == 1.5
    np.testing.assert_allclose(grad(found, fp).data, [0.75, 0.25, 0])
    with pytest.raises(ValueError, match="two points at least"):
        np.interp(fp, [0.0], [1.0])


def test_slopes_and_interpolation_of_nodes():
    x, values = ad.Variable("x"), np.arange(12.0).reshape(3, 4) ** 2
    for function in (lambda x: np.gradient(x, axis=0), lambda x: tape.interp(x, [0, 5, 99], [0, 1, 9])):
        (found,) = ad.Evaluator([function(x)]).run({x: values})
        np.testing.assert_allclose(found, function(values))


def test_the_multiple_that_fmod_takes_away():
    x, y = leaf(np.array([1.0, 1.0, -1.0, 0.9])), leaf(np.array([0.1, 0.3, 0.1, 0.3]))
    taken = np.round((x.data - np.fmod(x.data, y.data)) / y.data)
    np.testing.assert_array_equal(taken, [9, 3, -9, 3])
    np.testing.assert_array_equal(grad(np.fmod(x, y), y, np.ones(4)).data, -taken)


def test_medians_beside_infinities():
    for values in ([1.0, np.inf, np.inf], [np.inf, 1.0, 2.0, np.inf], [-np.inf, 1.0, np.inf]):
        assert np.median(leaf(np.array(values))).item() == np.median(values)
    assert np.median(leaf(np.full(2, 6e4, np.float16))).item() == np.float16(6e4)


def test_a_spread_of_nothing():
    x = leaf(np.array([2.0, np.nan, 2.0]))
    np.testing.assert_array_equal(grad(np.nanstd(x), x).data, 0)
    assert np.isnan(np.nanvar(x, ddof=2).item()) and np.isnan(np.nanstd(x, ddof=3).item())
