"""NumPy's namespace, walked: each function that takes arrays is an operator here, a constant, or
refused with a hint that a person wrote; so is each method of an array.

Those that take arrays are the ufuncs, and the functions that hand a call over to the arguments that
want it (NEP 18), which carry NumPy's own implementation as an attribute. The others (np.array, np.eye,
np.set_printoptions) make arrays from Python's values, and a Tensor that wants a gradient refuses to
become one; see test_numpy.py.
"""

import numpy as np
import pytest

import tape
from tape import Tensor, foreign_names, numpy_protocol
from tape.numpy_hints import HINTS, METHODS
from tape.primitive import NUMPY_FUNCTIONS
from tests.checks import leaf, peer


def takes_arrays(function):
    return isinstance(function, np.ufunc) or hasattr(function, "_implementation")


FUNCTIONS = {f"{prefix}{name}": getattr(module, name)
             for prefix, module in (("", np), ("linalg.", np.linalg)) for name in dir(module)
             if not name.startswith("_") and takes_arrays(getattr(module, name))}


def hint_of(function):
    return HINTS.get(numpy_protocol.full_name(function).removeprefix("numpy."), "")


def test_the_walk_finds_functions():
    assert {"exp", "sum", "cumsum", "fft", "add", "linalg.inv"} - {*FUNCTIONS} == {"fft"}
    assert len(FUNCTIONS) > 250


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_an_operator_or_a_constant_or_has_a_hint(name):
    function = FUNCTIONS[name]
    # That an operator is in the catalogue, or known to be a constant, is asked in test_operators.py.
    has_rule = function in NUMPY_FUNCTIONS or function in numpy_protocol.CONSTANT
    assert has_rule != bool(hint_of(function))


@pytest.mark.parametrize("name", HINTS)
def test_a_hint_is_for_a_function_that_numpy_has_or_had(name):
    if name != "fft":
        assert name in FUNCTIONS
    assert len(HINTS[name]) > 15 and not HINTS[name].endswith(".")


def test_what_is_called_a_constant_gives_no_tensor():
    for function in (np.argmax, np.any, np.isposinf, np.argsort, np.nonzero):
        out = function(leaf([1.0, 2.0]))
        assert not isinstance(out, Tensor)


def test_fft_is_refused_as_a_whole():
    for name in ("fft", "ifft", "rfft", "fft2", "fftfreq", "fftshift"):
        if takes_arrays(getattr(np.fft, name)):
            with pytest.raises(TypeError, match=f"numpy.fft.{name} .*result is complex"):
                getattr(np.fft, name)(leaf(np.ones((2, 2))))


# --- methods ---


@pytest.mark.parametrize("name", [
    n for n in dir(np.ndarray) if not n.startswith("_") and hasattr(np.ones((1, 1)), n)])
def test_a_method_of_an_array_is_one_of_a_tensor_or_has_a_hint(name):
    assert hasattr(Tensor, name) + (name in METHODS) + (name in foreign_names.TENSOR) == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_hint_is_in_the_error(name):
    t = leaf([1.0])
    assert not hasattr(t, name)
    with pytest.raises(AttributeError, match="a Tensor has no") as error:
        getattr(t, name)
    assert METHODS[name] in str(error.value)


# --- teaching the engine a function ---


@pytest.mark.usefixtures("taught")
def test_a_function_of_numpys_by_a_rule_of_its_own():
    special = peer("scipy.special")
    i0 = tape.primitive(special.i0, lambda g, x: g * i1(x))
    i1 = tape.primitive(special.i1, lambda g, x: g * (i0(x) - i1(x) / x))
    assert tape.implements(np.i0)(i0) is i0
    assert tape.gradcheck(np.i0, [[0.5, -1.5, 2.0]], order=2)


@pytest.mark.usefixtures("taught")
def test_a_function_of_numpys_made_of_operators():
    @tape.implements(np.geomspace, None)
    def geomspace(start, stop, num=50):
        return tape.exp(tape.linspace(tape.log(start), tape.log(stop), num))
    start = leaf(1.0)
    np.testing.assert_allclose(np.geomspace(start, 8.0, 4).data, [1, 2, 4, 8])
    assert tape.gradcheck(lambda a, b: np.geomspace(a, b, 4), [1.0, 8.0], order=2)


@pytest.mark.usefixtures("taught")
def test_a_users_rule_comes_before_a_constant_of_ours():
    floor = tape.primitive(lambda x, /: np.floor(x), lambda g: g, name="straight_through")
    tape.implements(np.floor)(floor)
    argmax = tape.implements(np.argmax)(lambda x, axis=None: tape.sum(tape.softmax(10 * x) * [0., 1.]))
    x = leaf([0.4, 1.6])
    (np.floor(x).sum() + np.argmax(x)).backward()
    assert argmax and x.grad[0] == pytest.approx(1, abs=1e-3)


def test_only_functions_can_be_implemented():
    with pytest.raises(TypeError, match="must be given functions.*got 'i0'"):
        tape.implements("i0")


# SciPy's special functions are ufuncs, which ask a Tensor too. name: rule
RULES = {
    "erf": lambda g, x: g * (2 / np.sqrt(np.pi) * np.exp(-x * x)),
    "erfc": lambda g, x: g * (-2 / np.sqrt(np.pi) * np.exp(-x * x)),
    "expit": lambda g, out: g * (out * (1 - out)),
    "log_ndtr": lambda g, out, x: g * np.exp(-x * x / 2 - out) / np.sqrt(2 * np.pi),
    "exprel": lambda g, out, x: g * ((np.exp(x) - out) / x),
    "logit": lambda g, x: g / (x * (1 - x)),
}


@pytest.mark.usefixtures("taught")
@pytest.mark.parametrize("name", RULES)
def test_a_function_of_scipys_once_it_has_a_rule(name):
    function = getattr(peer("scipy.special"), name)
    with pytest.raises(TypeError, match=rf"{name} has no derivative rule here.*implements\({name}\)"):
        function(leaf([0.5]))
    operator = tape.primitive(function, RULES[name])
    out = function(leaf([0.5, 0.25]))
    assert isinstance(out, Tensor) and out._record.name == operator.name == name
    np.testing.assert_allclose(out.data, function([0.5, 0.25]))
    assert tape.gradcheck(function, [[0.2, 0.7]], order=2)


@pytest.mark.usefixtures("taught")
def test_gammaln_and_digamma():
    special = peer("scipy.special")
    gammaln = tape.primitive(special.gammaln, lambda g, x: g * digamma(x))
    digamma = tape.primitive(special.digamma, lambda g, x: g * trigamma(x))
    trigamma = tape.primitive(lambda x, /: special.polygamma(1, x), None, name="trigamma")
    assert tape.gradcheck(gammaln, [[0.5, 1.5, 4.0]], order=2)
    x = leaf([2.0])
    special.gammaln(x).sum().backward()
    np.testing.assert_allclose(x.grad, special.digamma([2.0]))
