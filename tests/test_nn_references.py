"""Every layer against plain NumPy written from its paper.

Its values are those of the NumPy function, and the gradients of its inputs and parameters are the
differences of that function.

Derivatives by formulas are in tests/hand_written and in the files of the single layers.
"""

import inspect

import numpy as np
import pytest

import nn
from tests import reference_layers as ref
from tests.checks import differences, in_float64, leaf
from tests.reference_recurrent import STEPS, by_loops

RNG = np.random.default_rng(8)
X, CONTEXT = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((2, 2, 4))
SCORES = RNG.standard_normal((2, 2, 3, 4))
IMAGES = RNG.standard_normal((2, 4, 6))
IDS = np.array([[0, 2, 2], [1, 0, 2]])
VALID = np.array([[True, True, True], [True, True, False]])
PADDING = nn.padding_mask(VALID)


def recurrent(w, x, step, n_layer=2):
    """Both layers from a state of zeros."""
    names = ("input.weight", "input.bias", "hidden.weight", "candidate_bias")
    weights = [[w[f"layers.{i}.{name}"] for name in names if f"layers.{i}.{name}" in w]
               for i in range(n_layer)]
    parts = 2 if step is STEPS[nn.LSTM] else 1
    return by_loops(step, x, weights, np.zeros((parts, n_layer, len(x), 3)))[0]


def of_recurrent(kind):
    return (kind(4, 3, 2, rng=0), lambda module, x: module(x)[0],
            lambda w, x: recurrent(w, x, STEPS[kind]), X)


def called(module, *inputs):
    return module(*inputs)


def padded(module, *inputs):
    return module(*inputs, mask=PADDING)


