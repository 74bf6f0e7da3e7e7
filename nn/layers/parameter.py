"""`Parameter`: what an optimiser changes."""

from __future__ import annotations

from typing import Any

from tape import Tensor


class Parameter(Tensor):
    """A Tensor that an optimiser changes; with ``requires_grad = False`` it is saved but frozen.

    ``p -= step`` changes it in place, as ``p.data -= step`` does. Unless it is frozen, that has to be
    under `tape.no_grad`.
    """

    __slots__ = ()
    is_variable = True

    def __init__(self, data: Any, dtype: Any = None):
        super().__init__(data, requires_grad=True, dtype=dtype)


def is_learned(tensor: Tensor) -> bool:
    """A Parameter, frozen or not, or a leaf that wants a gradient; not the result of an operator."""
    return isinstance(tensor, Parameter) or (tensor.requires_grad and tensor.is_leaf)
