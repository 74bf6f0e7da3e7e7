"""`from_tape`: what an eager run recorded, as a graph that gives the eager numbers on new data."""

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from tape import Tensor, grad, no_grad
from tape.gradcheck.cases import CASES
from tests.checks import leaf
from tests.lazy_checks import assert_eager

RNG = np.random.default_rng(5)

pytestmark = pytest.mark.usefixtures("traced")


# --- a model of nn, written once ---

MODELS = {
    "pre-norm, gelu": nn.GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8),
    "no bias": nn.GPTConfig(vocab_size=11, block_size=6, n_layer=1, n_head=2, n_embd=8, bias=False),
    "post-norm, relu": nn.GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=4, n_embd=8,
                                    norm="post", activation="relu", position="sinusoidal",
                                    tie_weights=False)}


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_a_frozen_gpt_gives_the_loss_and_the_gradients_of_the_eager_one(config):
    """On fresh batches and fresh weights, to the last bit.

    The graph holds the operators that ran; the kernels are the same, and `gradients` adds up
    contributions in the order of the eager walk.
    """
    model = nn.GPT(config, rng=0)
    batches = [RNG.integers(0, 11, (2, 3, 6)) for _ in range(3)]
    idx, targets = batches[0]
    parameters = dict(model.named_parameters())
    _, loss = model(idx, targets)
    node, variables = ad.from_tape(loss, {"idx": idx, "targets": targets, **parameters})
    slopes = ad.gradients(node, [variables[name] for name in parameters])
    evaluator = ad.Evaluator([node, *slopes])
    for idx, targets in batches:
        model.zero_grad()
        _, loss = model(idx, targets)
        loss.backward()
        assert_eager(evaluator, variables, {"idx": idx, "targets": targets}, loss, parameters)
        for parameter in parameters.values():
            parameter.data = parameter.data - 0.1 * parameter.grad