# name: (the layer, how it is called, the same in NumPy, the inputs)
CASES = {
    "Linear": (nn.Linear(4, 3, rng=0), called, ref.linear, X),
    "Linear/no bias": (nn.Linear(4, 3, False, rng=0), called, ref.linear, X),
    "Embedding": (nn.Embedding(4, 3, rng=0), lambda module: module(IDS), lambda w: w["weight"][IDS]),
    "LayerNorm": (nn.LayerNorm(4), called, ref.layer_norm, X),
    "LayerNorm/no bias": (nn.LayerNorm(4, False, eps=0.1), called,
                          lambda w, x: ref.layer_norm(w, x, 0.1), X),
    "RMSNorm": (nn.RMSNorm(4), called, ref.rms_norm, X),
    "ALiBi": (nn.ALiBi(2), called, lambda w, x: ref.linear_biases([1 / 16, 1 / 256], x), SCORES),
    "ReLU": (nn.ReLU(), called, lambda w, x: ref.relu(x), X),
    "GELU": (nn.GELU(), called, lambda w, x: ref.gelu_tanh(x), X),
    "GELU/exact": (nn.GELU("none"), called, lambda w, x: ref.gelu_exact(x), X),
    "SiLU": (nn.SiLU(), called, lambda w, x: ref.silu(x), X),
    "Dropout": (nn.Dropout(0.4).eval(), called, lambda w, x: x, X),
    "Sequential": (nn.Sequential(nn.Linear(4, 3, rng=0), nn.SiLU(), nn.LayerNorm(3)), called,
                   lambda w, x: ref.layer_norm(ref.part(w, "2"), ref.silu(
                       ref.linear(ref.part(w, "0"), x))), X),
    "ModuleList": (nn.ModuleList([nn.Linear(4, 4, rng=0), nn.Linear(4, 3, rng=1)]),
                   lambda module, x: module[1](module[0](x)),
                   lambda w, x: ref.linear(ref.part(w, "1"),
                                           ref.linear(ref.part(w, "0"), x)), X),
    "ModuleDict": (nn.ModuleDict({"up": nn.Linear(4, 4, rng=0), "out": nn.Linear(4, 3, rng=1)}),
                   lambda module, x: module["out"](module["up"](x)),
                   lambda w, x: ref.linear(ref.part(w, "out"), ref.linear(ref.part(w, "up"), x)), X),
    "FeedForward": (nn.FeedForward(4, 5, rng=0), called, ref.feed_forward, X),
    "FeedForward/gelu": (nn.FeedForward(4, 5, "gelu", rng=0), called,
                         lambda w, x: ref.feed_forward(w, x, ref.gelu_tanh), X),
    "SwiGLU": (nn.SwiGLU(4, 5, rng=0), called, ref.swiglu, X),
    "SinusoidalPositionalEncoding": (nn.SinusoidalPositionalEncoding(5, 4), called,
                                     lambda w, x: ref.sinusoids(x), X),
    "LearnedPositionalEncoding": (nn.LearnedPositionalEncoding(5, 4, rng=0), called,
                                  lambda w, x: x + w["weight"][:3], X),
    "RotaryEmbedding": (nn.RotaryEmbedding(4), called, lambda w, x: ref.rotated(x), X),
    "PatchEmbedding": (nn.PatchEmbedding((4, 6), 2, 3, rng=0), called,
                       lambda w, images: ref.patches(w, images, 2), IMAGES),
    "MultiHeadAttention": (nn.MultiHeadAttention(4, 2, rng=0), called, ref.attention, X),
    "MultiHeadAttention/cross": (nn.MultiHeadAttention(4, 2, rng=0), called, ref.attention, X, CONTEXT),
    "MultiHeadAttention/causal": (nn.MultiHeadAttention(4, 2, True, rng=0), called,
                                  lambda w, x: ref.attention(w, x, causal=True), X),
    "MultiHeadAttention/padded": (nn.MultiHeadAttention(4, 2, rng=0), padded,
                                  lambda w, x: ref.attention(w, x, allowed=VALID), X),
    "TransformerBlock": (nn.TransformerBlock(4, 2, 5, causal=True, rng=0), called,
                         lambda w, x: ref.block(w, x, True, causal=True), X),
    "TransformerEncoderBlock": (nn.TransformerEncoderBlock(4, 2, 5, "post", rng=0), padded,
                                lambda w, x: ref.block(w, x, False, allowed=VALID), X),
    "TransformerEncoder": (nn.TransformerEncoder(2, 4, 2, 5, rng=0), padded,
                           lambda w, x: ref.encoder(w, x, 2, True, allowed=VALID), X),
    "TransformerEncoder/post": (nn.TransformerEncoder(2, 4, 2, 5, "post", rng=0), padded,
                                lambda w, x: ref.encoder(w, x, 2, False, allowed=VALID), X),
    "TransformerDecoderBlock": (nn.TransformerDecoderBlock(4, 2, 5, "post", rng=0),
                                lambda module, x, context: module(x, context=context),
                                lambda w, x, context: ref.block(w, x, False, context), X, CONTEXT),
    "RNN": of_recurrent(nn.RNN), "LSTM": of_recurrent(nn.LSTM), "GRU": of_recurrent(nn.GRU)}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_plain_numpy(name):
    module, call, reference, *inputs = CASES[name]
    rng = np.random.default_rng(1)
    for p in in_float64(module).parameters():            # no bias at 0, no weight of a norm at 1
        p.data = p.data + 0.3 * rng.standard_normal(p.shape)
    leaves = [leaf(array) for array in inputs]
    tensors = dict(enumerate(leaves)) | dict(module.named_parameters())
    arrays = [np.array(t.data) for t in tensors.values()]

    def by_reference(*arrays):
        w = dict(zip(list(tensors)[len(inputs):], arrays[len(inputs):]))
        return reference(w, *arrays[:len(inputs)])

    out = call(module, *leaves)
    table = "Sinusoidal" in name                         # which is float32
    atol = 1e-7 if table else 1e-12
    np.testing.assert_allclose(out.data, by_reference(*arrays), rtol=1e-10, atol=atol)
    u = rng.standard_normal(out.shape)
    out.backward(u)
    for i, (key, t) in enumerate(tensors.items()):
        slope = differences(lambda *moved: u * by_reference(*moved), arrays, i)
        np.testing.assert_allclose(t.grad, slope, rtol=1e-6, atol=1e-7, err_msg=str(key))
        # That of the keys' bias is 0: it adds the same to all scores of a query.
        assert np.abs(slope).max() > 1e-3 or str(key).endswith("key.bias")


def test_dropout_scales_what_it_keeps():
    """A twin that is given ones tells which elements are kept."""
    layer, twin = (nn.Dropout(0.4, rng=0) for _ in range(2))
    kept = twin(leaf(np.ones(X.shape))).data > 0
    x = leaf(X)
    out = layer(x)
    np.testing.assert_allclose(out.data, np.where(kept, X / 0.6, 0), rtol=1e-12)
    out.backward(np.ones(X.shape))
    np.testing.assert_allclose(x.grad, kept / 0.6, rtol=1e-12)
    assert 0 < kept.sum() < kept.size


def test_every_layer_has_a_reference():
    layers = {name for name in nn.__all__ if inspect.isclass(getattr(nn, name))
              and issubclass(getattr(nn, name), nn.Module)
              and getattr(nn, name).__module__.startswith("nn.layers")}
    assert layers - {"Module"} == {name.split("/")[0] for name in CASES}
