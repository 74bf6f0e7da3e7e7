"""The parts of newer blocks against plain NumPy, PyTorch and differences; initial values."""

import math
from dataclasses import replace

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from nn.layers.activation import ACTIVATIONS, silu
from nn.layers.init import he, orthogonal, scaled_residual, scheme, xavier
from nn.layers.norm import norm_layer
from nn.training.checkpoint.configuration import config_from_dict
from tape import gradcheck
from tests.checks import in_float64, leaf, peer

RNG = np.random.default_rng(5)
SIZES = dict(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8)
LLAMA = nn.GPTConfig(**SIZES, norm_kind="rms", activation="swiglu", position="rotary", bias=False,
                     tie_weights=False, n_kv_head=1)


def differences_agree(module, *inputs, call=None):
    """The gradients of the inputs and of every parameter, by differences in float64."""
    in_float64(module)
    names, parameters = zip(*module.named_parameters())

    def forward(*values):
        for name, value in zip(names, values[len(inputs):]):
            *path, last = name.split(".")
            owner = module
            for key in path:
                owner = owner[int(key)] if isinstance(owner, list) else getattr(owner, key)
            setattr(owner, last, value)
        return (call or module)(*values[:len(inputs)])

    arrays = [*inputs, *(p.data for p in parameters)]
    return gradcheck(forward, arrays, tolerance=1e-6)


def pulled(module, *arrays):
    """The result, a cotangent, and the gradients of the inputs by the tape."""
    leaves = [leaf(a) for a in arrays]
    out = module(*leaves)
    u = np.random.default_rng(9).standard_normal(out.shape)
    out.backward(u)
    return out.data, u, [t.grad for t in leaves]


# --- the activations ---


def test_silu_has_derivatives_to_second_order():
    assert gradcheck(silu, [np.array([-5.0, -2.0, -0.4, 0.1, 0.3, 1.0, 3.0])], order=2, tolerance=1e-6)


