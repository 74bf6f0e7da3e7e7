"""NumPy's own functions and arrays meeting a Tensor.

They are recorded, or plain by nature, or refused by name.
"""

import numpy as np
import pytest

import tape
from tape import Tensor
from tape.gradcheck import gradcheck
from tests.checks import SubArray, leaf

X = np.array([[0.5, 1.5, 0.75], [1.25, 0.25, 2.0]])

RECORDED = {
    "add": lambda t: np.add(t, 1), "subtract": lambda t: np.subtract(1, t),
    "multiply": lambda t: np.multiply(X, t), "divide": lambda t: np.divide(1, t),
    "true_divide": lambda t: np.true_divide(t, 3), "negative": lambda t: np.negative(t),
    "power": lambda t: np.power(t, 3), "power, array": lambda t: np.power(t, X),
    "power, base": lambda t: np.power(2.0, t), "float_power": lambda t: np.float_power(t, 2.5),
    "square": np.square, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "log1p": np.log1p,
    "expm1": np.expm1, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "abs": np.abs,
    "absolute": np.absolute, "maximum": lambda t: np.maximum(t, 1),
    "minimum": lambda t: np.minimum(1, t),
    "clip": lambda t: np.clip(t, 0.6, 1.4), "where": lambda t: np.where(X > 1, t, 0),
    "sum": np.sum, "sum, axis": lambda t: np.sum(t, axis=0, keepdims=True), "mean": np.mean,
    "mean, axis": lambda t: np.mean(t, 1), "var": lambda t: np.var(t, axis=1, ddof=1),
    "std": lambda t: np.std(t, axis=1), "max": np.max,
    "max, axis": lambda t: np.max(t, axis=0), "min": lambda t: np.min(t, axis=1),
    "add.reduce": np.add.reduce, "add.reduce, axis": lambda t: np.add.reduce(t, axis=1),
    "add.reduce, all": lambda t: np.add.reduce(t, axis=None),
    "maximum.reduce": np.maximum.reduce, "minimum.reduce": lambda t: np.minimum.reduce(t, axis=-1),
    "matmul": lambda t: np.matmul(t, X.T), "matmul, right": lambda t: np.matmul(X.T, t),
    "dot": lambda t: np.dot(t, X[0]), "norm": lambda t: np.linalg.norm(t, axis=1),
    "reshape": lambda t: np.reshape(t, (3, 2)), "transpose": np.transpose,
    "transpose, axes": lambda t: np.transpose(t, (1, 0)),
    "swapaxes": lambda t: np.swapaxes(t, 0, 1), "moveaxis": lambda t: np.moveaxis(t, 0, 1),
    "broadcast_to": lambda t: np.broadcast_to(t, (2, 2, 3)),
    "expand_dims": lambda t: np.expand_dims(t, 1), "squeeze": lambda t: np.squeeze(t[None]),
    "concatenate": lambda t: np.concatenate([t, X, t], axis=1), "stack": lambda t: np.stack([X, t]),
    "split": lambda t: np.split(t, [1], axis=1), "pad": lambda t: np.pad(t, 1),
    "pad, mode": lambda t: np.pad(t, ((0, 1), (1, 0)), "constant", constant_values=2.0),
}


@pytest.mark.parametrize("name", RECORDED)
def test_numpys_functions_are_recorded(name):
    function = RECORDED[name]
    result, plain = function(leaf(X)), function(X)
    results = result if isinstance(result, list) else [result]
    for r, p in zip(results, plain if isinstance(plain, list) else [plain], strict=True):
        assert isinstance(r, Tensor) and r.requires_grad
        np.testing.assert_allclose(r.data, p, rtol=1e-14)
        assert r.shape == np.shape(p)
    assert gradcheck(function, [X], order=2)


PLAIN = {
    "shape": np.shape, "ndim": np.ndim, "size": np.size, "argmax": lambda t: np.argmax(t, axis=1),
    "argsort": np.argsort, "nonzero": lambda t: np.nonzero(t)[0], "any": np.any, "all": np.all,
    "isnan": np.isnan, "isfinite": np.isfinite, "searchsorted": lambda t: np.searchsorted(X[0, :2], t),
    "greater": lambda t: np.greater(t, 1), "equal": lambda t: np.equal(X, t),
    "logical_and": lambda t: np.logical_and(t > 1, t),
    "where, one argument": lambda t: np.where(t)[0],
    "zeros_like": np.zeros_like, "ones_like": np.ones_like, "allclose": lambda t: np.allclose(t, X),
    "isclose": lambda t: np.isclose(X, t), "array_equal": lambda t: np.array_equal(t, X),
    "full_like": lambda t: np.full_like(t, 2),
    "result_type": lambda t: np.result_type(t, np.float32),
}


