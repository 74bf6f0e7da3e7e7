"""What optimisers and clipping are given: parameters, alone or in groups, and settings."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from nn.layers.module import Module
from nn.layers.parameter import is_learned
from tape import Tensor

_REMEDY = "Give model.parameters(); of a dict its .values(); one group as [group]."

# Of each setting, what it must be.
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lr": ("positive and finite", lambda x: is_number(x) and 0 < x < math.inf),
    "weight_decay": ("finite and not negative", lambda x: is_number(x) and 0 <= x < math.inf),
    "momentum": ("in [0, 1)", lambda x: is_number(x) and 0 <= x < 1),
    "nesterov": ("True or False", lambda x: isinstance(x, bool)),
    "betas": ("two numbers in [0, 1)", lambda x: isinstance(x, (tuple, list)) and len(x) == 2
              and all(is_number(beta) and 0 <= beta < 1 for beta in x)),
    "eps": ("finite and not negative", lambda x: is_number(x) and 0 <= x < math.inf),
}


def groups(params: Any, caller: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The groups, each with the words that an error about it begins with."""
    items = listed(params, caller)
    kinds = {isinstance(item, Mapping) for item in items}
    if len(kinds) == 2:
        raise TypeError(f"{caller}: params must be tensors or groups, got tensors and groups. Put "
                        f"the tensors into a group too: {{'params': [...]}}.")
    if True not in kinds:
        return [(caller, {"params": items})]
    return [(f"{caller}: group {i}", group) for i, group in enumerate(items)]


def own_settings(group: Mapping[str, Any], known: list[str], where: str) -> dict[str, Any]:
    """The settings of a group, all of which the optimiser knows."""
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
        check(where, name, value)
    return own


def learned(params: Any, where: str) -> list[Tensor]:
    """The tensors of a group, all of which an optimiser can change."""
    tensors = listed(params, where)
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(no_tensor(where, i, tensor))
        if not is_learned(tensor):
            raise ValueError(f"{where}: params must be leaves that want a gradient, but number {i} "
                             f"{tensor.shape} " + (
                                 "has requires_grad=False. Make it an nn.Parameter, or set "
                                 "requires_grad=True." if tensor.is_leaf else
                                 "is a result. Give what it was computed from, or "
                                 "Parameter(t.data)."))
    return tensors


def listed(params: Any, where: str) -> list[Any]:
    """The items of `params`; not the rows of a Tensor, and not a Module or a mapping."""
    if isinstance(params, Tensor):
        return [params]
    if isinstance(params, (Module, Mapping)) or not isinstance(params, Iterable):
        raise TypeError(f"{where}: params must be tensors, got a {type(params).__name__}. "
                        f"{_REMEDY}")
    return list(params)


def no_tensor(where: str, i: int, item: Any) -> str:
    """The message where item number `i` is not a Tensor."""
    return f"{where}: params must be tensors, but number {i} is a {type(item).__name__}. {_REMEDY}"


def check(where: str, name: str, value: Any, or_zero: bool = False) -> None:
    """Raise unless the value is allowed; `or_zero`: a learning rate of 0 is, as a schedule ends."""
    words, allowed = _RULES[name]
    if not (allowed(value) or (or_zero and name == "lr" and is_number(value) and value == 0)):
        raise ValueError(f"{where}: {name} must be {words}, got {value!r}")


def is_number(x: Any) -> bool:
    """A real number; True and False are none."""
    return type(x) is float or (isinstance(x, Real) and not isinstance(x, bool))


def widened(array: np.ndarray) -> np.ndarray:
    """In float32 if it is float16, and else itself."""
    # By its letter, because to compare dtypes takes as long as a small update.
    return array.astype(np.float32) if array.dtype.char == "e" else array