def test_exact_gelu_and_silu_by_their_definitions():
    x = np.linspace(-6, 6, 101)
    cdf = np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x])
    out, u, (grad,) = pulled(nn.GELU(approximate="none"), x)
    np.testing.assert_allclose(out, x * cdf, atol=1e-15)
    np.testing.assert_allclose(grad, u * (cdf + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
                               atol=1e-14)
    assert 1e-5 < np.abs(nn.GELU()(leaf(x)).data - out).max() < 5e-4
    s = 1 / (1 + np.exp(-x))
    out, u, (grad,) = pulled(nn.SiLU(), x)
    np.testing.assert_allclose(out, x * s, atol=1e-15)
    np.testing.assert_allclose(grad, u * s * (1 + x * (1 - s)), atol=1e-14)
    with pytest.raises(ValueError, match="'tanh' or 'none', got 'exact'"):
        nn.GELU("exact")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_pytorchs_and_keep_float32(name):
    F = peer("torch").nn.functional
    twins = {"relu": F.relu, "gelu": lambda x: F.gelu(x, approximate="tanh"), "gelu_exact": F.gelu,
             "silu": F.silu}
    x = np.linspace(-6, 6, 51)
    twin = peer("torch").tensor(x, requires_grad=True)
    wanted = twins[name](twin)
    out, u, (grad,) = pulled(ACTIVATIONS[name], x)
    wanted.backward(peer("torch").tensor(u))
    np.testing.assert_allclose(out, wanted.detach(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(grad, twin.grad, rtol=1e-11, atol=1e-15)
    t = leaf(x, np.float32)
    ACTIVATIONS[name](t).sum().backward()
    assert ACTIVATIONS[name](t).dtype == t.grad.dtype == np.float32


# --- norms ---


def test_rms_norm_by_its_formula():
    x, w = RNG.standard_normal((3, 4, 6)), RNG.standard_normal(6)
    module = in_float64(nn.RMSNorm(6))
    module.weight.data = w
    out, u, (grad,) = pulled(module, x)
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    n, h = x * r, u * w
    np.testing.assert_allclose(out, n * w, rtol=1e-12)
    np.testing.assert_allclose(grad, r * (h - n * (h * n).mean(-1, keepdims=True)), rtol=1e-10,
                               atol=1e-14)
    np.testing.assert_allclose(module.weight.grad, (u * n).sum((0, 1)), rtol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(np.float16, 2e-3), (np.float32, 1e-6)])
def test_rms_norm_keeps_its_dtype_and_large_halves(dtype, tolerance):
    x = (1000 * RNG.standard_normal((3, 8))).astype(dtype)
    module = nn.RMSNorm(8)
    module.weight = nn.Parameter(np.ones(8, dtype))
    t = leaf(x, dtype)
    out = module(t)
    out[..., 0].sum().backward()
    wide = x.astype(np.float64)
    assert out.dtype == t.grad.dtype == module.weight.grad.dtype == dtype
    np.testing.assert_allclose(out.data, wide / np.sqrt((wide * wide).mean(-1, keepdims=True)),
                               rtol=tolerance)
    assert (t.grad != 0).any()


def test_norms_by_name():
    assert type(norm_layer("layer", 4, bias=False)) is nn.LayerNorm
    assert [name for name, _ in norm_layer("rms", 4).named_parameters()] == ["weight"]
    with pytest.raises(ValueError, match="norm_kind must be one of .*got 'batch'"):
        norm_layer("batch", 4)


# --- the feed-forward layer ---


def test_swiglu_by_its_formula():
    module = in_float64(nn.SwiGLU(4, 6, rng=0))
    x = RNG.standard_normal((3, 4))
    w = {name: p.data for name, p in module.named_parameters()}
    a = x @ w["gate.weight"] + w["gate.bias"]
    b = x @ w["hidden.weight"] + w["hidden.bias"]
    s = 1 / (1 + np.exp(-a))
    out, u, (grad,) = pulled(module, x)
    np.testing.assert_allclose(out, a * s * b @ w["output.weight"] + w["output.bias"], rtol=1e-12)
    mixed = u @ w["output.weight"].T
    da, db = mixed * b * s * (1 + a * (1 - s)), mixed * a * s
    np.testing.assert_allclose(grad, da @ w["gate.weight"].T + db @ w["hidden.weight"].T, rtol=1e-10)
    for name, wanted in [("gate.weight", x.T @ da), ("hidden.weight", x.T @ db),
                         ("gate.bias", da.sum(0)), ("output.weight", (a * s * b).T @ u)]:
        np.testing.assert_allclose(dict(module.named_parameters())[name].grad, wanted, rtol=1e-10)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ["gelu_exact", "silu", tape.tanh])
def test_gradients_of_feed_forward_by_differences(activation, gated):
    module = nn.FeedForward(3, 5, activation, rng=0, gated=gated)
    assert differences_agree(module, RNG.standard_normal((2, 3)))


def test_widths_of_feed_forward():
    assert nn.FeedForward(6).hidden.weight.shape == (6, 24)
    assert nn.SwiGLU(6).gate.weight.shape == (6, 16)
    sizes = [nn.FeedForward(48, activation=name, bias=False).parameter_count()
             for name in ("silu", "swiglu")]
    assert sizes[0] == sizes[1]
    assert nn.FeedForward(4, activation="swiglu").gate is not None
    with pytest.raises(ValueError, match="activation must be one of .*'swiglu'.*got 'elu'"):
        nn.FeedForward(4, activation="elu")


# --- rotary positions ---


def test_rotary_positions_are_products_with_complex_numbers():
    module = nn.RotaryEmbedding(6)
    x = RNG.standard_normal((2, 5, 6))
    turn = np.exp(1j * np.outer(np.arange(3, 8), 10000.0 ** (-np.arange(0, 6, 2) / 6)))
    wanted = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
    out, u, (grad,) = pulled(lambda t: module(t, start=3), x)
    np.testing.assert_allclose(out[..., 0::2] + 1j * out[..., 1::2], wanted, rtol=1e-12)
    back = (u[..., 0::2] + 1j * u[..., 1::2]) * turn.conj()      # the transpose turns back
    np.testing.assert_allclose(grad[..., 0::2] + 1j * grad[..., 1::2], back, rtol=1e-12)
    assert gradcheck(module, [x], tolerance=1e-6)
    assert module(leaf(x, np.float32)).dtype == np.float32
    assert module.parameter_count() == 0 and module.state_dict() == {}
    with pytest.raises(ValueError, match="d must be even"):
        nn.RotaryEmbedding(5)
    with pytest.raises(ValueError, match="last axis of x must be 6"):
        module(leaf(x[..., :4]))


def test_rotary_scores_depend_on_distances_alone():
    module, (q, k) = nn.RotaryEmbedding(8), RNG.standard_normal((2, 1, 8))
    scores = [(module(leaf(q), i + 4).data @ module(leaf(k), i).data.T).item() for i in (0, 5, 900)]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-11)
    assert abs(scores[0] - (q @ k.T).item()) > 1e-3