def test_a_frozen_gpt_in_float64_passes_the_checker():
    """Fed float64 weights, the frozen graph computes in float64, and its gradients are differences."""
    config = nn.GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=2, n_embd=4)
    model = nn.GPT(config, rng=0)
    idx, targets = RNG.integers(0, 5, (2, 2, 4))
    parameters = dict(model.named_parameters())
    _, loss = model(idx, targets)
    node, variables = ad.from_tape(loss, {"idx": idx, "targets": targets, **parameters})
    arrays = {n: RNG.standard_normal(p.shape) * 0.5 for n, p in parameters.items()}
    fixed = {variables["idx"]: idx, variables["targets"]: targets}
    evaluator = ad.Evaluator([node])

    def value(moved):
        return evaluator.run({**fixed, **{variables[n]: a for n, a in moved.items()}})[0].item()
    slopes = ad.Evaluator(ad.gradients(node, [variables[n] for n in arrays])).run(
        {**fixed, **{variables[n]: a for n, a in arrays.items()}})
    for (name, array), slope in zip(arrays.items(), slopes, strict=True):
        place = np.unravel_index(np.argmax(np.abs(slope)), slope.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = array.copy()
            moved[place] += step
            ends.append(value({**arrays, name: moved}))
        assert slope.dtype == np.float64
        np.testing.assert_allclose(slope[place], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)


def test_a_frozen_vision_transformer_gives_the_gradients_of_the_eager_one():
    model = nn.VisionTransformer(nn.VisionConfig((4, 4), 2, 3, n_layer=1, n_head=2, n_embd=8), rng=0)
    images, labels = RNG.standard_normal((5, 4, 4)).astype(np.float32), RNG.integers(0, 3, 5)
    parameters = dict(model.named_parameters())
    _, loss = model(images, labels)
    with pytest.raises(ValueError, match="not on the tape .*: images.* requires_grad=True"):
        ad.from_tape(loss, {"images": images, "labels": labels, **parameters})
    recorded = Tensor(images, requires_grad=True)       # so that cutting it into patches is on the tape
    _, loss = model(recorded, labels)
    node, v = ad.from_tape(loss, {"images": recorded, "labels": labels, **parameters})
    images, labels = images[::-1] * 2, labels[::-1]
    _, loss = model(images, labels)
    loss.backward()
    evaluator = ad.Evaluator([node, *ad.gradients(node, [v[name] for name in parameters])])
    assert_eager(evaluator, v, {"images": images, "labels": labels}, loss, parameters)


# --- every operator ---


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_operator_can_be_frozen(case):
    """Frozen on one set of inputs, evaluated on another, and compared with an eager run on that."""
    def scalar(*xs):
        outputs = case.function(*xs)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return sum((tape.sum(out * out) for out in outputs[1:]), tape.sum(outputs[0] * outputs[0]))
    leaves = [leaf(a) for a in case.inputs()]
    node, variables = ad.from_tape(scalar(*leaves), leaves)
    fresh = [leaf(a * RNG.uniform(0.9, 1.1, a.shape)) for a in case.inputs()]
    expected = scalar(*fresh)
    value, *found = ad.Evaluator([node, *ad.gradients(node, variables)]).run(
        {v: x.data for v, x in zip(variables, fresh)})
    assert value == expected.item()
    for slope, wanted in zip(found, grad(expected, fresh), strict=True):
        np.testing.assert_allclose(slope, wanted.data, rtol=1e-12, atol=1e-14)


def test_a_gradient_that_was_recorded_can_be_frozen():
    """The tape of ``create_graph`` is a tape: here that of d/dx of a softmax's squared length."""
    def slope(x):
        return grad((tape.softmax(x * x) ** 2).sum(), x, create_graph=True)
    x, fresh = leaf([0.3, -0.5, 0.8]), leaf([1.1, 0.2, -0.7])
    node, (v,) = ad.from_tape(slope(x), [x])
    value, curve = ad.Evaluator([node, *ad.gradients(node, [v])]).run({v: fresh.data})
    expected = slope(fresh)
    np.testing.assert_allclose(value, expected.data, rtol=1e-12)
    np.testing.assert_allclose(curve, grad(expected.sum(), fresh).data, rtol=1e-9)


# --- what counts as an input ---


def test_leaves_intermediate_results_arrays_and_tensors_without_gradient():
    w, data, array = leaf([1.0, 2.0]), Tensor(np.array([3.0, 4.0])), np.array([5.0, 6.0])
    h = w * data
    out = (h + array).sum()
    node, v = ad.from_tape(out, {"w": w, "data": data, "array": array})
    assert ad.Evaluator([node]).run({variable: np.ones(2) for variable in v.values()}) == [4]
    node, (cut,) = ad.from_tape(out, [h])
    assert ad.Evaluator([node]).run({cut: np.zeros(2)}) == [11]
    node, (whole,) = ad.from_tape(out, [out])
    assert node is whole


def test_what_is_not_an_input_becomes_a_constant():
    w, x = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    node, (v,) = ad.from_tape((w * x + [1, 1] + np.float32(2) + 3).sum(), [x])
    w.data[:] = 99
    assert ad.Evaluator([node]).run({v: x}) == [3 + 8 + 12]


def test_views_and_int_tensors_are_recognised():
    table, ids = leaf(np.eye(3)), np.array([[0, 2]])
    node, (v,) = ad.from_tape(tape.embedding(table, np.asarray(ids)).sum(axis=-1), [ids])
    assert ad.Evaluator([node]).run({v: np.array([[1]])})[0].shape == (1, 1)
    ids = Tensor(ids, dtype=np.int64)
    node, (v,) = ad.from_tape(tape.embedding(table, ids), [ids])
    assert ad.Evaluator([node]).run({v: np.array([1])})[0].tolist() == [[0, 1, 0]]


def test_a_condition_that_was_recorded_is_followed():
    x = leaf([-1.0, 2.0])
    gate = tape.relu(x)
    node, (v,) = ad.from_tape(tape.where(gate, x, 0).sum(), [x])
    assert ad.Evaluator([node]).run({v: np.array([3.0, -4.0])}) == [3]


def test_int_arrays_and_python_numbers_stay_weak():
    x = leaf([1.0, 2.0], np.float32)
    counts = np.array([2, 4])
    node, v = ad.from_tape((x * counts / 3 + np.float64(1)).sum(), {"x": x, "counts": counts})
    value, slope = ad.Evaluator([node, *ad.gradients(node, [v["x"]])]).run(
        {v["x"]: x.data, v["counts"]: counts})
    assert value.dtype == slope.dtype == np.float32


def test_a_graph_can_be_extended():
    x = leaf([1.0, 2.0])
    node, (v,) = ad.from_tape((x * x).sum(), [x])
    assert ad.Evaluator([ad.sqrt(node) * 2]).run({v: np.array([3.0, 4.0])}) == [10]


def test_a_long_tape_and_a_tape_that_is_walked_afterwards():
    x = y = leaf(1.0)
    for _ in range(20_000):
        y = y + 0.5
    node, (v,) = ad.from_tape(y, [x])
    assert ad.Evaluator([node]).run({v: np.array(2.0)}) == [10_002]
    y.backward()
    assert x.grad == 1


@pytest.mark.parametrize("freeze, error, message", [
    (lambda: ad.from_tape(leaf([1.0]), []), ValueError, "must be the result of recorded operations"),
    (lambda: ad.from_tape(3.0, []), TypeError, "the output must be a Tensor, got float"),
    (lambda: ad.from_tape(leaf([1.0]) * 2, {"w": leaf([2.0])}), ValueError, "not on the tape .*: w. "),
    (lambda: ad.from_tape(leaf([1.0]) * 2, [np.ones(3)]), ValueError, "not on the tape .*: input0"),
    (lambda: ad.from_tape(leaf([1.0]) * 2, np.ones(3)), TypeError, "dict or a list .*got ndarray"),
    (lambda: ad.from_tape(leaf([1.0]) * 2, None), TypeError, "dict or a list .*got NoneType"),
    (lambda: ad.from_tape(leaf([1.0]) * 2, {0: leaf([1.0])}), TypeError, "must be a text")])
def test_what_cannot_be_frozen(freeze, error, message):
    with pytest.raises(error, match=message):
        freeze()


def test_inputs_may_be_any_collection():
    x, y = leaf([1.0]), leaf([2.0])
    node, variables = ad.from_tape(x * y, (t for t in (x, y)))
    assert ad.Evaluator([node]).run(dict(zip(variables, (np.ones(1), np.ones(1)))))[0] == 1


def test_a_released_tape_says_how_to_keep_it():
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="already released at .*retain_graph=True"):
        ad.from_tape(y, [x])
    with no_grad(), pytest.raises(ValueError, match="not under no_grad"):
        ad.from_tape(x * x, [x])


def test_constants_are_those_that_were_used():
    w, buffer, data = leaf([1.0, 2.0]), np.ones(2), Tensor(np.ones(2))
    a = w * buffer * data
    buffer[:] = 5
    data.data = np.array([7.0, 7.0])
    out = (a * buffer * data).sum()
    node, _ = ad.from_tape(out, [])
    assert ad.Evaluator([node]).run({}) == [out.item()] == [105]


def test_one_int_array_as_a_factor_and_as_ids():
    table, ids = leaf(np.eye(3)), np.array([0, 2])
    out = (tape.embedding(table * 1.0, ids).sum(axis=1) * ids).sum()
    node, _ = ad.from_tape(out, [])
    assert ad.Evaluator([node]).run({}) == [2]


def test_a_kept_leaf_that_was_changed_in_place_is_refused():
    w = leaf([1.0, 2.0])
    out = w * w
    w.data += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        ad.from_tape(out, [])


def test_one_array_under_two_names_is_refused():
    w, x = leaf([1.0]), np.ones(1)
    with pytest.raises(ValueError, match="a and b are the same array"):
        ad.from_tape(w * x * x, {"a": x, "b": x})
