"""`state_dict` and `load_state_dict`: refused, converted, and nothing by halves."""

import collections
import copy
import pickle

import numpy as np
import pytest

import nn
from tape import Tensor
from tests.checks import counting_calls


def table(names, dtype=np.float32):
    model = nn.Module()
    model.t = {name: nn.Parameter(np.ones(2, dtype)) for name in names}
    return model


def linear(dtype=np.float32):
    model = nn.Module()
    model.weight, model.bias = nn.Parameter(np.ones((2, 3), dtype)), nn.Parameter(np.ones(3, dtype))
    return model


# --- the report ---


def test_the_nearest_name_is_one_that_is_left_over():
    model = table(["a.weight", "b.weight"])
    ones = np.ones(2)
    report = model.load_state_dict({"t.a.weight": ones, "t.b.weigth": ones}, strict=False)
    assert report == ["missing 't.b.weight' (nearest: 't.b.weigth')",
                      "unexpected 't.b.weigth' (nearest: 't.b.weight')"]
    assert model.load_state_dict({"t.a.weight": ones}, strict=False) == ["missing 't.b.weight'"]


def test_of_many_names_the_first_have_a_nearest_and_the_rest_are_counted():
    model = table([f"blocks.{i}.weight" for i in range(1000)])
    state = {name.replace("blocks", "block"): array for name, array in model.state_dict().items()}
    with pytest.raises(ValueError) as refused:
        model.load_state_dict(state)
    message = str(refused.value)
    assert "missing 't.blocks.0.weight' (nearest: 't.block.0.weight')" in message
    assert "unexpected 't.block.1.weight' (nearest: 't.blocks.1.weight')" in message
    assert message.count("995 more") == 2 and len(message) < 2000
    report = model.load_state_dict(state, strict=False)
    assert len(report) == 2000 and report[999] == "missing 't.blocks.999.weight'"


def test_the_wrong_shapes_of_many_are_counted_too():
    model = table(range(1000))
    with pytest.raises(ValueError, match="'t.4' must have shape .*; and 995 more") as refused:
        model.load_state_dict({f"t.{i}": np.ones(3) for i in range(1000)})
    assert len(str(refused.value)) < 1000


