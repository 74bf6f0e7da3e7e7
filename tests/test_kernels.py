"""The two sets of kernels: which is in use, and that both compute the same.

With `kernel_set` a test runs with each; test_operators.py has the comparison with the composed
definitions and the derivatives against differences.
"""

import importlib.util
import inspect
import os
import platform
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from tape import Tensor, kernels
from tape.blas import shipped_functions
from tape.kernels import choice
from tests.checks import leaf, run_python

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None,
                                 reason="numba is not installed; pip install -e '.[fast]'")


@pytest.fixture
def compiled():
    pytest.importorskip("numba", reason="numba is not installed; pip install -e '.[fast]'")
    from tape.kernels import numba
    return numba


# --- which set is in use ---


def test_every_kernel_has_a_name_in_the_list():
    of_operators = {name for operator in choice.followers
                    for name in (operator.kernel, operator.kernel + "_backward")}
    assert of_operators | {"softmax"} <= {*choice.KERNELS} <= {*kernels.__all__}


def test_kernels_take_arguments_in_the_order_of_their_operators(kernel_set):
    for operator in choice.followers:
        names = [*inspect.signature(operator.forward).parameters]
        assert names == [*operator.inputs, *operator.defaults] and operator.arity == len(names)


def test_names_of_the_compiled_set_are_those_of_numpys(compiled):
    assert {*compiled.__all__} <= {*choice.KERNELS}


@needs_numba
def test_use_kernels_returns_what_was_in_use_and_goes_back_to_it():
    outer, _ = choice.in_use()
    with tape.use_kernels("numba") as before:
        assert before == outer and choice.find("gelu").__module__.startswith("tape.kernels.numba.")
        assert tape.use_kernels("numpy") == "numba"
        assert tape.gelu.forward is kernels.gelu
    assert choice.in_use()[0] == outer


