"""Encoder and decoder blocks against PyTorch's layers, with the same weights, in float64.

`pip install -e ".[peers]"` installs PyTorch; without it these tests are skipped.
"""

import numpy as np
import pytest

import nn
from tests.checks import in_float64, leaf, peer

torch = peer("torch")

RNG = np.random.default_rng(6)
B, T, S, C, H, D_FF = 3, 4, 5, 8, 2, 12
VALID = np.arange(S) < np.array([5, 3, 4])[:, None]
X, MEMORY = RNG.standard_normal((B, T, C)), RNG.standard_normal((B, S, C))

# Ours and theirs: the attentions, and the other parts in the order of the formula.
ATTENTIONS = {"attention": "self_attn", "cross_attention": "multihead_attn"}
PARTS = {"feed_forward.hidden": "linear1", "feed_forward.output": "linear2", "norm1": "norm1"}
NORMS = {nn.TransformerEncoderBlock: {"norm2": "norm2"},
         nn.TransformerDecoderBlock: {"cross_norm": "norm2", "norm2": "norm3"}}


def named_as_pytorch(ours, array_of):
    """What `array_of` gives of each parameter, by the names and in the shapes of PyTorch."""
    mine, named = {name: array_of(p) for name, p in ours.named_parameters()}, {}
    for name, other in ATTENTIONS.items():
        if hasattr(ours, name):
            for kind in ("weight", "bias"):
                joined = [mine[f"{name}.{part}.{kind}"].T for part in ("query", "key", "value")]
                named[f"{other}.in_proj_{kind}"] = np.concatenate(joined)
                named[f"{other}.out_proj.{kind}"] = mine[f"{name}.output.{kind}"].T
    for name, other in (PARTS | NORMS[type(ours)]).items():
        named |= {f"{other}.{kind}": mine[f"{name}.{kind}"].T for kind in ("weight", "bias")}
    return named


def pair(ours, kind, norm):
    """The two with the same weights, in float64."""
    in_float64(ours)
    for p in ours.parameters():
        p.data = p.data + 0.3 * RNG.standard_normal(p.shape)
    theirs = kind(C, H, D_FF, dropout=0.0, activation="relu", batch_first=True,
                  norm_first=norm == "pre").double()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in named_as_pytorch(
        ours, lambda p: p.data).items()})
    return ours, theirs


def agree(ours, theirs, out, wanted, inputs, wanted_inputs, counted):
    """Results and gradients, with a cotangent that is zero where positions do not count."""
    np.testing.assert_allclose(out.data[counted], wanted.detach().numpy()[counted], rtol=1e-10,
                               atol=1e-12)
    u = RNG.standard_normal(out.shape) * counted[..., None]
    out.backward(u)
    wanted.backward(torch.tensor(u))
    for found, expected in zip(inputs, wanted_inputs, strict=True):
        np.testing.assert_allclose(found.grad, expected.grad, rtol=1e-8, atol=1e-11)
    gradients = named_as_pytorch(ours, lambda p: p.grad)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(gradients[name], parameter.grad, rtol=1e-8, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_encoder_block_is_pytorchs(norm):
    ours, theirs = pair(nn.TransformerEncoderBlock(C, H, D_FF, norm, rng=0),
                        torch.nn.TransformerEncoderLayer, norm)
    x, wanted_x = leaf(MEMORY), torch.tensor(MEMORY, requires_grad=True)
    wanted = theirs(wanted_x, src_key_padding_mask=torch.tensor(~VALID))
    agree(ours, theirs, ours(x, nn.padding_mask(VALID)), wanted, [x], [wanted_x], VALID)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_decoder_block_is_pytorchs(norm):
    ours, theirs = pair(nn.TransformerDecoderBlock(C, H, D_FF, norm, rng=0),
                        torch.nn.TransformerDecoderLayer, norm)
    inputs = [leaf(X), leaf(MEMORY)]
    wanted_inputs = [torch.tensor(a, requires_grad=True) for a in (X, MEMORY)]
    future = torch.tensor(~np.tri(T, dtype=bool))
    wanted = theirs(*wanted_inputs, tgt_mask=future, memory_key_padding_mask=torch.tensor(~VALID))
    out = ours(inputs[0], context=inputs[1], context_mask=nn.padding_mask(VALID))
    agree(ours, theirs, out, wanted, inputs, wanted_inputs, np.ones((B, T), bool))
