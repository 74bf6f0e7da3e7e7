"""The arrays of a checkpoint: what its header says of each, and which can be parameters."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from nn.training.checkpoint.archive import CheckpointError, unfit


def record_of(array: np.ndarray) -> dict[str, Any]:
    """What the header says of an array; the digest is of dtype, shape and numbers in C order."""
    shape, dtype = list(array.shape), array.dtype.str
    digest = hashlib.sha256(f"{dtype} {shape}\n".encode("ascii"))
    digest.update(np.ascontiguousarray(array).data)
    return {"shape": shape, "dtype": dtype, "sha256": digest.hexdigest()}


def as_weight(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in the dtype of the model, if it can be a parameter."""
    if array.dtype.kind != "f":
        raise unfit(f"weights must be floating-point arrays, got {array.dtype} for {name!r}")
    with np.errstate(over="ignore"):
        weight = array.astype(dtype, copy=False)
    finite = np.isfinite(weight)
    if not finite.all():
        first = np.unravel_index(finite.argmin(), finite.shape)
        bad = finite.size - np.count_nonzero(finite)
        raise CheckpointError(f"has a weight {name!r} with numbers that are not finite: {bad} of "
                              f"{finite.size}, the first is {array[first]} at "
                              f"{tuple(map(int, first))}")
    return weight