@pytest.mark.parametrize("name", PLAIN)
def test_functions_without_a_derivative_by_nature_give_plain_values(name):
    result = PLAIN[name](leaf(X))
    assert not isinstance(result, Tensor)
    np.testing.assert_array_equal(result, PLAIN[name](X))


@pytest.mark.parametrize("call, message", [
    (lambda t: np.i0(t), r"numpy.i0 has no .*Bessel function I1.*t.numpy\(\).*implements\(np.i0\)"),
    (lambda t: np.modf(t), "numpy.modf .*np.trunc"), (lambda t: np.divmod(t, 2), "np.remainder"),
    (lambda t: divmod(t, 2), "unsupported operand"),
    (lambda t: np.fft.fft(t), "numpy.fft.fft .*cosines"), (lambda t: np.unique(t), "numpy.unique"),
    (lambda t: np.copyto(t, 0), r"not changed in place.*np.where\(mask"),
    (lambda t: np.multiply.at(t, 0, 0), "multiply.at: not recorded"),
    (lambda t: np.divide.accumulate(t), "divide.accumulate: not recorded"),
    (lambda t: np.insert(t, 0, 1), "numpy.insert .*np.concatenate")])
def test_unsupported_functions_are_refused_by_name(call, message):
    with pytest.raises(TypeError, match=message):
        call(leaf(X))


@pytest.mark.parametrize("call, message", [
    (lambda t: np.exp(t, where=X > 1), "exp: .*got where"),
    (lambda t: np.sum(t, out=np.zeros(())), "sum: .*leave out= out"),
    (lambda t: np.nansum(t, out=np.zeros(())), "nansum: .*leave out= out"),
    (lambda t: np.var(t, where=X > 1), "var: where= and mean= have no rule"),
    (lambda t: np.cov(t, aweights=[1, 2, 3]), "cov: .*weighted sum"),
    (lambda t: np.quantile(t, 0.5, method="nearest"), "'linear'.*got method='nearest'"),
    (lambda t: np.quantile(t, 0.5, axis=(0, 1)), "merge several axes by reshape"),
    (lambda t: np.quantile(X, t[0] / 9), r"quantile: q must be a number .*pass q.detach\(\)"),
    (lambda t: np.percentile(X, t[0]), r"quantile: q must be a number .*pass q.detach\(\)"),
    (lambda t: np.interp(1.0, X[0], t[0], period=2), "period= has no rule.*x % period"),
    (lambda t: np.nan_to_num(t, copy=False), "leave copy=False out"),
    (lambda t: np.take(t, 0, mode="clip"), r"take: .*np.clip\(indices"),
    (lambda t: np.ravel(t, order="B"), r"ravel: order must be 'C' .* or 'F' .*, got 'B'"),
    (lambda t: np.linspace(t, 1, 3, retstep=True), "retstep"),
    (lambda t: np.full_like(t, t[0], dtype=float), "full_like: .*broadcast_to"),
    (lambda t: np.choose(t, [1, 2, 3]), "choose: the first argument must be integers")])
def test_numpy_arguments_that_are_not_supported_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call(leaf(X))


# --- arrays on the left ---


@pytest.mark.parametrize("left", [np.array([1.0, 2.0, 3.0]), np.array([1, 2, 3]), np.float64(2),
                                  np.array(2.0), np.int64(2), [1.0, 2.0, 3.0]],
                         ids=["array", "int array", "float64", "0-d", "int64", "list"])
def test_whatever_stands_on_the_left_the_result_is_a_tensor(left):
    t = leaf(X)
    c = np.asarray(left, float)
    for result, expected in ((left + t, c + X), (left - t, c - X), (left * t, c * X),
                             (left / t, c / X), (left ** t, c ** X)):
        assert type(result) is Tensor and result.requires_grad
        np.testing.assert_allclose(result.data, expected)


@pytest.mark.parametrize("left", [np.array([1.0, 2.0, 3.0]), np.array([1, 2, 3]), [1.0, 2.0, 3.0]],
                         ids=["array", "int array", "list"])
