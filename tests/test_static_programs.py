"""The two programs on the static graph, against their eager twins and against formulas."""

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from nn.models.static.gpt import language_model
from nn.models.static.vision import (
    WEIGHTS, Classifier, initial_weights, sgd_epoch, softmax_loss, transformer)
from nn.training.engines import StaticEngine
from tape import Tensor, grad
from tests.checks import in_float64

RNG = np.random.default_rng(11)


def gpt_config(**changes):
    return nn.GPTConfig(**{**dict(vocab_size=13, block_size=7, n_layer=2, n_head=4, n_embd=16,
                                  norm="post", activation="relu", position="sinusoidal",
                                  tie_weights=False), **changes})


# --- the language model ---


def test_the_static_language_model_is_the_eager_one():
    """Logits, loss and the gradient of every parameter, in float64, where only rounding differs."""
    config = gpt_config()
    model = nn.GPT(config, rng=0)
    arrays = {name: p.data.astype(np.float64) for name, p in model.named_parameters()}
    ids, targets = RNG.integers(0, 13, (2, 3, 7))
    targets[1, 4:] = -1
    graph = language_model(config, 3, 7)
    assert set(graph.weights) == set(arrays)
    slopes = ad.gradients(graph.loss, list(graph.weights.values()))
    logits, loss, *found = ad.Evaluator([graph.logits, graph.loss, *slopes]).run(
        {graph.ids: ids, graph.targets: targets,
         **{graph.weights[name]: array for name, array in arrays.items()}})
    eager = in_float64(nn.GPT(config, rng=0))
    expected, eager_loss = eager(ids, targets)
    eager_loss.backward()
    np.testing.assert_allclose(logits, expected.data, rtol=1e-6, atol=1e-7)     # float32 tables in both
    np.testing.assert_allclose(loss, eager_loss.data, rtol=1e-7)
    gradients = {name: p.grad for name, p in eager.named_parameters()}
    for name, slope in zip(graph.weights, found):
        np.testing.assert_allclose(slope, gradients[name], rtol=1e-5, atol=1e-8, err_msg=name)


def test_both_engines_go_down_the_same_curve():
    config = gpt_config()
    ids, targets = RNG.integers(0, 13, (2, 3, 7))
    model = nn.GPT(config, rng=1)
    graph = language_model(config, 3, 7)
    engine = StaticEngine(graph.run, graph.arrays(model.state_dict()))
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    for step in range(1, 31):
        _, loss = model(ids, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        static_loss = engine.update(step, (ids, targets), lr=0.1)
        assert static_loss == pytest.approx(loss.item(), rel=1e-4)
    assert loss.item() < 1.0
    weights = graph.state(engine.weights)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(weights[name], parameter.data, rtol=1e-2, atol=1e-4)
        assert weights[name].dtype == np.float32


def test_an_update_leaves_the_initial_weights_alone():
    config = gpt_config(n_layer=1)
    weights = nn.GPT(config, rng=1).state_dict()
    before = {name: array.copy() for name, array in weights.items()}
    ids = RNG.integers(0, 13, (2, 7))
    graph = language_model(config, 2, 7)
    StaticEngine(graph.run, graph.arrays(weights)).update(1, (ids, ids), lr=0.1)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("change", [{"norm": "pre"}, {"activation": "gelu"}, {"position": "learned"},
                                    {"tie_weights": True}, {"bias": False}, {"dropout": 0.1},
                                    {"norm_kind": "rms"}, {"n_kv_head": 2}])
def test_a_model_of_another_kind_is_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"language_model: the static graph needs {name}="):
        language_model(gpt_config(**change), 2, 7)


