"""Arrays that are to be loaded into parameters and buffers, and what does not match."""

from __future__ import annotations

import bisect
import difflib
from typing import Any, Mapping

import numpy as np

from tape import Tensor

_SHOWN = 5          # mismatches of one kind that an error names


def load_arrays(own: dict[str, Tensor], state: Mapping[str, Any], strict: bool,
                caller: str) -> list[str]:
    """Copy the arrays in `state` into the tensors of the same names; see `Module.load_state_dict`."""
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    arrays, wrong = _fitted_arrays(state, own)
    reports = [wrong, _unmatched("missing", missing, unexpected),
               _unmatched("unexpected", unexpected, missing)]
    if wrong or (strict and any(reports)):
        raise ValueError(f"{caller}: {'; '.join(_first(part) for part in reports if part)}")
    for name, array in arrays.items():
        own[name].data = array
    return reports[1] + reports[2]


def _fitted_arrays(state: Mapping[str, Any], own: dict[str, Tensor]
                   ) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays for the parameters that `state` has a name for, and what is wrong with the others."""
    arrays, wrong = {}, []
    for name, parameter in own.items():
        if name in state:
            try:
                arrays[name] = _fitted(state[name], parameter)
            except ValueError as error:
                wrong.append(f"{name!r} {error}")
    return arrays, wrong


def _fitted(value: Any, parameter: Tensor) -> np.ndarray:
    """An array of the parameter's shape and dtype; the ValueError of one that does not fit."""
    try:
        array = value.data if isinstance(value, Tensor) else np.asarray(value)
    except ValueError as error:
        raise ValueError(f"must be an array, got {type(value).__name__}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"must be an array of real numbers, got {type(value).__name__} of dtype "
                         f"{array.dtype}")
    if array.shape != parameter.shape:
        turned = (". A Linear of PyTorch's holds the transpose of ours: all of them, square ones too, "
                  "are to be given as weight.T" if array.shape == parameter.shape[::-1] else "")
        raise ValueError(f"must have shape {parameter.shape}, got {array.shape}{turned}")
    if array.dtype == parameter.dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(parameter.dtype)
    if converted.dtype.kind != "f" and not np.array_equal(converted, array):
        raise ValueError(f"has values that {parameter.dtype} cannot hold, got {array.dtype}")
    if np.any(np.isinf(converted) & np.isfinite(array)):
        raise ValueError(f"has values beyond the range of {parameter.dtype}, got {array.dtype}")
    return converted


def _unmatched(kind: str, names: list, others: list) -> list[str]:
    """A text for each name; the first ones say which of the others is nearest."""
    forward = sorted(map(str, others))
    backward = sorted(name[::-1] for name in forward)
    texts = [f"{kind} {name!r}" for name in names]
    for i, name in enumerate(map(str, names[:_SHOWN])):
        # Only names that begin or end alike are compared: to compare all would take minutes.
        alike = _around(name, forward) + [other[::-1] for other in _around(name[::-1], backward)]
        near = difflib.get_close_matches(name, alike, 1)
        texts[i] += f" (nearest: {near[0]!r})" if near else ""
    return texts


def _around(name: str, ordered: list[str], reach: int = 50) -> list[str]:
    place = bisect.bisect(ordered, name)
    return ordered[max(place - reach, 0):place + reach]


def _first(reports: list[str]) -> str:
    more = len(reports) - _SHOWN
    return "; ".join(reports[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
