"""Every gradient that the tape gives of a decoder is the one derived by hand (`tests/hand_written`)."""

import re

import numpy as np
import pytest

import nn
from nn.jobs.sentences import ARCHS
from tests.bench import bench_hand_written as bench
from tests.checks import in_float64
from tests.hand_written import gelu_decoder, one_block

B, T, V = 3, 6, 9
IDS, TARGETS = np.random.default_rng(3).integers(0, V, (2, B, T))
TARGETS[1, 4:] = -1                              # padding, which does not count
SINUSOIDS = nn.SinusoidalPositionalEncoding(T, 16).table.astype(np.float64)

BY_HAND = {
    "decoder": lambda w: one_block.post_norm(w, IDS, TARGETS, 4, SINUSOIDS),
    "single-head": lambda w: one_block.post_norm(w, IDS, TARGETS, 1),
    "multi-head": lambda w: one_block.post_norm(w, IDS, TARGETS, 4),
    "swiglu": lambda w: one_block.pre_norm_swiglu(w, IDS, TARGETS, 4),
    "gelu": lambda w: by_decoder(w, IDS, TARGETS, 2, 4)}


def by_decoder(state, ids, targets, n_layer, n_head):
    """The loss and the gradients by the names of the model."""
    w = gelu_decoder.stacked(state, n_layer)
    loss, cache = gelu_decoder.forward(w, ids, targets, n_head)
    return loss, gelu_decoder.unstacked(gelu_decoder.backward(w, cache))


def model_of(arch, block_size=T, **settings):
    """In float64, with weights large enough for no part to be nearly linear."""
    config = nn.GPTConfig(V, block_size, n_embd=16, **ARCHS[arch] | settings)
    model, rng = in_float64(nn.GPT(config, rng=0)), np.random.default_rng(1)
    for p in model.parameters():
        p.data = p.data + 0.3 * rng.standard_normal(p.shape)
    return model


def assert_same(model, ids, targets, loss, slopes):
    """The loss to 1e-12, and the gradient of every parameter to 1e-10."""
    _, found = model(ids, targets)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-12)
    parameters = dict(model.named_parameters())
    assert slopes.keys() == parameters.keys()
    for name, p in parameters.items():
        assert p.grad.dtype == slopes[name].dtype == np.float64
        np.testing.assert_allclose(p.grad, slopes[name], rtol=1e-10, atol=1e-10, err_msg=name)
        # That of the keys' bias is 0: it adds the same to all scores of a query.
        assert "key.bias" in name or np.abs(slopes[name]).max() > 1e-3, name


@pytest.mark.parametrize("arch", ARCHS)
def test_the_tape_gives_every_gradient_that_is_derived_by_hand(arch):
    model = model_of(arch)
    assert_same(model, IDS, TARGETS, *BY_HAND[arch](model.state_dict()))


@pytest.mark.parametrize("n_layer, n_head", [(1, 1), (1, 8), (3, 2), (5, 4)])
def test_the_stacked_decoder_has_any_number_of_blocks_and_heads(n_layer, n_head):
    model = model_of("gelu", block_size=T + 3, n_layer=n_layer, n_head=n_head)   # longer than the texts
    assert_same(model, IDS, TARGETS, *by_decoder(model.state_dict(), IDS, TARGETS, n_layer, n_head))


def test_weights_come_back_from_their_stacks_and_masks_are_made_once():
    state = model_of("gelu").state_dict()
    back = gelu_decoder.unstacked(gelu_decoder.stacked(state, 2))
    assert back.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)
    assert gelu_decoder.causal_mask(T, np.float64) is gelu_decoder.causal_mask(T, np.float64)


def test_the_steps_that_are_timed_are_the_same_step():
    """After some steps of both the weights are the same; the smallest sizes will do."""
    sizes = dict(vocab_size=V, block_size=T, n_layer=2, n_head=2, n_embd=8)
    steps = [make(nn.GPTConfig(**sizes), IDS, TARGETS) for make in (bench.ByHand, bench.OnTape)]
    losses = np.array([[step() for step in steps] for _ in range(5)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-5)
    assert losses[-1, 0] < losses[0, 0]
    for name, array in steps[0].weights().items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, steps[1].weights()[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_ratio_is_printed_with_its_spread(capsys):
    bench.main(2, nn.GPTConfig(V, T, n_layer=1, n_head=2, n_embd=8))
    printed = capsys.readouterr().out
    pattern = r"of 2 pairs: median \d+\.\d\d, half of them within \d+\.\d\d to \d+\.\d\d\n"
    assert len(re.findall(pattern, printed)) == 2
    assert "forward and backward, ms" in printed and "training step, ms" in printed