# --- a block and a model ---


@pytest.mark.parametrize("settings", [
    dict(norm_kind="rms", activation="swiglu", rotary=True, n_kv_head=1, bias=False),
    dict(norm="post", norm_kind="rms", activation="gelu_exact", rotary=True), dict(alibi=True)])
def test_gradients_of_a_block_by_differences(settings):
    block = nn.TransformerBlock(4, 2, 5, causal=True, rng=0, **settings)
    assert differences_agree(block, RNG.standard_normal((1, 3, 4)))


def llama_by_hand(w, idx):
    """The forward of Llama, from its paper's description, for one sequence."""
    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w[name + ".weight"]

    T = len(idx)
    turn = np.exp(1j * np.outer(np.arange(T), 10000.0 ** (-np.arange(0, 4, 2) / 4)))

    def rotated(x):
        z = (x[:, 0::2] + 1j * x[:, 1::2]) * turn
        return np.stack([z.real, z.imag], -1).reshape(x.shape)

    x = w["tokens.weight"][idx]
    for i in range(2):
        b = f"blocks.{i}."
        h = norm(x, b + "norm1")
        q, k, v = (h @ w[f"{b}attention.{part}.weight"] for part in ("query", "key", "value"))
        heads = []
        for part in (slice(0, 4), slice(4, 8)):              # both share the one key and value
            scores = np.where(np.tri(T, dtype=bool), rotated(q[:, part]) @ rotated(k).T / 2, -np.inf)
            heads.append(np.exp(scores) / np.exp(scores).sum(-1, keepdims=True) @ v)
        x = x + np.concatenate(heads, -1) @ w[b + "attention.output.weight"]
        h = norm(x, b + "norm2")
        gate = h @ w[b + "feed_forward.gate.weight"]
        hidden = gate / (1 + np.exp(-gate)) * (h @ w[b + "feed_forward.hidden.weight"])
        x = x + hidden @ w[b + "feed_forward.output.weight"]
    return norm(x, "norm") @ w["head.weight"]


def test_llama_is_a_configuration():
    model = in_float64(nn.GPT(LLAMA, rng=0))
    rng = np.random.default_rng(0)
    for p in model.parameters():
        p.data = p.data + 0.3 * rng.standard_normal(p.shape)
    idx = np.array([[3, 1, 4, 1, 5, 9]])
    wanted = llama_by_hand(model.state_dict(), idx[0])
    np.testing.assert_allclose(model(idx)[0].data[0], wanted, rtol=1e-9, atol=1e-12)
    assert not any(name.endswith("bias") for name, _ in model.named_parameters())


