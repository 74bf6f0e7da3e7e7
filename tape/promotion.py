"""What may stand next to a Tensor: numbers, arrays and lists, made into what operators take."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

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


def as_constant(operator: Primitive, value: Any, bit: int) -> Any:
    """An operand that is neither a Tensor nor a Python number. An array may be the caller's own."""
    if isinstance(value, np.generic) and bit:
        return value.item()       # np.sqrt(64) in float32 code must not turn it into float64
    if value is None and operator.composed is not None:
        return None               # an optional input of a fused operator
    if hasattr(type(value), "__tape_apply__"):
        raise TypeError(f"{operator.name}: a node of a static graph cannot stand beside a tensor; give "
                        f"it the tensor's .data, or write the graph with nodes alone")
    try:
        array = np.asarray(value)
    except ValueError as error:                       # rows of different lengths
        raise ValueError(f"{operator.name}: {error}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{operator.name}: operands must be tensors, arrays or real numbers; got "
                        f"{type(value).__name__}")
    return array


def with_floats(operator: Primitive, inputs: Sequence, arrays: list) -> None:
    """Integers, and Python's numbers in lists, take the dtype of the floats beside them."""
    weak = [isinstance(x, (list, tuple)) for x in inputs]
    arrays[:] = as_floats(operator.bits, arrays, weak)


def as_floats(bits: Iterable[int], arrays: Sequence, weak: Sequence[bool]) -> list:
    """Arrays, of which integers and those that are `weak` are in the dtype of the other floats."""
    floats = {a.dtype for a, w in zip(arrays, weak)
              if hasattr(a, "dtype") and a.dtype.kind == "f" and not w}
    if not floats:
        return list(arrays)
    dtype = np.result_type(*floats)
    return [a.astype(dtype) if bit and hasattr(a, "dtype") and (a.dtype.kind != "f" or w) else a
            for a, bit, w in zip(arrays, bits, weak)]


def with_name(error: Exception, operator: Primitive, arrays: list) -> Exception:
    """The error that NumPy raised, with the operator's name and the shapes that it was given."""
    text = str(error)
    prefix = "" if text.startswith(operator.name + ":") else operator.name + ": "
    shapes = ", ".join(str(np.shape(a)) for a in arrays[:8])
    if not operator.ours and any(words in text for words in ("read-only", "readonly", "not writable")):
        text += ". A forward is given arrays that it cannot write to: work on a copy, x.copy()"
    message = f"{prefix}{text.rstrip()} (inputs of shape {shapes})"
    return retold(error, message)


def retold(error: Exception, message: str) -> Exception:
    """An error of the same kind that says this; some of NumPy's own cannot be made from a text."""
    try:
        return type(error)(message)
    except TypeError:
        kinds = (ValueError, TypeError, LookupError, ArithmeticError, Exception)
        return next(kind for kind in kinds if isinstance(error, kind))(message)


def as_result(operator: Primitive, out: Any) -> Any:
    """What a forward returned that is neither an array nor a NumPy scalar: a number, or a mistake."""
    if isinstance(out, (bool, int, float, np.ndarray)):
        return np.asarray(out)[()]
    raise TypeError(f"{operator.name}: the forward must return an array, got {type(out).__name__}")


def plain(value: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return value._data if hasattr(type(value), "_data") else value


def unshared(out: np.ndarray, writable: Iterable[np.ndarray]) -> np.ndarray:
    """A result, copied if it may share memory with one of the arrays that others can write to."""
    for array in writable:
        if np.may_share_memory(out, array):
            return out.copy(order="K")
    return out
