"""Buffers: arrays of a module that are saved with it and never trained."""

import numpy as np
import pytest

import nn
from tape import Tensor


class Running(nn.Module):
    """A weight, the mean of what went through, and a table."""

    def __init__(self):
        self.weight = nn.Parameter([2.0])
        self.register_buffer("mean", np.zeros(2, np.float32))
        self.register_buffer("table", np.arange(3), saved=False)

    def forward(self, x):
        self.mean.data = 0.5 * (self.mean.data + x.data)
        return x * self.weight + self.mean


def test_buffers_are_saved_and_loaded_but_never_trained():
    model = nn.Sequential(Running())
    model(Tensor(np.ones(2, np.float32))).sum().backward()
    assert [name for name, _ in model.named_parameters()] == ["0.weight"]
    assert [name for name, _ in model.named_buffers()] == ["0.mean", "0.table"]
    assert [name for name, _ in model.named_buffers(saved=False)] == ["0.table"]
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.mean"] and state["0.mean"][0] == 0.5
    assert model.layers[0].mean.grad is None and model.parameter_count() == 1
    twin = nn.Sequential(Running())
    assert twin.load_state_dict(state) == []
    np.testing.assert_array_equal(twin.layers[0].mean.data, [0.5, 0.5])
    with pytest.raises(ValueError, match="missing '0.mean'"):
        twin.load_state_dict({"0.weight": np.ones(1)})
    with pytest.raises(ValueError, match=r"'0.mean' must have shape \(2,\), got \(3,\)"):
        twin.load_state_dict({**state, "0.mean": np.ones(3)})


def test_a_buffer_keeps_its_kind_and_its_place():
    model = Running()
    for name in ("mean", "weight", "forward", "no name"):
        with pytest.raises(ValueError, match=f"name must be that of a new attribute, got '{name}'"):
            model.register_buffer(name, np.zeros(2))
    model.mean = np.ones(2)
    with pytest.raises(TypeError, match=r"Running.mean: a buffer must stay a Tensor .*got a ndarray"):
        model.state_dict()


def test_a_buffer_of_integers_is_given_integers_that_it_can_hold():
    model = nn.Module()
    model.register_buffer("count", np.zeros(2, np.int8))
    model.load_state_dict({"count": np.array([3.0, -4.0])})
    assert model.count.dtype == np.int8 and model.count.data.tolist() == [3, -4]
    for bad in ([0.5, 0], [300, 0], [np.nan, 0]):
        with pytest.raises(ValueError, match="'count' has values that int8 cannot hold"):
            model.load_state_dict({"count": np.array(bad)})
    assert model.count.data.tolist() == [3, -4]


def test_averages_are_applied_to_a_model_with_buffers_which_stay():
    model = Running()
    average = nn.ExponentialMovingAverage(model, 0.5)
    model.weight.data = np.array([4.0], np.float32)
    average.update()
    with average.applied():
        assert model.weight.item() == 3
        model(Tensor(np.ones(2, np.float32)))
    assert model.weight.item() == 4
    np.testing.assert_array_equal(model.mean.data, [0.5, 0.5])
