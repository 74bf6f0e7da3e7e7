"""What may stand next to a Tensor or a Node, and which dtype mixed operands have.

NumPy's promotion (NEP 50), with the rules that deep learning code relies on:

* A number is *weak*: beside a float32 array it is a float32. That holds for Python's numbers, for
  NumPy's scalars, and for the numbers in a list.
* Integers beside floats take the dtype of the floats, where NumPy would make them float64.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Iterable, Sequence

import numpy as np

from tape.foreign_names import Count
from tape.hollow import hollow, is_hollow

if TYPE_CHECKING:
    from tape.primitive import Primitive

PYTHON_NUMBERS = frozenset({int, float, bool, Count})


# --- the dtype of mixed operands ---


def is_number(value: Any) -> bool:
    """Whether a value is a weak number: one of Python's, or a scalar of NumPy's."""
    return isinstance(value, (int, float)) or (
        isinstance(value, np.generic) and value.dtype.kind in "biuf")


def as_python(value: Any) -> Any:
    """A NumPy scalar as a Python number; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def float_dtype(arrays: Iterable, weak: Iterable[bool]) -> np.dtype | None:
    """The dtype that floats which are not weak have together; None where there are none."""
    dtypes = {a.dtype for a, w in zip(arrays, weak)
              if not w and hasattr(a, "dtype") and a.dtype.kind == "f"}
    return np.result_type(*dtypes) if dtypes else None


def promote(arrays: Sequence, weak: Sequence[bool], takes_part: Iterable) -> list:
    """Operands, of which integers and those that are `weak` are in the dtype of the other floats.

    Among those that `takes_part` is true of: an index or a condition stays what it is, and changes
    nothing.
    """
    takes_part = list(itertools.islice(takes_part, len(arrays)))
    dtype = float_dtype(arrays, [w or not part for w, part in zip(weak, takes_part)])
    if dtype is None:
        return list(arrays)
    return [a.astype(dtype) if part and hasattr(a, "dtype") and (w or a.dtype.kind != "f") else a
            for a, w, part in zip(arrays, weak, takes_part)]


def counted(x: Any) -> Any:
    """Booleans as 0 and 1; anything else as it is."""
    return x + 0 if getattr(x, "dtype", None) == bool else x


# --- operands as arrays ---


def as_new_array(data: Any, dtype: Any) -> np.ndarray:
    """A copy of `data` as an array of numbers; Python's numbers become float32."""
    data = plain(data)
    try:
        array = (hollow(data.shape, dtype or data.dtype) if type(data) is np.ndarray and is_hollow(data)
                 else np.array(data, dtype=dtype))
    except (ValueError, TypeError) as error:
        raise type(error)(f"Tensor: {error}. To join tensors use tape.stack or "
                          f"tape.concatenate.") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"Tensor: data must be real numbers, got dtype {array.dtype} from "
                        f"{type(data).__name__}")
    if dtype is None and not isinstance(data, (np.ndarray, np.generic)) and array.dtype.kind != "b":
        array = array.astype(np.float32)
    array = in_standard_dtype(array)
    return array if array.ndim else array[()]


def in_standard_dtype(array: np.ndarray) -> np.ndarray:
    """An array in this machine's order of bytes, whose dtype is the object that NumPy has for it.

    That of an array from a pickle is another object, equal to it, and `is` would find that it is not
    float16.
    """
    standard = np.dtype(array.dtype.type)
    if array.dtype is standard:
        return array
    return array.astype(standard, copy=False).view(standard)


def as_constant(operator: Primitive, value: Any, differentiable: Any) -> Any:
    """An operand that is neither a Tensor nor a Python number. An array may be the caller's own."""
    if differentiable and isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()       # np.sqrt(64) in float32 code must not turn it into float64
    if value is None and operator.optional_inputs:
        return None
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


def as_result(operator: Primitive, out: Any) -> Any:
    """What a forward returned that is neither an array nor a NumPy scalar: a number, or a mistake."""
    if isinstance(out, (bool, int, float, np.ndarray)):
        return np.asarray(out)[()]
    raise TypeError(f"{operator.name}: the forward must return an array, got {type(out).__name__}")


def plain(value: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return value._data if hasattr(type(value), "_data") else value
