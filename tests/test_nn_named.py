"""Modules by name, the same in every container; `ModuleDict`, `apply`, children, buffers."""

import numpy as np
import pytest

import nn


def block(seed=0):
    return nn.Sequential(nn.Linear(1, 1, rng=seed), nn.ReLU())


class Holding(nn.Module):
    def __init__(self, blocks):
        self.blocks = blocks


@pytest.mark.parametrize("make", [list, tuple, nn.ModuleList, lambda items: nn.Sequential(*items),
                                  lambda items: {str(i): x for i, x in enumerate(items)},
                                  lambda items: nn.ModuleDict(
                                      {str(i): x for i, x in enumerate(items)})],
                         ids=["list", "tuple", "ModuleList", "Sequential", "dict", "ModuleDict"])
def test_the_names_are_the_same_in_every_container(make):
    model = Holding(make([nn.Linear(1, 2, rng=0), nn.Linear(2, 1, rng=1)]))
    assert [name for name, _ in model.named_parameters()] == [
        "blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]
    plain = Holding([nn.Linear(1, 2, rng=2), nn.Linear(2, 1, rng=3)])
    plain.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(plain.blocks[1].weight.data, model.parameters()[2].data)


def test_a_container_may_have_attributes_beside_what_it_holds():
    layers = nn.ModuleList([nn.Linear(1, 1, bias=False, rng=0)])
    layers.scale = nn.Parameter([1.0])
    assert [name for name, _ in layers.named_parameters()] == ["scale", "0.weight"]
    layers.eval()
    assert not layers.training and not layers[0].training


def test_two_parameters_of_one_name_in_a_container_are_refused():
    layers = nn.ModuleDict({"scale": nn.Linear(1, 1, rng=0)})
    vars(layers)["scale.weight"] = nn.Parameter([1.0])
    with pytest.raises(ValueError, match="two parameters are named 'scale.weight'"):
        layers.parameters()


def test_a_module_dict_is_a_dict_of_modules():
    heads = nn.ModuleDict({"a": nn.Linear(1, 2, rng=0)})
    heads["b"] = b = nn.Linear(1, 3, rng=1)
    heads.update([("c", nn.ReLU())])
    assert list(heads) == list(heads.keys()) == ["a", "b", "c"] and len(heads) == 3
    assert heads["b"] is heads.b is list(heads.values())[1] and dict(heads.items())["b"] is b
    assert "b" in heads and "d" not in heads and not hasattr(heads, "d")
    assert [name for name, _ in heads.named_parameters()] == [
        "a.weight", "a.bias", "b.weight", "b.bias"]
    with pytest.raises(AttributeError, match="no 'to', which is PyTorch's name"):
        heads.to
    with pytest.raises(KeyError):
        heads["d"]


@pytest.mark.parametrize("change, message", [
    (lambda heads: heads.update({"b": 3}), "ModuleDict: all items must be modules, got a int"),
    (lambda heads: heads.update({1: nn.ReLU()}), "ModuleDict: keys must be texts.* got 1"),
    (lambda heads: nn.ModuleList([nn.ReLU()]).extend([None]), "ModuleList: all items .* NoneType")])
def test_what_is_no_module_or_no_text_is_refused(change, message):
    with pytest.raises(TypeError, match=message):
        change(nn.ModuleDict({"a": nn.ReLU()}))


def test_a_module_list_is_changed_as_a_list_is():
    layers = nn.ModuleList([nn.ReLU()]).extend([nn.Linear(1, 1, rng=0)])
    layers[0] = nn.Linear(1, 1, rng=1)
    assert [name for name, _ in layers.named_parameters()] == [
        "0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(layers[1:])[0] is layers[1]
    with pytest.raises(TypeError, match="all items must be modules"):
        layers[0] = 3


def tree():
    model = Holding([block(0), block(1)])
    model.norm = nn.LayerNorm(1)
    return model


def test_modules_by_name():
    model = tree()
    named = dict(model.named_modules())
    assert list(named) == ["", "blocks.0", "blocks.0.0", "blocks.0.1", "blocks.1", "blocks.1.0",
                           "blocks.1.1", "norm"]
    assert named[""] is model and list(named.values()) == list(model.modules())
    assert [name for name, _ in model.named_children()] == ["blocks.0", "blocks.1", "norm"]
    assert list(model.children()) == [*model.blocks, model.norm]


def test_children_whose_names_begin_alike():
    model = nn.Module()
    model.a, model.ab = nn.Sequential(nn.ReLU()), nn.ReLU()
    assert [name for name, _ in model.named_children()] == ["a", "ab"]


def test_apply_comes_to_what_holds_others_after_them():
    model, seen = tree(), []
    assert model.apply(seen.append) is model
    names = {id(module): name for name, module in model.named_modules()}
    assert [names[id(module)] for module in seen] == [
        "blocks.0.0", "blocks.0.1", "blocks.0", "blocks.1.0", "blocks.1.1", "blocks.1", "norm", ""]


def test_apply_sets_initial_values_as_by_hand():
    def zero(module):
        if isinstance(module, nn.Linear):
            module.weight.data[...] = 0
    model = tree().apply(zero)
    assert all((p.data == 0).all() for name, p in model.named_parameters() if name.endswith("0.weight"))
    assert (model.norm.weight.data == 1).all()


def test_a_shared_module_is_applied_once():
    shared, seen = nn.ReLU(), []
    Holding([shared, shared, nn.Sequential(shared)]).apply(seen.append)
    assert [type(module) for module in seen] == [nn.ReLU, nn.Sequential, Holding]


def test_buffers_are_the_named_ones():
    model = tree()
    model.blocks[1].register_buffer("mean", np.zeros(2))
    assert [name for name, _ in model.named_buffers()] == ["blocks.1.mean"]
    assert model.buffers() == [model.blocks[1].mean]
