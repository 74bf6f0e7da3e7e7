"""Optimisers: they read ``.grad`` and change ``.data``.

The learning rate is a plain attribute: set ``optimiser.lr = schedule(step)`` before each step.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from nn.layers.foreign_names import OPTIMIZER, in_our_words, missing, refuse_arguments_of
from nn.layers.module import Module
from nn.layers.state_dict import load_arrays
from nn.training.param_groups import check, groups, learned, own_settings, widened
from tape import Tensor, adam_update


# Parameters of so many elements together are updated as one; larger arrays leave the cache.
_TOGETHER = 16_384


class Optimizer:
    """What optimisers share: parameters in groups, what is remembered of each, and a check that none
    is forgotten.

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

    remembered: tuple[str, ...] = ()        # attributes, each a list with an entry for each parameter
    lr: float
    weight_decay: float

    def __new__(cls, *args: Any, **kwargs: Any) -> Optimizer:
        refuse_arguments_of(cls, args, kwargs)
        return super().__new__(cls)

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
        self.warned = False         # of parameters without a gradient

    def __getattr__(self, name: str) -> Any:
        if name in OPTIMIZER:
            raise missing(f"{type(self).__name__}", name, OPTIMIZER)
        return object.__getattribute__(self, name)      # Python's own error

    @in_our_words
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
        if missing and not self.warned:
            self.warned = True
            shapes = ", ".join(f"number {i} {self.params[i].shape}" for i in missing[:5])
            warnings.warn(f"{type(self).__name__}: {len(missing)} parameters have no gradient and are "
                          f"left alone: {shapes}. They play no part in the loss.", stacklevel=2)
        self._update_all({i: g for i, g in gradients.items() if g is not None}, settings)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of what is remembered of each parameter, by its number: ``m.0``, ``t.0``, ``m.1`` ...

        With it and the parameters a training that was stopped is continued as if it had not been. The
        settings are not part of it: they are given to the constructor, and the learning rate is a
        function of the step (`nn.training.schedule`).
        """
        return {f"{name}.{i}": np.array(value) for name in self.remembered
                for i, value in enumerate(getattr(self, name))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, of an optimiser with the same parameters in the same order.

        Arrays are converted to the dtype that this optimiser keeps.

        Raises
        ------
        ValueError
            A name is missing or left over, an array has another shape, or a number of updates is not
            an integer from 0. Nothing is changed then.
        """
        caller = f"load_state_dict: {type(self).__name__}"
        if not isinstance(state, Mapping):
            raise TypeError(f"{caller}: state must be a mapping from names to arrays, as from "
                            f"state_dict(), got {type(state).__name__}")
        own = {name: Tensor(array) for name, array in self.state_dict().items()}
        load_arrays(own, state, True, caller)
        for name, tensor in own.items():
            if tensor.dtype.kind == "i" and not _is_count(state[name]):
                raise ValueError(f"{caller}: {name!r} must be a number of updates, an integer from 0, "
                                 f"got {state[name]!r}")
        for name in self.remembered:
            arrays = [own[f"{name}.{i}"].data for i in range(len(self.params))]
            setattr(self, name, [a if a.dtype.kind == "f" else int(a) for a in arrays])

    def _settings(self) -> list[dict[str, Any]]:
        """What holds in each group at this step."""
        shared = {name: getattr(self, name) for name in self._names}
        for name, value in shared.items():
            check(type(self).__name__, name, value, or_zero=True)
        factor = self.lr / self._initial_lr
        return [{**shared, **own, "lr": own["lr"] * factor} if "lr" in own else {**shared, **own}
                for own in self._own]

    def _update_all(self, gradients: dict[int, np.ndarray], settings: list[dict[str, Any]]) -> None:
        """Change the parameters that have a gradient, given by number, and the settings by group."""
        for i, g in gradients.items():
            self._update(i, self.params[i], widened(g), **settings[self._group_of[i]])

    def _update(self, *args: Any, **settings: Any) -> None:
        """Change a parameter, given its number, itself, its gradient and the settings."""
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum on request.

        p -= lr * g                                     without momentum
        v = momentum * v + g,  p -= lr * v              with momentum (Polyak 1964)
        v = momentum * v + g,  p -= lr * (g + momentum * v)     with nesterov

    Nesterov's gradient is taken where the momentum will lead; written for the parameters that a
    program holds, it is the last line (Sutskever et al. 2013, "On the importance of initialization and
    momentum in deep learning", section 2, for a velocity that does not contain lr). v starts at zero.
    Weight decay w adds w * p to g. `Optimizer` describes the parameters and groups.

    Raises
    ------
    ValueError
        nesterov is asked for without momentum.
    """

    remembered = ("velocity",)
    momentum: float
    nesterov: bool

    def __init__(self, params: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0,
                 nesterov: bool = False):
        super().__init__(params, lr, weight_decay, momentum=momentum, nesterov=nesterov)
        self.velocity = [_zeros_like(p) for p in self.params]
        self._settings()

    def _settings(self) -> list[dict[str, Any]]:
        settings = super()._settings()
        if any(group["nesterov"] and not group["momentum"] for group in settings):
            raise ValueError("SGD: nesterov must have a momentum above 0, got 0. Set momentum, or "
                             "leave nesterov out.")
        return settings

    def _update(self, i: int, parameter: Tensor, g: np.ndarray, *, lr: float, momentum: float,
                nesterov: bool, weight_decay: float) -> None:
        if weight_decay:
            g = g + weight_decay * widened(parameter.data)
        if momentum:
            v = self.velocity[i]
            v *= momentum
            v += g
            g = g + momentum * v if nesterov else v
        parameter.data -= lr * g


def _by_parameter(name: str, doc: str) -> property:
    """What `Adam` has side by side under a name, as arrays of the shapes of the parameters."""
    def get(adam: Adam) -> tuple[np.ndarray, ...]:
        return adam._parts(getattr(adam, name))

    def put(adam: Adam, arrays: list[np.ndarray]) -> None:
        for part, array in zip(get(adam), arrays):
            part[...] = array

    return property(get, put, doc=doc)


class Adam(Optimizer):
    """Steps in proportion to the mean of the gradient over the root of the mean of its square.

    With m and v the running means of g and g^2 (rates beta1, beta2) and t the number of updates of
    p so far, this one included,

        p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    The denominators undo the bias of running means that start at zero. Kingma and Ba 2015,
    arXiv:1412.6980, algorithm 1. Weight decay w adds w * p to g, so that it is scaled like the rest
    of the gradient; `AdamW` keeps it apart. `Optimizer` describes the parameters and groups.
    """

    remembered = ("t", "m", "v")
    _decoupled = False
    betas: tuple[float, float]
    eps: float

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0):
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps)
        self.t = [0 for _ in self.params]
        # An update is some ten NumPy calls. Small parameters are therefore updated together, as parts
        # of one array: their means lie side by side, and gradients are copied to do so.
        self._runs = self._runs_of_small()
        self._ends = [list(itertools.accumulate(self.params[i].size for i in run))
                      for run in self._runs]
        self._m, self._v = ([np.zeros(ends[-1], _wide_dtype(self.params[run[0]]))
                             for run, ends in zip(self._runs, self._ends)] for _ in range(2))

    m = _by_parameter("_m", "The running mean of each gradient.")
    v = _by_parameter("_v", "The running mean of the square of each gradient.")

    def _runs_of_small(self) -> list[list[int]]:
        """The numbers of all parameters, in order; in one list those to be updated together."""
        runs: list[list[int]] = []
        previous, total = None, 0
        for i, p in enumerate(self.params):
            kind = self._group_of[i], p.dtype
            total += p.size
            if kind != previous or total > _TOGETHER:
                runs.append([])
                previous, total = kind, p.size
            runs[-1].append(i)
        return runs

    def _parts(self, flats: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Views of arrays as long as the runs, in the shapes of the parameters."""
        return tuple(flat[start:end].reshape(self.params[i].shape)
                     for run, ends, flat in zip(self._runs, self._ends, flats)
                     for i, start, end in zip(run, [0, *ends], ends))

    def _update_all(self, gradients: dict[int, np.ndarray], settings: list[dict[str, Any]]) -> None:
        for run, ends, m, v in zip(self._runs, self._ends, self._m, self._v):
            own = settings[self._group_of[run[0]]]
            if len({self.t[i] if i in gradients else None for i in run}) == 1:
                if run[0] in gradients:
                    self._update_run(run, gradients, m, v, own)
                continue
            for i, start, end in zip(run, [0, *ends], ends):
                if i in gradients:
                    self._update_run([i], gradients, m[start:end], v[start:end], own)

    def _update_run(self, run: list[int], gradients: dict[int, np.ndarray], m: np.ndarray,
                    v: np.ndarray, settings: dict[str, Any]) -> None:
        """Change parameters that have been updated equally often; m and v are their means, (N,)."""
        t = self.t[run[0]] + 1
        adam_update([self.params[i] for i in run], [gradients[i] for i in run], m, v, t,
                    decoupled=self._decoupled, **settings)
        for i in run:
            self.t[i] = t


class AdamW(Adam):
    """Adam with decoupled weight decay: the step of `Adam` without decay, and then

        p -= lr * weight_decay * p

    with the p of before the step. Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    _decoupled = True

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(params, lr, betas, eps, weight_decay)


def decay_groups(model: Module, weight_decay: float) -> list[dict]:
    """Two groups for an optimiser: matrices and tables decay, biases and norms (one axis) do not.

    Each parameter is in exactly one of them, tied ones once.
    """
    parameters = model.parameters()
    return [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]


def _is_count(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind in "iu" and bool(array >= 0)


def _zeros_like(parameter: Tensor) -> np.ndarray:
    # Not np.zeros_like, which writes to the memory: what is never used need not be there.
    return np.zeros(parameter.shape, _wide_dtype(parameter))


def _wide_dtype(parameter: Tensor) -> np.dtype:
    return np.result_type(parameter.dtype, np.float32)
