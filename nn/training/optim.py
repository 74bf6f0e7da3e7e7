"""Optimisers: they read ``.grad`` and change ``.data``.

The learning rate is a plain attribute: set ``optimiser.lr = schedule(step)`` before each step.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from nn.layers.module import Module
from nn.training.parameters import check, groups, learned, own_settings, widened
from tape import Tensor


class Optimizer:
    """What SGD and AdamW share: parameters in groups, and a check that none is forgotten.

    Parameters
    ----------
    params : Tensor, or iterable of Tensor, or iterable of dicts
        A dict is a group with settings of its own: ``{"params": model.parameters(), "lr": 1e-4}``.
        It can have every setting that the optimiser has, and no other key.
    lr : float
        Learning rate. Of a group with an `lr` of its own that is the rate for as long as
        ``optimizer.lr`` is what was given here. A schedule that assigns to ``optimizer.lr``
        changes the rates of all groups by the same factor, so the ratio of a group's rate to the
        optimiser's stays the same.
    weight_decay : float
    **settings
        What else the update needs.

    Notes
    -----
    The settings are attributes, and may be assigned to between steps. All but `lr` then hold for
    the groups that have none of their own.

    A frozen parameter (``requires_grad = False``) is accepted and left alone while it is frozen.

    What an optimiser remembers of a float16 parameter is float32. The update is computed in
    float32, and the parameter is rounded once.

    `step` does not look for NaN. `clip_grad_norm`, called before it, refuses gradients that are
    not finite.
    """

    lr: float
    weight_decay: float

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0, **settings: Any):
        caller = type(self).__name__
        self._names = ["lr", *settings, "weight_decay"]
        for name, value in {"lr": lr, **settings, "weight_decay": weight_decay}.items():
            check(caller, name, value)
            setattr(self, name, value)
        self._initial_lr = lr
        self.params: list[Tensor] = []
        self._group_of: list[int] = []              # of each parameter
        self._own: list[dict[str, Any]] = []        # the settings of each group
        for i, (where, group) in enumerate(groups(params, caller)):
            self._own.append(own_settings(group, self._names, where))
            tensors = learned(group["params"], where)
            self.params += tensors
            self._group_of += [i] * len(tensors)
        if not self.params:
            raise ValueError(f"{caller}: there are no parameters to optimise")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError(f"{caller}: a parameter appears twice; it would be updated twice a "
                             f"step")
        self._warned = False

    def zero_grad(self) -> None:
        """Set the gradients to None."""
        for parameter in self.params:
            parameter.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient and is not frozen."""
        settings = self._settings()
        gradients = {i: p.grad for i, p in enumerate(self.params) if p.requires_grad}
        missing = [i for i, g in gradients.items() if g is None]
        if len(missing) == len(gradients):
            raise RuntimeError(f"{type(self).__name__}: " + (
                "no parameter has a gradient. Call loss.backward() before step()." if gradients else
                "all parameters are frozen. Set requires_grad = True on those to be trained."))
        if missing and not self._warned:
            self._warned = True
            shapes = ", ".join(f"number {i} {self.params[i].shape}" for i in missing[:5])
            warnings.warn(f"{type(self).__name__}: {len(missing)} parameters have no gradient and are "
                          f"left alone: {shapes}. They play no part in the loss.", stacklevel=2)
        for i, g in gradients.items():
            if g is not None:
                self._update(i, self.params[i], widened(g), **settings[self._group_of[i]])

    def _settings(self) -> list[dict[str, Any]]:
        """What holds in each group at this step."""
        shared = {name: getattr(self, name) for name in self._names}
        for name, value in shared.items():
            check(type(self).__name__, name, value, or_zero=True)
        factor = self.lr / self._initial_lr
        return [{**shared, **own, "lr": own["lr"] * factor} if "lr" in own else {**shared, **own}
                for own in self._own]

    def _update(self, *args: Any, **settings: Any) -> None:
        """Change a parameter, given its number, itself, its gradient and the settings."""
        raise NotImplementedError


class SGD(Optimizer):
    """p -= lr * g; with momentum, p -= lr * v, where v = momentum * v + g.

    Weight decay w adds w * p to g. `Optimizer` describes the parameters and groups.
    """

    momentum: float

    def __init__(self, params: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0):
        super().__init__(params, lr, weight_decay, momentum=momentum)
        self.velocity: list[np.ndarray | None] = [None for _ in self.params]

    def _update(self, i: int, parameter: Tensor, g: np.ndarray, *, lr: float, momentum: float,
                weight_decay: float) -> None:
        if weight_decay:
            g = g + weight_decay * widened(parameter.data)
        if momentum:
            v = self.velocity[i]
            if v is None:
                v = self.velocity[i] = _zeros_like(parameter)
            v *= momentum
            v += g
            g = v
        parameter.data -= lr * g


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    With m and v the running means of g and g^2 (rates beta1, beta2) and t the number of updates of
    p so far, this one included,

        p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + lr * weight_decay * p

    The denominators undo the bias of running means that start at zero. Kingma and Ba 2015,
    arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    `Optimizer` describes the parameters and groups.
    """

    betas: tuple[float, float]
    eps: float

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps)
        self.t = [0 for _ in self.params]
        self.m = [_zeros_like(p) for p in self.params]
        self.v = [_zeros_like(p) for p in self.params]

    def _update(self, i: int, parameter: Tensor, g: np.ndarray, *, lr: float,
                betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        self.t[i] += 1
        (beta1, beta2), t, m, v = betas, self.t[i], self.m[i], self.v[i]
        m += (1 - beta1) * (g - m)
        v *= beta2
        square = g * g
        square *= 1 - beta2
        v += square
        # sqrt(v / c) + eps = (sqrt(v) + eps sqrt(c)) / sqrt(c), with c = 1 - beta2^t
        root = math.sqrt(1 - beta2 ** t)
        denominator = np.sqrt(v, out=square) if square.ndim else np.sqrt(v)
        denominator += eps * root
        step = m / denominator
        step *= lr * root / (1 - beta1 ** t)
        if weight_decay:
            step += lr * weight_decay * widened(parameter.data)
        parameter.data -= step


def decay_groups(model: Module, weight_decay: float) -> list[dict]:
    """Two groups for an optimiser: matrices and tables decay, biases and norms (one axis) do not.

    Each parameter is in exactly one of them, tied ones once.
    """
    parameters = model.parameters()
    return [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]


def _zeros_like(parameter: Tensor) -> np.ndarray:
    return np.zeros_like(parameter.data, dtype=np.result_type(parameter.dtype, np.float32))