def test_llama_can_be_frozen():
    """As a static graph it gives the same loss on other tokens."""
    model = nn.GPT(LLAMA, rng=0)
    idx, targets, new_idx, new_targets = RNG.integers(0, 11, (4, 2, 6))
    node, feed = ad.trace(lambda idx, targets: model(idx, targets)[1], {"idx": idx, "targets": targets})
    (loss,) = ad.Evaluator([node]).run({feed["idx"]: new_idx, feed["targets"]: new_targets})
    assert loss == model(new_idx, new_targets)[1].data != model(idx, targets)[1].data


CONFIGS = [LLAMA, *(nn.GPTConfig(**SIZES, **settings) for settings in (
    {}, dict(bias=False, d_ff=5), dict(norm_kind="rms"), dict(activation="swiglu", n_kv_head=1),
    dict(activation="gelu_exact", position="none"), dict(activation="silu", norm="post"),
    dict(activation="swiglu", d_ff=7, norm="post", norm_kind="rms", tie_weights=False),
    dict(position="rotary"), dict(position="alibi", n_kv_head=1),
    dict(init="xavier-he"), dict(init="orthogonal", activation="swiglu")))]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_configuration_trains_in_float32_and_travels(config, tmp_path):
    model = nn.GPT(config, rng=0)
    assert dict(config.parameter_shapes()) == {n: p.shape for n, p in model.named_parameters()}
    _, loss = model(np.array([[1, 2, 3]]), np.array([[2, 3, -1]]))
    loss.backward()
    for name, p in model.named_parameters():
        assert p.dtype == p.grad.dtype == np.float32 and np.isfinite(p.grad).all(), name
    found = nn.load_checkpoint(nn.save_checkpoint(tmp_path / "a.npz", model)).model
    assert found.config == config
    idx = np.array([[1, 2, 3, 4]])
    np.testing.assert_array_equal(found(idx)[0].data, model(idx)[0].data)


def test_a_configuration_of_an_earlier_version_means_what_it_meant():
    saved = {**SIZES, "dropout": 0.0, "bias": True, "norm": "pre", "activation": "gelu",
             "position": "learned", "tie_weights": True}
    found = config_from_dict("GPT", saved)
    assert found == nn.GPTConfig(**SIZES)
    assert (found.norm_kind, found.d_ff, found.n_kv_head, found.init) == ("layer", 32, 2, "gpt2")


@pytest.mark.parametrize("config, changes, name, wanted", [
    (nn.GPTConfig(**SIZES), {"n_embd": 16}, "d_ff", 64),
    (nn.GPTConfig(**SIZES), {"activation": "swiglu"}, "d_ff", 21),
    (nn.GPTConfig(**SIZES), {"n_head": 4}, "n_kv_head", 4),
    (nn.GPTConfig(**SIZES), {"norm": "post"}, "init", "uniform"),
    (nn.Seq2SeqConfig(6, 5, 4, n_embd=8), {"n_embd": 16}, "d_ff", 64)])
def test_a_setting_that_was_not_given_follows_when_others_are_replaced(config, changes, name, wanted):
    found = replace(config, **changes)
    assert getattr(found, name) == wanted
    assert replace(found, **{key: getattr(config, key) for key in changes}) == config


def test_a_setting_that_was_given_or_read_stays_when_others_are_replaced(tmp_path):
    config = nn.GPTConfig(**SIZES, d_ff=32, n_kv_head=2)
    found = replace(config, n_embd=16, n_head=4)
    assert (found.d_ff, found.n_kv_head) == (32, 2)
    model = nn.GPT(nn.GPTConfig(**SIZES), rng=0)
    read = nn.load_checkpoint(nn.save_checkpoint(tmp_path / "a.npz", model)).model.config
    assert read == model.config and replace(read, n_embd=16).d_ff == 32


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi", "none"])
def test_a_model_knows_positions_unless_it_has_none(position):
    """Without positions the last logits are the same for the same earlier tokens in another order."""
    model = nn.GPT(nn.GPTConfig(**{**SIZES, "n_layer": 1}, position=position, init="xavier-he"), rng=0)
    a, b = (model(np.array([ids]))[0].data[0, -1] for ids in ([1, 2, 3, 4], [2, 1, 3, 4]))
    assert np.allclose(a, b, atol=1e-6) == (position == "none")
    with pytest.raises(ValueError, match="at most block_size = 6 positions, got 7"):
        model(np.zeros((1, 7), int))


