"""Gradients that are too long are scaled, and those that are not finite refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nn.training.param_groups import is_number, listed, no_tensor, widened
from tape import Tensor


def clip_grad_norm(params: Any, max_norm: float) -> float:
    """Scale all gradients by one factor so that their joint length is at most `max_norm`.

    Parameters
    ----------
    params : Tensor, or iterable of Tensor or of (name, Tensor), or mapping from names
        With names, as from ``model.named_parameters()``, errors can say which. A tensor that is
        given twice counts once. To find the names takes longer than to clip a small model: a loop
        finds them once, before it begins, as ``dict(model.named_parameters())``.
    max_norm : float
        May be infinite: nothing is scaled then.

    Returns
    -------
    float
        The length before scaling, as NumPy's scalar: ``norm.item()`` is there too.

    Raises
    ------
    ValueError
        A gradient is not finite (all such parameters are listed), max_norm is not positive, or
        there are no parameters, as of a generator that was used up.
    RuntimeError
        No parameter has a gradient: ``backward()`` comes first.
    """
    if not (is_number(max_norm) and max_norm > 0):
        raise ValueError(f"clip_grad_norm: max_norm must be positive, got {max_norm!r}")
    named = _named_gradients(params)
    norm = _joint_length(named)
    if norm > max_norm:
        scale = float(max_norm) / norm
        for g in {id(g): g for _, g in named}.values():         # one that is shared, only once
            np.multiply(widened(g), scale, out=g, casting="same_kind")
    return np.float64(norm)


def _named_gradients(params: Any) -> list[tuple[Any, np.ndarray]]:
    tensors: dict[int, tuple[Any, Tensor]] = {}
    for i, item in enumerate(listed(params.items() if isinstance(params, Mapping) else params,
                                    "clip_grad_norm")):
        pair = isinstance(item, tuple) and len(item) == 2 and not isinstance(item[0], Tensor)
        name, tensor = item if pair else (f"number {i}", item)
        if not isinstance(tensor, Tensor):
            raise TypeError(no_tensor("clip_grad_norm", i, item))
        tensors.setdefault(id(tensor), (name, tensor))
    if not tensors:
        raise ValueError("clip_grad_norm: there are no parameters; was a generator used up?")
    named = [(name, g) for name, p in tensors.values() if (g := p.grad) is not None]
    if not named:
        raise RuntimeError("clip_grad_norm: no parameter has a gradient. Call loss.backward() "
                           "before clipping.")
    return named


def _joint_length(named: list[tuple[Any, np.ndarray]]) -> float:
    wide = [widened(g) for _, g in named]
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
