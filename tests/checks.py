"""What the tests share; above all `check_op`, everything that must hold of any operator.

`check_op` is for one line of the catalogue. The properties are the house rules of the engine: right
derivatives of first and second order, dtype kept, nothing mutated, no aliasing, no memory held,
exact zeros for a zero cotangent, and the same numbers by every route. Tests call `check_op(case)`;
each property is a function of its own so that a failure's traceback names it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import struct
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import nn
from tape import Tensor, grad, no_grad, primitive
from tape.gradcheck.cases import Case
from tape.gradcheck import gradcheck

ROOT = Path(__file__).resolve().parents[1]

# Operators whose purpose is to change the dtype of the result.
CASTS = {"astype", "astype_like", "added_mask", "rounded_like", "sum_to_like"}


def check_op(case: Case) -> None:
    """Check all properties of one operator at one set of inputs."""
    derivatives_match_differences(case)
    float32_is_kept(case)
    nothing_is_mutated(case)
    gradients_own_their_memory(case)
    tape_is_released(case)
    second_order_tape_is_released(case)
    zero_cotangent_gives_zero(case)
    forward_is_the_same_unrecorded(case)
    routes_agree(case)


def _leaves(case: Case, dtype=np.float64) -> list[Tensor]:
    return [Tensor(array, requires_grad=True) for array in case.inputs(dtype)]


def _outputs(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _cotangents(outputs: list) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.uniform(0.5, 1.5, out.shape).astype(out.dtype) for out in outputs]


def _pull(outputs: list, cotangents: list, retain_graph: bool = False) -> None:
    for out, cotangent in zip(outputs, cotangents):
        out.backward(cotangent, retain_graph=retain_graph)


def derivatives_match_differences(case: Case) -> None:
    """First and second order, in float64, to one part in a million."""
    assert gradcheck(case.function, case.inputs(), order=2, tolerance=1e-6)


def float32_is_kept(case: Case) -> None:
    """float32 in, float32 out, float32 gradients."""
    leaves = _leaves(case, np.float32)
    outputs = _outputs(case.function(*leaves))
    if case.operator not in CASTS:
        assert {out.dtype for out in outputs} == {np.dtype(np.float32)}
    _pull(outputs, _cotangents(outputs))
    for x in leaves:
        assert x.grad.dtype == np.float32
        assert x.grad.shape == x.shape
        assert type(x.grad) is np.ndarray


def nothing_is_mutated(case: Case) -> None:
    """Neither forward nor backward writes to the inputs, the cotangent or the result."""
    leaves = _leaves(case)
    outputs = _outputs(case.function(*leaves))
    cotangents = _cotangents(outputs)
    watched = [x.data for x in leaves] + cotangents + [out.data for out in outputs]
    before = [array.copy() for array in watched]
    _pull(outputs, cotangents)
    for array, copy in zip(watched, before):
        np.testing.assert_array_equal(array, copy)
    for x, array in zip(leaves, case.inputs()):
        np.testing.assert_array_equal(x.data, array)


def gradients_own_their_memory(case: Case) -> None:
    """No leaf's gradient shares memory with another's, an input, the cotangent or the result."""
    leaves = _leaves(case)
    outputs = _outputs(case.function(*leaves))
    cotangents = _cotangents(outputs)
    _pull(outputs, cotangents)
    others = [x.data for x in leaves] + cotangents + [out.data for out in outputs]
    for i, x in enumerate(leaves):
        assert x.grad.flags.writeable
        for other in others + [y.grad for y in leaves[:i]]:
            assert not np.shares_memory(x.grad, other)


def tape_is_released(case: Case) -> None:
    """A second backward is refused, and reference counting alone frees the records."""
    with reference_counting_alone():
        leaves = _leaves(case)
        outputs = _outputs(case.function(*leaves))
        records = [weakref.ref(out._record) for out in outputs]
        cotangents = _cotangents(outputs)
        _pull(outputs, cotangents)
        for out, cotangent in zip(outputs, cotangents):
            with pytest.raises(RuntimeError, match="detach"):
                out.backward(cotangent)
        del outputs, out
        assert [record() for record in records] == [None] * len(records)


def second_order_tape_is_released(case: Case) -> None:
    """The tape of a differentiable gradient is freed by reference counting too."""
    with reference_counting_alone():
        leaves = _leaves(case)
        outputs = _outputs(case.function(*leaves))
        pulled = grad(outputs, leaves, _cotangents(outputs), create_graph=True)
        tensors = [*outputs, *pulled]
        records = [weakref.ref(t._record) for t in tensors if t._record is not None]
        del outputs, pulled, tensors
        assert records
        assert [record() for record in records] == [None] * len(records)


def zero_cotangent_gives_zero(case: Case) -> None:
    """Exactly zero, and no NaN."""
    leaves = _leaves(case)
    outputs = _outputs(case.function(*leaves))
    _pull(outputs, [np.zeros(out.shape) for out in outputs])
    for x in leaves:
        np.testing.assert_array_equal(x.grad, np.zeros(x.shape))


def forward_is_the_same_unrecorded(case: Case) -> None:
    """Recorded, under no_grad and on plain arrays: the same numbers."""
    recorded = _outputs(case.function(*_leaves(case)))
    with no_grad():
        silent = _outputs(case.function(*_leaves(case)))
    plain = _outputs(case.function(*case.inputs()))
    for r, s, p in zip(recorded, silent, plain, strict=True):
        assert r.requires_grad and not s.requires_grad
        assert isinstance(p, (np.ndarray, np.generic))
        np.testing.assert_array_equal(r.data, s.data)
        np.testing.assert_array_equal(r.data, p)
        assert r.shape == s.shape == p.shape


def routes_agree(case: Case) -> None:
    """backward(), grad() and grad(create_graph=True) give the same gradients."""
    leaves = _leaves(case)
    outputs = _outputs(case.function(*leaves))
    cotangents = _cotangents(outputs)
    first = grad(outputs, leaves, cotangents, retain_graph=True)
    recorded = grad(outputs, leaves, cotangents, create_graph=True)
    assert all(x.grad is None for x in leaves)
    _pull(outputs, cotangents, retain_graph=True)
    for x, a, b in zip(leaves, first, recorded):
        np.testing.assert_allclose(a.data, x.grad, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(b.data, x.grad, rtol=1e-9, atol=1e-12)
        assert a.dtype == b.dtype == x.dtype
        assert a.shape == b.shape == x.shape


def fused_agrees_with_composed(case: Case) -> None:
    """A fused operator's kernels against its composed definition: value and gradients."""
    leaves = _leaves(case)
    (out,) = _outputs(case.function(*leaves))
    *_, inputs, attributes = out._record.saved
    # The parents tell which of the fused operator's inputs are our leaves; one may be several inputs.
    parents = out._record.parents
    again = {parent: Tensor(value, requires_grad=True) for value, parent in zip(inputs, parents)
             if parent is not None}
    composed = out._record.vjp.operator.composed(
        *(again.get(parent, value) for value, parent in zip(inputs, parents)), **attributes)
    np.testing.assert_allclose(out.data, composed.data, rtol=1e-12, atol=1e-14)
    cotangents = _cotangents([out])
    _pull([out], cotangents)
    _pull([composed], cotangents)
    by_kernel = [parent.grad for parent in leaves]
    by_hand = [again[parent].grad for parent in leaves]
    for a, b in zip(by_kernel, by_hand, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


# --- tensors, arrays and parameters to try things on ---


def leaf(values, dtype=np.float64) -> Tensor:
    """A Tensor that wants a gradient; float64 unless told otherwise."""
    return Tensor(np.array(values, dtype), requires_grad=True)


class SubArray(np.ndarray):
    """As np.memmap and np.matrix are."""


def parameter(value=1.0, grad=0.5, dtype=np.float32) -> nn.Parameter:
    """A parameter of one element that has a gradient."""
    p = nn.Parameter(np.array([value], dtype))
    p.grad = [grad]
    return p


def in_float64(model: nn.Module) -> nn.Module:
    """The model, with parameters in float64."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, nn.Parameter):
                setattr(module, name, nn.Parameter(value.data.astype(np.float64)))
    return model


def replaced_parameters(model: nn.Module):
    """A function that puts other tensors in the places of all parameters, and returns the model."""
    owners = {id(value): (module, name) for module in model.modules()
              for name, value in vars(module).items() if isinstance(value, nn.Parameter)}
    places = [owners[id(parameter)] for parameter in model.parameters()]

    def replace(tensors):
        for (module, name), tensor in zip(places, tensors, strict=True):
            setattr(module, name, tensor)
        return model
    return replace


def idx_bytes(array: np.ndarray) -> bytes:
    """A file of MNIST's format."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


# --- derivatives by other ways ---


def differences(function, arrays: list, i: int, step: float = 1e-6) -> np.ndarray:
    """d(sum of function(*arrays)) / d(arrays[i]) by central differences."""
    slope = np.zeros(arrays[i].shape)
    for place in np.ndindex(arrays[i].shape):
        ends = []
        for sign in (1, -1):
            moved = [array.copy() for array in arrays]
            moved[i][place] += sign * step
            ends.append(np.sum(function(*moved)))
        slope[place] = (ends[0] - ends[1]) / (2 * step)
    return slope


def added_at(shape: tuple, index, g) -> np.ndarray:
    """The gradient of picking elements: zeros, and g added wherever the index picked."""
    total = np.zeros(shape)
    np.add.at(total, index, g)
    return total


# --- what runs, and how often; what is recorded and what is freed ---


class Recorder:
    """Wraps a function and keeps its arguments."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return self.function(*args, **kwargs)


def counted():
    """An operator that multiplies by one, and the list to which its rule adds at every call."""
    calls: list = []

    def rule(g):
        calls.append(g)
        return g * 1.0
    return primitive(lambda x, /: x * 1.0, rule, name="counted"), calls


@contextlib.contextmanager
def reference_counting_alone():
    """Switch the cyclic garbage collector off: what is freed here is freed by reference counts."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def counting_calls():
    """A list whose one number grows with each call of a Python function: work, on any machine alike."""
    calls = [0]

    def count(frame, event, argument):
        calls[0] += event == "call"
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def recording() -> bool:
    """Whether an operation that runs now leaves a record."""
    return (leaf(1.0) * 2).requires_grad


# --- other processes, scripts and libraries ---


def run_python(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Python in a process of its own, in the folder of the project unless told otherwise."""
    options = {"cwd": ROOT, "timeout": 60, **options}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def refused(capsys, main, *arguments: str) -> str:
    """The message with which a script refuses these arguments."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and captured.err.count("\n") == 1
    return captured.err


def peer(name: str):
    """The module of another library, to compare with or to draw with.

    Where it is not installed the test, or the file of tests, is skipped; with REQUIRE_PEERS in the
    environment, as in .ci/run, it fails.
    """
    if os.environ.get("REQUIRE_PEERS"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed; pip install -e '.[peers]'")
