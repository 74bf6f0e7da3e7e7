"""Optimisers: they read ``.grad`` and change ``.data``.

The learning rate is a plain attribute: set ``optimiser.lr = schedule(step)`` before each step.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from nn.layers.module import Module
from nn.layers.parameter import is_learned
from tape import Tensor

# Of each setting, what it must be.
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lr": ("positive and finite", lambda x: _is_number(x) and 0 < x < math.inf),
    "weight_decay": ("finite and not negative", lambda x: _is_number(x) and 0 <= x < math.inf),
    "momentum": ("in [0, 1)", lambda x: _is_number(x) and 0 <= x < 1),
    "betas": ("two numbers in [0, 1)", lambda x: isinstance(x, (tuple, list)) and len(x) == 2
              and all(_is_number(beta) and 0 <= beta < 1 for beta in x)),
    "eps": ("finite and not negative", lambda x: _is_number(x) and 0 <= x < math.inf),
}


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
        changes the rates of all groups by the same factor, so a group that began with a tenth of
        the optimiser's rate always has a tenth of it.
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
            _check(caller, name, value)
            setattr(self, name, value)
        self._initial_lr = lr
        self.params: list[Tensor] = []
        self._group_of: list[int] = []              # of each parameter
        self._own: list[dict[str, Any]] = []        # the settings of each group
        for i, (where, group) in enumerate(_groups(params, caller)):
            self._own.append(_own_settings(group, self._names, where))
            tensors = _learned(group["params"], where)
            self.params += tensors
            self._group_of += [i] * len(tensors)
        if not self.params:
            raise ValueError(f"{caller}: there are no parameters to optimise")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError(f"{caller}: a parameter appears twice; it would be updated twice a "
                             f"step")
        self._warned = False

    def zero_grad(self) -> None:
        """Forget the gradients."""
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
                self._update(i, self.params[i], _wide(g), **settings[self._group_of[i]])

    def _settings(self) -> list[dict[str, Any]]:
        """What holds in each group at this step."""
        shared = {name: getattr(self, name) for name in self._names}
        for name, value in shared.items():
            _check(type(self).__name__, name, value, or_zero=True)
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
            g = g + weight_decay * _wide(parameter.data)
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
            step += lr * weight_decay * _wide(parameter.data)
        parameter.data -= step


def decay_groups(model: Module, weight_decay: float) -> list[dict]:
    """Two groups for an optimiser: matrices and tables decay, biases and norms (one axis) do not.

    Each parameter is in exactly one of them, tied ones once.
    """
    parameters = model.parameters()
    return [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]


def clip_grad_norm(params: Any, max_norm: float) -> float:
    """Scale all gradients by one factor so that their joint length is at most `max_norm`.

    Parameters
    ----------
    params : Tensor, or iterable of Tensor or of (name, Tensor), or mapping from names
        With names, as from ``model.named_parameters()``, errors can say which. A tensor that is
        given twice counts once.
    max_norm : float
        May be infinite: nothing is scaled then.

    Returns
    -------
    float
        The length before scaling.

    Raises
    ------
    ValueError
        A gradient is not finite (all such parameters are listed), max_norm is not positive, or
        there are no parameters, as of a generator that was used up.
    RuntimeError
        No parameter has a gradient: ``backward()`` comes first.
    """
    if not (_is_number(max_norm) and max_norm > 0):
        raise ValueError(f"clip_grad_norm: max_norm must be positive, got {max_norm!r}")
    named = _named_gradients(params)
    norm = _joint_length(named)
    if norm > max_norm:
        scale = float(max_norm) / norm
        for g in {id(g): g for _, g in named}.values():         # one that is shared, only once
            np.multiply(_wide(g), scale, out=g, casting="same_kind")
    return norm


def _named_gradients(params: Any) -> list[tuple[Any, np.ndarray]]:
    tensors: dict[int, tuple[Any, Tensor]] = {}
    for i, item in enumerate(_listed(params.items() if isinstance(params, Mapping) else params,
                                     "clip_grad_norm")):
        pair = isinstance(item, tuple) and len(item) == 2 and not isinstance(item[0], Tensor)
        name, tensor = item if pair else (f"number {i}", item)
        if not isinstance(tensor, Tensor):
            raise TypeError(_no_tensor("clip_grad_norm", i, item))
        tensors.setdefault(id(tensor), (name, tensor))
    if not tensors:
        raise ValueError("clip_grad_norm: there are no parameters; was a generator used up?")
    named = [(name, g) for name, p in tensors.values() if (g := p.grad) is not None]
    if not named:
        raise RuntimeError("clip_grad_norm: no parameter has a gradient. Call loss.backward() "
                           "before clipping.")
    return named


def _joint_length(named: list[tuple[Any, np.ndarray]]) -> float:
    wide = [_wide(g) for _, g in named]
    total = sum(float(np.vdot(g, g)) for g in wide)
    if 1e-30 < total < math.inf:
        return math.sqrt(total)
    bad = [str(name) for name, g in named if not np.isfinite(g).all()]
    if bad:
        raise ValueError(f"clip_grad_norm: the gradient is not finite in {', '.join(bad)}")
    # The squares are too small or too large for the type; those of quotients are not.
    largest = max(float(np.max(np.abs(g), initial=0)) for g in wide)
    quotients = (np.divide(g, largest or 1, dtype=np.float64) for g in wide)
    return largest * math.sqrt(sum(float(np.sum(np.square(q))) for q in quotients))


# --- what an optimiser is given ---


def _groups(params: Any, caller: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The groups, each with the words that an error about it begins with."""
    items = _listed(params, caller)
    kinds = {isinstance(item, Mapping) for item in items}
    if len(kinds) == 2:
        raise TypeError(f"{caller}: params must be tensors or groups, got tensors and groups. Put "
                        f"the tensors into a group too: {{'params': [...]}}.")
    if True not in kinds:
        return [(caller, {"params": items})]
    return [(f"{caller}: group {i}", group) for i, group in enumerate(items)]


