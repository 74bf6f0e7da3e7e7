"""Hollow arrays, and what a computation on them or on others costs."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

import tape
from tape import Tensor, measure
from tape.gradcheck.cases import CASES
from tape.measure import CORE, PRODUCTS
from tape.fusion import Fused
from tests.checks import leaf

RNG = np.random.default_rng(0)


def hollow_leaf(shape, dtype=np.float64):
    return Tensor(tape.hollow(shape, dtype), requires_grad=True)


def outputs(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def figures(cost):
    return cost.flops, cost.backward_flops, cost.bytes_kept


# --- hollow arrays ---


def test_a_hollow_array_takes_no_memory_and_is_kept_by_a_tensor():
    tracemalloc.start()
    t = hollow_leaf((10 ** 5, 10 ** 6))
    t.data = tape.hollow(t.shape, np.float64)
    other = t.detach()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert t.shape == other.shape == (10 ** 5, 10 ** 6) and t.dtype == other.dtype == np.float64
    assert peak < 10 ** 5 and t.data.strides == (0, 0)
    with pytest.raises(ValueError, match="read-only"):
        t.data[0, 0] = 1


def test_outside_of_measure_it_is_an_array_of_zeros():
    t = Tensor(tape.hollow((2, 3)), requires_grad=True)
    out = tape.exp(t)
    assert out.data.tolist() == [[1, 1, 1], [1, 1, 1]] and out.data.strides == (12, 4)
    assert pickle.loads(pickle.dumps(t)).data.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_copies_of_a_hollow_tensor_are_hollow():
    t = hollow_leaf((10 ** 5, 10 ** 6))
    for other in (copy.copy(t), copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert (other.shape, other.dtype, other.requires_grad) == (t.shape, t.dtype, True)
        assert other.data.strides == (0, 0)


def test_a_hollow_leaf_may_be_read_while_a_tape_needs_it():
    x, y = hollow_leaf((2000, 3000)), hollow_leaf((3000, 2000))
    with measure():
        out = x @ y
    assert x.data.shape == (2000, 3000) and out.data.shape == (2000, 2000)


# --- operators on hollow arrays ---


# Nothing can be divided by zeros, nor can a matrix of them be inverted or factorised.
OF_ZEROS = {"nanstd", "solve", "inv", "lstsq", "tensorsolve", "tensorinv", "matrix_power/negative",
            "cholesky", "cholesky/upper", "cond", "cond/1", "of_full_rank", "solve/batch",
            "solve/one vector", "independent"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [case for case in CASES if case.name not in OF_ZEROS],
                         ids=lambda case: case.name)
def test_an_operator_on_hollow_arrays_gives_and_costs_what_it_does_on_others(case, dtype):
    arrays = case.inputs(dtype)
    with measure() as real:
        wanted = outputs(case.function(*[leaf(array, dtype) for array in arrays]))
    with measure() as described:
        found = outputs(case.function(*[hollow_leaf(array.shape, dtype) for array in arrays]))
    assert [t.shape for t in found] == [t.shape for t in wanted]
    assert [t.dtype for t in found] == [t.dtype for t in wanted]
    assert all(t.data.strides == (0,) * t.ndim for t in found)
    assert figures(described) == figures(real)


def test_every_fused_operator_is_known():
    known = {*CORE, *PRODUCTS}
    fused = [value for value in vars(tape.ops.fused).values() if isinstance(value, Fused)]
    assert len(fused) >= 4
    assert [op.name for op in fused if op not in known] == ["cross_entropy"]      # has its own lines


@pytest.mark.parametrize("run, error, message", [
    (lambda x: x @ hollow_leaf((4, 2)), ValueError, "matmul: the last axis of the left operand, 3"),
    (lambda x: x + hollow_leaf((2,)), ValueError, r"add: .*\(inputs of shape \(5, 3\), \(2,\)\)"),
    (lambda x: tape.layer_norm(x, hollow_leaf((2,))), ValueError, "weight must have the shape"),
    (lambda x: tape.cross_entropy(x, np.zeros(4, int)), ValueError, r"shape \(5,\); got int64 \(4,\)"),
    (lambda x: tape.cross_entropy(x, np.full(5, 3)), ValueError, r"got 3 at \(0,\)"),
    (lambda x: tape.causal_attention(x, x[:2], x[:2]), ValueError, "T <= S"),
    (lambda x: x.reshape(4, 4), ValueError, "reshape: cannot reshape"),
    (lambda x: tape.embedding(x, [5]), IndexError, r"ids must be in \[0, 5\)")])
def test_what_would_not_run_is_refused_with_the_same_words(run, error, message):
    for x in (hollow_leaf((5, 3)), leaf(np.zeros((5, 3)))):
        with measure(), pytest.raises(error, match=message):
            run(x)


def test_an_operator_of_a_users_on_hollow_arrays():
    twice = tape.primitive(lambda x, /: np.concatenate([x, x]), lambda g, like_x: g[:len(like_x)],
                           name="twice")
    with measure():
        out = twice(hollow_leaf((2, 3)))
    assert out.shape == (4, 3) and out.data.strides == (0, 0)


# --- counting ---


def test_products_are_counted_and_nothing_else_is():
    x, w, b = leaf(RNG.random((2, 4, 3))), leaf(RNG.random((3, 5))), leaf(RNG.random(5))
    with measure() as cost:
        tape.softmax(tape.relu(x @ w + b)).sum()
    assert cost.flops == 2 * (2 * 4) * 3 * 5 and cost.backward_flops == 2 * cost.flops
    with measure() as cost:
        x.data @ w.data
        Tensor(x.data) @ w                   # one operand that wants a gradient
    assert cost.flops == cost.backward_flops == 240
    with measure() as cost, tape.no_grad():
        x @ w
    assert figures(cost) == (240, 0, 0)


def test_attention_is_two_products():
    q, k, v = (leaf(RNG.random((2, 3, *shape))) for shape in ((4, 8), (6, 8), (6, 5)))
    for attend in (tape.causal_attention, tape.attention):
        with measure() as cost:
            attend(q, k, v)
        assert cost.flops == 2 * 3 * (2 * 4 * 6 * 8 + 2 * 4 * 6 * 5)
    with measure() as composed:
        tape.softmax(q @ k.swapaxes(-1, -2)) @ v
    assert (composed.flops, composed.backward_flops) == (cost.flops, cost.backward_flops)


@pytest.mark.parametrize("shapes", [((4, 3), (3, 5)), ((2, 4, 3), (3, 5)), ((2, 1, 4, 3), (6, 3, 5)),
                                    ((3,), (3, 5)), ((4, 3), (3,)), ((3,), (3,))])
def test_the_walk_back_takes_the_products_that_were_foretold(shapes):
    x, y = (leaf(RNG.random(shape)) for shape in shapes)
    with measure() as cost:
        out = (x @ y).sum()
    with measure() as walk:                  # its rules run as operators on Tensors
        tape.grad(out, [x, y], create_graph=True)
    assert walk.flops == cost.backward_flops > 0


@pytest.mark.parametrize("subscripts, shapes, combinations", [
    ("ij,jk->ik", ((4, 3), (3, 5)), 60), ("bij,bjk->bik", ((2, 4, 3), (2, 3, 5)), 120),
    ("bij,bjk->ik", ((1, 4, 3), (2, 3, 5)), 120), ("i,j->ij", ((4,), (5,)), 20),
    ("i,i->", ((3,), (3,)), 3)])
def test_the_products_of_an_einsum_are_counted(subscripts, shapes, combinations):
    for make in (lambda shape: leaf(RNG.random(shape)), hollow_leaf):
        x, y = map(make, shapes)
        with measure() as cost:
            out = np.einsum(subscripts, x, y)
        assert (cost.flops, cost.backward_flops) == (2 * combinations, 4 * combinations)
        assert out.shape == np.einsum(subscripts, *map(np.zeros, shapes)).shape


def test_a_large_einsum_of_hollow_arrays_is_not_run():
    x, y = hollow_leaf((10 ** 5, 10 ** 6)), hollow_leaf((10 ** 6, 10 ** 5))
    with measure() as cost:
        out = np.tensordot(x, y, 1)
    assert out.shape == (10 ** 5, 10 ** 5) and cost.flops == 2 * 10 ** 16


def test_of_a_checkpoint_the_inputs_are_kept_and_the_forward_runs_twice():
    x, w = leaf(RNG.random((4, 3))), leaf(RNG.random((3, 3)))
    with measure() as plain:
        tape.exp(tape.exp(x @ w)).sum()
    with measure() as cost:
        out = tape.checkpoint(lambda x: tape.exp(tape.exp(x @ w)), x).sum()
    assert cost.flops == plain.flops and cost.backward_flops == plain.backward_flops + plain.flops
    assert tape.show(out).endswith(f" records, {cost.bytes_kept:,} bytes kept")
    assert cost.bytes_kept < plain.bytes_kept


def test_bytes_kept_are_those_that_show_prints():
    x, w = leaf(RNG.random((4, 3))), leaf(RNG.random((3, 3)))
    with measure() as cost:
        out = tape.layer_norm(tape.gelu(x @ w) @ w).sum()
    assert tape.show(out).endswith(f" records, {cost.bytes_kept:,} bytes kept")


def test_measurements_nest_and_end_with_their_block():
    x = leaf(RNG.random((3, 3)))
    with measure() as outer:
        x @ x
        with measure() as inner:
            x @ x
        x @ x
    x @ x
    assert (outer.flops, inner.flops) == (2 * 54, 54)
