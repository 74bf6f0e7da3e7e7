"""Optimisers, clipping and the schedule, against their formulas and a problem with a known end."""

import copy
import math
import warnings

import numpy as np
import pytest

import nn
from nn import (
    SGD, Adam, AdamW, Parameter, clip_grad_norm, decay_groups, warmup_constant, warmup_cosine,
    warmup_linear)
from tests.checks import parameter as one


def test_sgd_by_hand():
    p = one()
    SGD([p], lr=0.1).step()
    assert p.data == np.float32(1 - 0.1 * 0.5)


def test_momentum_and_decay_by_hand():
    p = one()
    optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.2)
    x, v = 1.0, 0.0
    for _ in range(3):
        v = 0.9 * v + (0.5 + 0.2 * x)
        x -= 0.1 * v
        optimizer.step()
    assert p.item() == pytest.approx(x, rel=1e-6)


@pytest.mark.parametrize("shape", [(3,), ()])
def test_adamw_against_the_algorithm_as_printed(shape):
    rng = np.random.default_rng(0)
    p = Parameter(rng.standard_normal(shape))
    x, m, v = p.data.copy(), 0.0, 0.0
    optimizer = AdamW([p], lr=0.01, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1)
    for t in range(1, 6):
        g = rng.standard_normal(shape)
        p.grad = g
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        m_hat, v_hat = m / (1 - 0.8 ** t), v / (1 - 0.9 ** t)
        x = x - 0.01 * (m_hat / (np.sqrt(v_hat) + 1e-3) + 0.1 * x)
    np.testing.assert_allclose(p.data, x, rtol=1e-12)


@pytest.mark.parametrize("make", [lambda p: Adam(p, lr=0.1, weight_decay=0.2),
                                  lambda p: AdamW(p, lr=0.1, weight_decay=0.2)])
def test_small_parameters_are_updated_together_as_each_alone(make):
    """Also where some have had no gradient, or are of another dtype or too large for the others."""
    rng = np.random.default_rng(0)
    shapes = [(3,), (), (2, 3), (0, 2), (200, 100), (5, 4), (7,), (2,)]
    dtypes = [np.float32] * 6 + [np.float64, np.float16]
    together = [Parameter(rng.standard_normal(s), dtype=d) for s, d in zip(shapes, dtypes)]
    alone = [Parameter(p.data) for p in together]
    optimizer, others = make(together), [make([p]) for p in alone]
    for step in range(4):
        for i, (p, q, other) in enumerate(zip(together, alone, others)):
            if i == 2 and step < 2:                 # its first updates are the third and fourth
                continue
            g = rng.standard_normal(p.shape[::-1]).T                    # columns in a row
            p.grad = q.grad = g.astype(p.dtype)
            other.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()
        if step == 1:
            together, optimizer = copy.deepcopy((together, optimizer))
        for i, (p, q, other) in enumerate(zip(together, alone, others)):
            np.testing.assert_array_equal(p.data, q.data)
            for name in ("t", "m", "v"):
                np.testing.assert_array_equal(optimizer.state_dict()[f"{name}.{i}"],
                                              other.state_dict()[f"{name}.0"])


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1, momentum=0.5),
                                  lambda p: AdamW(p, lr=0.1, weight_decay=0.0)])
