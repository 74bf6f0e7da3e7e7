"""Where the first number that is not finite arises in the forward pass of a model."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator

import numpy as np

from nn.layers.module import Module
from tape import Tensor


@contextmanager
def watched(model: Module | None) -> Iterator[list[str]]:
    """In a block the results of all modules are looked at; gives the list of findings, in words.

    The first is of the innermost module whose result had NaN or an infinity before any other's: what
    it was given was finite, unless the finding says otherwise.
    """
    found: list[str] = []
    modules = list(model.named_modules()) if model else []       # of a static graph there are none
    for name, module in modules:
        vars(module)["forward"] = _watching(name, module, module.forward, found)
    try:
        yield found
    finally:
        for _, module in modules:
            del vars(module)["forward"]


def _watching(name: str, module: Module, forward: Callable, found: list[str]) -> Callable:
    def watching(*inputs: Any, **more: Any) -> Any:
        out = forward(*inputs, **more)
        where = _not_finite(out)
        if where:
            place = f"module {name!r}" if name else "the model"
            given = " from inputs that are not finite" if _not_finite([inputs, more]) else ""
            found.append(f"{place} ({type(module).__name__}) gives {where}{given}")
        return out
    return watching


def _not_finite(value: Any) -> str:
    """``nan at (0, 3) of shape (2, 4)``: the first such number in Tensors, lists and dicts."""
    if isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        return next((text for item in items if (text := _not_finite(item))), "")
    if not isinstance(value, Tensor) or value.dtype.kind != "f" or np.isfinite(value.data).all():
        return ""
    first = np.argwhere(~np.isfinite(value.data))[0]
    place = tuple(map(int, first))
    return f"{value.data[place]} at {place} of shape {value.shape}"
