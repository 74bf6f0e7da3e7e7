"""What a program and its worker processes tell each other."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from tape.grad_mode import Modes
from tape.tensor import Tensor


@dataclass
class Settings:
    """In which circumstances the caller computes."""

    modes: Modes
    errors: dict
    kernels: str


@dataclass
class Given:
    """A Tensor among the arguments."""

    array: np.ndarray
    requires_grad: bool


@dataclass
class Found:
    """A Tensor among the results: its value, and its number among those that were recorded."""

    array: np.ndarray
    number: int | None


@dataclass
class Call:
    """Run the function, and keep the tape under a number. Answered by what it returned.

    Attributes
    ----------
    function : a snapshot; None where it is as at the last call.
    forgotten : the numbers of tapes that nobody needs any more.
    """

    number: int
    function: bytes | None
    settings: Settings
    arguments: Any
    forgotten: Sequence[int]


@dataclass
class Walk:
    """Walk a tape back and release it; a cotangent (or None) for each recorded result.

    The gradients of shared leaves are left in shared memory. The answer is the numbers of those that
    have one, and the gradients of the arguments.
    """

    number: int
    settings: Settings
    cotangents: list


@dataclass
class Answer:
    value: Any
    warnings: list


@dataclass
class Failure:
    """The error that ended a call or a walk, and its traceback as text."""

    error: BaseException
    text: str
    warnings: list


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.requires_grad:
            raise TypeError(f"a Tensor of shape {value.shape} that wants a gradient may stand in "
                            f"lists, tuples and dicts; in another object its gradient would be lost")
        return NotImplemented


def packed(message: Call | Walk | Answer | Failure) -> bytes:
    """A message as bytes. Tensors have become `Given` or `Found`, where they were seen."""
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(message)
    return file.getvalue()       # not getbuffer: Python 3.12.1 may crash when it collects that
