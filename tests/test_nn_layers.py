"""Layers and the GPT: values by another route, gradients by differences, masks, dropout."""

import math

import numpy as np
import pytest

import nn
import tape
from tape import Tensor, gradcheck

TINY = nn.GPTConfig(vocab_size=7, block_size=5, n_layer=2, n_head=2, n_embd=8)


def naive_attention(module, x, context=None, mask=None):
    """Loops over batch, head and query; nothing shared with the module but its weights."""
    context = x if context is None else context

    def project(layer, values):
        return values @ layer.weight.data + layer.bias.data

    q, k, v = (project(module.query, x), project(module.key, context),
               project(module.value, context))
    width = x.shape[-1] // module.n_head
    joined = np.zeros_like(q)
    for b in range(x.shape[0]):
        for h in range(module.n_head):
            part = slice(h * width, (h + 1) * width)
            for t in range(x.shape[1]):
                seen = [s for s in range(context.shape[1])
                        if not (module.causal and s > t + context.shape[1] - x.shape[1])
                        and (mask is None or mask[b, 0, 0, s] == 0)]
                weights = np.array([math.exp(q[b, t, part] @ k[b, s, part] / math.sqrt(width))
                                    for s in seen])
                weights /= weights.sum()
                joined[b, t, part] = sum(w * v[b, s, part] for w, s in zip(weights, seen))
    return project(module.output, joined)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_equals_loops(causal, padded):
    x = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    module = nn.MultiHeadAttention(6, 3, causal=causal, rng=1)
    mask = nn.padding_mask([[1, 1, 1, 1], [1, 1, 0, 0]]) if padded else None
    out = module(Tensor(x), mask=mask)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.data, naive_attention(module, x, mask=mask), atol=1e-5)


def test_cross_attention_equals_loops():
    rng = np.random.default_rng(0)
    x, context = (rng.standard_normal((2, n, 4)).astype(np.float32) for n in (3, 5))
    module = nn.MultiHeadAttention(4, 2, rng=1)
    np.testing.assert_allclose(module(Tensor(x), Tensor(context)).data,
                               naive_attention(module, x, context), atol=1e-5)


def test_the_fused_and_the_composed_path_agree_in_value_and_gradient():
    x = np.random.default_rng(0).standard_normal((2, 4, 6))
    module = nn.MultiHeadAttention(6, 2, causal=True, rng=1)
    results = []
    for mask in (None, np.zeros((4, 4), np.float32)):     # a mask, even of zeros, is not fused
        module.zero_grad()
        out = module(Tensor(x.astype(np.float32)), mask=mask)
        (out * out).sum().backward()
        results.append([out.data, *(p.grad for p in module.parameters())])
    for fused, composed in zip(*results):
        np.testing.assert_allclose(fused, composed, rtol=1e-4, atol=1e-5)


def test_the_future_has_no_influence_at_all():
    model = nn.GPT(TINY, rng=0)
    early, late = model(np.array([[1, 2, 3, 4]]))[0], model(np.array([[1, 2, 6, 0]]))[0]
    np.testing.assert_array_equal(early.data[:, :2], late.data[:, :2])
    assert (early.data[:, 2:] != late.data[:, 2:]).any()


def test_masks():
    np.testing.assert_array_equal(nn.causal_mask(2, 3), [[0, 0, -np.inf], [0, 0, 0]])
    assert nn.padding_mask([[True, False]]).shape == (1, 1, 1, 2)