def test_a_length_or_weights_that_do_not_fit_are_refused():
    config = gpt_config()
    with pytest.raises(ValueError, match="length must be at most the block_size 7, got 8"):
        language_model(config, 2, 8)
    weights = nn.GPT(config, rng=1).state_dict()
    graph = language_model(config, 2, 7)
    with pytest.raises(ValueError, match=r"Model: .* must have the shape \(2, 7\) .* got \(3, 7\)"):
        graph.run(*RNG.integers(0, 13, (2, 3, 7)), graph.arrays(weights))
    with pytest.raises(ValueError, match="an array for each of tokens.weight, .*; got 1"):
        graph.run(*RNG.integers(0, 13, (2, 2, 7)), graph.arrays(weights)[:1])
    del weights["head.weight"]
    with pytest.raises(ValueError, match="missing: head.weight"):
        graph.arrays(weights)


# --- the image classifier ---

B, S, ROW, D, C = 3, 4, 5, 6, 3


def eager_transformer(X, weights, eps):
    """The same layer, written with Tensors."""
    W_in, b_in, W_q, W_k, W_v, W_o, W_1, b_1, W_2, b_2, W_out, b_out = weights
    x = X @ W_in + b_in
    scores = (x @ W_q) @ (x @ W_k).swapaxes(1, 2) * D ** -0.5
    x = tape.layer_norm(scores.softmax() @ (x @ W_v) @ W_o, eps=eps)
    x = tape.layer_norm((x @ W_1 + b_1).relu() @ W_2 + b_2, eps=eps)
    return x.mean(axis=1) @ W_out + b_out


def test_the_image_transformer_is_its_eager_twin():
    X, labels = RNG.standard_normal((B, S, ROW)), np.array([0, 2, 1])
    weights = [w.astype(np.float64) + 0.1 for w in initial_weights(RNG, ROW, D, C)]
    x, y = ad.Variable("X"), ad.Variable("y")
    nodes = [ad.Variable(name) for name in WEIGHTS]
    logits = transformer(x, nodes, D, S, 1e-5, B, C)
    loss = softmax_loss(logits, y, B)
    feed = {x: X, y: np.eye(C)[labels], **dict(zip(nodes, weights))}
    found = ad.Evaluator([logits, loss, *ad.gradients(loss, nodes)]).run(feed)

    leaves = [Tensor(w, requires_grad=True) for w in weights]
    expected = eager_transformer(Tensor(X), leaves, 1e-5)
    eager_loss = tape.cross_entropy(expected, labels)
    np.testing.assert_allclose(found[0], expected.data, rtol=1e-10)
    np.testing.assert_allclose(found[1], eager_loss.data, rtol=1e-10)
    for name, slope, wanted in zip(WEIGHTS, found[2:], grad(eager_loss, leaves)):
        assert slope.shape == wanted.shape
        np.testing.assert_allclose(slope, wanted.data, rtol=1e-7, atol=1e-10, err_msg=name)


def test_the_loss_of_known_logits():
    z, y = ad.Variable("Z"), ad.Variable("y")
    feed = {z: np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), y: np.array([[1, 0, 0], [0, 0, 1]])}
    (value,) = ad.Evaluator([softmax_loss(z, y, 2)]).run(feed)
    by_hand = (np.log(np.exp(2) + np.exp(1) + 1) - 2 + np.log(3)) / 2
    assert value == pytest.approx(by_hand)


def test_the_loss_has_no_place_for_labels_of_another_shape():
    z, y = ad.Variable("Z"), ad.Variable("y")
    loss = ad.Evaluator([softmax_loss(z, y, 2)])
    Z, one_hot = RNG.standard_normal((2, 3)), np.eye(3)[[1, 2]]
    (plain,), (with_axis,) = loss.run({z: Z, y: one_hot}), loss.run({z: Z[:, None], y: one_hot})
    assert plain == with_axis and plain.shape == ()
    for fed in ({z: Z, y: np.array([1, 0, 0])}, {z: Z, y: np.array([1, 2])},
                {z: Z[:1], y: one_hot}, {z: np.ones((3, 3)), y: np.eye(3)}):
        with pytest.raises(ValueError, match="run: node "):
            loss.run(fed)


