"""The audit at the first step: parameters that will not learn are named, and no others."""

import warnings

import numpy as np
import pytest

import nn
from nn.training.engines import TapeEngine

X = np.ones((4, 2), np.float32)
NOTHING = nn.Audit([], [], [])


class Branches(nn.Module):
    """Two layers side by side; what is done with the second is up to the test."""

    def __init__(self, use):
        self.first, self.second = nn.Linear(2, 3, rng=0), nn.Linear(2, 3, rng=1)
        self.use = use

    def forward(self, x, targets=None):
        out = self.first(x) + self.use(self, x)
        return out, (out * out).mean()


def second(model, x):
    return model.second(x)


def trained_once(model, *optimizers):
    for p in model.parameters():
        p.grad = None
    model(X)[1].backward()
    return nn.audit(model, *optimizers, warn=False)


@pytest.mark.parametrize("use", [
    lambda model, x: model.second(x).detach(),                          # a branch that is cut
    lambda model, x: 0.0,                                               # a module that is not called
    lambda model, x: 0.0 if model.training else model.second(x)])       # in evaluation alone
def test_what_the_loss_does_not_reach_is_named(use):
    model = Branches(use)
    found = trained_once(model, nn.SGD(model.parameters(), lr=0.1))
    assert found == nn.Audit(["second.weight", "second.bias"], [], [])
    model.second.weight.requires_grad = False                           # frozen on purpose
    assert trained_once(model, nn.SGD(model.parameters(), lr=0.1)).unreached == ["second.bias"]


def test_a_model_that_learns_is_passed_over():
    model = Branches(second)
    assert trained_once(model, nn.AdamW(nn.decay_groups(model, 0.1))) == NOTHING
    assert str(NOTHING) == "every parameter has a gradient and an optimiser"
    layers = nn.Sequential(nn.Linear(2, 2, rng=0))
    layers.spare = [nn.Linear(2, 2, rng=1)]                              # a plain list is searched
    layers(X).sum().backward()
    found = nn.audit(layers, nn.SGD(layers.parameters(), lr=0.1), warn=False)
    assert found == nn.Audit(["spare.0.weight", "spare.0.bias"], [], [])


def test_what_no_optimiser_holds_is_named():
    model = Branches(second)
    part = nn.SGD(model.first.parameters(), lr=0.1)
    assert trained_once(model, part) == nn.Audit([], ["second.weight", "second.bias"], [])
    rest = nn.Adam([model.second.weight])
    assert trained_once(model, part, rest).unheld == ["second.bias"]
    model.second.bias.requires_grad = False
    assert trained_once(model, part, rest) == NOTHING


def test_what_an_optimiser_holds_and_no_model_has_is_named():
    model = Branches(second)
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    model.second = nn.Linear(2, 3, rng=2)                                # after the optimiser was made
    found = trained_once(model, optimizer)
    assert found == nn.Audit([], ["second.weight", "second.bias"],
                             ["SGD number 2 (2, 3)", "SGD number 3 (3,)"])


def test_tied_parameters_count_as_one():
    model = Branches(second)
    model.second.weight = model.first.weight
    assert trained_once(model, nn.SGD(model.parameters(), lr=0.1)) == NOTHING


def test_the_warning_says_what_and_why_and_what_to_do():
    model = Branches(lambda model, x: 0.0)
    model.more = [nn.Linear(2, 2, rng=i) for i in range(5)]
    model(X)[1].backward()
    optimizer = nn.SGD(model.first.parameters(), lr=0.1)
    with pytest.warns(UserWarning) as caught:
        nn.audit(model, optimizer)
    (warning,) = caught
    text = str(warning.message)
    assert warning.filename == __file__
    assert text.startswith(
        "audit: some parameters of Branches will not learn.\n12 have no gradient, so the loss does not "
        "depend on them: second.weight, second.bias, more.0.weight, ")
    assert "more.2.bias and 4 more. Is their module called" in text and "requires_grad = False" in text
    assert "12 are held by no optimiser" in text and "model.parameters()" in text


def test_the_training_loop_warns_at_its_first_step_alone():
    model = Branches(lambda model, x: 0.0)
    engine = TapeEngine(model, nn.SGD(model.parameters(), lr=0.1))
    with pytest.warns(UserWarning) as caught:
        engine.update(1, (X, X), 0.1)
    assert [str(w.message).split("\n")[0] for w in caught] == [
        "audit: some parameters of Branches will not learn."]            # and the optimiser is silent
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.update(2, (X, X), 0.1)


def test_after_the_first_step_the_loop_looks_no_more(monkeypatch):
    calls = []
    monkeypatch.setattr("nn.training.engines.audit", lambda *given: calls.append(given))
    model = Branches(second)
    engine = TapeEngine(model, nn.SGD(model.parameters(), lr=0.1))
    for step in range(1, 4):
        engine.update(step, (X, X), 0.1)
    assert calls == [(model, engine.optimizer)]


@pytest.mark.parametrize("given", [(), (None,)])
def test_an_audit_needs_an_optimiser(given):
    with pytest.raises(TypeError, match=r"audit\(model, optimizer\), got \["):
        nn.audit(Branches(second), *given)
