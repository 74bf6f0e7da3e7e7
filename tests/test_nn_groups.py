"""Groups of an optimiser, what an optimiser is given, and clipping: no setting is passed over."""

import copy
import functools
import math

import numpy as np
import pytest

import nn
from nn import SGD, AdamW, Parameter, clip_grad_norm
from tape import Tensor
from tests.checks import parameter

NAN, INF = math.nan, math.inf

one = functools.partial(parameter, dtype=np.float64)


def moved(optimizer, *parameters):
    before = [p.data.copy() for p in parameters]
    optimizer.step()
    return [(b - p.data).item() for b, p in zip(before, parameters)]


# --- groups ---


@pytest.mark.parametrize("make, own", [
    (SGD, {"lr": 0.5}), (SGD, {"momentum": 0.5}), (SGD, {"weight_decay": 0.5}),
    (SGD, {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.1}),
    (AdamW, {"lr": 0.5}), (AdamW, {"betas": (0.5, 0.6)}), (AdamW, {"eps": 0.5}),
    (AdamW, {"weight_decay": 0.5}),
    (AdamW, {"lr": 0.5, "betas": [0.5, 0.6], "eps": 0.1, "weight_decay": 0.0})], ids=str)
def test_a_group_is_updated_as_by_an_optimiser_with_its_settings(make, own):
    a, b, alone = one(), one(), one()
    optimizer = make([{"params": [a]}, {"params": [b], **own}], lr=0.1)
    plain, twin = make([one()], lr=0.1), make([alone], **{"lr": 0.1, **own})
    for step in range(3):
        for p in (a, b, alone, *plain.params):
            p.grad = [0.5 + step]
        for o in (optimizer, twin, plain):
            o.step()
    assert b.item() == alone.item() != a.item() == plain.params[0].item()


def test_the_lr_of_a_group_follows_that_of_the_optimiser_in_proportion():
    a, b = one(grad=1.0), one(grad=1.0)
    optimizer = SGD([{"params": a}, {"params": b, "lr": 0.25}], lr=0.5)
    assert moved(optimizer, a, b) == [0.5, 0.25]
    optimizer.lr = 0.125
    assert moved(optimizer, a, b) == [0.125, 0.0625]
    optimizer.lr = 0                    # the end of a schedule
    assert moved(optimizer, a, b) == [0, 0]


def test_settings_that_are_assigned_later_hold_for_the_groups_that_gave_none():
    a, b = one(grad=1.0), one(grad=1.0)
    optimizer = SGD([{"params": a}, {"params": b, "weight_decay": 0.0, "momentum": 0.0}], lr=0.5)
    optimizer.weight_decay = 1.0
    assert moved(optimizer, a, b) == [1.0, 0.5]
    optimizer.weight_decay, optimizer.momentum = 0.0, 0.5
    assert moved(optimizer, a, b) == [0.5, 0.5]
    assert moved(optimizer, a, b) == [0.75, 0.5]


@pytest.mark.parametrize("value", [NAN, -0.1, INF, "0.1", None, True, np.array([0.1])], ids=str)
def test_a_step_with_a_setting_that_is_no_rate_changes_nothing(value):
    p = one()
    for optimizer, name in ((SGD([p], lr=0.1), "lr"), (AdamW([p]), "weight_decay")):
        setattr(optimizer, name, value)
        with pytest.raises(ValueError, match=f"{type(optimizer).__name__}: {name} must be"):
            optimizer.step()
    assert p.item() == 1.0


@pytest.mark.parametrize("make, key, message", [
    (SGD, "learning_rate", "'learning_rate'.*known: params, lr, momentum, nesterov, weight_decay"),
    (SGD, "weight_decy", r"'weight_decy' \(nearest: 'weight_decay'\)"), (SGD, "betas", "'betas'"),
    (AdamW, "momentum", "'momentum'.*known: params, lr, betas, eps, weight_decay"),
    (AdamW, "beta", r"'beta' \(nearest: 'betas'\)"), (AdamW, 3, "3")])
def test_an_unknown_key_of_a_group_is_refused_with_the_nearest(make, key, message):
    with pytest.raises(ValueError, match=f"{make.__name__}: group 1 has the unknown key {message}"):
        make([{"params": [one()]}, {"params": [one()], key: 0.1}], lr=0.1)


@pytest.mark.parametrize("make, name, values", [
    (SGD, "lr", [0, -1, NAN, INF, "0.1", None, True, 1j]),
    (SGD, "momentum", [1.0, -0.1, NAN, None, True]),
    (SGD, "weight_decay", [-0.1, NAN, INF, "0"]), (AdamW, "weight_decay", [-0.1, NAN, None]),
    (AdamW, "eps", [-1e-8, NAN, INF]),
    (AdamW, "betas", [(0.9, 1.0), (NAN, 0.9), (0.9,), 0.9, (0.9, -0.1), (0.9,) * 3, None, "ab"])])
