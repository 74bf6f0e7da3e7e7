"""Losses against their formulas, by differences, at their ends, and with shapes that do not match."""

import math
import warnings

import numpy as np
import pytest

import nn
import tape
from tape import Tensor, gradcheck
from tests.checks import leaf

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((2, 3, 5))
TARGETS = np.array([[0, 4, -1], [1, -1, 3]])
Y = np.array([[0.0, 1.0, 0.3], [1.0, 0.0, 0.9]])

BINARY = nn.binary_cross_entropy_with_logits


def smoothed(logits, targets, s, ignored=-1):
    """The loss of each row that counts, from the target distribution written out."""
    found = []
    for row, t in zip(logits.reshape(-1, logits.shape[-1]), np.ravel(targets)):
        if t != ignored:
            q = np.full(len(row), s / len(row))
            q[t] += 1 - s
            p = np.exp(row) / np.exp(row).sum()
            found.append(-(q * np.log(p)).sum())
    return np.array(found)


# --- cross-entropy ---


@pytest.mark.parametrize("s", [0.0, 0.1, 1.0, 1])
@pytest.mark.parametrize("ignored", [-1, 4])
def test_label_smoothing_is_a_cross_entropy_with_a_softer_target(s, ignored):
    targets = np.where(TARGETS == -1, ignored, TARGETS)
    losses = smoothed(LOGITS, targets, s, ignored)
    assert len(losses) == (4 if ignored == -1 else 3)
    for reduction, wanted in (("mean", losses.mean()), ("sum", losses.sum())):
        loss = nn.cross_entropy(Tensor(LOGITS), targets, ignored, s, reduction=reduction)
        assert loss.item() == pytest.approx(wanted, rel=1e-12)


def test_without_smoothing_it_is_the_operator_to_the_bit():
    logits = LOGITS.astype(np.float32)
    assert nn.cross_entropy(Tensor(logits), TARGETS).item() == tape.cross_entropy(logits, TARGETS)


