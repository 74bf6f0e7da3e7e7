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
from nn.layers.foreign_names import ARGUMENTS, MODULE, NN, OPTIMIZER
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
            assert hasattr(found, part), path
            found = getattr(found, part)


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
    ("import tape.numpy as np", "autograd's name. Write import numpy as np"),
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


# --- imports, layers and optimisers ---


@pytest.mark.parametrize("line, words", [
    ("from tape import cat", "tape has no 'cat', .* Write tape.concatenate"),
    ("from nn import functional as F", "nn has no 'functional', .* Write import tape as F"),
    ("import nn.functional as F", "nn has no 'functional', .* Write import tape as F"),
    ("import tape.nn as nn", "tape has no 'nn', .* Write import nn"),
    ("from nn.utils import clip_grad_norm_", "Write nn.clip_grad_norm"),
    ("from nn import CrossEntropyLoss", "Write nn.cross_entropy")])
def test_an_import_is_answered_as_the_attribute_is(line, words):
    with pytest.raises(ImportError, match=words):
        exec(line)


def test_an_import_of_a_name_that_nobody_has_is_pythons():
    with pytest.raises(ImportError, match="cannot import name 'foo' from 'tape'"):
        exec("from tape import foo")
    with pytest.raises(ModuleNotFoundError, match="No module named 'nn.foo'"):
        exec("import nn.foo")


@pytest.mark.parametrize("owner", ["Tensor", "tape", "nn", "Module", "optimizer"])
def test_python_adds_no_name_of_its_own(owner):
    """``numel`` is not ``numpy``, nor ``randint`` ``gradient``: the error keeps no object to search."""
    thing, table = OWNERS[owner]
    with pytest.raises(AttributeError) as caught:
        getattr(thing, next(iter(table)))
    assert caught.value.obj is None


@pytest.mark.parametrize("thing, name", [
    (tape, "argmax"), (tape, "isclose"), (T, "cosh"), (T, "log10")])
def test_a_name_of_numpys_is_answered_with_numpys_function(thing, name):
    assert not hasattr(thing, name)
    with pytest.raises(AttributeError, match=f"has no '{name}'. Write np.{name}"):
        getattr(thing, name)


@pytest.mark.parametrize("call, words", [
    (lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True),
     "LSTM: takes n_in, .*num_layers= is PyTorch's; write n_layer=.*batch_first=.*first axis"),
    (lambda: nn.Linear(in_features=3, out_features=2), "write n_in=.* write n_out="),
    (lambda: nn.Embedding(3, 2, padding_idx=0), "Embedding: .*_idx= is PyTorch's; write nothing"),
    (lambda: nn.ReLU(inplace=True), "no result is changed in place"),
    (lambda: nn.Adam(MODEL.parameters(), fused=True), "Adam: .*fused= is PyTorch's; write nothing"),
    (lambda: OWNERS["optimizer"][0].zero_grad(set_to_none=True), "set_to_none= .*set to None"),
    (lambda: MODEL.zero_grad(set_to_none=True), "set_to_none= .*set to None"),
    (lambda: nn.mse(T, T.data, reduction="sum"), "reduction= is PyTorch's; .* the mean")])
def test_arguments_of_layers_and_optimisers_are_answered_with_ours(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_a_module_of_the_users_may_have_such_arguments():
    class Wide(nn.Module):
        def __init__(self, num_heads, **settings):
            self.heads, self.settings = num_heads, settings
    assert Wide(num_heads=3, dtype="float32").settings == {"dtype": "float32"}


def test_a_layer_without_settings_takes_no_arguments():
    for make in (lambda: nn.ReLU(3), lambda: nn.ReLU(size=3)):
        with pytest.raises(TypeError, match=r"ReLU\(\) takes no arguments"):
            make()


def test_each_argument_is_one_that_a_layer_has():
    made = [nn.Linear, nn.Embedding, nn.LSTM, nn.LayerNorm, nn.MultiHeadAttention, nn.TransformerBlock]
    known = {name for layer in made for function in (layer.__init__, layer.forward)
             for name in inspect.signature(function).parameters}
    assert {name for text in ARGUMENTS.values() for name in re.findall(r"(\w+)=", text)} <= known


def test_an_output_is_not_tied_to_a_table_by_its_turned_weight():
    table = nn.Embedding(5, 3)
    with pytest.raises(ValueError, match=r"weight is \(n, d\), \(5, 3\), .* write x @ table.weight.T"):
        table.weight = nn.Linear(3, 5).weight
    table.weight = nn.Parameter(np.zeros((5, 3), np.float32))
    table.weight = nn.Parameter(np.zeros((7, 3), np.float32))
    assert table.weight.shape == (7, 3)


# --- where the name of an argument is not all that differs ---


@pytest.mark.parametrize("call, words", [
    (lambda: T.split(2, dim=2), r"is how many pieces.*length of a piece: t.split\(3, axis=-1\)"),
    (lambda: tape.split(T, 2, dim=2), "sections= is how many pieces"),
    (lambda: T.max(dim=1), r"values alone; their places are np.argmax\(t, axis=1\)"),
    (lambda: tape.max(T, dim=1), "values alone"), (lambda: tape.sort(T, dim=1), "values alone"),
    (lambda: T.std(dim=1), "ddof=1 for n - 1"), (lambda: tape.var(T, dim=1), "ddof=1 for n - 1")])
def test_a_difference_behind_the_name_is_told_with_it(call, words):
    with pytest.raises(TypeError, match=f"dim= is PyTorch's; write axis=.*{words}"):
        call()


@pytest.mark.parametrize("arguments, error, words", [
    ((T, (4,), None, None, 1e-5), TypeError, r"got 5 arguments. .*layer_norm\(x, weight, bias\)"),
    ((T, (4,)), ValueError, r"length of a row is no argument: layer_norm\(x, weight, bias\)")])
def test_layer_norm_is_not_given_the_length_of_a_row(arguments, error, words):
    with pytest.raises(error, match=words):
        tape.layer_norm(*arguments)


def test_the_words_for_the_largest_values_put_the_largest_first():
    t, k = leaf([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]]), 2
    written = TENSOR["topk"].split(" for ")[0]
    largest = eval(written, {"np": np, "t": t, "k": k})
    np.testing.assert_array_equal(largest.data, [[5, 2], [7, 3]])
    largest.sum().backward()
    np.testing.assert_array_equal(t.grad, [[0, 1, 1], [1, 0, 1]])


def test_the_words_for_multinomial_give_a_column_of_ids():
    written = TENSOR["multinomial"].split(", which")[0]
    logits = np.full((4, 5), -np.inf)
    logits[:, 2] = 0
    ids = eval(written, {"np": np, "logits": logits, "rng": np.random.default_rng(0)})
    np.testing.assert_array_equal(ids, np.full((4, 1), 2))


def test_the_length_of_the_gradients_is_a_number_with_item():
    parameter = nn.Parameter([3.0, 4.0])
    (parameter * parameter).sum().backward()
    norm = nn.clip_grad_norm([parameter], 1.0)
    assert isinstance(norm, float) and norm.item() == 10


def test_names_that_a_tensor_does_not_have_are_not_listed():
    listed = dir(T)
    assert "sum" in listed and all(hasattr(T, name) for name in listed)
    assert not {"view", "permute", "linspace"} & set(listed)

    class Named(Tensor):
        view = "of its own"

    named = Named([1.0])
    named.permute = 1
    assert named.view == "of its own" and named.permute == 1
    assert {"view", "permute"} <= set(dir(named))
