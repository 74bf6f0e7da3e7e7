"""Activations as modules, for `Sequential`, and by name, for configurations."""

from __future__ import annotations

from typing import Callable

import tape
from nn.layers.module import Module
from tape import Tensor

ACTIVATIONS: dict[str, Callable] = {"relu": tape.relu, "gelu": tape.gelu}


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return tape.relu(x)


class GELU(Module):
    """x times the normal distribution function of x, by its tanh approximation; see `tape.gelu`."""

    def forward(self, x: Tensor) -> Tensor:
        return tape.gelu(x)
