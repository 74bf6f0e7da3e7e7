"""Where parameters are found and under which names; refused is what has no name that lasts."""

import collections
import dataclasses
import sys
import types

import numpy as np
import pytest

import nn
from tape import Tensor


def weight(value=1.0):
    return nn.Parameter([value])


def holding(**attributes):
    model = nn.Module()
    vars(model).update(attributes)
    return model


def names(model):
    return [name for name, _ in model.named_parameters()]


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Heads:
    query: nn.Linear
    size: int
    key: nn.Parameter


class Shelf(collections.abc.Sequence):
    """A sequence of one's own."""

    def __init__(self, *items):
        self._items = items

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


# --- found ---


@pytest.mark.parametrize("container, expected", [
    (collections.deque([weight(), weight()]), ["x.0", "x.1"]),
    (collections.OrderedDict(b=weight(), a=weight()), ["x.b", "x.a"]),
    (collections.UserDict(a=weight()), ["x.a"]),
    (collections.UserList([weight()]), ["x.0"]),
    (collections.ChainMap({"a": weight()}), ["x.a"]),
    (types.MappingProxyType({"a": weight()}), ["x.a"]),
    (Shelf(weight(), weight()), ["x.0", "x.1"]),
    (Pair(weight(), nn.Linear(1, 1, bias=False, rng=0)), ["x.0", "x.1.weight"]),
    ({"a": weight(), "b": 3}.values(), ["x.0"]),
    ({"a": weight()}.items(), ["x.0.1"]),
    (Heads(nn.Linear(1, 1, bias=False, rng=0), 3, weight()), ["x.query.weight", "x.key"]),
    (np.array([[nn.Linear(1, 1, bias=False, rng=0)], [3]], dtype=object), ["x.0.0.weight"]),
    ([[(weight(),)], {"k": [weight()]}], ["x.0.0.0", "x.1.k.0"])],
    ids=lambda value: type(value).__name__)
def test_parameters_are_found_in_every_ordered_container(container, expected):
    assert names(holding(x=container)) == expected


@pytest.mark.parametrize("value", [
    "a text", b"bytes", bytearray(b"more"), collections.UserString("text"), range(3), 3, None,
    np.ones(3), np.array("text"), memoryview(b"view"), Heads, {"train", "test"},
    frozenset({1, (2, "a")}), {"a": 1}.keys(), {1.0: "x"}, [Tensor([1.0])], {Tensor([1.0])}],
    ids=lambda value: type(value).__name__)
def test_what_holds_no_parameter_is_passed_over(value):
    assert names(holding(x=value, after=weight())) == ["after"]


def test_modules_in_a_deque_are_trained_and_switched():
    model = holding(x=collections.deque([nn.Dropout(0.5, rng=0)]))
    model.eval()
    assert not model.x[0].training


def test_a_module_that_is_a_container_has_its_attributes_and_its_items():
    class Layers(nn.Module, list):
        pass

    class Table(nn.Module, collections.UserDict):
        pass

    layers, by_name = Layers([weight()]), Table(a=weight())
    layers.scale = weight()
    layers.append(layers)
    assert names(holding(x=layers, y=by_name)) == ["x.scale", "x.0", "y.data.a"]
    assert len(list(holding(x=layers).modules())) == 2


def test_a_container_reached_twice_counts_once():
    shared = [weight(), weight()]
    assert names(holding(a=shared, b={"again": shared})) == ["a.0", "a.1"]


# --- refused ---


@pytest.mark.parametrize("container", [
    {nn.Linear(1, 1, rng=0)}, frozenset({weight()}), {("name", nn.ReLU())},
    frozenset({frozenset({(1, weight())})})], ids=["module", "parameter", "pair", "nested"])
def test_a_set_of_parameters_or_modules_is_refused(container):
    model = holding(first=[container])
    for ask in (model.state_dict, model.parameters, model.eval, lambda: list(model.modules())):
        with pytest.raises(TypeError, match=r"\.first\[0\] is a set .*no order.*list"):
            ask()


def test_a_parameter_or_module_as_a_key_is_refused():
    for key in (weight(), nn.ReLU()):
        with pytest.raises(TypeError, match=r"\.masks.*as a key.*text the key"):
            holding(masks={key: np.ones(1)}).parameters()


