"""Optimisers over many steps against plain NumPy from the papers, and a training that is continued."""

import numpy as np
import pytest

import nn
from nn.data.batches import random_batch
from nn.training.engines import TapeEngine
from tests.checks import parameter

OPTIMISERS = {
    "SGD": lambda p: nn.SGD(p, lr=0.1),
    "SGD, momentum": lambda p: nn.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "SGD, Nesterov": lambda p: nn.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: nn.Adam(p, lr=0.01, weight_decay=0.01),
    "AdamW": lambda p: nn.AdamW(p, lr=0.01, betas=(0.8, 0.9))}
EVERY = pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)

HESSIAN = np.array([[3.0, 0.5], [0.5, 0.2]])


def slope(x):
    """The gradient of a quadratic that is narrow in one direction and flat in the other."""
    return HESSIAN @ (x - [1.0, -2.0])


def path(make, start=(4.0, 3.0), steps=50):
    """The parameters after each step on the quadratic."""
    p = nn.Parameter(np.array(start))
    optimizer, found = make([p]), []
    for _ in range(steps):
        p.grad = slope(p.data)
        optimizer.step()
        found.append(p.data.copy())
    return np.array(found)


# --- against the papers ---


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_algorithm_1_of_kingma_and_ba(decay):
    x, m, v, wanted = np.array([4.0, 3.0]), np.zeros(2), np.zeros(2), []
    for t in range(1, 51):
        g = slope(x) + decay * x
        m = 0.8 * m + (1 - 0.8) * g
        v = 0.95 * v + (1 - 0.95) * g ** 2
        x = x - 0.1 * (m / (1 - 0.8 ** t)) / (np.sqrt(v / (1 - 0.95 ** t)) + 1e-3)
        wanted.append(x)
    found = path(lambda p: nn.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=decay))
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_adamw_decays_apart_from_the_gradient():
    x, m, v, wanted = np.array([4.0, 3.0]), np.zeros(2), np.zeros(2), []
    for t in range(1, 51):
        g = slope(x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g ** 2
        x = x - 0.1 * ((m / (1 - 0.9 ** t)) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-8) + 0.2 * x)
        wanted.append(x)
    np.testing.assert_allclose(path(lambda p: nn.AdamW(p, lr=0.1, weight_decay=0.2)), wanted, rtol=1e-9)


def test_nesterov_looks_ahead():
    """Sutskever et al. 2013, eq. 3 and 4, where the gradient is taken at theta + mu v."""
    theta, v, wanted = np.array([4.0, 3.0]), np.zeros(2), []
    for _ in range(50):
        v = 0.9 * v - 0.1 * slope(theta + 0.9 * v)
        theta = theta + v
        wanted.append(theta + 0.9 * v)           # what the parameter holds is the place ahead
    found = path(lambda p: nn.SGD(p, lr=0.1, momentum=0.9, nesterov=True))
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("momentum, own", [(0.0, {}), (0.9, {"momentum": 0.0})])
def test_nesterov_without_momentum_is_refused(momentum, own):
    with pytest.raises(ValueError, match="SGD: nesterov must have a momentum above 0, got 0"):
        nn.SGD([{"params": [parameter()], **own}], lr=0.1, momentum=momentum, nesterov=True)


def test_nesterov_is_refused_when_the_momentum_is_taken_away():
    p = parameter()
    optimizer = nn.SGD([p], lr=0.1, momentum=0.9)
    optimizer.nesterov, optimizer.momentum = True, 0.0
    with pytest.raises(ValueError, match="SGD: nesterov must have"):
        optimizer.step()
    assert p.item() == 1.0


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_nesterov_is_true_or_false(value):
    with pytest.raises(ValueError, match=f"SGD: nesterov must be True or False, got {value!r}"):
        nn.SGD([parameter()], lr=0.1, momentum=0.9, nesterov=value)


# --- stopped and continued ---