def test_a_query_that_may_see_nothing_gets_zeros_and_no_nan():
    module = nn.MultiHeadAttention(4, 2, rng=0)
    x = Tensor(np.ones((1, 2, 4)), requires_grad=True)
    weights = module.weights(*(tape.split_heads(layer(x), module.n_head)
                               for layer in (module.query, module.key)),
                             nn.padding_mask([[False, False]]))
    weights.sum().backward()
    assert (weights.data == 0).all() and (x.grad == 0).all()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_gradients_of_a_block_by_differences(norm, activation):
    block = nn.TransformerBlock(4, 2, norm=norm, activation=activation, causal=True, rng=3)
    names = [name for name, _ in block.named_parameters()]
    owners = [(module, key) for module in block.modules() for key in ("weight", "bias")
              if isinstance(getattr(module, key, None), Tensor)]
    order = {id(getattr(module, key)): i for i, (module, key) in enumerate(owners)}
    parameters = [p.data for p in block.parameters()]
    places = [owners[order[id(p)]] for p in block.parameters()]
    assert len(places) == len(names) == 16

    def forward(x, *weights):
        for (module, key), weight in zip(places, weights):
            setattr(module, key, weight)
        return block(x)

    x = np.random.default_rng(0).standard_normal((1, 3, 4))
    assert gradcheck(forward, [x, *parameters], tolerance=1e-6)


def test_pre_norm_and_post_norm_are_where_they_are_said_to_be():
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32))
    pre, post = (nn.TransformerBlock(4, 1, norm=norm, rng=0) for norm in ("pre", "post"))
    h = x + pre.attention(pre.norm1(x))
    np.testing.assert_allclose(pre(x).data, (h + pre.feed_forward(pre.norm2(h))).data, atol=1e-6)
    h = post.norm1(x + post.attention(x))
    np.testing.assert_allclose(post(x).data, post.norm2(h + post.feed_forward(h)).data, atol=1e-6)
    np.testing.assert_allclose(post(x).data.mean(axis=-1), 0, atol=1e-6)


def test_layer_norm_normalises():
    x = Tensor(np.random.default_rng(0).normal(3, 5, (4, 16)).astype(np.float32))
    out = nn.LayerNorm(16)(x)
    np.testing.assert_allclose(out.data.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(out.data.std(axis=-1), 1, atol=1e-4)


def test_sinusoidal_positions_follow_the_paper():
    table = nn.SinusoidalPositionalEncoding(50, 6).table
    for t, i in [(0, 0), (7, 1), (49, 2)]:
        angle = t / 10000 ** (2 * i / 6)
        assert table[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)
    assert nn.SinusoidalPositionalEncoding(4, 5).table.shape == (4, 5)


@pytest.mark.parametrize("encoding", [nn.SinusoidalPositionalEncoding(4, 2),
                                      nn.LearnedPositionalEncoding(4, 2, rng=0)])
def test_too_long_a_sequence_is_refused_in_words(encoding):
    with pytest.raises(ValueError, match="at most block_size = 4 positions, got 5"):
        encoding(Tensor(np.zeros((1, 5, 2))))


def test_dropout_only_while_training_and_with_the_right_mean():
    layer, x = nn.Dropout(0.25, rng=0), Tensor(np.ones(40_000, np.float32))
    dropped = layer(x).data
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    assert layer.eval()(x) is x


def test_dropout_draws_from_a_stream_of_its_own():
    with_dropout, without = (np.random.default_rng(0) for _ in range(2))
    layer = nn.Dropout(0.5, with_dropout)
    layer(Tensor(np.ones(10)))
    assert with_dropout.random() == without.random()


def test_a_new_gpt_knows_nothing_and_says_so():
    model = nn.GPT(TINY, rng=0)
    idx, targets = np.random.default_rng(0).integers(0, 7, (2, 40, 5))
    logits, loss = model(idx, targets)
    assert logits.shape == (40, 5, 7) and logits.dtype == np.float32
    assert loss.item() == pytest.approx(math.log(7), abs=0.05)
    assert model(idx)[1] is None


def test_initial_values_are_those_of_the_table():
    config = nn.GPTConfig(vocab_size=50, block_size=32, n_layer=8, n_head=2, n_embd=64)
    state = nn.GPT(config, rng=0).state_dict()
    for name, array in state.items():
        if "norm" in name and name.endswith("weight"):
            assert (array == 1).all(), name
        elif name.endswith("bias"):
            assert (array == 0).all(), name
        else:
            std = 0.02 / 4 if name.endswith("output.weight") else 0.02
            assert array.std() == pytest.approx(std, rel=0.1), name


def test_parameter_count_by_arithmetic():
    c = nn.GPTConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, bias=False)
    per_block = 4 * 128 * 128 + 2 * 4 * 128 * 128 + 2 * 128
    assert nn.GPT(c, rng=0).parameter_count() == 65 * 128 + 64 * 128 + 4 * per_block + 128