def test_a_parameter_in_the_body_of_a_class_is_refused():
    for value in (weight(), nn.Linear(1, 1, rng=0), [weight()]):
        with pytest.raises(TypeError, match="Net.shared.*__init__"):
            type("Net", (nn.Module,), {"shared": value})
    type("Net", (nn.Module,), {"activation": nn.ReLU(), "sizes": [1, 2]})       # nothing to learn


def test_slots_are_refused_because_their_values_would_not_be_found():
    with pytest.raises(TypeError, match="Net: .*__slots__"):
        type("Net", (nn.Module,), {"__slots__": ("weight",)})
    type("Net", (nn.Module,), {"__slots__": ()})


@pytest.mark.parametrize("modules", [
    {"a": nn.ReLU()}, {nn.ReLU()}, [nn.ReLU(), "gelu"], [nn.ReLU], [[nn.ReLU()]]], ids=str)
def test_a_module_list_refuses_what_is_no_module_and_what_has_no_order(modules):
    with pytest.raises(TypeError, match="ModuleList: .*modules"):
        nn.ModuleList(modules)
    with pytest.raises(TypeError, match="ModuleList: .*modules"):
        nn.ModuleList().append("relu")


# --- names ---


@pytest.mark.parametrize("attributes, both", [
    ({"table": {1: weight(), "1": weight()}}, r"\.table\[1\] and \.table\['1'\]"),
    ({"t": {"a": {"b": weight()}, "a.b": weight()}}, r"\.t\['a'\]\['b'\] and \.t\['a\.b'\]"),
    ({"blocks": {"0.weight": weight(), 0: nn.Linear(1, 1, rng=0)}},
     r"\.blocks\['0\.weight'\] and \.blocks\[0\]\.weight"),
    ({"a": holding(b=weight()), "a.b": weight()}, r"\.a\.b and \.'a\.b'")])
def test_two_parameters_of_one_name_are_refused(attributes, both):
    model = holding(**attributes)
    for ask in (model.state_dict, model.parameters, lambda: model.load_state_dict({})):
        with pytest.raises(ValueError, match=f"two parameters are named .*: {both}"):
            ask()


def test_one_parameter_of_two_paths_with_one_name_is_one_parameter():
    shared = weight()
    assert names(holding(table={1: shared, "1": shared})) == ["table.1"]


# --- containers without end ---


def test_a_container_that_holds_itself_ends():
    loop_list, loop_dict, loop_deque = [weight()], {"a": weight()}, collections.deque([weight()])
    loop_list.append(loop_list)
    loop_dict["self"] = [loop_dict]
    loop_deque.append({"self": loop_deque})
    model = holding(a=loop_list, b=loop_dict, c=loop_deque)
    model.d = [model]
    assert names(model) == ["a.0", "b.a", "c.0"]
    assert len(list(model.eval().modules())) == 1


def test_the_depth_of_nesting_is_not_limited_by_the_stack():
    depth = sys.getrecursionlimit() * 3
    chain, table = nn.Linear(1, 1, bias=False, rng=0), [weight()]
    for _ in range(depth):
        chain, table = holding(c=chain), [table]
    model = holding(chain=chain, table=table)
    assert [name.count(".") for name in model.state_dict()] == [depth + 1, depth + 1]
    model.eval()
    while isinstance(table, list):       # taken apart level by level, which needs no stack either
        table = table[0]


def test_a_slice_of_a_sequential_is_one_and_layers_can_be_added():
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.ReLU(), nn.Linear(4, 2, rng=1))
    x = np.ones((2, 3), np.float32)
    first = model[:-1]
    assert type(first) is nn.Sequential and first[0] is model[0]
    np.testing.assert_array_equal(first(x).data, np.maximum(model[0](x).data, 0))
    assert model.append(nn.ReLU()) is model and len(model) == 4 and isinstance(model[-1], nn.ReLU)


def test_averages_are_of_a_module():
    with pytest.raises(TypeError, match="a module, whose parameters have names, got a list"):
        nn.ExponentialMovingAverage(nn.Linear(3, 4).parameters())
