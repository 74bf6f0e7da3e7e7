"""Models and their training against PyTorch's, with the same weights, in float64.

`pip install -e ".[peers]"` installs PyTorch; without it these tests are skipped.
"""

import numpy as np
import pytest

import nn
import tape
from tests.checks import in_float64, leaf, peer

torch = peer("torch")
F = torch.nn.functional


def gelu(x):
    return F.gelu(x, approximate="tanh")


# --- a GPT of PyTorch's operators, its parameters named and shaped as those of nn.GPT ---


class Linear(torch.nn.Module):
    """With the weight as (n_in, n_out), which PyTorch's own has the other way round."""

    def __init__(self, n_in, n_out, bias=True):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(n_in, n_out))
        self.bias = torch.nn.Parameter(torch.empty(n_out)) if bias else None

    def forward(self, x):
        return F.linear(x, self.weight.T, self.bias)


class Attention(torch.nn.Module):
    def __init__(self, width, heads, bias):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (Linear(width, width, bias) for _ in range(4))

    def forward(self, x):
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for part in (self.query, self.key, self.value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(out.transpose(1, 2).flatten(-2))


class FeedForward(torch.nn.Module):
    def __init__(self, width, bias, activation):
        super().__init__()
        self.hidden, self.output = Linear(width, 4 * width, bias), Linear(4 * width, width, bias)
        self.activation = {"gelu": gelu, "relu": F.relu}[activation]

    def forward(self, x):
        return self.output(self.activation(self.hidden(x)))


class Block(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.pre = c.norm == "pre"
        self.norm1, self.norm2 = (torch.nn.LayerNorm(c.n_embd, bias=c.bias) for _ in range(2))
        self.attention = Attention(c.n_embd, c.n_head, c.bias)
        self.feed_forward = FeedForward(c.n_embd, c.bias, c.activation)

    def forward(self, x):
        if self.pre:
            x = x + self.attention(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


class GPT(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.tokens = torch.nn.Embedding(c.vocab_size, c.n_embd)
        self.positions = torch.nn.Embedding(c.block_size, c.n_embd)
        self.blocks = torch.nn.ModuleList(Block(c) for _ in range(c.n_layer))
        last = torch.nn.LayerNorm(c.n_embd, bias=c.bias) if c.norm == "pre" else torch.nn.Identity()
        self.norm = last
        self.head = None if c.tie_weights else Linear(c.n_embd, c.vocab_size, bias=False)

    def forward(self, idx, targets):
        x = self.tokens(idx) + self.positions(torch.arange(idx.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        logits = F.linear(x, self.tokens.weight) if self.head is None else self.head(x)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


SIZES = dict(vocab_size=13, block_size=7, n_layer=2, n_head=2, n_embd=8)
CONFIGS = {
    "pre-norm, gelu": nn.GPTConfig(**SIZES), "no bias": nn.GPTConfig(**SIZES, bias=False),
    "post-norm, relu": nn.GPTConfig(**SIZES, norm="post", activation="relu", tie_weights=False)}


def twins(config):
    """A model of ours in float64, and one of PyTorch's with the same weights."""
    rng = np.random.default_rng(4)
    ours, theirs = in_float64(nn.GPT(config, rng=0)), GPT(config).double()
    for parameter in ours.parameters():          # large enough for no part to be nearly linear
        parameter.data = parameter.data + 0.3 * rng.standard_normal(parameter.shape)
    theirs.load_state_dict({name: torch.tensor(p.data) for name, p in ours.named_parameters()})
    return ours, theirs


def batch(seed):
    """Tokens and targets; some of the targets are to be ignored."""
    idx, targets = np.random.default_rng(seed).integers(0, 13, (2, 3, 7))
    targets[1, 4:] = -1
    return idx, targets


def assert_same_gradients(ours, theirs):
    wanted = {name: p.grad for name, p in theirs.named_parameters()}
    found = {name: p.grad for name, p in ours.named_parameters()}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_gpt_gives_pytorchs_logits_loss_and_gradients(config):
    ours, theirs = twins(config)
    idx, targets = batch(0)
    logits, loss = ours(idx, targets)
    wanted_logits, wanted_loss = theirs(torch.tensor(idx), torch.tensor(targets))
    np.testing.assert_allclose(logits.data, wanted_logits.detach(), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(loss.data, wanted_loss.detach(), rtol=1e-12)
    loss.backward()
    wanted_loss.backward()
    assert_same_gradients(ours, theirs)


def test_a_gpt_is_trained_as_by_pytorch():
    """Ten steps of AdamW, with decay for the matrices alone."""
    ours, theirs = twins(CONFIGS["pre-norm, gelu"])
    settings = dict(lr=1e-2, betas=(0.9, 0.95))
    optimizer = nn.AdamW(nn.decay_groups(ours, 0.1), **settings)
    named = dict(theirs.named_parameters())
    wanted = torch.optim.AdamW([
        {"params": [p for p in named.values() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in named.values() if p.ndim < 2], "weight_decay": 0.0}], **settings)
    for step in range(10):
        idx, targets = batch(step)
        _, loss = ours(idx, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _, wanted_loss = theirs(torch.tensor(idx), torch.tensor(targets))
        wanted.zero_grad()
        wanted_loss.backward()
        wanted.step()
        np.testing.assert_allclose(loss.data, wanted_loss.detach(), rtol=1e-9)
    for name, parameter in ours.named_parameters():
        np.testing.assert_allclose(parameter.data, named[name].detach(), rtol=1e-7, atol=1e-9,
                                   err_msg=name)


# --- PyTorch's own layers ---


def copied(ours):
    """The arrays of a layer, with the weights of linear layers as PyTorch has them."""
    return {name: torch.tensor(p.data.T) for name, p in ours.named_parameters()}


def attention_weights(arrays, prefix=""):
    """Those of nn.MultiHeadAttention by the names of torch.nn.MultiheadAttention."""
    joined = {f"in_proj_{kind}": torch.cat([arrays[f"{prefix}{part}.{kind}"] for part in
                                            ("query", "key", "value")]) for kind in ("weight", "bias")}
    return {**joined, **{f"out_proj.{kind}": arrays[f"{prefix}output.{kind}"]
                         for kind in ("weight", "bias")}}


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_block_is_pytorchs_encoder_layer(norm, activation):
    rng = np.random.default_rng(1)
    ours = in_float64(nn.TransformerBlock(8, 2, 20, norm=norm, activation=activation, rng=0))
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 20, dropout=0.0, activation={"gelu": gelu, "relu": F.relu}[activation],
        batch_first=True, norm_first=norm == "pre").double()
    arrays = copied(ours)
    theirs.load_state_dict({
        **{f"self_attn.{name}": a for name, a in attention_weights(arrays, "attention.").items()},
        **{f"linear1.{kind}": arrays[f"feed_forward.hidden.{kind}"] for kind in ("weight", "bias")},
        **{f"linear2.{kind}": arrays[f"feed_forward.output.{kind}"] for kind in ("weight", "bias")},
        **{name: a for name, a in arrays.items() if name.startswith("norm")}})
    x, u = rng.standard_normal((2, 3, 5, 8))
    padding = np.array([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False]])
    t, wanted = leaf(x), torch.tensor(x, requires_grad=True)
    out = ours(t, mask=nn.padding_mask(padding))
    theirs_out = theirs(wanted, src_key_padding_mask=torch.tensor(~padding))
    np.testing.assert_allclose(out.data, theirs_out.detach(), rtol=1e-10, atol=1e-12)
    out.backward(u)
    theirs_out.backward(torch.tensor(u))
    np.testing.assert_allclose(t.grad, wanted.grad, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.feed_forward.hidden.weight.grad.T, theirs.linear1.weight.grad,
                               rtol=1e-9, atol=1e-12)


# --- optimisers, clipping, the loss ---

OPTIMISERS = {
    "AdamW": (nn.AdamW, torch.optim.AdamW, dict(lr=1e-2, weight_decay=0.0)),
    "AdamW, decay": (nn.AdamW, torch.optim.AdamW,
                     dict(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.2)),
    "SGD": (nn.SGD, torch.optim.SGD, dict(lr=0.1)),
    "SGD, momentum": (nn.SGD, torch.optim.SGD, dict(lr=0.1, momentum=0.9)),
    "SGD, momentum, decay": (nn.SGD, torch.optim.SGD, dict(lr=0.1, momentum=0.5, weight_decay=0.2))}


def parameters(rng, shapes=((3, 4), (5,), ())):
    """The same numbers as our parameters and as PyTorch's."""
    arrays = [rng.standard_normal(shape) for shape in shapes]
    return [nn.Parameter(np.array(a)) for a in arrays], [
        torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]


def set_gradients(rng, ours, theirs, scale=1.0):
    for p, q in zip(ours, theirs):
        p.grad = rng.standard_normal(p.shape) * scale
        q.grad = torch.tensor(p.grad)


@pytest.mark.parametrize("make, wanted, settings", OPTIMISERS.values(), ids=OPTIMISERS)
def test_an_optimiser_steps_as_pytorchs(make, wanted, settings):
    rng = np.random.default_rng(0)
    ours, theirs = parameters(rng)
    optimizer, twin = make(ours, **settings), wanted(theirs, **settings)
    for scale in (1.0, 1e-3, 10.0, 1.0, 0.0):
        set_gradients(rng, ours, theirs, scale)
        optimizer.step()
        twin.step()
        for p, q in zip(ours, theirs):
            assert p.dtype == np.float64
            np.testing.assert_allclose(p.data, q.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1000.0, np.inf])
def test_gradients_are_clipped_as_by_pytorch(max_norm):
    # PyTorch divides by the length + 1e-6.
    rng = np.random.default_rng(0)
    ours, theirs = parameters(rng)
    set_gradients(rng, ours, theirs, 2.0)
    norm, wanted = nn.clip_grad_norm(ours, max_norm), torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert norm == pytest.approx(wanted.item(), rel=1e-12) and 3 < norm < 1000
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignored", [-1, 3])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_cross_entropy_is_pytorchs(reduction, ignored, scale):
    rng = np.random.default_rng(0)
    array, targets = rng.standard_normal((20, 5)) * scale, rng.integers(0, 5, 20)
    targets[::4] = ignored
    logits, wanted_logits = leaf(array), torch.tensor(array, requires_grad=True)
    loss = tape.cross_entropy(logits, targets, ignore_index=ignored, reduction=reduction)
    wanted = F.cross_entropy(wanted_logits, torch.tensor(targets), ignore_index=ignored,
                             reduction=reduction)
    np.testing.assert_allclose(loss.data, wanted.detach(), rtol=1e-12)
    loss.backward()
    wanted.backward()
    np.testing.assert_allclose(logits.grad, wanted_logits.grad, rtol=1e-9, atol=1e-14)