def test_a_set_that_does_not_exist_or_is_not_installed(monkeypatch):
    with pytest.raises(ValueError, match=r"must be one of \['numpy', 'numba'\], got 'cuda'"):
        tape.use_kernels("cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="Numba is not installed: pip install"):
        tape.use_kernels("numba")


def _run(code, **environment):
    return run_python("-c", code, env={**os.environ, **environment})


def test_the_environment_decides():
    code = "import tape.kernels.choice as c; print(*c.in_use())"
    assert _run(code, TAPE_KERNELS="numpy").stdout == "numpy TAPE_KERNELS in the environment\n"
    assert "must be one of ['numpy', 'numba'], got 'fast'" in _run(code, TAPE_KERNELS="fast").stderr
    name = "numba" if importlib.util.find_spec("numba") else "numpy"
    assert _run(code, TAPE_KERNELS="").stdout.startswith(f"{name} Numba is ")


def test_numba_that_is_not_installed_is_asked_for_or_not():
    hidden = ("import importlib.util as u; found = u.find_spec; "
              "u.find_spec = lambda name, *a: None if name == 'numba' else found(name, *a); "
              "import tape.kernels.choice as c; print(*c.in_use())")
    assert _run(hidden, TAPE_KERNELS="").stdout == "numpy Numba is not installed\n"
    assert "Numba is not installed: pip install" in _run(hidden, TAPE_KERNELS="numba").stderr


@needs_numba
def test_numba_that_cannot_be_imported_is_left_out_unless_it_was_asked_for():
    code = ("import sys; sys.modules['numba'] = None; import tape, tape.kernels.choice as c; "
            "print(tape.gelu(0.0), *c.in_use())")
    without = ("import importlib.util as u; found = u.find_spec; "
               "u.find_spec = lambda name, *a: True if name == 'numba' else found(name, *a); ")
    done = _run(without + code, TAPE_KERNELS="")
    assert done.stdout == "0.0 numpy importing Numba fails\n"
    assert "the kernels in use are NumPy's" in done.stderr
    asked = _run(without + code, TAPE_KERNELS="numba")
    assert asked.returncode and "import of numba halted" in asked.stderr


@needs_numba
def test_importing_tape_imports_no_numba_and_compiling_says_so_once(tmp_path):
    code = ("import sys, tape; print('numba' in sys.modules); "
            "x = tape.Tensor([[1.0, 2.0]], requires_grad=True); "
            "tape.gelu(tape.layer_norm(x)).sum().backward(); print('numba' in sys.modules)")
    cache = {"TAPE_KERNELS": "numba", "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = _run(code, **cache), _run(code, **cache)
    assert first.stdout == second.stdout == "False\nTrue\n"
    assert first.stderr.count("\n") == 1 and "compiling kernels, once" in first.stderr
    assert not second.stderr
    report = run_python("-m", "tape.kernels", env={**os.environ, **cache}).stdout
    assert "in use: numba (TAPE_KERNELS in the environment)" in report
    assert f"compiled code is kept in {tmp_path}" in report
    assert "gelu                       numba    compiled\n" in report
    assert "softmax                    numba    is compiled at its first use\n" in report


@needs_numba
def test_without_a_folder_for_a_cache_kernels_are_compiled_for_the_run():
    code = """
import numpy as np
from numba.core import caching
for kind in vars(caching).values():             # as where no folder can be written to
    if hasattr(kind, "_locator_classes"):
        kind._locator_classes = []
import tape
from tape.kernels.__main__ import report
print(tape.gelu(np.zeros(2, np.float32)))
print(report())
"""
    out = _run(code, TAPE_KERNELS="numba").stdout
    assert out.startswith("[0. 0.]\n")
    assert "gelu                       numba    is compiled at its first use" in out
    assert "compiled code is kept for this run alone: no folder for it is writable" in out


def test_the_report_of_numpys_kernels():
    report = run_python("-m", "tape.kernels", env={**os.environ, "TAPE_KERNELS": "numpy"}).stdout
    assert report.startswith(
        "in use: numpy (TAPE_KERNELS in the environment)\nNumPy's matrix products: ")
    assert report.count(" numpy\n") == len(choice.KERNELS)


@pytest.mark.skipif(shipped_functions() is None or platform.machine() != "x86_64",
                    reason="needs NumPy's own OpenBLAS, and Intel's instructions")
def test_the_report_says_that_the_environment_chose_the_products():
    def reported(**settings):
        env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        return run_python("-m", "tape.kernels", env={**env, **settings}).stdout
    assert re.search(r"products: OpenBLAS \S+ for Nehalem, with OPENBLAS_CORETYPE=Nehalem in",
                     reported(OPENBLAS_CORETYPE="Nehalem"))
    for settings in {}, {"OPENBLAS_CORETYPE": ""}:
        assert re.search(r"products: OpenBLAS \S+ for \w+\n", reported(**settings))


# --- switching ---


def _composition(x, weight):
    return tape.cross_entropy(tape.gelu(tape.layer_norm(x, weight)), np.array([1, -1, 0]))


@needs_numba
@pytest.mark.parametrize("first, second", [("numpy", "numba"), ("numba", "numpy")])
def test_a_record_goes_back_by_the_kernels_that_it_was_made_with(first, second):
    arrays = np.random.default_rng(0).standard_normal((3, 4)), np.linspace(0.5, 2, 4)
    gradients = []
    for now, later in ((first, first), (first, second)):
        tensors = [leaf(a) for a in arrays]
        with tape.use_kernels(now):
            loss = _composition(*tensors)
        with tape.use_kernels(later):
            assert "gelu" in tape.show(loss)
            loss.backward()
        gradients.append([t.grad for t in tensors])
    for a, b in zip(*gradients):
        np.testing.assert_array_equal(a, b)


@needs_numba
@pytest.mark.parametrize("first, second", [("numpy", "numba"), ("numba", "numpy")])
def test_an_evaluator_keeps_the_kernels_that_it_was_planned_with(first, second):
    x = ad.Variable("x")
    y = tape.gelu(x)
    slope, = ad.gradients(y, [x])
    values = {x: np.linspace(-3, 3, 7)}
    with tape.use_kernels(first):
        evaluator = ad.Evaluator([y, slope])
        before = evaluator.run(values)
    with tape.use_kernels(second):
        after, anew = evaluator.run(values), ad.Evaluator([y, slope]).run(values)
    for a, b, c in zip(before, after, anew):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-13)


def test_threads_may_use_an_operator_for_the_first_time_at_once(kernel_set):
    x = leaf(np.random.default_rng(0).standard_normal((2, 4, 4)))
    threads, before = 6, sys.getswitchinterval()

    def first_uses(_):
        together.wait()
        loss = tape.causal_attention(tape.layer_norm(x), x, tape.softmax(x)).sum()
        return tape.grad(loss, x).data

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(100):
                tape.use_kernels(kernel_set)           # operators are set up when they are next used
                together = threading.Barrier(threads)
                first, *others = pool.map(first_uses, range(threads))
                for other in others:
                    np.testing.assert_array_equal(other, first)
    finally:
        sys.setswitchinterval(before)


def test_two_runs_have_the_same_gradients_to_the_last_bit(kernel_set):
    idx = np.arange(17)[None] % 11
    config = nn.GPTConfig(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=32)
    runs = []
    for _ in range(2):
        model = nn.GPT(config, rng=0)
        model(idx[:, :-1], targets=idx[:, 1:])[1].backward()
        runs.append([p.grad for p in model.parameters()])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_side_by_side_have_the_gradients_of_one(kernel_set):
    x, weight = np.random.default_rng(0).standard_normal((2, 3, 64), np.float32)
    found = {}

    def run(name):
        tensors = [leaf(x, np.float32), leaf(weight[0], np.float32)]
        for _ in range(50):
            _composition(*tensors).backward()
        found[name] = [t.grad for t in tensors]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run("alone")
    for i in range(3):
        for a, b in zip(found[i], found["alone"], strict=True):
            np.testing.assert_array_equal(a, b)


# --- the same of both sets, whatever the arrays are like ---


def _layouts(x):
    """The same numbers in other memory: strided, transposed, read-only, reversed, at odd addresses."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    odd = np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
    return [wide[..., ::2], np.asfortranarray(x), read_only, x[::-1].copy()[::-1], odd]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_layout_gives_the_same(kernel_set, dtype):
    x, g = np.random.default_rng(0).standard_normal((2, 6, 5)).astype(dtype)
    targets = np.array([0, 4, -1, 2, 2, 1])
    calls = {
        "gelu": lambda a: tape.gelu(a), "gelu_exact": lambda a: tape.gelu_exact(a),
        "softmax": lambda a: tape.softmax(a),
        "layer_norm": lambda a: tape.layer_norm(a, x[0], x[1]),
        "cross_entropy": lambda a: tape.cross_entropy(a, targets),
        "rms_norm": lambda a: tape.rms_norm(a, x[0]),
        "swiglu": lambda a: tape.swiglu(a, 2 * a),
    }
    for name, call in calls.items():
        def both_ways(array, cotangent):
            t = Tensor(array, requires_grad=True)
            out = call(t)
            out.backward(cotangent if out.ndim else None)
            return out.data, t.grad
        out, slope = both_ways(x, g)
        assert out.dtype == slope.dtype == dtype
        for array, cotangent in zip(_layouts(x), _layouts(g)):
            again, slope_again = both_ways(array, cotangent)
            near = {"rtol": 20 * np.finfo(dtype).eps, "atol": 4 * np.finfo(dtype).eps}
            np.testing.assert_allclose(again, out, **near, err_msg=name)
            np.testing.assert_allclose(slope_again, slope, **near, err_msg=name)


HARD = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 1e20, -1e20, 90.0, -90.0,
        -104.0, 88.7, 1.5]


def _both(compiled, name, *arguments):
    with np.errstate(all="ignore"):
        return getattr(kernels, name)(*arguments), getattr(compiled, name)(*arguments)


def test_gelu_of_infinities_nan_and_large_numbers(compiled):
    for dtype in (np.float32, np.float64):
        x = np.array(HARD, dtype)
        (out, residuals), ours = _both(compiled, "gelu", x)
        np.testing.assert_allclose(ours, out, rtol=1e-6)
        for g in (1.0, 0.0, -2.0):
            g = np.full_like(x, g)
            with np.errstate(all="ignore"):
                (slope,), (again,) = (kernels.gelu_backward(g, x, **residuals),
                                      compiled.gelu_backward(g, x))
            number = ~np.isnan(x)
            np.testing.assert_allclose(again[number], slope[number], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "cross_entropy", "layer_norm", "rms_norm"])
def test_rows_of_infinities_and_nan(compiled, name):
    rows = np.array([[1, 2, 3], [-np.inf] * 3, [-np.inf, 0, 1], [np.inf, 0, 1], [np.nan, 1, 2],
                     [-np.nan, 1, 2], [3e38, -3e38, 3e38], [2, 2, 2]], np.float32)
    for row in rows:
        arguments = {"softmax": (row[None],), "layer_norm": (row[None], None, None, 1e-5),
                     "cross_entropy": (row[None], np.array([1]), -1, "mean"),
                     "rms_norm": (row[None], None, 1e-5)}[name]
        plain, ours = _both(compiled, name, *arguments)
        plain, ours = (x[0] if isinstance(x, tuple) else x for x in (plain, ours))
        np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-7, err_msg=str(row))


def test_what_no_loop_serves_is_numpys(compiled):
    x = np.random.default_rng(0).standard_normal((4, 6))
    for odd in (x.astype(np.float16), x[:0], x[:, :0], np.array(2.0), np.float32(2), np.arange(3),
                x.astype(">f4")):
        plain, ours = _both(compiled, "gelu", odd)
        assert np.asarray(ours).dtype == np.asarray(plain[0]).dtype and np.shape(ours) == np.shape(odd)
        np.testing.assert_array_equal(ours, plain[0])
    integers, ones = np.arange(6).reshape(2, 3), np.ones((2, 3))
    for name, given in (("gelu", ()), ("softmax", ()), ("gelu_backward", (ones,))):
        np.testing.assert_array_equal(
            getattr(compiled, name)(*given, integers), getattr(compiled, name)(*given, integers * 1.0))
    np.testing.assert_array_equal(compiled.softmax(x, axis=0), kernels.softmax(x, axis=0))
    wide = compiled.layer_norm(x.astype(np.float32), np.ones(6), None, 1e-5)[0]
    assert wide.dtype == np.float64


@pytest.mark.parametrize("shape", [(20_000, 3), (2, 20_000)])
def test_sums_of_many_and_of_long_rows_keep_their_digits(kernel_set, shape):
    rng = np.random.default_rng(0)
    x, g = (rng.random(shape) + 0.1 for _ in range(2))
    weight = rng.random(shape[-1]) + 0.5

    def gradients(dtype):
        tensors = [leaf(a, dtype) for a in (x, weight)]
        tape.layer_norm(tensors[0], tensors[1], eps=0.1).backward(g.astype(dtype))
        loss = tape.cross_entropy(tensors[0], np.zeros(shape[0], int))
        return loss.data, *(t.grad for t in tensors)
    for single, double in zip(gradients(np.float32), gradients(np.float64)):
        np.testing.assert_allclose(single, double, rtol=2e-5, atol=2e-6 * np.abs(double).max())


# --- the exponential ---


@pytest.fixture
def in_a_loop(compiled):
    """A call of a function that stands for compiled code, on all elements of an array."""
    numba = pytest.importorskip("numba")

    def looped(function):
        def fill(x, out):
            for i in range(x.size):
                out[i] = function(x[i])
        loop = numba.njit(error_model="numpy", fastmath={"contract", "reassoc", "arcp", "nsz"})(fill)

        def call(x):
            out = np.empty_like(x)
            loop(x, out)
            return out
        return call
    return looped


@pytest.fixture
def exponential(in_a_loop):
    from tape.kernels.numba.exponential import exp
    return in_a_loop(exp)


def largest_error(exponential, x, wide):
    """In units in the last place, where the result is finite; elsewhere it must be the right one."""
    out = exponential(x)
    with np.errstate(all="ignore"):
        exact = np.exp(x.astype(wide))
        rounded = exact.astype(x.dtype)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(x))
    np.testing.assert_array_equal(np.isposinf(out), np.isposinf(rounded))
    finite = np.isfinite(rounded)
    return (np.abs(out[finite] - exact[finite]) / np.spacing(rounded[finite])).max()


def test_the_float32_exponential_over_the_whole_range(exponential):
    """Every 997th of all float32 numbers, among them infinities, NaN and denormal numbers."""
    x = np.arange(0, 2 ** 32, 997, np.uint64).astype(np.uint32).view(np.float32)
    between = np.linspace(-105, 89, 100_001, dtype=np.float32)
    x = np.concatenate([x, np.array(HARD, np.float32), between])
    assert 0.5 < largest_error(exponential, x, np.float64) < 1.1


def test_the_float64_exponential_over_the_whole_range(exponential):
    step = np.uint64(2 ** 44 + 997)                           # a million of all float64 numbers
    x = (np.arange(2 ** 20, dtype=np.uint64) * step).view(np.float64)
    x = np.concatenate([x, np.array(HARD), np.linspace(-746, 710, 100_001), np.linspace(-1, 1, 10_001)])
    assert 0.5 < largest_error(exponential, x, np.longdouble) < 1.1 + (
        np.finfo(np.longdouble).nmant == 52)


def test_the_hyperbolic_tangent_over_the_whole_range(in_a_loop):
    """Every 997th of all float32 numbers, and many up to 10; of float64 it is the system's."""
    from tape.kernels.numba.exponential import tanh
    x = np.arange(0, 2 ** 32, 997, np.uint64).astype(np.uint32).view(np.float32)
    between = np.linspace(-10, 10, 1_000_001, dtype=np.float32)
    x = np.concatenate([x, np.array(HARD, np.float32), between])
    out = in_a_loop(tanh)(x)
    with np.errstate(invalid="ignore"):
        exact = np.tanh(x.astype(np.float64))
    np.testing.assert_array_equal(np.isnan(out), np.isnan(x))
    known = ~np.isnan(x)
    np.testing.assert_array_equal(np.signbit(out[known]), np.signbit(x[known]))
    error = np.abs(out - exact)[known] / np.spacing(np.abs(exact[known]).astype(np.float32))
    assert 0.5 < error.max() < 3
    wide = x[known].astype(np.float64)
    np.testing.assert_allclose(in_a_loop(tanh)(wide), np.tanh(wide), rtol=1e-15)


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_of_a_compiled_softmax_do_not_depend_on_where_its_result_lies(dtype):
    from tape.kernels.numba.softmax_rows import _softmax
    from tape.kernels.numba.threads import NOBODY
    rng, memory = np.random.default_rng(0), np.empty(50_000, dtype)
    for width in range(2, 40):
        x = memory[:2 * width].reshape(2, width)
        x[...] = 2 * rng.standard_normal((2, width))
        behind, far = (memory[at:at + 2 * width].reshape(2, width) for at in (2 * width, 40_000))
        for out in (behind, far):
            _softmax[np.dtype(dtype)](x, out, NOBODY, 1)
        np.testing.assert_array_equal(behind, far)


@pytest.mark.parametrize("lay", [lambda x: x, lambda x: x.swapaxes(1, 2).copy().swapaxes(1, 2),
                                 lambda x: x.swapaxes(0, 1).copy().swapaxes(0, 1),
                                 lambda x: np.broadcast_to(x[:1], x.shape)])
def test_rows_of_batches_in_any_memory_by_a_matrix(kernel_set, lay):
    rng = np.random.default_rng(0)
    x, y, g = (rng.standard_normal(shape).astype(np.float32)
               for shape in ((4, 64, 96), (96, 65), (4, 64, 65)))
    x = lay(x)
    assert x.size * y.shape[1] >= kernels.products.FEW
    tensors = [Tensor(a, requires_grad=True) for a in (x, y)]
    out = tensors[0].swapaxes(0, 1).swapaxes(0, 1) @ tensors[1]
    out.backward(g)
    x, y, g = (a.astype(np.float64) for a in (x, y, g))
    found = kernels.matmul(lay(x), y)
    np.testing.assert_allclose(found, np.einsum("bik,kj->bij", x, y), rtol=1e-12, atol=1e-12)
    for a, b in ((out.data, found), (tensors[0].grad, np.einsum("bij,kj->bik", g, y)),
                 (tensors[1].grad, np.einsum("bik,bij->kj", x, g))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
