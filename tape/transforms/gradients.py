"""Gradients of recorded results, returned instead of left in ``.grad``: what `tape.grad` does."""

from __future__ import annotations

from typing import Any, Collection, Sequence

import numpy as np

from tape.engine import walk
from tape.grad_mode import enable_grad
from tape.ops.arithmetic import identity
from tape.promotion import plain
from tape.tensor import Tensor, as_tensor


def gradients(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor],
              grad_outputs: Any = None, *, create_graph: bool = False,
              retain_graph: bool | None = None, allow_unused: bool = False,
              stop: Collection = ()) -> Any:
    """dL/d(input) for each input, where L is the sum of the outputs; see `tape.grad` and `walk`."""
    single = isinstance(inputs, Tensor)
    wanted = _tensors(inputs, "inputs")
    results = _tensors(outputs, "outputs")
    cotangents = _cotangents(grad_outputs, outputs, len(results))
    for i, tensor in enumerate(wanted):
        if not tensor.requires_grad:
            raise RuntimeError(f"grad: input {i}, shape {tensor.shape}, does not require a gradient. "
                               f"Make it with requires_grad=True before it is used.")
    keys = [tensor._record or tensor for tensor in wanted]
    roots: dict = {}
    with enable_grad():
        for tensor, cotangent in zip(results, cotangents):
            seed = tensor._seed(cotangent, "grad")
            if create_graph:
                seed = identity(cotangent) if isinstance(cotangent, Tensor) else as_tensor(
                    np.array(seed)[()], None)
            key = tensor._record or tensor
            roots[key] = roots[key] + seed if key in roots else seed
        found = walk(roots, targets=set(keys), as_tensor=as_tensor if create_graph else None,
                     retain=create_graph if retain_graph is None else retain_graph, stop=stop)
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    gradients = tuple(_result(found.get(key), i, tensor, allow_unused, again=first[key] < i)
                      for i, (key, tensor) in enumerate(zip(keys, wanted)))
    return gradients[0] if single else gradients


def _result(gradient: Any, i: int, tensor: Tensor, allow_unused: bool,
            again: bool) -> Tensor | None:
    if gradient is None and not allow_unused:
        raise RuntimeError(f"grad: input {i}, shape {tensor.shape}, plays no part in the outputs. Pass "
                           f"the tensor that was used itself, not a copy or a slice of it; "
                           f"allow_unused=True gives None instead.")
    if gradient is None or isinstance(gradient, Tensor):
        return gradient
    return as_tensor(np.array(gradient) if again else gradient, None)     # nobody shares an array


def _tensors(values: Any, name: str) -> list[Tensor]:
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    if not values:
        raise ValueError(f"grad: {name} must be one or several Tensors, got none")
    for i, value in enumerate(values):
        if not isinstance(value, Tensor):
            raise TypeError(f"grad: {name} must be Tensors; number {i} is a {type(value).__name__}")
    return values


def _cotangents(values: Any, outputs: Any, count: int) -> list:
    if values is None:
        return [None] * count
    if isinstance(outputs, Tensor):
        several = isinstance(values, (list, tuple))       # as a sequence, or as one array_like
        one = several and len(values) == 1 and np.shape(plain(values[0])) == outputs.shape
        return [values[0] if one else values]
    cotangents = list(values)
    if len(cotangents) != count:
        raise ValueError(f"grad: one of grad_outputs for each output; got {len(cotangents)} for "
                         f"{count}")
    return cotangents
