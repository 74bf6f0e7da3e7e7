"""`Parameter`: what an optimiser changes."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Iterable, Iterator

from tape import Tensor, hollow

DTYPES = ("float32", "float64")

_hollow: ContextVar[bool] = ContextVar("hollow parameters", default=False)
_dtype: ContextVar[str | None] = ContextVar("dtype of parameters", default=None)


class Parameter(Tensor):
    """A Tensor that an optimiser changes; with ``requires_grad = False`` it is saved but frozen.

    ``p -= step`` changes it in place, as ``p.data -= step`` does. Unless it is frozen, that has to be
    under `tape.no_grad`.

    Parameters
    ----------
    data : array
    dtype : dtype, optional
        Default that of `parameters_of`, and outside of it that of the data.
    """

    __slots__ = ()
    is_variable = True

    def __init__(self, data: Any, dtype: Any = None):
        dtype = _dtype.get() if dtype is None else dtype
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


@contextmanager
def parameters_of(dtype: str) -> Iterator[None]:
    """Parameters that are made in this ``with`` block are of this dtype, "float32" or "float64".

    All that a model computes follows from its parameters, and so do the gradients and what an
    optimiser keeps. Initial values are drawn in float32 and widened: a seed gives the same model in
    either dtype, and the losses of both can be compared.

    Raises
    ------
    ValueError
        It is another dtype.

    Examples
    --------
    >>> import nn
    >>> with nn.parameters_of("float64"):
    ...     layer = nn.Linear(3, 2, rng=0)
    >>> layer.weight.dtype, bool((layer.weight.data == nn.Linear(3, 2, rng=0).weight.data).all())
    (dtype('float64'), True)
    """
    if dtype not in DTYPES:
        raise ValueError(f"parameters_of: dtype must be {' or '.join(map(repr, DTYPES))}, got "
                         f"{dtype!r}")
    token = _dtype.set(dtype)
    try:
        yield
    finally:
        _dtype.reset(token)


def dtype_of(parameters: Iterable[Tensor]) -> str:
    """The dtype for `parameters_of` that makes such a model again: "float64" where all are of that."""
    return "float64" if {str(p.dtype) for p in parameters} == {"float64"} else "float32"
