"""Errors with the operator's name, the shapes, and the nearest valid name."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, Callable, Iterable

import numpy as np

if TYPE_CHECKING:
    from tape.primitive import Primitive


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that is most like another, or an empty text where none is like it."""
    return (difflib.get_close_matches(name, list(known), 1, cutoff) or [""])[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``. Did you mean 'axis'?`` for a name close to a known one, else nothing."""
    near = nearest(name, known)
    return f". Did you mean {near!r}?" if near else ""


def with_message(error: Exception, message: str) -> Exception:
    """An error of the same type that says this; some of NumPy's own cannot be made from a text."""
    try:
        return type(error)(message)
    except TypeError:
        kinds = (ValueError, TypeError, LookupError, ArithmeticError, Exception)
        return next(kind for kind in kinds if isinstance(error, kind))(message)


def with_operator(error: Exception, operator: Primitive, arrays: list[Any]) -> Exception:
    """The error that NumPy raised, with the operator's name and the shapes that it was given."""
    text = str(error)
    prefix = "" if text.startswith(operator.name + ":") else operator.name + ": "
    shapes = ", ".join(str(np.shape(a)) for a in arrays[:8])
    read_only = any(words in text for words in ("read-only", "readonly", "not writable"))
    if read_only and not operator.trusted:
        text += ". A forward is given arrays that it cannot write to: work on a copy, x.copy()"
    return with_message(error, f"{prefix}{text.rstrip()} (inputs of shape {shapes})")


def place_of(rule: Callable, operator: str) -> str:
    """``file:line`` of a rule; the name of its operator where Python does not know."""
    code = getattr(inspect.unwrap(rule), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else operator
