"""Gradient checkpointing of a model's blocks, and of functions with dropout: the same bits."""

import tracemalloc

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from nn.layers.recomputed import recomputed
from tape import Tensor
from tests.checks import in_float64, leaf

IDX, TARGETS = np.random.default_rng(0).integers(0, 7, (2, 6, 8))
GPTS = [{}, {"position": "rotary", "norm_kind": "rms", "activation": "swiglu", "n_kv_head": 1},
        {"norm": "post", "position": "alibi", "tie_weights": False}]


def gpt(dropout=0.0, **more):
    return nn.GPT(nn.GPTConfig(7, 8, 3, 2, 8, dropout=dropout, **more), rng=0)


def gradients(model, workers=1, on=True, steps=2, processes=False):
    """Of each parameter after some calls, of which each draws its dropout; and the losses."""
    nn.checkpoint_blocks(model, on)
    run = model if workers == 1 else nn.DataParallel(model, workers, processes)
    losses = []
    for _ in range(steps):
        _, loss = run(IDX, TARGETS)
        loss.backward()
        losses.append(loss.item())
    return losses, {name: p.grad for name, p in model.named_parameters()}


def assert_same_bits(found, wanted):
    assert found[0] == wanted[0] and found[1].keys() == wanted[1].keys()
    for name in wanted[1]:
        np.testing.assert_array_equal(found[1][name], wanted[1][name], err_msg=name)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("more", GPTS)
def test_a_checkpointed_model_has_the_gradients_of_a_plain_one_to_the_bit(more, dropout, workers):
    wanted = gradients(gpt(dropout, **more), workers, on=False)
    for processes in {False, workers > 1 and tape.WorkerProcesses.available()}:
        assert_same_bits(gradients(gpt(dropout, **more), workers, processes=processes), wanted)


def test_other_models_with_such_blocks():
    images = np.random.default_rng(1).random((4, 8, 8)).astype(np.float32)
    found = []
    for on in (True, False):
        model = nn.VisionTransformer(nn.VisionConfig(image_shape=(8, 8), patch_size=4, classes=3,
                                                     n_head=2, n_embd=8, dropout=0.2), rng=0)
        nn.checkpoint_blocks(model, on)
        _, loss = model(images, np.array([0, 1, 2, 0]))
        loss.backward()
        found.append(([loss.item()], {name: p.grad for name, p in model.named_parameters()}))
    assert_same_bits(*found)


def test_the_tape_has_one_record_for_each_block():
    model = gpt(0.3)
    nn.checkpoint_blocks(model)
    assert tape.show(model(IDX, TARGETS)[1]).count("checkpoint") == 3


def test_a_function_with_dropout_has_derivatives_of_second_order():
    layer = nn.Dropout(0.5, rng=0)
    x = leaf(np.random.default_rng(0).normal(size=(3, 4)))
    y = recomputed(lambda x: layer(x * x * x), x)
    (slope,) = tape.grad(y.sum(), [x], create_graph=True)
    (curve,) = tape.grad(slope.sum(), [x])
    kept = slope.numpy() != 0
    assert kept.any() and not kept.all()
    np.testing.assert_allclose(slope.numpy(), np.where(kept, 2 * 3 * x.data ** 2, 0), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(curve), np.where(kept, 2 * 6 * x.data, 0), rtol=1e-6)


def test_one_inside_another_draws_once():
    found = []
    for run in (lambda f, x: f(x), recomputed):
        layer, x = nn.Dropout(0.5, rng=0), leaf(np.ones((4, 9)))

        def inner(x):
            return layer(x).tanh()

        def outer(x):
            return layer(run(inner, layer(x))) * x

        run(outer, x).sum().backward()
        found.append(x.grad)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays(dtype):
    model = gpt(0.3) if dtype is np.float32 else in_float64(gpt(0.3))
    assert {g.dtype for g in gradients(model)[1].values()} == {np.dtype(dtype)}


def test_a_cache_and_evaluation_are_as_without():
    model = gpt(0.3)
    wanted = list(nn.generate(model, [1], 12, rng=0))
    nn.checkpoint_blocks(model)
    assert list(nn.generate(model, [1], 12, rng=0)) == wanted


def test_memory_is_that_of_one_block():
    peaks = []
    for on in (False, True):
        model = nn.GPT(nn.GPTConfig(7, 64, 8, 2, 32, dropout=0.1), rng=0)
        nn.checkpoint_blocks(model, on)
        idx = np.zeros((8, 64), int)
        model(idx, idx)[1].backward()
        tracemalloc.start()
        model(idx, idx)[1].backward()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 0.4 * peaks[0]


def test_a_model_without_such_blocks_is_refused():
    with pytest.raises(ValueError, match="must have a TransformerBlock, got a Linear without one"):
        nn.checkpoint_blocks(nn.Linear(2, 2))


def test_what_is_not_recorded_is_not_run_again():
    layer, calls = nn.Dropout(0.5, rng=0), []
    with tape.no_grad():
        recomputed(lambda x: calls.append(1) or layer(x), Tensor(np.ones(3)))
    assert calls == [1]


def test_a_trace_is_that_of_a_plain_model():
    model, ids = nn.GPT(nn.GPTConfig(7, 5, 2, 2, 8), rng=0), np.arange(5)[None]
    nn.checkpoint_blocks(model)
    node, (x,) = ad.trace(lambda x: model(x)[0], [ids])
    (found,) = ad.Evaluator([node]).run({x: ids[:, ::-1].copy()})
    np.testing.assert_array_equal(found, model(ids[:, ::-1].copy())[0].data)