def _own_settings(group: Mapping[str, Any], known: list[str], where: str) -> dict[str, Any]:
    if "params" not in group:
        raise ValueError(f"{where} has no 'params': a group is {{'params': [...], ...}}, got the "
                         f"keys {', '.join(map(repr, group)) or 'none'}")
    own = {name: value for name, value in group.items() if name != "params"}
    for name, value in own.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise ValueError(f"{where} has the unknown key {name!r}" +
                             (f" (nearest: {near[0]!r})" if near else "") +
                             f"; known: params, {', '.join(known)}")
        _check(where, name, value)
    return own


def _learned(params: Any, where: str) -> list[Tensor]:
    """The tensors of a group, all of which an optimiser can change."""
    tensors = _listed(params, where)
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(_no_tensor(where, i, tensor))
        if not is_learned(tensor):
            raise ValueError(f"{where}: params must be leaves that want a gradient, but number {i} "
                             f"{tensor.shape} " + (
                                 "has requires_grad=False. Make it an nn.Parameter, or set "
                                 "requires_grad=True." if tensor.is_leaf else
                                 "is a result. Give what it was computed from, or "
                                 "Parameter(t.data)."))
    return tensors


def _listed(params: Any, where: str) -> list[Any]:
    if isinstance(params, Tensor):           # one parameter: not its rows
        return [params]
    if isinstance(params, (Module, Mapping)) or not isinstance(params, Iterable):
        raise TypeError(f"{where}: params must be tensors, got a {type(params).__name__}. "
                        f"{_REMEDY}")
    return list(params)


def _no_tensor(where: str, i: int, item: Any) -> str:
    return f"{where}: params must be tensors, but number {i} is a {type(item).__name__}. {_REMEDY}"


_REMEDY = "Give model.parameters(); of a dict its .values(); one group as [group]."


def _check(where: str, name: str, value: Any, or_zero: bool = False) -> None:
    """Raise unless the value is allowed; `or_zero`: a learning rate of 0 is, as a schedule ends."""
    words, allowed = _RULES[name]
    if not (allowed(value) or (or_zero and name == "lr" and _is_number(value) and value == 0)):
        raise ValueError(f"{where}: {name} must be {words}, got {value!r}")


def _is_number(x: Any) -> bool:
    return type(x) is float or (isinstance(x, Real) and not isinstance(x, bool))


# --- precision ---


def _wide(array: np.ndarray) -> np.ndarray:
    """In float32 if it is float16, and else itself."""
    # By its letter, because to compare dtypes takes as long as a small update.
    return array.astype(np.float32) if array.dtype.char == "e" else array


def _zeros_like(parameter: Tensor) -> np.ndarray:
    return np.zeros_like(parameter.data, dtype=np.result_type(parameter.dtype, np.float32))