@pytest.mark.parametrize("s", [0.0, 0.2])
def test_gradients_of_cross_entropy(s):
    assert gradcheck(lambda x: nn.cross_entropy(x, TARGETS, label_smoothing=s), [LOGITS], order=2)
    x = leaf(LOGITS, np.float32)
    loss = nn.cross_entropy(x, TARGETS, label_smoothing=s)
    loss.backward()
    assert loss.dtype == x.grad.dtype == np.float32
    q = (1 - s) * np.eye(5)[TARGETS] + s / 5
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    wanted = np.where(TARGETS[..., None] == -1, 0, p - q) / 4
    np.testing.assert_allclose(x.grad, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("s", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_where_all_targets_are_ignored_the_loss_and_the_gradient_are_zero(s, reduction):
    x = leaf(np.full((2, 3, 5), np.nan))
    with pytest.warns(UserWarning, match="all 6 targets are -1, which is ignored, so the loss is 0"):
        loss = nn.cross_entropy(x, np.full((2, 3), -1), label_smoothing=s, reduction=reduction)
    loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(x.grad, np.zeros((2, 3, 5)))


def test_the_warning_names_the_line_that_called_and_comes_once_for_each():
    model = nn.GPT(nn.GPTConfig(5, 4, 1, 1, 4), rng=0)
    idx, ignored = np.zeros((2, 3), int), np.full((2, 3), -1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            nn.cross_entropy(LOGITS, ignored)
            nn.cross_entropy(LOGITS, ignored, label_smoothing=0.1)
            model(idx, ignored)
            model(idx, Tensor(ignored))
    assert len(caught) == 4 and {w.filename for w in caught} == {__file__}
    assert len({w.lineno for w in caught}) == 4


@pytest.mark.parametrize("targets", [[-1, 0], np.zeros(0, int), 0])
def test_there_is_no_warning_where_a_target_counts_or_there_is_none(targets):
    loss = nn.cross_entropy(leaf(np.zeros((*np.shape(targets), 2))), targets)
    assert loss.item() == (math.log(2) if np.size(targets) else 0)


def test_lists_and_numbers_are_predictions_too():
    assert nn.mse([1.0, 3.0], [1.0, 1.0]).item() == 2 and nn.mse(2.0, 5.0).item() == 9
    assert BINARY([0.0], [1]).item() == pytest.approx(math.log(2))
    for s in (0, 0.1):
        loss = nn.cross_entropy([[0.0, 0.0]], [1], label_smoothing=s)
        assert loss.item() == pytest.approx(math.log(2))


def test_what_stands_in_an_ignored_row_plays_no_part():
    changed = np.where(TARGETS[..., None] == -1, np.nan, LOGITS)
    x = leaf(changed)
    loss = nn.cross_entropy(x, TARGETS, label_smoothing=0.1)
    loss.backward()
    assert loss.item() == nn.cross_entropy(Tensor(LOGITS), TARGETS, label_smoothing=0.1).item()
    assert np.isfinite(x.grad).all()


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, "0.1", None, "mean"])
def test_a_smoothing_that_is_no_share_is_refused(value):
    with pytest.raises(ValueError, match=r"label_smoothing must be a number in \[0, 1\], got"):
        nn.cross_entropy(Tensor(LOGITS), TARGETS, -1, value)


@pytest.mark.parametrize("targets, message", [
    (TARGETS[:1], r"shape \(2, 3\); got int64 \(1, 3\)"), (TARGETS[..., None], r"int64 \(2, 3, 1\)"),
    (0, r"shape \(2, 3\); got int64 \(\)"), (TARGETS.T, r"int64 \(3, 2\)"),
    (TARGETS + 2, r"got 6 at \(0, 1\)"),
    (TARGETS * 1.0, "must be integers")])
def test_targets_that_do_not_fit_are_refused_with_smoothing_too(targets, message):
    for s in (0.0, 0.1):
        with pytest.raises(ValueError, match=f"cross_entropy: .*{message}"):
            nn.cross_entropy(Tensor(LOGITS), targets, label_smoothing=s)


def test_logits_without_classes_are_refused():
    with pytest.raises(ValueError, match=r"logits must have shape \(..., V\).*got \(\).*binary_cross"):
        nn.cross_entropy(Tensor(1.0), 0)


# --- mean squared error ---


def test_mse_is_the_mean_of_squares():
    x = leaf([[1.0, 2.0], [3.0, 5.0]])
    loss = nn.mse(x, [[0, 2], [1, 1]])
    loss.backward()
    assert loss.item() == (1 + 0 + 4 + 16) / 4
    np.testing.assert_array_equal(x.grad, [[0.5, 0], [1, 2]])
    assert gradcheck(nn.mse, [LOGITS, RNG.standard_normal(LOGITS.shape)], order=2)


# --- binary cross-entropy ---


def test_binary_cross_entropy_is_its_formula():
    x = RNG.standard_normal(Y.shape)
    p = 1 / (1 + np.exp(-x))
    wanted = -(Y * np.log(p) + (1 - Y) * np.log(1 - p)).mean()
    assert BINARY(Tensor(x), Y).item() == pytest.approx(wanted, rel=1e-12)
    t = leaf(x)
    BINARY(t, Y).backward()
    np.testing.assert_allclose(t.grad, (p - Y) / 6, rtol=1e-12)
    assert gradcheck(lambda x: BINARY(x, Y), [x], order=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_of_large_logits_and_at_zero(dtype):
    x = leaf([1e4, -1e4, 1e4, -1e4, 0.0, 30.0], dtype)
    loss = BINARY(x, [0, 1, 1, 0, 1, 1])
    loss.backward()
    assert loss.item() == pytest.approx((1e4 + 1e4 + math.log(2) + math.exp(-30)) / 6, rel=1e-6)
    np.testing.assert_allclose(x.grad * 6, [1, -1, 0, 0, -0.5, -math.exp(-30)], rtol=1e-6)
    right = leaf([30.0], dtype)
    assert BINARY(right, [1]).item() == pytest.approx(math.exp(-30), rel=1e-6)


@pytest.mark.parametrize("targets", [[0.5, 1.1], [-1, 1], [np.nan, 0]])
def test_targets_that_are_no_probabilities_are_refused(targets):
    with pytest.raises(ValueError, match=r"with_logits: targets must be in \[0, 1\], got"):
        BINARY(leaf([0.0, 1.0]), targets)


# --- both ---


@pytest.mark.parametrize("loss", [nn.mse, BINARY])
@pytest.mark.parametrize("shapes", [((4,), (4, 1)), ((4, 1), (4,)), ((2, 3), (3,)), ((3,), ()),
                                    ((), (1,))])
def test_shapes_that_do_not_match_are_refused_rather_than_broadcast(loss, shapes):
    predictions, targets = (np.ones(shape) for shape in shapes)
    for given in (targets, Tensor(targets), targets.tolist()):
        with pytest.raises(ValueError, match=f"{loss.__name__}: targets must have the shape of the"):
            loss(leaf(predictions), given)


@pytest.mark.parametrize("loss", [nn.mse, BINARY])
@pytest.mark.parametrize("kind", [np.float64, np.int64, bool])
def test_float32_stays_float32_whatever_the_targets(loss, kind):
    x = leaf([0.5, 2.0], np.float32)
    for targets in (np.array([0, 1], kind), Tensor(np.array([0, 1], kind))):
        found = loss(x, targets)
        found.backward()
        assert found.dtype == x.grad.dtype == np.float32


@pytest.mark.parametrize("loss", [nn.mse, BINARY])
def test_targets_may_want_a_gradient_too(loss):
    x, y = leaf([0.5, 2.0]), leaf([0.2, 0.7])
    loss(x, y).backward()
    wanted = (y.data - x.data) if loss is nn.mse else -x.data / 2         # log(1 - p) - log p = -x
    np.testing.assert_allclose(y.grad, wanted, rtol=1e-12)


@pytest.mark.parametrize("loss, predictions, targets, expected", [
    (nn.mse, np.array([1, 2]), np.array([1.5, 2.5]), 0.25),
    (nn.mse, np.array([0], np.uint8), np.array([16], np.uint8), 256),
    (BINARY, np.array([3, -3]), np.array([0.9, 0.1]), math.log(1 + math.exp(-3)) + 0.3)])
def test_integers_as_predictions_are_numbers_like_others(loss, predictions, targets, expected):
    for given in (predictions, Tensor(predictions)):
        np.testing.assert_allclose(np.asarray(loss(given, targets)), expected, rtol=1e-6)