def test_optimisers_find_the_minimum_and_stay_float32(make):
    p = Parameter([3.0, -2.0])
    optimizer, target = make([p]), np.array([1.0, 4.0], np.float32)
    for _ in range(300):
        loss = ((p - target) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(p.data, target, atol=1e-2)
    assert p.dtype == np.float32


def test_every_state_of_an_optimiser_is_float32():
    p = one()
    optimizer = AdamW([p], lr=0.1)
    optimizer.step()
    assert {a.dtype for a in (optimizer.m[0], optimizer.v[0], p.data)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("bad, message", [
    (lambda: SGD([], lr=1), "no parameters"), (lambda: SGD([one()], lr=0), "lr must be positive"),
    (lambda: SGD([one()] * 2, lr=1), "appears twice"),
    (lambda: SGD([one()], lr=1, momentum=1.0), "momentum must be"),
    (lambda: AdamW([one()], betas=(0.9, 1.0)), "betas must be")])
def test_wrong_settings_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()


def test_a_step_before_backward_is_an_error_and_a_forgotten_parameter_a_warning():
    p = Parameter([1.0])
    with pytest.raises(RuntimeError, match="backward"):
        SGD([p], lr=0.1).step()
    optimizer = SGD([one(), p], lr=0.1)
    with pytest.warns(UserWarning, match=r"1 parameters have no gradient.*number 1 \(1,\)"):
        optimizer.step()
    optimizer.step()          # once is enough: a second warning would be an error here
    assert p.item() == 1.0


def test_decay_groups_are_a_partition_with_tied_weights_once():
    model = nn.GPT(nn.GPTConfig(7, 5, 2, 2, 8), rng=0)
    decayed, rest = decay_groups(model, 0.1)
    assert all(p.ndim >= 2 for p in decayed["params"]) and all(p.ndim == 1 for p in rest["params"])
    assert (sorted(map(id, decayed["params"] + rest["params"]))
            == sorted(map(id, model.parameters())))
    before = copy.deepcopy(model)
    for p in model.parameters():
        p.grad = np.zeros(p.shape)
    AdamW([decayed, rest], lr=0.5).step()
    for (name, p), old in zip(model.named_parameters(), before.parameters()):
        factor = 1 - 0.5 * 0.1 if p.ndim >= 2 else 1
        np.testing.assert_allclose(p.data, old.data * factor, rtol=1e-6, err_msg=name)


def test_clipping_scales_all_by_one_factor_only_when_too_long():
    a, b = one(grad=3.0), one(grad=4.0)
    assert clip_grad_norm([a, b], 10.0) == 5.0 and a.grad == 3.0
    assert clip_grad_norm([a, b], 1.0) == 5.0
    assert a.grad == pytest.approx(0.6) and b.grad == pytest.approx(0.8)
    assert a.grad.dtype == np.float32


def test_clipping_names_what_is_not_finite_and_changes_nothing():
    good, bad = one(grad=3.0), one(grad=math.nan)
    with pytest.raises(ValueError, match="not finite in second"):
        clip_grad_norm([("first", good), ("second", bad)], 1.0)
    assert good.grad == 3.0
    with pytest.raises(ValueError, match="max_norm must be positive, got -1"):
        clip_grad_norm([good], -1)


def test_clipping_a_finite_gradient_whose_square_overflows_float32():
    p = one(grad=1e30)
    assert clip_grad_norm([p], 1.0) == pytest.approx(1e30, rel=1e-6)
    assert p.grad == pytest.approx(1.0)


def test_schedule_points():
    rate = [warmup_cosine(s, peak=1.0, warmup=4, total=14, floor=0.1) for s in range(20)]
    assert rate[:4] == [0.25, 0.5, 0.75, 1.0] and rate[4] == 1.0
    assert rate[9] == pytest.approx(0.55) and rate[14:] == [0.1] * 6
    assert all(a >= b for a, b in zip(rate[4:], rate[5:]))
    assert warmup_cosine(0, peak=1.0, warmup=0, total=1) == 1.0


def test_the_constant_and_the_linear_schedule():
    assert [warmup_constant(s, peak=0.5, warmup=4) for s in range(6)] == [
        0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert warmup_constant(0, peak=0.5) == warmup_constant(10 ** 9, peak=0.5) == 0.5
    rate = [warmup_linear(s, peak=1.0, warmup=2, total=6, floor=0.5) for s in range(9)]
    assert rate == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5]
    assert [warmup_linear(s, peak=1.0, total=4) for s in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert warmup_linear(0, peak=1.0, total=0) == 1.0 and warmup_linear(1, peak=1.0, total=0) == 0.0
