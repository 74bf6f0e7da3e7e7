"""The state of a training in a checkpoint: arrays, and what the header says of them."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from typing import Any, Collection

import numpy as np

from nn.training.checkpoint.archive import unfit

TRAINING = "training:"      # before the name of an array


@dataclass
class Training:
    """What a training needs to go on, besides the weights of the model.

    Attributes
    ----------
    values : dict
        Anything that JSON can hold.
    arrays : dict of array
        Of floats, int64 or uint8. One without elements is not saved.
    """

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def checked_training(header: Any, names: Collection[str]) -> tuple[dict, dict[str, dict]]:
    """The values and the records of the arrays in the header of a training, which must be `names`."""
    if not isinstance(header, dict) or not all(
            isinstance(header.get(key), dict) for key in ("arrays", "values")):
        raise unfit(f"training must have arrays and values, got {reprlib.repr(header)}")
    records = header["arrays"]
    if records.keys() != set(names):
        raise unfit("the arrays of the training in its header are not those beside it")
    for name, record in records.items():
        shape = record.get("shape") if isinstance(record, dict) else None
        if not isinstance(shape, list) or not all(type(n) is int and 0 < n < 2 ** 63 for n in shape):
            raise unfit(f"the array {reprlib.repr(name)} of the training must have a shape of positive "
                        f"integers, got {reprlib.repr(shape)}")
    return header["values"], records