def test_every_parameter_of_every_variant_gets_a_float32_gradient():
    for norm in ("pre", "post"):
        for tie in (True, False):
            for position in ("learned", "sinusoidal"):
                model = nn.GPT(nn.GPTConfig(7, 5, 1, 2, 8, 0.1, True, norm, "relu", position, tie),
                               rng=0)
                _, loss = model(np.array([[1, 2, 3]]), np.array([[2, 3, -1]]))
                loss.backward()
                for name, p in model.named_parameters():
                    assert p.grad is not None and p.grad.dtype == np.float32, name


@pytest.mark.parametrize("change, message", [
    ({"n_head": 3}, "n_head must divide n_embd"), ({"vocab_size": 0}, "vocab_size must be a positive"),
    ({"position": "absolute"}, "position must be one of"), ({"norm": "none"}, "norm must be"),
    ({"activation": "elu"}, "activation must be one of")])
def test_a_wrong_configuration_says_what_is_wrong(change, message):
    fields = {"vocab_size": 7, "block_size": 5, "n_layer": 1, "n_head": 2, "n_embd": 8} | change
    with pytest.raises(ValueError, match=message):
        nn.GPT(nn.GPTConfig(**fields), rng=0)


def test_wrong_ids_are_named():
    with pytest.raises(IndexError, match=r"ids must be in \[0, 7\).*got 7"):
        nn.GPT(TINY, rng=0)(np.array([[1, 7]]))
    with pytest.raises(ValueError, match=r"shape \(B, T\)"):
        nn.GPT(TINY, rng=0)(np.array([1, 2]))


def test_gpt_agrees_with_plain_numpy():
    """The whole forward again, written out on arrays."""
    model = nn.GPT(TINY, rng=4)
    w = {name: array.astype(np.float64) for name, array in model.state_dict().items()}
    idx = np.array([[3, 1, 4, 1, 5]])

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w[name + ".weight"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"] + w[name + ".bias"]

    x = w["tokens.weight"][idx[0]] + w["positions.weight"]
    for i in range(2):
        b, h = f"blocks.{i}.", norm(x, f"blocks.{i}.norm1")
        q, k, v = (linear(h, b + f"attention.{n}").reshape(5, 2, 4).transpose(1, 0, 2)
                   for n in ("query", "key", "value"))
        scores = np.where(np.tri(5, dtype=bool), q @ k.transpose(0, 2, 1) / 2, -np.inf)
        a = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        x = x + linear((a @ v).transpose(1, 0, 2).reshape(5, 8), b + "attention.output")
        u = linear(norm(x, b + "norm2"), b + "feed_forward.hidden")
        u = u * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u ** 3)))
        x = x + linear(u, b + "feed_forward.output")
    expected = norm(x, "norm") @ w["tokens.weight"].T
    np.testing.assert_allclose(model(idx)[0].data[0], expected, rtol=1e-4, atol=1e-6)


def test_tied_weights_sum_both_uses():
    """The gradient of a tied table is that of the embedding plus that of the head."""
    idx, targets = np.array([[1, 2]]), np.array([[2, 3]])
    tied = nn.GPT(nn.GPTConfig(5, 2, 1, 1, 4), rng=0)
    untied = nn.GPT(nn.GPTConfig(5, 2, 1, 1, 4, tie_weights=False), rng=0)
    state = tied.state_dict()
    untied.load_state_dict({**state, "head.weight": state["tokens.weight"].T})
    for model in (tied, untied):
        model(idx, targets)[1].backward()
    both = untied.tokens.weight.grad + untied.head.weight.grad.T
    np.testing.assert_allclose(tied.tokens.weight.grad, both, atol=1e-6)


