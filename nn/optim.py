"""Optimisers: they read ``.grad`` and change ``.data``.

The learning rate is a plain attribute: set ``optimiser.lr = schedule(step)`` before each step.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Iterable

import numpy as np

from nn.module import Module
from tape import Tensor


class Optimizer:
    """What SGD and AdamW share: parameters in groups, and a check that none is forgotten.

    Parameters
    ----------
    params : iterable of Tensor, or of dicts
        A dict ``{"params": [...], "weight_decay": 0.1}`` is a group with a decay of its own.
    lr : float
        Learning rate.
    weight_decay : float
        Of the groups that name none.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.0):
        name = type(self).__name__
        groups = list(params)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.params: list[Tensor] = []
        self.decays: list[float] = []
        for group in groups:
            for parameter in group["params"]:
                self.params.append(parameter)
                self.decays.append(group.get("weight_decay", weight_decay))
        if not self.params:
            raise ValueError(f"{name}: there are no parameters to optimise")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError(f"{name}: a parameter appears twice; it would be updated twice a step")
        if not lr > 0:
            raise ValueError(f"{name}: lr must be positive, got {lr}")
        self.lr = lr
        self._warned = False

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.params:
            parameter.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        learning = [i for i, p in enumerate(self.params) if p.requires_grad]     # not the frozen
        missing = [i for i in learning if self.params[i].grad is None]
        if len(missing) == len(learning):
            raise RuntimeError(f"{type(self).__name__}: no parameter has a gradient. Call "
                               f"loss.backward() before step().")
        if missing and not self._warned:
            self._warned = True
            shapes = ", ".join(f"number {i} {self.params[i].shape}" for i in missing[:5])
            warnings.warn(f"{type(self).__name__}: {len(missing)} parameters have no gradient and are "
                          f"left alone: {shapes}. They play no part in the loss.", stacklevel=2)
        for i, parameter in enumerate(self.params):
            if parameter.grad is not None:
                self._update(i, parameter, parameter.grad)

    def _update(self, i: int, parameter: Tensor, g: np.ndarray) -> None:
        """Change parameter number `i`, whose gradient is g."""
        raise NotImplementedError


class SGD(Optimizer):
    """p -= lr * g; with momentum, p -= lr * v, where v = momentum * v + g.

    Weight decay w adds w * p to g.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.0,
                 weight_decay: float = 0.0):
        super().__init__(params, lr, weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD: momentum must be in [0, 1), got {momentum}")
        self.momentum = momentum
        self.velocity = [np.zeros_like(p.data) for p in self.params] if momentum else []

    def _update(self, i: int, parameter: Tensor, g: np.ndarray) -> None:
        if self.decays[i]:
            g = g + self.decays[i] * parameter.data
        if self.momentum:
            self.velocity[i] *= self.momentum
            self.velocity[i] += g
            g = self.velocity[i]
        parameter.data -= self.lr * g


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    With m and v the running means of g and g^2 (rates beta1, beta2) and t the step,

        p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + lr * weight_decay * p

    The denominators undo the bias of running means that start at zero. Kingma and Ba 2015,
    arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.01):
        super().__init__(params, lr, weight_decay)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"AdamW: betas must be in [0, 1), got {betas}")
        self.betas, self.eps = betas, eps
        self.t = 0
        self.m = [np.zeros_like(p.data) for p in self.params]
        self.v = [np.zeros_like(p.data) for p in self.params]

    def step(self) -> None:
        self.t += 1
        try:
            super().step()
        except RuntimeError:
            self.t -= 1           # refused: no step was taken
            raise

    def _update(self, i: int, parameter: Tensor, g: np.ndarray) -> None:
        (beta1, beta2), m, v = self.betas, self.m[i], self.v[i]
        m += (1 - beta1) * (g - m)
        v *= beta2
        square = g * g
        square *= 1 - beta2
        v += square
        # sqrt(v / c) + eps = (sqrt(v) + eps sqrt(c)) / sqrt(c), with c = 1 - beta2^t
        root = math.sqrt(1 - beta2 ** self.t)
        denominator = np.sqrt(v, out=square) if square.ndim else np.sqrt(v)
        denominator += self.eps * root
        step = m / denominator
        step *= self.lr * root / (1 - beta1 ** self.t)
        if self.decays[i]:
            step += self.lr * self.decays[i] * parameter.data
        parameter.data -= step


def decay_groups(model: Module, weight_decay: float) -> list[dict]:
    """Two groups for an optimiser: matrices and tables decay, biases and norms (one axis) do not.

    Each parameter is in exactly one of them, tied ones once.
    """
    parameters = model.parameters()
    return [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]


def clip_grad_norm(params: Iterable[Any], max_norm: float) -> float:
    """Scale all gradients by one factor so that their joint length is at most `max_norm`.

    Parameters
    ----------
    params : iterable of Tensor, or of (name, Tensor)
        With names, as from ``model.named_parameters()``, errors can say which.
    max_norm : float

    Returns
    -------
    float
        The length before scaling.

    Raises
    ------
    ValueError
        A gradient is not finite (all such parameters are listed), or max_norm is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be positive, got {max_norm}")
    named = [p if isinstance(p, tuple) else (f"number {i}", p) for i, p in enumerate(params)]
    named = [(name, p) for name, p in named if p.grad is not None]
    squares = [float(np.vdot(p.grad, p.grad)) for _, p in named]
    if not math.isfinite(sum(squares)):
        bad = [name for (name, p), s in zip(named, squares)
               if not math.isfinite(s) and not np.isfinite(p.grad).all()]
        if bad:
            raise ValueError(f"clip_grad_norm: the gradient is not finite in {', '.join(bad)}")
        squares = [float(np.sum(np.square(p.grad, dtype=np.float64))) for _, p in named]
    norm = math.sqrt(sum(squares))
    if norm > max_norm:
        for _, p in named:
            p.grad *= max_norm / norm
    return norm