def test_every_setting_is_checked_for_the_optimiser_and_for_each_group(make, name, values):
    for value in values:
        for group, where in [({}, ""), ({name: value}, "group 1: ")]:
            given = {"lr": 0.1, **({name: value} if not group else {})}
            with pytest.raises(ValueError, match=f"{make.__name__}: {where}{name} must be .*, got"):
                make([{"params": [one()]}, {"params": [one()], **group}], **given)


def test_the_parameters_of_a_group_may_be_one_tensor_or_anything_iterable():
    a, b, c, d = (one() for _ in range(4))
    optimizer = SGD([{"params": a}, {"params": (p for p in [b])}, {"params": {"c": c}.values()},
                     {"params": ()}, {"params": {d}}], lr=0.1)
    assert list(map(id, optimizer.params)) == list(map(id, [a, b, c, d]))


def test_groups_may_come_from_a_generator_and_stay_as_they_were():
    group = {"params": [one()], "lr": 1.0}
    SGD((g for g in [group]), lr=0.1).step()
    assert list(group) == ["params", "lr"] and group["lr"] == 1.0


def test_one_tensor_is_one_parameter_and_not_its_rows():
    p = Parameter(np.ones((2, 3)))
    assert SGD(p, lr=0.1).params[0] is p and AdamW(p).params[0] is p


@pytest.mark.parametrize("params, error, message", [
    (lambda: [{"lr": 0.1}], ValueError, "group 0 has no 'params'"),
    (lambda: [], ValueError, "no parameters"),
    (lambda: [{"params": []}], ValueError, "no parameters"),
    (lambda: [one(), {"params": [one()]}], TypeError, "tensors and groups"),
    (lambda: [{"params": [one()]}, one()], TypeError, "tensors and groups"),
    (lambda: {"params": [one()]}, TypeError, r"got a dict.*\[group\]"),
    (lambda: {"weight": one()}, TypeError, r"got a dict.*\.values\(\)"),
    (lambda: nn.Linear(1, 1, rng=0), TypeError, r"got a Linear.*model\.parameters\(\)"),
    (lambda: nn.ModuleList([nn.ReLU()]), TypeError, r"got a ModuleList.*model\.parameters\(\)"),
    (lambda: [nn.ReLU()], TypeError, r"number 0 is a ReLU.*model\.parameters\(\)"),
    (lambda: [("w", one())], TypeError, r"number 0 is a tuple.*model\.parameters\(\)"),
    (lambda: [one(), [one()]], TypeError, "number 1 is a list"),
    (lambda: [np.ones(2)], TypeError, "number 0 is a ndarray"),
    (lambda: "weights", TypeError, "number 0 is a str"),
    (lambda: None, TypeError, "got a NoneType"),
    (lambda: 3, TypeError, "got a int"),
    (lambda: [{"params": [one(), "w"]}], TypeError, "group 0.*number 1 is a str"),
    (lambda: [{"params": nn.ReLU()}], TypeError, "group 0.*got a ReLU"),
    (lambda: [one() * 2], ValueError, r"number 0 \(1,\) is a result.*Parameter"),
    (lambda: [Tensor([1.0])], ValueError, r"number 0 \(1,\) .*requires_grad=True"),
    (lambda: [Tensor([1])], ValueError, r"number 0 \(1,\)")])
def test_what_is_no_collection_of_parameters_is_refused_with_a_remedy(params, error, message):
    for make in (SGD, AdamW):
        with pytest.raises(error, match=f"{make.__name__}: .*{message}"):
            make(params(), lr=0.1)


def test_a_parameter_in_two_groups_is_refused():
    p = one()
    with pytest.raises(ValueError, match="appears twice"):
        SGD([{"params": [p]}, {"params": [p], "lr": 0.1}], lr=1.0)


# --- frozen parameters, and steps without a gradient ---


def test_a_parameter_that_is_frozen_after_a_backward_is_not_changed():
    a, b = one(), one()
    optimizer = AdamW([a, b], weight_decay=0.5)
    a.requires_grad = False
    optimizer.step()
    assert a.item() == 1.0 != b.item()
    b.requires_grad = False
    with pytest.raises(RuntimeError, match="all parameters are frozen"):
        optimizer.step()


@pytest.mark.filterwarnings("ignore:AdamW. 1 parameters have no gradient")
def test_a_parameter_that_joins_later_is_updated_as_one_that_starts():
    early, late, fresh = one(), one(), one()
    late.grad = None
    optimizer = AdamW([early, late], lr=0.1)
    for _ in range(10):
        optimizer.step()
    late.grad = [0.5]
    optimizer.step()
    AdamW([fresh], lr=0.1).step()
    assert late.item() == fresh.item()


