"""Norms, GELU and attention as modules against PyTorch's: values and all gradients, in float64.

`pip install -e ".[peers]"` installs PyTorch; without it these tests are skipped. Recurrent layers,
blocks and optimisers are in the files beside this one.
"""

import numpy as np
import pytest

import nn
from tests.checks import in_float64, leaf, peer

torch = peer("torch")

RNG = np.random.default_rng(3)
B, T, S, C, H = 2, 4, 5, 8, 2
X, CONTEXT, U = (RNG.standard_normal((B, n, C)) for n in (T, S, T))
VALID = np.arange(S) < np.array([5, 3])[:, None]
PARTS = ("query", "key", "value")


def drawn(module):
    """In float64, with no bias at 0 and no weight of a norm at 1."""
    for p in in_float64(module).parameters():
        p.data = p.data + 0.3 * RNG.standard_normal(p.shape)
    return module


def agree(found, wanted, inputs, wanted_inputs):
    """Values, and the gradients of the inputs."""
    np.testing.assert_allclose(found.data, wanted.detach(), rtol=1e-11, atol=1e-12)
    found.backward(U)
    wanted.backward(torch.tensor(U))
    for t, w in zip(inputs, wanted_inputs, strict=True):
        np.testing.assert_allclose(t.grad, w.grad, rtol=1e-9, atol=1e-11)


# name: ours and theirs, whose parameters have the same names and shapes
SIMPLE = {
    "layer norm": (nn.LayerNorm(C), torch.nn.LayerNorm(C)),
    "layer norm, no bias": (nn.LayerNorm(C, False, 0.1), torch.nn.LayerNorm(C, 0.1, bias=False)),
    "RMS norm": (nn.RMSNorm(C), torch.nn.RMSNorm(C, eps=1e-5)),
    "GELU, tanh": (nn.GELU(), torch.nn.GELU("tanh")), "GELU, exact": (nn.GELU("none"), torch.nn.GELU())}


@pytest.mark.parametrize("ours, theirs", SIMPLE.values(), ids=SIMPLE)
def test_norms_and_gelu_are_pytorchs(ours, theirs):
    drawn(ours)
    theirs.double().load_state_dict({name: torch.tensor(a) for name, a in ours.state_dict().items()})
    x, wanted_x = leaf(X), torch.tensor(X, requires_grad=True)
    agree(ours(x), theirs(wanted_x), [x], [wanted_x])
    wanted = dict(theirs.named_parameters())
    assert wanted.keys() == dict(ours.named_parameters()).keys()
    for name, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad, wanted[name].grad, rtol=1e-9, atol=1e-11, err_msg=name)


def as_pytorch(arrays):
    """What belongs to each parameter, by the names and in the shapes of torch.nn.MultiheadAttention."""
    named = {}
    for kind in ("weight", "bias"):
        named[f"in_proj_{kind}"] = np.concatenate([arrays[f"{name}.{kind}"].T for name in PARTS])
        named[f"out_proj.{kind}"] = arrays[f"output.{kind}"].T
    return named


@pytest.mark.parametrize("n_head", [1, 4])
@pytest.mark.parametrize("kind", ["self", "causal", "context", "padded context"])
def test_attention_its_weights_and_all_gradients_are_pytorchs(kind, n_head):
    ours = drawn(nn.MultiHeadAttention(C, n_head, causal=kind == "causal", rng=0))
    theirs = torch.nn.MultiheadAttention(C, n_head, batch_first=True).double()
    theirs.load_state_dict({name: torch.tensor(a) for name, a in as_pytorch(ours.state_dict()).items()})
    inputs = [leaf(a) for a in ((X, CONTEXT) if "context" in kind else (X,))]
    wanted_inputs = [torch.tensor(t.data, requires_grad=True) for t in inputs]
    mask = nn.padding_mask(VALID) if "padded" in kind else None
    wanted, wanted_weights = theirs(
        wanted_inputs[0], wanted_inputs[-1], wanted_inputs[-1], average_attn_weights=False,
        key_padding_mask=torch.tensor(~VALID) if "padded" in kind else None,
        attn_mask=torch.tensor(~np.tri(T, dtype=bool)) if kind == "causal" else None)
    _, weights = ours(*inputs, mask=mask, return_weights=True)
    np.testing.assert_allclose(weights.data, wanted_weights.detach(), rtol=1e-11, atol=1e-13)
    agree(ours(*inputs, mask=mask), wanted, inputs, wanted_inputs)       # fused, where it can be
    found = as_pytorch({name: p.grad for name, p in ours.named_parameters()})
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(found[name], p.grad, rtol=1e-9, atol=1e-11, err_msg=name)