def test_sgd_epoch_refuses_what_it_would_cut_or_stretch():
    weights = [np.zeros((1, 3), np.float32), np.zeros(2, np.float32)]

    def epoch(slopes, y=np.zeros(4)):
        return sgd_epoch(lambda *_: [0, 0.0, *slopes], np.zeros((4, 1)), y, weights, 2, 0.1)
    with pytest.raises(ValueError, match="X and y must have as many rows, got 4 and 3"):
        epoch([], y=np.zeros(3))
    for slopes in ([np.ones((1, 3))], [np.ones((2, 1, 3)), np.ones(2)]):
        with pytest.raises(ValueError, match="a gradient of the shape of each weight"):
            epoch(slopes)
    (first, second), _ = epoch([np.ones((1, 3)), np.ones(2)])        # float64 gradients
    assert first.dtype == second.dtype == np.float32


def test_sgd_epoch_steps_once_for_each_full_batch():
    calls = []

    def f_run_model(X, y, weights):
        calls.append((X.tolist(), y.tolist(), [w.copy() for w in weights]))
        return np.zeros(2), np.array(float(len(calls))), np.array([1.0]), np.array([2.0])
    start = [np.array([10.0], np.float32), np.array([20.0], np.float32)]
    weights, loss = sgd_epoch(f_run_model, np.arange(7), np.arange(7) * 10, start, 2, 0.5)
    assert [(X, y) for X, y, _ in calls] == [([0, 1], [0, 10]), ([2, 3], [20, 30]), ([4, 5], [40, 50])]
    assert [w.item() for w in calls[2][2]] == [9, 18]
    assert [w.item() for w in weights] == [8.5, 17] and loss == 2.0
    assert [w.item() for w in start] == [10, 20]
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 3 examples, got 4"):
        sgd_epoch(f_run_model, np.arange(3), np.arange(3), start, 4, 0.5)
    with pytest.raises(ValueError, match="transformer: nodes must be the 12 weights W_in, .*; got 1"):
        transformer(ad.Variable("X"), [ad.Variable("W")], D, S, 1e-5, B, C)


def test_the_classifier_learns_and_predicts_any_number_of_images():
    """Which row is the bright one cannot be seen without positions; which column is, can."""
    labels = RNG.integers(0, C, 120)
    images = (RNG.standard_normal((120, S, ROW)) * 0.1 + np.eye(ROW)[labels][:, None])
    images = images.astype(np.float32)                                   # (120, S, ROW)
    model = Classifier(S, ROW, 16, C, batch_size=20)
    weights = initial_weights(np.random.default_rng(0), ROW, 16, C)
    assert all(w.dtype == np.float32 for w in weights)
    first = None
    for _ in range(30):
        weights, loss = sgd_epoch(model.run, images, labels, weights, 20, lr=0.1)
        first = first or loss
    assert loss < first / 4
    predicted = model.predict(images[:50], weights)
    assert predicted.shape == (50,) and (predicted == labels[:50]).mean() > 0.95
    np.testing.assert_array_equal(model.predict(images[:7], weights), predicted[:7])
    assert model.predict(images[:0], weights).shape == (0,)
    assert all(w.dtype == np.float32 for w in weights)


def test_what_the_classifier_refuses():
    model = Classifier(S, ROW, D, C, batch_size=4)
    weights = initial_weights(np.random.default_rng(0), ROW, D, C)
    X, y = np.zeros((4, S, ROW), np.float32), np.zeros(4, int)
    for arguments, message in (((X[:3], y[:3], weights), r"batches of 4 .* got shapes \(3, 4, 5\)"),
                               ((X, np.eye(4), weights), r"as many labels, got .* \(4, 4\)"),
                               ((X, y + C, weights), r"integers in \[0, 3\), got int64 from 3 to 3"),
                               ((X, y, weights * 2), "an array for each of W_in, .*; got 24")):
        with pytest.raises(ValueError, match=message):
            model.run(*arguments)
