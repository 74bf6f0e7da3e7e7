"""Modules: how parameters are found, named, saved and loaded."""

import copy
import pickle

import numpy as np
import pytest

import nn
from tape import Tensor


class Everything(nn.Module):
    """Parameters in every kind of container, one of them tied."""

    def __init__(self):
        self.second = nn.Linear(2, 3, rng=0)
        self.first = nn.Parameter([1.0])
        self.list = [nn.Linear(2, 2, rng=1), nn.Parameter([2.0])]
        self.tuple = (nn.Parameter([3.0]),)
        self.dict = {"a": nn.Linear(1, 1, bias=False, rng=2), "nested": [nn.Parameter([4.0])]}
        self.tied = self.second.weight
        self.frozen = Tensor([5.0])
        self.number = 6

    def forward(self, x):
        return self.second(x)


def test_parameters_are_found_in_definition_order_in_every_container_and_tied_ones_once():
    names = [name for name, _ in Everything().named_parameters()]
    assert names == ["second.weight", "second.bias", "first", "list.0.weight", "list.0.bias",
                     "list.1", "tuple.0", "dict.a.weight", "dict.nested.0"]


def test_the_order_of_definition_is_kept_across_containers():
    model = nn.Sequential(nn.Linear(1, 2, rng=0), nn.ReLU(), nn.Linear(2, 1, rng=0))
    names = [name for name, _ in model.named_parameters()]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert model.parameter_count() == 2 + 2 + 2 + 1


def test_state_dict_round_trip_and_independence():
    model, other = nn.Linear(2, 3, rng=0), nn.Linear(2, 3, rng=1)
    state = model.state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.weight.data, model.weight.data)
    state["weight"][...] = 7
    assert not (model.weight.data == 7).any() and not (other.weight.data == 7).any()


def test_strict_loading_says_what_is_missing_left_over_or_misshapen():
    model = nn.Linear(2, 3, rng=0)
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"missing 'weight' \(nearest: 'weigth'\)"):
        model.load_state_dict({"weigth": state["weight"], "bias": state["bias"]})
    with pytest.raises(ValueError, match="unexpected 'extra'"):
        model.load_state_dict({**state, "extra": np.zeros(1)})
    with pytest.raises(ValueError, match=r"'weight' must have shape \(2, 3\), got \(3, 2\)"):
        model.load_state_dict({**state, "weight": state["weight"].T}, strict=False)


def test_a_refused_state_changes_nothing():
    model = nn.Linear(2, 3, rng=0)
    before = model.state_dict()
    with pytest.raises(ValueError):
        model.load_state_dict({"weight": np.zeros((2, 3)), "bias": np.zeros(4)})
    np.testing.assert_array_equal(model.weight.data, before["weight"])


def test_loading_without_strict_reports_what_did_not_match():
    model = nn.Linear(2, 3, rng=0)
    report = model.load_state_dict({"weight": np.ones((2, 3))}, strict=False)
    assert report == ["missing 'bias'"] and (model.weight.data == 1).all()


def test_tied_weights_stay_tied_through_copy_and_pickle():
    config = nn.GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4)
    for clone in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        model = Everything()
        again = clone(model)
        assert again.tied is again.second.weight and again.tied is not model.tied
        gpt = nn.GPT(config, rng=0)
        same, idx = clone(gpt), np.array([[1, 2, 3]])
        np.testing.assert_array_equal(same(idx)[0].data, gpt(idx)[0].data)


def test_a_frozen_parameter_is_saved_and_not_trained():
    model = nn.Linear(2, 1, rng=0)
    model.bias.requires_grad = False
    assert set(model.state_dict()) == {"weight", "bias"}
    optimizer = nn.SGD(model.parameters(), lr=1.0)
    model(Tensor([[1.0, 2.0]])).sum().backward()
    optimizer.step()                     # without a warning, which would be an error here
    assert model.bias.data == 0 and model.weight.grad is not None


def test_an_activation_kept_for_a_look_is_no_parameter():
    model = nn.Linear(2, 1, rng=0)
    model.seen = model(Tensor([[1.0, 2.0]]))
    assert [name for name, _ in model.named_parameters()] == ["weight", "bias"]


def test_evaluating_puts_each_module_back():
    model = nn.Sequential(nn.Dropout(0.5, rng=0), nn.Dropout(0.5, rng=0))
    model.layers[0].eval()
    with nn.evaluating(model):
        assert not model.layers[1].training
    assert not model.layers[0].training and model.layers[1].training


def test_train_and_eval_reach_everything_and_evaluating_puts_the_mode_back():
    model = nn.Sequential(nn.Dropout(0.5, rng=0), [nn.Dropout(0.5, rng=0)])
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train()
    with nn.evaluating(model):
        assert not model.layers[0].training
    assert all(module.training for module in model.modules())


def test_a_chain_of_modules_that_refer_to_each_other_ends():
    a, b = nn.Linear(1, 1, rng=0), nn.Linear(1, 1, rng=0)
    a.other, b.other = b, a
    assert [name for name, _ in a.named_parameters()] == ["weight", "bias", "other.weight",
                                                          "other.bias"]


def test_module_list_registers_and_indexes():
    layers = nn.ModuleList([nn.Linear(1, 2, rng=0)]).append(nn.Linear(2, 1, rng=0))
    assert len(layers) == 2 and len(list(layers)) == 2 and layers[1].weight.shape == (2, 1)
    assert len(layers.parameters()) == 4


def test_linear_names_the_axis_that_does_not_fit():
    with pytest.raises(ValueError, match=r"last axis of x must be 2, got shape \(4, 3\)"):
        nn.Linear(2, 3, rng=0)(Tensor(np.ones((4, 3))))


def test_a_seed_fixes_the_initial_values_and_a_generator_moves_on():
    assert (nn.Linear(3, 3, rng=5).weight.data == nn.Linear(3, 3, rng=5).weight.data).all()
    rng = np.random.default_rng(5)
    assert (nn.Linear(3, 3, rng=rng).weight.data != nn.Linear(3, 3, rng=rng).weight.data).all()
