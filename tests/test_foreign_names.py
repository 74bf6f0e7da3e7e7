"""Names of other libraries that are others here: each is answered with ours, which exists."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from nn.layers.foreign_names import MODULE, NN, OPTIMIZER
from tape import Tensor
from tape.foreign_names import AUTOGRAD, JAX, KEYWORDS, TAPE, TENSOR
from tests.checks import leaf

T = leaf(np.ones((2, 3, 4)))
MODEL = nn.Linear(2, 3, rng=0)
OWNERS = {"Tensor": (T, TENSOR), "tape": (tape, TAPE),
          "autograd": (tape, AUTOGRAD), "JAX": (tape, JAX), "nn": (nn, NN), "Module": (MODEL, MODULE),
          "optimizer": (nn.AdamW(MODEL.parameters()), OPTIMIZER)}
NAMES = [(owner, name) for owner, (_, table) in OWNERS.items() for name in table]
NAMES_OF = {"tape": tape, "ad": ad, "nn": nn, "np": np, "t": T, "u": T, "m": MODEL,
            "rng": np.random.default_rng(0), "optimizer": OWNERS["optimizer"][0]}


@pytest.mark.parametrize("owner, name", NAMES)
def test_each_name_is_unknown_and_its_error_says_what_to_write(owner, name):
    thing, table = OWNERS[owner]
    assert not hasattr(thing, name), f"{name} exists: take it off the table"
    library = owner if owner in ("autograd", "JAX") else "PyTorch"
    message = f"no '{name}', which is {library}'s name. Write "
    with pytest.raises(AttributeError, match=message) as caught:
        getattr(thing, name)
    assert str(caught.value).endswith(table[name])


@pytest.mark.parametrize("owner, name", NAMES)
def test_what_to_write_exists(owner, name):
    """Each ``np.random.default_rng``, ``t.data.strides`` ... in the text is looked up."""
    for path in re.findall(rf"\b(?:{'|'.join(NAMES_OF)})(?:\.\w+)+", OWNERS[owner][1][name]):
        first, *rest = path.split(".")
        found = NAMES_OF[first]
        for part in rest:
            found = getattr(found, part)            # raises where there is no such thing


@pytest.mark.parametrize("text", [
    text for _, table in OWNERS.values() for text in table.values()])
def test_no_text_sends_back_to_pytorch(text):
    assert "torch" not in text.lower() and not text.endswith(".") and not text.startswith(" ")


def test_the_tables_have_the_names_that_a_gpt_in_pytorch_uses():
    for name in ("view permute contiguous unsqueeze numel clone cpu cuda to float long masked_fill "
                 "masked_fill_ chunk topk multinomial zero_ add_ mul_ tril").split():
        assert name in TENSOR
    for name in "cat zeros ones arange randint manual_seed multinomial topk from_numpy long nn".split():
        assert name in TAPE
    for name in "functional init utils CrossEntropyLoss Tanh optim Identity Flatten".split():
        assert name in NN
    assert {"to", "cuda", "register_parameter"} <= set(MODULE) and "param_groups" in OPTIMIZER


@pytest.mark.parametrize("statement, write", [
    ("from tape import make_vjp", "autograd's name. Write value, pull = tape.vjp"),
    ("from tape import grad, make_hvp as hvp", r"Write tape.hvp\(f, x, v\)"),
    ("from tape import cat", "PyTorch's name. Write tape.concatenate"),
    ("from tape import vmap", "JAX's name. Write tape.stack"),
    ("from nn import Linear, CrossEntropyLoss", "PyTorch's name. Write nn.cross_entropy")])
def test_an_import_statement_says_what_to_write(statement, write):
    with pytest.raises(ImportError, match=write):
        exec(statement)


def test_an_import_statement_of_other_names_is_pythons():
    with pytest.raises(ImportError, match="cannot import name 'foo' from 'tape'"):
        exec("from tape import foo")
    from tape import lazy
    assert lazy is ad and not hasattr(tape, "make_vjp")


def test_what_to_write_for_autograds_products_is_right():
    names = {"np": np, "tape": tape, "x": np.array([0.5, 2.0]), "v": np.array([1.0, 3.0]),
             "g": np.array([2.0, -1.0]), "f": np.sin}
    c, s = np.cos(names["x"]), np.sin(names["x"])
    exec(AUTOGRAD["make_vjp"], names)
    np.testing.assert_allclose(names["gradient"], c * names["g"])
    exec(AUTOGRAD["make_jvp"], names)
    np.testing.assert_allclose(names["slope"], c * names["v"])
    np.testing.assert_allclose(eval(AUTOGRAD["make_ggnvp"], names), c * c * names["v"])
    names["f"] = lambda x: np.sum(np.sin(x))
    np.testing.assert_allclose(eval(AUTOGRAD["make_hvp"], names), -s * names["v"])


@pytest.mark.parametrize("owner, near, meant", [
    ("tape", "concatnate", "concatenate"), ("nn", "Sequentail", "Sequential")])
def test_another_unknown_name_is_answered_with_the_nearest(owner, near, meant):
    message = f"{owner} has no attribute '{near}'. Did you mean '{meant}'"
    with pytest.raises(AttributeError, match=message):
        getattr(OWNERS[owner][0], near)


@pytest.mark.parametrize("owner", ["Tensor", "Module", "optimizer"])
def test_an_object_without_the_name_says_so_in_pythons_words(owner):
    thing = OWNERS[owner][0]
    with pytest.raises(AttributeError, match=f"'{type(thing).__name__}' object has no attribute 'foo'"):
        thing.foo
    assert not hasattr(thing, "foo") and not hasattr(thing, "__array_struct__")


def test_the_error_of_a_property_comes_through():
    class Broken(nn.Module):
        @property
        def depth(self):
            return self.layers_that_are_not_there
    with pytest.raises(AttributeError, match="layers_that_are_not_there"):
        Broken().depth


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles_are_unharmed(make):
    np.testing.assert_array_equal(make(T).data, T.data)
    model = nn.Sequential(nn.ModuleList([MODEL]), nn.ModuleDict({"a": MODEL}))
    twin = make(model)
    assert [name for name, _ in twin.named_parameters()] == ["0.0.weight", "0.0.bias"]
    assert make(OWNERS["optimizer"][0]).lr == 1e-3


def test_an_attribute_may_have_one_of_these_names():
    class Tokens(nn.Module):
        def __init__(self):
            self.to = nn.Parameter([1.0])
    assert Tokens().to.item() == 1


# --- the three that mislead most ---


def test_the_module_tensor_is_no_function():
    for make in (lambda: tape.tensor([1.0]), lambda: tape.tensor(1.0, requires_grad=True)):
        with pytest.raises(TypeError, match=r"tape.tensor: a module.* Write tape.Tensor\(data\)"):
            make()
    import tape.tensor as module
    assert module.Tensor is Tensor


@pytest.mark.parametrize("call", [
    lambda: T.transpose(1, 2), lambda: tape.transpose(T, (1, 2)), lambda: np.transpose(T, (1, 2)),
    lambda: T.transpose((1, 2)), lambda: tape.transpose(T.data, (1, 2))])
def test_two_axes_of_three_are_exchanged_by_swapaxes(call):
    with pytest.raises(ValueError, match=r"each of the 3 axes once, got \(1, 2\).*swapaxes\(1, 2\)"):
        call()
    assert T.swapaxes(1, 2).shape == (2, 4, 3)


def test_axes_that_are_too_few_for_other_reasons_and_given_one_by_one():
    with pytest.raises(ValueError, match=r"each of the 3 axes once, got \(0,\)$|got \(0,\) \(inputs"):
        T.transpose(0)
    with pytest.raises(TypeError, match=r"one tuple; two are exchanged by tape.swapaxes\(x, 1, 2\)"):
        tape.transpose(T, 1, 2)


def test_size_is_a_number_and_says_so_when_it_is_called():
    for call in (lambda: T.size(), lambda: T.size(0), lambda: T.size(dim=-1)):
        with pytest.raises(TypeError, match=r"t.shape for t.size\(\), and t.shape\[0\] for t.s"):
            call()
    assert T.size == 24 and isinstance(T.size, int) and repr(T.size) == "24"
    for dtype in (np.float16, np.float32, np.float64):
        x = leaf(np.ones(3), dtype)
        assert {(x / x.size).dtype, (x.size * x).dtype, (x.data / x.size).dtype,
                (x.size * x.data).dtype, (dtype(2) / x.size).dtype, (x.size - dtype(2)).dtype,
                np.add(x.data, x.size).dtype} == {np.dtype(dtype)}
    assert (Tensor(np.int8([1, 2])) * T.size).dtype == np.int8
    assert pickle.loads(pickle.dumps(T.size)) == 24 and np.zeros(T.size).shape == (24,)
    assert np.array(T.size).dtype == np.int64 and np.sqrt(T.size) == np.sqrt(24)
    array = np.ones(2, np.float32)
    array /= T.size
    np.testing.assert_allclose(array, 1 / 24, rtol=1e-6)


# --- arguments ---


def functions_with_an_axis():
    for name in tape.__all__:
        function = getattr(tape, name)
        if callable(function) and "axis" in inspect.signature(function).parameters:
            yield f"tape.{name}", function
    for name, function in inspect.getmembers(T, inspect.ismethod):
        if not name.startswith("_") and "axis" in inspect.signature(function).parameters:
            yield f"t.{name}", function


FUNCTIONS = dict(functions_with_an_axis())


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_dim_is_refused_with_axis_wherever_there_is_one(function):
    needed = [p for p in inspect.signature(function).parameters.values()
              if p.default is p.empty and p.name != "axis"]
    with pytest.raises(TypeError, match=r"got dim=1. dim= is PyTorch's; write axis="):
        function(*(T for _ in needed), dim=1)


@pytest.mark.parametrize("call, message", [
    (lambda: T.sum(1, keepdim=True), "keepdim= is PyTorch's; write keepdims="),
    (lambda: tape.mean(T, axis=1, keepdim=True), "keepdim= is PyTorch's; write keepdims="),
    (lambda: T.std(unbiased=False), "write ddof=: 1 for unbiased=True"),
    (lambda: T.var(correction=1), "write ddof="), (lambda: T.norm(p=1), "with abs, .* and sum"),
    (lambda: T.split(split_size_or_sections=2), "write sections="),
    (lambda: T.swapaxes(dim0=0, dim1=1), "swapaxes with axis1="),
    (lambda: T.sum(axes=1), "Did you mean 'axis'"), (lambda: tape.stack([T], axs=0), "'axis'")])
def test_other_arguments_are_answered_with_ours(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_the_words_for_arguments_are_arguments():
    known = {name for function in [*FUNCTIONS.values(), tape.transpose, tape.swapaxes]
             for name in inspect.signature(function).parameters}
    for text in KEYWORDS.values():
        assert set(re.findall(r"(\w+)=", text)) - {"unbiased"} <= known


def test_places_of_the_extremes_are_numpys():
    x = leaf([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])
    assert x.argmax() == 3 and x.argmin() == 4
    np.testing.assert_array_equal(x.argmax(1, keepdims=True), [[1], [0]])
    np.testing.assert_array_equal(x.argmin(axis=0), [0, 1, 0])


def test_signatures_and_texts_of_methods_are_kept():
    assert str(inspect.signature(Tensor.sum)) == "(self, axis=None, keepdims=False)"
    assert Tensor.sum.__name__ == "sum"
