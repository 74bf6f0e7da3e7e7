"""Cross-entropy, embedding and indexing: the operators that integers go into."""

import numpy as np
import pytest

from tape import Tensor, grad, ops
from tests.checks import added_at, leaf

LOGITS = np.random.default_rng(0).standard_normal((2, 3, 5))
TARGETS = np.array([[0, 4, 2], [1, 1, 3]])


def by_hand(logits, targets):
    """-log softmax(row)[target] for each row."""
    rows = logits.reshape(-1, logits.shape[-1])
    return np.array([np.log(np.exp(r).sum()) - r[t] for r, t in zip(rows, targets.reshape(-1))])


# --- cross-entropy ---


def test_cross_entropy_is_the_mean_over_the_targets():
    losses = by_hand(LOGITS, TARGETS)
    np.testing.assert_allclose(ops.cross_entropy(LOGITS, TARGETS), losses.mean(), rtol=1e-12)
    np.testing.assert_allclose(ops.cross_entropy(LOGITS, TARGETS, reduction="sum"), losses.sum(),
                               rtol=1e-12)


def test_ignored_targets_do_not_count():
    targets = np.array([[0, -1, 2], [-1, 1, -1]])
    x = leaf(LOGITS)
    loss = ops.cross_entropy(x, targets)
    np.testing.assert_allclose(loss.data, by_hand(LOGITS, TARGETS)[[0, 2, 4]].mean(), rtol=1e-12)
    loss.backward()
    np.testing.assert_array_equal(x.grad[targets == -1], np.zeros((3, 5)))
    assert (x.grad[targets != -1] != 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_every_target_ignored_gives_zero_loss_and_gradient(reduction, create_graph):
    x = leaf(LOGITS)
    loss = ops.cross_entropy(x, np.full((2, 3), -1), reduction=reduction)
    assert loss.item() == 0
    slope = grad(loss, x, create_graph=create_graph)
    np.testing.assert_array_equal(slope.data, np.zeros((2, 3, 5)))


def test_no_targets_at_all_give_zero_loss():
    x = leaf(np.zeros((0, 5)))
    loss = ops.cross_entropy(x, np.zeros(0, int))
    loss.backward()
    assert loss.item() == 0 and x.grad.shape == (0, 5)


def test_rows_are_stable_for_huge_logits():
    x = leaf([[1e4, 0.0], [0.0, 1e4]])
    loss = ops.cross_entropy(x, [0, 0])
    loss.backward()
    assert loss.item() == 5e3
    np.testing.assert_allclose(x.grad, [[0, 0], [-.5, .5]])


BANNED = np.where(np.arange(5) == 0, -np.inf, LOGITS[0])    # class 0 can never be chosen


def test_a_banned_class_leaves_the_loss_finite():
    x = leaf(BANNED)
    loss = ops.cross_entropy(x, [1, 2, 3])
    np.testing.assert_allclose(loss.data, by_hand(BANNED, np.array([1, 2, 3])).mean(), rtol=1e-12)
    loss.backward()
    assert np.isfinite(x.grad).all() and (x.grad[:, 0] == 0).all()


def test_a_banned_class_and_an_ignored_target_leave_the_loss_finite():
    # What stands in an ignored row is nobody's business, -inf and NaN included.
    x = leaf(BANNED)
    loss = ops.cross_entropy(x, [1, -1, 3])
    np.testing.assert_allclose(loss.data, by_hand(BANNED, np.array([1, 2, 3]))[[0, 2]].mean())
    x.data[1] = np.nan
    with np.errstate(invalid="ignore"):
        loss = ops.cross_entropy(x, [1, -1, 3])
    loss.backward()
    assert np.isfinite(loss.item())
    np.testing.assert_array_equal(x.grad[1], np.zeros(5))


def test_a_banned_class_is_the_same_with_create_graph():
    x = leaf(BANNED)
    plain = grad(ops.cross_entropy(x, [1, 2, 3]), x)
    recorded = grad(ops.cross_entropy(x, [1, 2, 3]), x, create_graph=True)
    np.testing.assert_allclose(recorded.data, plain.data, rtol=1e-12)


@pytest.mark.parametrize("targets, message", [
    (LOGITS, r"must be integers in \[0, 5\), shape \(2, 3\); got float64 \(2, 3, 5\). Did you sw"),
    (TARGETS.astype(float), r"must be integers .* got float64 \(2, 3\)"),
    (TARGETS[0], r"shape \(2, 3\); got int64 \(3,\)"),
    (TARGETS + 1, r"targets must be in \[0, 5\) or -1 \(ignored\); got 5 at \(0, 1\)"),
    (TARGETS - 2, r"got -2 at \(0, 0\)")])
def test_wrong_targets_are_named(targets, message):
    for given in (targets, Tensor(targets)):
        with pytest.raises(ValueError, match="cross_entropy: .*" + message):
            ops.cross_entropy(leaf(LOGITS), given)


def test_an_unknown_reduction_is_named():
    with pytest.raises(ValueError, match="cross_entropy: reduction must be .* got 'none'"):
        ops.cross_entropy(leaf(LOGITS), TARGETS, reduction="none")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_targets_of_any_integer_dtype(dtype):
    loss = ops.cross_entropy(leaf(LOGITS), TARGETS.astype(dtype))
    np.testing.assert_allclose(loss.data, by_hand(LOGITS, TARGETS).mean(), rtol=1e-12)


def test_targets_may_be_lists_and_tensors():
    expected = ops.cross_entropy(LOGITS, TARGETS)
    assert ops.cross_entropy(leaf(LOGITS), TARGETS.tolist()).item() == expected
    assert ops.cross_entropy(leaf(LOGITS), Tensor(TARGETS)).item() == expected


# --- embedding ---


def test_embedding_sums_the_gradient_of_repeated_ids():
    weight = leaf(np.zeros((4, 2)))
    ops.embedding(weight, [[1, 1], [3, 1]]).sum().backward()
    np.testing.assert_array_equal(weight.grad, [[0, 0], [3, 3], [0, 0], [1, 1]])


@pytest.mark.parametrize("ids, bad", [([-1], -1), ([0, 4], 4), ([[2, -3]], -3), (7, 7)])
def test_embedding_refuses_ids_out_of_range(ids, bad):
    with pytest.raises(IndexError, match=rf"embedding: ids must be in \[0, 4\).* got {bad} among"):
        ops.embedding(leaf(np.zeros((4, 2))), ids)


@pytest.mark.parametrize("ids", [[0.0], np.array([True]), leaf([1.0])])
def test_embedding_refuses_ids_that_are_not_integers(ids):
    with pytest.raises(TypeError, match="embedding: ids must be integers"):
        ops.embedding(leaf(np.zeros((4, 2))), ids)


@pytest.mark.parametrize("ids", [2, np.array(2), np.int64(2), Tensor(np.array(2)), np.uint8(2)])
def test_embedding_of_one_id(ids):
    weight = leaf(np.eye(4))
    out = ops.embedding(weight, ids)
    out.sum().backward()
    assert out.tolist() == [0, 0, 1, 0]
    assert weight.grad.sum(axis=1).tolist() == [0, 0, 4, 0]


@pytest.mark.parametrize("rows", [3, 40, 4_000])       # each id often; some twice; nearly all once
@pytest.mark.parametrize("width", [5, 50])             # few elements, and more
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_embedding_adds_up_rows_whatever_the_runs(rows, width, dtype):
    rng = np.random.default_rng(0)
    ids, g = rng.integers(0, rows, 60), rng.integers(-9, 9, (60, width)).astype(dtype)
    weight = leaf(np.zeros((rows, width)), dtype)
    ops.embedding(weight, ids).backward(g)
    assert weight.grad.dtype == dtype
    expected = added_at((rows, width), ids, g)
    np.testing.assert_array_equal(weight.grad, expected)          # integers: nothing is rounded


def test_embedding_of_no_ids():
    weight = leaf(np.ones((4, 2)))
    out = ops.embedding(weight, np.zeros((0, 3), int))
    out.sum().backward()
    assert out.shape == (0, 3, 2)
    np.testing.assert_array_equal(weight.grad, np.zeros((4, 2)))


# --- indexing ---

ROWS = np.arange(12.0).reshape(4, 3)
INDICES = {
    "int": 1, "negative": -1, "numpy int": np.int64(2), "slice": slice(1, 3),
    "backwards": slice(None, None, -2), "ellipsis": (..., 0), "new axis": (None, 1),
    "list": [0, 0, 3], "nested list": [[0, 1], [3, 3]], "negative list": [-1, 3],
    "array": np.array([2, 2]), "array without axes": np.array(2),
    "tensor": Tensor(np.array([1, 1])),
    "uint8": np.array([1, 3], np.uint8), "int8": np.array([-1, 2], np.int8),
    "mask": ROWS > 5, "row mask": np.array([True, False, True, False]),
    "tensor mask": Tensor(ROWS > 5),
    "true": True, "two arrays": ([0, 0], [1, 1]), "slice and array": (slice(1, 3), [0, 0]),
    "array, slice": ([3, 3, 1], slice(0, 2)), "int and array": (1, [0, 2, 2]),
    "mask and array": (np.array([True, False, True, False]), [0, 1]), "empty": [], "whole": (),
    "broadcast": (np.array([[0], [1]]), np.array([0, 0])), "none": None,
}


@pytest.mark.parametrize("name", INDICES)
def test_indexing_is_numpys_and_its_gradient_counts_the_picks(name):
    index = INDICES[name]
    plain = tuple(index) if isinstance(index, tuple) else getattr(index, "data", index) \
        if isinstance(index, Tensor) else index
    plain = np.array(plain, int) if name == "empty" else plain
    x = leaf(ROWS)
    out = x[index]
    expected = ROWS[plain]
    np.testing.assert_array_equal(out.data, expected)
    u = np.arange(1.0, expected.size + 1).reshape(expected.shape)
    out.backward(u)
    np.testing.assert_array_equal(x.grad, added_at(ROWS.shape, plain, u))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_small_index_dtypes_reach_the_rows_of_a_large_array(dtype):
    # 300 does not fit into eight bits, and need not: the ids do.
    x = leaf(np.zeros(300))
    x[np.array([1, 1, 100], dtype)].sum().backward()
    assert x.grad[1] == 2 and x.grad[100] == 1 and x.grad.sum() == 3


@pytest.mark.parametrize("index", [4, [0, 4], (0, 3), -5, np.array([9])])
def test_an_index_out_of_range_is_named(index):
    with pytest.raises(IndexError, match="getitem: .*out of bounds"):
        leaf(ROWS)[index]