def trained(make, first, last, saved=None):
    """A small model after steps `first` to `last`, from what was saved or else the beginning."""
    model = nn.RecurrentLM(nn.RecurrentConfig(5, 4, "gru", 1, 6), rng=0)
    optimizer = make(nn.decay_groups(model, 0.1))
    if saved:
        model.load_state_dict(dict(np.load(saved[0])))
        optimizer.load_state_dict(dict(np.load(saved[1])))
    engine, ids = TapeEngine(model, optimizer, grad_clip=1.0), np.arange(40) ** 2 % 5
    for step in range(first, last + 1):
        lr = nn.warmup_cosine(step, peak=0.05, warmup=3, total=20)
        engine.update(step, random_batch(ids, 3, 4, 0, step), lr)
    return model, optimizer


@EVERY
def test_a_run_that_is_stopped_and_continued_is_one_that_is_not_to_the_bit(make, tmp_path):
    whole, wanted = trained(make, 1, 12)
    model, optimizer = trained(make, 1, 5)
    files = tmp_path / "model.npz", tmp_path / "optimizer.npz"
    for file, state in zip(files, (model.state_dict(), optimizer.state_dict())):
        np.savez(file, **state)
    again, continued = trained(make, 6, 12, files)
    for (name, p), q in zip(whole.named_parameters(), again.parameters()):
        np.testing.assert_array_equal(p.data, q.data, err_msg=name)
    for name, array in wanted.state_dict().items():
        np.testing.assert_array_equal(array, continued.state_dict()[name], err_msg=name)
    fresh, _ = trained(make, 6, 12, (files[0], unused_state(make, tmp_path / "none.npz")))
    same = [np.array_equal(p.data, q.data) for p, q in zip(whole.parameters(), fresh.parameters())]
    assert all(same) == (make is OPTIMISERS["SGD"])      # without its state the others go elsewhere


def unused_state(make, file):
    _, optimizer = trained(make, 1, 0)
    np.savez(file, **optimizer.state_dict())
    return file


@EVERY
def test_a_state_is_a_copy_and_so_is_what_is_loaded(make):
    p, q = parameter(), parameter()
    optimizer, twin = make([p]), make([q])
    optimizer.step()
    state = optimizer.state_dict()
    before = {name: array.copy() for name, array in state.items()}
    twin.load_state_dict(state)
    for _ in range(2):
        optimizer.step()
        twin.step()
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array)


def test_the_dtype_that_an_optimiser_keeps_is_kept():
    for dtype, expected in ((np.float16, np.float32), (np.float32,) * 2, (np.float64,) * 2):
        p = parameter(dtype=dtype)
        optimizer = nn.Adam([p], lr=0.1)
        optimizer.step()
        state = optimizer.state_dict()
        assert {name: array.dtype for name, array in state.items()} == {
            "t.0": np.int64, "m.0": expected, "v.0": expected}
        optimizer.load_state_dict({name: array.astype(np.float64) if name != "t.0" else array
                                   for name, array in state.items()})
        assert optimizer.m[0].dtype == optimizer.v[0].dtype == expected and optimizer.t == [1]
        assert type(optimizer.t[0]) is int
        optimizer.step()
        assert p.dtype == dtype


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("m.1"), "missing 'm.1'"),
    (lambda s: s.update({"w.0": s.pop("v.0")}), "missing 'v.0' .*; unexpected 'w.0'"),
    (lambda s: s.update({"m.2": s["m.1"]}), "unexpected 'm.2'"),
    (lambda s: s.update({"v.1": np.zeros((1, 1))}), r"'v.1' must have shape \(1,\), got \(1, 1\)"),
    (lambda s: s.update({"t.1": np.array(2.5)}),
     "'t.1' has values that int64 cannot hold, got float64"),
    (lambda s: s.update({"t.0": -1}), "'t.0' must be a number of updates, .* got -1")])
def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing(change, message):
    optimizer, other = (nn.AdamW([parameter(), parameter()]) for _ in range(2))
    other.step()
    state = other.state_dict()
    change(state)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=f"load_state_dict: AdamW: {message}"):
        optimizer.load_state_dict(state)
    assert optimizer.state_dict() == before and optimizer.t == [0, 0]


def test_a_state_is_a_mapping():
    with pytest.raises(TypeError, match="SGD: state must be a mapping .* got list"):
        nn.SGD([parameter()], lr=0.1).load_state_dict([])
