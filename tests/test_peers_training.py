"""Optimisers over many steps, and losses, against PyTorch's, in float64.

`pip install -e ".[peers]"` installs PyTorch; without it these tests are skipped.
"""

import numpy as np
import pytest

import nn
from tests.checks import leaf, peer

torch = peer("torch")
F = torch.nn.functional

OPTIMISERS = {
    "SGD": ("SGD", dict(lr=0.1)),
    "SGD, momentum, decay": ("SGD", dict(lr=0.05, momentum=0.9, weight_decay=0.1)),
    "SGD, Nesterov": ("SGD", dict(lr=0.05, momentum=0.9, nesterov=True)),
    "SGD, Nesterov, decay": ("SGD", dict(lr=0.05, momentum=0.5, nesterov=True, weight_decay=0.2)),
    "Adam": ("Adam", dict(lr=1e-2)),
    "Adam, decay": ("Adam", dict(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.2)),
    "AdamW": ("AdamW", dict(lr=1e-2)),
    "AdamW, decay": ("AdamW", dict(lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.2))}


@pytest.mark.parametrize("name, settings", OPTIMISERS.values(), ids=OPTIMISERS)
def test_fifty_steps_are_pytorchs(name, settings):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((3, 4), (5,), ())]
    ours = [nn.Parameter(array) for array in arrays]
    theirs = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    optimizer = getattr(nn, name)(ours, **settings)
    twin = getattr(torch.optim, name)(theirs, **settings)
    for step in range(50):
        for p, q in zip(ours, theirs):
            p.grad = rng.standard_normal(p.shape) * 10.0 ** rng.integers(-3, 2)
            q.grad = torch.tensor(p.grad)
        optimizer.step()
        twin.step()
        for p, q in zip(ours, theirs):
            assert p.dtype == np.float64
            np.testing.assert_allclose(p.data, q.detach(), rtol=1e-11, atol=1e-13)


# --- losses ---


def assert_same(loss, wanted, x, wanted_x):
    np.testing.assert_allclose(loss.data, wanted.detach(), rtol=1e-12)
    loss.backward()
    wanted.backward()
    np.testing.assert_allclose(x.grad, wanted_x.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignored", [-1, 3])
def test_cross_entropy_with_smoothing_is_pytorchs(smoothing, reduction, ignored):
    rng = np.random.default_rng(0)
    array, targets = 3 * rng.standard_normal((20, 5)), rng.integers(0, 5, 20)
    targets[::4] = ignored
    x, wanted_x = leaf(array), torch.tensor(array, requires_grad=True)
    assert_same(nn.cross_entropy(x, targets, ignored, smoothing, reduction=reduction),
                F.cross_entropy(wanted_x, torch.tensor(targets), ignore_index=ignored,
                                label_smoothing=smoothing, reduction=reduction), x, wanted_x)


@pytest.mark.parametrize("ours, theirs", [
    (nn.mse, F.mse_loss), (nn.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_mse_and_binary_cross_entropy_are_pytorchs(ours, theirs, scale):
    rng = np.random.default_rng(0)
    array, targets = scale * rng.standard_normal((4, 5)), rng.random((4, 5))
    x, wanted_x = leaf(array), torch.tensor(array, requires_grad=True)
    assert_same(ours(x, targets), theirs(wanted_x, torch.tensor(targets)), x, wanted_x)
