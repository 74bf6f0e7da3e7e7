"""`Parameter`: what an optimiser changes."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Iterator

from tape import Tensor, hollow

_hollow: ContextVar[bool] = ContextVar("hollow parameters", default=False)


class Parameter(Tensor):
    """A Tensor that an optimiser changes; with ``requires_grad = False`` it is saved but frozen.

    ``p -= step`` changes it in place, as ``p.data -= step`` does. Unless it is frozen, that has to be
    under `tape.no_grad`.
    """

    __slots__ = ()
    is_variable = True

    def __init__(self, data: Any, dtype: Any = None):
        if _hollow.get():
            like = Tensor(data, dtype=dtype)
            data = hollow(like.shape, like.dtype)
        super().__init__(data, requires_grad=True, dtype=dtype)


def is_learned(tensor: Tensor) -> bool:
    """A Parameter, frozen or not, or a leaf that wants a gradient; not the result of an operator."""
    return isinstance(tensor, Parameter) or (tensor.requires_grad and tensor.is_leaf)


def is_without_memory() -> bool:
    """Whether parameters are made without memory now."""
    return _hollow.get()


@contextmanager
def without_memory() -> Iterator[None]:
    """Parameters that are made in this ``with`` block have a shape and a dtype, and take no memory.

    So a model of any size can be made and described; see `summary`. Initial values are not drawn. To
    run it, load arrays into it with ``load_state_dict``.

    Examples
    --------
    >>> import nn
    >>> with nn.without_memory():
    ...     layer = nn.Linear(1_000_000, 1_000_000)
    >>> layer.weight.shape, layer.parameter_count()
    ((1000000, 1000000), 1000001000000)
    """
    token = _hollow.set(True)
    try:
        yield
    finally:
        _hollow.reset(token)
