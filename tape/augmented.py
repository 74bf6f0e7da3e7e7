"""Augmented assignment: ``p -= step`` changes the array of a leaf; on a result it makes a new tensor.

Of a result, ``x += y`` is short for ``x = x + y``, and is recorded. A parameter is to be changed where
it is, since the model holds it: in ``for p in model.parameters(): p -= lr * p.grad`` a new
tensor would be bound to the name p, and nothing be trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tape.errors import with_message
from tape.grad_mode import modes
from tape.promotion import plain


def updated(leaf: Any, symbol: str, ufunc: np.ufunc, change: Any) -> Any:
    """What ``leaf += change`` binds to the name: the leaf itself, with other numbers in its array.

    The tape notices, as for ``leaf.data += change``; see ``tape/mutation.py``. NotImplemented where the
    leaf is no variable, upon which Python goes on to ``leaf = leaf + change``.

    Raises
    ------
    RuntimeError
        The leaf wants a gradient, and operations are being recorded.
    ValueError, TypeError
        The result would have another shape, or a dtype of another kind.
    """
    if not (leaf.requires_grad or leaf.is_variable):
        return NotImplemented
    if leaf.requires_grad and modes.get().recording:
        raise RuntimeError(
            f"{symbol}: a leaf that wants a gradient must not change while operations are recorded; "
            f"this one has shape {leaf.shape}. To change it, as an update does, write with "
            f"tape.no_grad(): p {symbol} change, or p.data {symbol} change. For a result that is "
            f"recorded write y = p {symbol[:-1]} change.")
    array = leaf.data
    if symbol == "@=":
        raise TypeError(f"@=: a product of matrices is not computed in place; the leaf has shape "
                        f"{leaf.shape}. Write p.data = p.data @ change.")
    try:
        ufunc(array, plain(change), out=array, casting="same_kind")
    except (ValueError, TypeError) as error:
        raise with_message(error, f"{symbol}: a leaf keeps its shape {leaf.shape} and its dtype "
                                  f"{leaf.dtype}, but {error}. Reduce or convert the change, or make a "
                                  f"new tensor: p = p {symbol[:-1]} change.") from error
    return leaf
