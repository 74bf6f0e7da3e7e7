"""What may stand next to a Tensor: numbers, arrays and lists, made into what operators take."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from tape.primitive import Primitive


def as_new_array(data: Any, dtype: Any) -> np.ndarray:
    """A copy of `data` as an array of numbers; Python's numbers become float32."""
    data = plain(data)
    try:
        array = np.array(data, dtype=dtype)
    except (ValueError, TypeError) as error:
        raise type(error)(f"Tensor: {error}. To join tensors use tape.stack or "
                          f"tape.concatenate.") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"Tensor: data must be real numbers, got dtype {array.dtype} from "
                        f"{type(data).__name__}")
    if dtype is None and not isinstance(data, (np.ndarray, np.generic)) and array.dtype.kind != "b":
        array = array.astype(np.float32)
    return array if array.ndim else array[()]


def as_constant(operator: Primitive, value: Any, bit: int, inputs: Sequence) -> Any:
    """An operand that is neither a Tensor nor a Python number."""
    if isinstance(value, np.generic) and bit:
        return value.item()       # np.sqrt(64) in float32 code must not turn it into float64
    if value is None and operator.composed is not None:
        return None               # an optional input of a fused operator
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{operator.name}: operands must be tensors, arrays or real numbers; got "
                        f"{type(value).__name__}")
    if bit and operator.floats and array.dtype.kind != "f":
        like = next(x for x in inputs if plain(x) is not x)
        return array.astype(like.dtype if like.dtype.kind == "f" else np.float32)
    # The tape must not see what the caller does to the array afterwards.
    return np.array(array) if operator.keeps_inputs and array is value else array


def with_name(error: Exception, operator: Primitive, arrays: list) -> Exception:
    """The error that NumPy raised, with the operator's name and the shapes that it was given."""
    text = str(error)
    if text.startswith(operator.name + ":"):
        return error
    shapes = ", ".join(str(np.shape(a)) for a in arrays[:8])
    return type(error)(f"{operator.name}: {text} (inputs of shape {shapes})")


def plain(value: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return value._data if hasattr(type(value), "__tape_apply__") else value
