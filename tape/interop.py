"""PyTorch's tensors as containers of numbers, in programs that import PyTorch themselves.

Nothing here imports it: a program without PyTorch has no tensors of PyTorch's. A tensor that is given
is read where it is, through an array that shares its memory; one that is returned has its own.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Sequence

import numpy as np

from tape.mutation import copied_if_shared


def is_torch(value: Any) -> bool:
    """Whether a value is a tensor of PyTorch's."""
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def from_torch(tensor: Any, caller: str) -> np.ndarray:
    """The array that shares the memory of a torch.Tensor.

    Raises
    ------
    TypeError
        PyTorch is recording, and the tensor requires a gradient, which would be lost; or it is not
        on the CPU, not dense, or of a dtype that NumPy has not.
    """
    if tensor.requires_grad and sys.modules["torch"].is_grad_enabled():
        raise TypeError(f"{caller}: a torch.Tensor is taken as numbers alone, so it must not require a "
                        f"gradient of PyTorch's; got one that does. Give tensor.detach(), or run "
                        f"under torch.no_grad()")
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{caller}: a torch.Tensor must be dense, on the CPU and of a dtype that NumPy "
                        f"has; got {tensor.dtype}, {tensor.layout}, on {tensor.device}. Give "
                        f"tensor.to('cpu'), tensor.float() or tensor.to_dense()") from error


def as_torch(value: Any) -> Any:
    """The torch.Tensor that shares the memory of an array; of a copy where PyTorch cannot share it."""
    array = np.asarray(value)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return sys.modules["torch"].from_numpy(array)


def on_arrays(function: Callable, values: Sequence, caller: str) -> Any:
    """``function(values)`` for a function of arrays: given tensors of PyTorch's, it returns one."""
    if not any(map(is_torch, values)):
        return function(values)
    arrays = [from_torch(value, caller) if is_torch(value) else value for value in values]
    out = np.asarray(function(arrays))
    return as_torch(copied_if_shared(out, [a for a in arrays if isinstance(a, np.ndarray)]))


def as_number(value: Any) -> Any:
    """The number in a torch.Tensor without axes, which is weak there too; all else as it is."""
    if is_torch(value) and not value.ndim:
        return from_torch(value, "lazy").item()
    return value
