"""Optimisers over many steps against PyTorch's, in float64.

`pip install -e ".[peers]"` installs PyTorch; without it these tests are skipped.
"""

import numpy as np
import pytest

import nn
from tests.checks import peer

torch = peer("torch")

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