def test_a_row_on_the_left_of_a_matrix(left):
    product = left @ leaf(X).T
    assert type(product) is Tensor and product.requires_grad
    np.testing.assert_allclose(product.data, [5.75, 7.75])


def test_a_tensor_never_becomes_an_array_of_objects():
    for left in (np.array([1, 2, 3]), np.float32(2), X.view(SubArray)):
        result = left * leaf(X)
        assert type(result) is Tensor
        assert result.dtype == np.float64


def test_writing_a_result_into_an_array_is_refused():
    t, array = leaf(X), np.zeros((2, 3))
    with pytest.raises(TypeError, match=r"add: .*cannot be written into an array.*x = x \+ t"):
        array += t
    with pytest.raises(TypeError, match="exp: .*cannot be written"):
        np.exp(t, out=array)
    with pytest.raises(TypeError, match="gradient"):
        array[0] = t[0]
    np.testing.assert_array_equal(array, np.zeros((2, 3)))


def test_what_to_write_instead_of_filling_an_array():
    """The rewrites that the errors name, each of them done."""
    t, array = leaf(X[0]), np.zeros(4)
    for fill in (lambda: array.__setitem__(0, t[0]), lambda: np.float64(t[0])):
        with pytest.raises((TypeError, ValueError)) as caught:
            fill()
        assert "tape.stack(list)" in str(caught.value.__cause__ or caught.value)
    with pytest.raises(TypeError, match=r"tape.concatenate\(\[x\[:i\], x\[i:\] \+ t\]\)"):
        array[1:] += t
    np.testing.assert_array_equal(tape.concatenate([array[:1], array[1:] + t]).data, [0, *X[0]])
    with pytest.raises(TypeError, match=r"tape.stack\(\[\[t, u\], \[v, w\]\]\)"):
        np.array([[t[0], t[1]], [0.0, 1.0]])


@pytest.mark.parametrize("ravel", [
    lambda t: np.ravel(t, "F"), lambda t: t.ravel("F"), lambda t: t.flatten(order="F")])
def test_elements_column_by_column(ravel):
    t, weights = leaf(X), np.arange(6.0)
    np.testing.assert_array_equal(ravel(t).data, ravel(X))
    (ravel(t) * weights).sum().backward()
    np.testing.assert_array_equal(t.grad, weights.reshape(X.shape, order="F"))


def test_in_place_operators_on_a_result_make_a_new_tensor():
    x = leaf(X)
    t = before = x * 1
    t += 1
    t *= np.array([1.0, 2.0, 3.0])
    assert t is not before
    np.testing.assert_array_equal(before.data, X)
    t.sum().backward()
    np.testing.assert_array_equal(x.grad, [[1, 2, 3], [1, 2, 3]])


# --- plain arrays from tensors ---


@pytest.mark.parametrize("convert", [np.asarray, np.array, np.ascontiguousarray,
                                     lambda t: np.array([t, t]),
                                     lambda t: np.asarray(t, np.float32)])
def test_a_graph_tensor_does_not_become_an_array_by_accident(convert):
    for t in (leaf(X), leaf(X) * 2, leaf(1.0)):
        with pytest.raises(TypeError, match=r"t.numpy\(\).*tape.stack"):
            convert(t)


def test_a_tensor_outside_of_any_graph_does():
    t = Tensor(X)
    np.testing.assert_array_equal(np.asarray(t), X)
    assert np.asarray(t, np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(t), t.data)
    np.testing.assert_array_equal(np.array([t, t]), [X, X])
    assert np.asarray(Tensor(2.0)).shape == ()
    assert np.array([Tensor(1.0), Tensor(2.0)]).tolist() == [1, 2]


def test_an_array_of_many_tensors_ends():
    # Without __array__ NumPy would take each element of each tensor for a sequence of its own.
    many = [Tensor(np.zeros((50, 50))) for _ in range(200)]
    assert np.array(many).shape == (200, 50, 50)
    with pytest.raises(TypeError, match="tape.stack"):
        np.array([leaf(np.zeros((50, 50))) for _ in range(200)])


def test_numpys_assertions_work_on_tensors_without_a_graph():
    np.testing.assert_allclose(Tensor(X), X)
    np.testing.assert_array_equal(Tensor(X), Tensor(X))