class Name(str):
    """A name for which to be compared is a call, so that a search through a list of them counts."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        return str.__eq__(self, other)


def test_the_report_takes_calls_in_proportion_to_the_number_of_names():
    def work(n):
        model = table(range(n))
        state = {Name(f"u.{i}"): 0 for i in range(n)}
        with counting_calls() as calls:
            model.load_state_dict(state, strict=False)
        return calls[0]

    assert work(3200) < 32 * work(100)


# --- what is refused, by name, before anything is changed ---


@pytest.mark.parametrize("array, message", [
    (np.ones((2, 3), complex), "complex128"), (np.ones((2, 3), object), "object"),
    (np.full((2, 3), "1.5"), "<U3"), (np.zeros((2, 3), "M8[s]"), "datetime64"),
    ([[1.0], [1.0, 2.0]], "list"), (None, "NoneType"),
    (np.full((2, 3), 1e300), "beyond the range of float32"), (np.ones((3, 2)), "must have shape"),
    (1.0, "must have shape")], ids=str)
def test_what_is_no_array_of_fitting_numbers_is_refused_and_changes_nothing(array, message):
    model = linear()
    for strict in (True, False):
        with pytest.raises(ValueError, match=f"load_state_dict: Module: 'weight' .*{message}"):
            model.load_state_dict({"bias": np.zeros(3), "weight": array}, strict=strict)
    assert (model.bias.data == 1).all() and (model.weight.data == 1).all()


@pytest.mark.parametrize("state", [
    nn.Linear(1, 1, rng=0), [("weight", np.ones(1))], "model.npz", None], ids=str)
def test_what_is_no_mapping_is_refused(state):
    with pytest.raises(TypeError, match="a mapping from names to arrays, .*state_dict"):
        nn.Linear(1, 1, rng=0).load_state_dict(state)


# --- what is accepted ---


@pytest.mark.parametrize("weight", [
    np.arange(6).reshape(2, 3), np.arange(6.0).reshape(2, 3), [[0, 1, 2], [3, 4, 5]],
    Tensor(np.arange(6.0).reshape(2, 3)), nn.Parameter([[0, 1, 2], [3, 4, 5]]),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(6).reshape(2, 3).astype(">f8")], ids=lambda w: type(w).__name__)
def test_numbers_of_other_kinds_are_converted_and_copied(weight):
    model = linear()
    model.load_state_dict(collections.UserDict(weight=weight, bias=np.zeros(3, np.float16)))
    assert model.weight.dtype == np.float32 and model.weight.data.dtype.isnative
    np.testing.assert_array_equal(model.weight.data, [[0, 1, 2], [3, 4, 5]])
    assert not np.shares_memory(model.weight.data, getattr(weight, "data", weight))


def test_what_is_not_finite_comes_back_as_it_was_saved():
    state = {"weight": np.full((2, 3), np.nan), "bias": np.array([np.inf, -np.inf, 0])}
    model = linear()
    model.load_state_dict(state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_a_value_too_small_for_the_type_is_rounded_and_one_too_large_is_refused():
    model = linear(np.float16)
    model.load_state_dict({"weight": np.full((2, 3), 1e-9), "bias": np.full(3, 65504.0)})
    assert (model.weight.data == 0).all() and (model.bias.data == 65504).all()
    for bias in (np.full(3, 1e5), np.full(3, 100_000)):
        with pytest.raises(ValueError, match="'bias' has values beyond the range of float16"):
            model.load_state_dict({**model.state_dict(), "bias": bias})


def test_an_archive_reads_each_array_once(tmp_path):
    np.savez(tmp_path / "m.npz", **linear().state_dict())
    reads = []

    class Counting(dict):
        def __getitem__(self, name):
            reads.append(name)
            return super().__getitem__(name)

    model = linear(np.float64)
    with np.load(tmp_path / "m.npz") as archive:
        model.load_state_dict(Counting(archive))
    assert reads == ["weight", "bias"]


def test_a_models_own_state_can_be_loaded_and_the_parameters_stay_the_same_objects():
    model = linear()
    before = model.parameters()
    model.load_state_dict({name: p.data for name, p in model.named_parameters()})
    model.load_state_dict(dict(model.named_parameters()))
    assert all(a is b for a, b in zip(before, model.parameters()))
    assert (model.weight.data == 1).all()


def test_two_parameters_loaded_from_one_array_do_not_share_it():
    model, one = table("ab"), np.ones(2, np.float32)
    model.load_state_dict({"t.a": one, "t.b": one})
    model.t["a"].data -= 1
    assert (model.t["b"].data == 1).all() and (one == 1).all()


def test_tied_weights_load_once_and_stay_tied():
    model = linear()
    model.again = model.weight
    assert list(model.state_dict()) == ["weight", "bias"]
    model.load_state_dict({"weight": np.zeros((2, 3)), "bias": np.zeros(3)})
    assert model.again is model.weight and (model.again.data == 0).all()
    with pytest.raises(ValueError, match="unexpected 'again'"):
        model.load_state_dict({**model.state_dict(), "again": np.ones((2, 3))})


def test_a_frozen_parameter_is_saved_and_loaded_and_stays_frozen():
    model = linear()
    model.bias.requires_grad = False
    model.load_state_dict({name: array * 3 for name, array in model.state_dict().items()})
    assert (model.bias.data == 3).all() and not model.bias.requires_grad


def test_zero_grad_reaches_all_and_a_frozen_one_too():
    model = linear()
    for parameter in model.parameters():
        parameter.grad = np.ones(parameter.shape)
    model.bias.requires_grad = False
    model.zero_grad()
    assert model.weight.grad is None and model.bias.grad is None


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_keep_ties_in_every_container_gradients_and_modes(clone):
    model = linear()
    model.queue = collections.deque([model.weight])
    model.part = nn.Dropout(0.5, rng=0).eval()
    model.weight.grad = np.ones((2, 3))
    model.bias.requires_grad = False
    again = clone(model)
    assert again.queue[0] is again.weight is not model.weight
    assert not again.part.training and again.training and not again.bias.requires_grad
    again.weight.data -= 1
    again.weight.grad *= 2
    assert (model.weight.data == 1).all() and (model.weight.grad == 1).all()


def test_a_mode_is_true_or_false():
    model = nn.Dropout(0.5, rng=0)
    assert not model.train(np.bool_(False)).training
    with pytest.raises(TypeError, match="train: mode must be True or False, got .*eval"):
        model.train("eval")
    assert model.training is False


def test_evaluating_puts_the_modes_back_after_an_error_and_when_nested():
    model = nn.Sequential(nn.Dropout(0.5, rng=0))
    with pytest.raises(KeyError):
        with nn.evaluating(model), nn.evaluating(model):
            raise KeyError
    assert all(module.training for module in model.modules())