def test_a_refused_step_counts_for_nothing():
    p, twin = one(), one()
    optimizer, plain = AdamW([p], lr=0.1), AdamW([twin], lr=0.1)
    p.grad = None
    with pytest.raises(RuntimeError, match="backward"):
        optimizer.step()
    p.grad = [0.5]
    assert moved(optimizer, p) == moved(plain, twin)


def test_the_warning_is_once_for_each_optimiser_and_names_the_line_of_the_step():
    for make in (SGD, AdamW):
        for _ in range(2):
            p = one()
            p.grad = None
            optimizer = make([one(), p], lr=0.1)
            with pytest.warns(UserWarning, match="no gradient") as caught:
                optimizer.step()
            assert caught[0].filename == __file__
            optimizer.step()


def test_a_copied_optimiser_goes_on_alone():
    p = one()
    optimizer = AdamW([{"params": [p], "lr": 0.2}], lr=0.1)
    optimizer.step()
    again = copy.deepcopy(optimizer)
    q = again.params[0]
    assert q is not p and moved(again, q) == moved(optimizer, p)


# --- clipping ---


@pytest.mark.parametrize("given", [
    lambda p: p, lambda p: [p], lambda p: (p,), lambda p: (q for q in [p]), lambda p: {"p": p},
    lambda p: {"p": p}.values(), lambda p: {"p": p}.items(), lambda p: [("p", p)], lambda p: {p},
    lambda p: [p, p], lambda p: [("tied", p), ("again", p)]])
def test_clipping_takes_tensors_in_any_form_and_each_once(given):
    p = one(grad=4.0)
    assert clip_grad_norm(given(p), 1.0) == 4.0 and p.grad == 1.0
    p = Parameter(np.ones((2, 2)))
    p.grad = np.full((2, 2), 3.0)
    assert clip_grad_norm(given(p), 1.5) == 6.0 and (p.grad == 0.75).all()


def test_a_gradient_that_two_parameters_share_is_scaled_once():
    a, b = one(), one()
    a.grad = b.grad = np.array([3.0])
    assert clip_grad_norm([a, b], 1.0) == pytest.approx(math.sqrt(18))
    assert a.grad == b.grad == pytest.approx(3 / math.sqrt(18))


@pytest.mark.parametrize("params, error, message", [
    (lambda: nn.Linear(1, 1, rng=0), TypeError, r"got a Linear.*model\.parameters\(\)"),
    (lambda: nn.ModuleList([]), TypeError, r"got a ModuleList.*model\.parameters\(\)"),
    (lambda: [np.ones(2)], TypeError, "number 0 is a ndarray"),
    (lambda: [one(), "w"], TypeError, "number 1 is a str"),
    (lambda: None, TypeError, "got a NoneType"),
    (lambda: [(one(), one())], TypeError, "number 0 is a tuple"),
    (lambda: [("w", np.ones(2))], TypeError, "number 0 is a tuple"),
    (lambda: [], ValueError, "no parameters"),
    (lambda: (p for p in []), ValueError, "no parameters"),
    (lambda: Parameter([1.0]), RuntimeError, "no parameter has a gradient.*backward")])
def test_clipping_what_has_no_gradients_is_refused(params, error, message):
    with pytest.raises(error, match=f"clip_grad_norm: .*{message}"):
        clip_grad_norm(params(), 1.0)


@pytest.mark.parametrize("max_norm", [NAN, 0, -1.0, "1", None, True], ids=str)
def test_clipping_to_what_is_no_length_is_refused(max_norm):
    p = one(grad=4.0)
    with pytest.raises(ValueError, match="max_norm must be positive, got"):
        clip_grad_norm([p], max_norm)
    assert p.grad == 4.0 and clip_grad_norm([p], math.inf) == 4.0 and p.grad == 4.0


def test_a_parameter_without_a_gradient_has_length_zero_beside_others():
    p = Parameter([1.0])
    assert clip_grad_norm([p, one(grad=4.0)], 10) == 4.0 and p.grad is None


@pytest.mark.parametrize("dtype, value", [(np.float64, 1e200), (np.float64, 1e-200),
                                          (np.float32, 1e30), (np.float32, 1e-30)])
def test_the_length_of_gradients_whose_squares_leave_the_range(dtype, value):
    a, b = one(grad=3 * value, dtype=dtype), one(grad=4 * value, dtype=dtype)
    assert clip_grad_norm([a, b], value) == pytest.approx(5 * value, rel=1e-6)
    scaled = [a.grad.item() / value, b.grad.item() / value]
    np.testing.assert_allclose(scaled, [0.6, 0.8], rtol=1e-6)


def test_a_gradient_that_is_not_finite_is_stopped_by_clipping_before_the_step():
    good, bad = one(), one()
    optimizer = AdamW([good, bad], lr=0.1)
    bad.grad = [NAN]
    with pytest.raises(ValueError, match="not finite in number 1"):
        clip_grad_norm([good, bad], 1.0)
        optimizer.step()
    assert good.item() == bad.item() == 1.0 and optimizer.m[0] == 0