@pytest.mark.parametrize("change, message", [
    ({"norm_kind": "batch"}, "norm_kind must be one of"), ({"d_ff": -1}, "d_ff must be a positive"),
    ({"init": "he"}, "init must be one of"), ({"n_kv_head": 3}, "n_kv_head must divide n_head, got 3"),
    ({"position": "rotary", "n_embd": 6}, "n_embd / n_head must be even, got 6 / 2")])
def test_a_wrong_setting_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        nn.GPTConfig(**{**SIZES, **change})


# --- initial values ---

# The first losses of the presets before their modules had the initial values to themselves.
LOSSES = [({}, "0x1.0d57180000000p+2"), (dict(tie_weights=False), "0x1.0c28280000000p+2"),
          (dict(norm="post", activation="relu", position="sinusoidal", tie_weights=False, n_layer=1,
                n_embd=64), "0x1.1344020000000p+2"),
          (dict(position="sinusoidal", tie_weights=False), "0x1.0dd0b60000000p+2")]


@pytest.mark.parametrize("settings, wanted", LOSSES)
def test_the_presets_start_where_they_always_did(settings, wanted):
    """Approximately, because matrix products differ among machines; other draws differ by 1e-2."""
    _, loss = nn.GPT(nn.GPTConfig(65, 32, **settings), rng=0)(
        *np.random.default_rng(1).integers(0, 65, (2, 4, 32)))
    assert loss.item() == pytest.approx(float.fromhex(wanted), rel=1e-6)


def test_initialisers_by_their_formulas():
    shape = (300, 500)
    for values, variance in [(xavier(0, shape), 2 / 800), (he(0, shape), 2 / 300),
                             (scaled_residual(0, shape, 8), 0.02 ** 2 / 8)]:
        assert values.dtype == np.float32 and values.shape == shape
        assert values.data.var() == pytest.approx(variance, rel=0.02)
        assert abs(values.data.mean()) < 0.01 * variance ** 0.5
    assert np.abs(xavier(0, shape).data).max() <= np.float32((6 / 800) ** 0.5)
    for n_in, n_out in [(5, 3), (3, 5), (4, 4)]:
        q = orthogonal(0, (n_in, n_out)).data
        product = q.T @ q if n_in >= n_out else q @ q.T
        np.testing.assert_allclose(product, np.eye(min(n_in, n_out)), atol=1e-6)
    diagonals = [orthogonal(seed, (1, 1)).item() for seed in range(30)]
    assert set(np.round(diagonals)) == {-1.0, 1.0}               # both signs, not QR's choice


def test_each_module_gives_its_matrices_the_part_they_play():
    c = nn.GPTConfig(**{**SIZES, "n_embd": 64}, init="xavier-he", activation="swiglu",
                     tie_weights=False)
    state = nn.GPT(c, rng=0).state_dict()
    for name, array in state.items():
        if array.ndim == 2 and name.startswith(("blocks", "head")):
            n_in, n_out = array.shape
            variance = 2 / n_in if "gate" in name else 2 / (n_in + n_out)
            assert array.var() == pytest.approx(variance, rel=0.15), name
    plain = nn.GPT(nn.GPTConfig(**{**SIZES, "n_embd": 64}, init="xavier-he"), rng=0).state_dict()
    assert plain["blocks.0.feed_forward.hidden.weight"].var() == pytest.approx(2 / 64, rel=0.1)
    assert scheme("uniform", 2) is None