def test_nothing_in_a_training_step_leaves_float32():
    model = nn.GPT(TINY, rng=0)
    _, loss = model(np.array([[1, 2]]), np.array([[2, 3]]))
    operators = {line.split()[1] for line in tape.show(loss).splitlines()[1:-1]}
    assert "causal_self_attention" in operators
    stack, seen = [loss._record], set()
    while stack:
        record = stack.pop()
        seen.add(record.dtype)
        stack += [p for p in record.parents if hasattr(p, "parents")]
    assert seen == {np.dtype(np.float32)}


@pytest.mark.parametrize("place", ["embedding", "attention", "residual"])
def test_dropout_is_active_at_each_place_while_training_alone(place):
    model = nn.GPT(nn.GPTConfig(7, 5, 1, 2, 8, dropout=0.5), rng=0)
    sites = {"embedding": model.dropout, "attention": model.blocks[0].attention.dropout,
             "residual": model.blocks[0].dropout}
    for name, site in sites.items():
        site.p = 0.5 if name == place else 0.0
    idx = np.array([[1, 2, 3]])
    assert (model(idx)[0].data != model(idx)[0].data).any()
    model.eval()
    np.testing.assert_array_equal(model(idx)[0].data, model(idx)[0].data)


def test_a_block_hands_its_mask_to_the_attention():
    block = nn.TransformerBlock(4, 2, rng=0)
    x, other = np.random.default_rng(0).standard_normal((2, 1, 3, 4)).astype(np.float32)
    other[:, :2] = x[:, :2]               # they differ in the last position, which is masked
    mask = nn.padding_mask([[True, True, False]])
    a, b = (block(Tensor(values), mask=mask).data[:, :2] for values in (x, other))
    np.testing.assert_array_equal(a, b)
    assert (block(Tensor(x)).data[:, :2] != a).any()


def test_token_vectors_are_as_large_as_sinusoidal_positions():
    config = nn.GPTConfig(200, 8, 1, 1, 32, position="sinusoidal", norm="post", tie_weights=False)
    assert nn.GPT(config, rng=0).tokens.weight.data.std() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("p", [1.0, -0.1, float("nan")])
def test_a_share_of_dropout_that_is_set_later_is_checked_too(p):
    layer = nn.Dropout(0.5)
    layer.p = p
    with pytest.raises(ValueError, match=r"Dropout: p must be in \[0, 1\), got "):
        layer(Tensor(np.ones(2)))
    assert layer.eval()(Tensor(np.ones(2))).shape == (2,)


ONES = np.ones((2, 3), np.float32)
FIRST = np.array([0, 1])


@pytest.mark.parametrize("make, message", [
    (lambda: nn.MultiHeadAttention(8, 2, 0.1),
     "causal must be True or False, got 0.1. Its arguments are d_model, n_head, causal, bias, dropout"),
    (lambda: nn.LayerNorm(16, 1e-6),
     "bias must be True or False, got 1e-06. Its arguments are d, bias, eps"),
    (lambda: nn.LayerNorm(16, bias=0.0), "LayerNorm: bias must be True or False, got 0.0"),
    (lambda: nn.Dropout(0.5, True), "Dropout: rng must be a generator or a seed, got True"),
    (lambda: tape.dropout(ONES, 0.5, True), "rng must be a generator or a seed, got True. There is no"),
    (lambda: tape.attention(ONES, ONES, ONES, None, 0.0, True), "attention: scale must be a number"),
    (lambda: tape.attention(ONES, ONES, ONES, None, 0.0), "causal must be True or False, got 0.0"),
    (lambda: nn.cross_entropy(ONES, FIRST, np.ones(3)),
     "ignore_index must be a number, got a ndarray. For weights of the classes"),
    (lambda: tape.cross_entropy(ONES, FIRST, np.ones(2)), "no weights of classes"),
    (lambda: nn.cross_entropy(ONES, FIRST, weight=np.ones(3)), "multiply the loss")])
def test_arguments_of_pytorch_by_position_are_not_taken_for_others(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_the_weights_of_a_linear_of_pytorch_are_said_to_be_turned():
    with pytest.raises(ValueError, match="holds the transpose of ours: all of them, square ones too"):
        nn.Linear(3, 4).load_state_dict({"weight": np.ones((4, 3)), "bias": np.ones(4)})
