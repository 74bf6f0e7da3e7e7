"""The configuration in a header, and the weights that it calls for, without making the model."""

from __future__ import annotations

import reprlib
from dataclasses import MISSING, fields
from itertools import islice
from typing import Any, Callable, Collection, get_type_hints

from nn.models.configuration import TokenId
from nn.models.registry import MODELS
from nn.training.checkpoint.archive import unfit

# The table of sinusoids is made, not read, so that the size of the file does not bound it.
_TABLE = 2 ** 24


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2 ** 63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e300 < value < 1e300


def _is_two_sizes(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_size, value))


# By the type of a field.
_CHECKS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is_size, "a positive integer"),
    TokenId: (lambda value: value == 0 and type(value) is int or _is_size(value),
              "an integer from 0"),
    float: (_is_number, "a finite number"),
    bool: (lambda value: type(value) is bool, "true or false"),
    str: (lambda value: type(value) is str, "a text"),
    tuple[int, int]: (_is_two_sizes, "two positive integers")}


def config_from_dict(kind: str, state: Any) -> Any:
    """The configuration of a model of this kind, from what JSON holds of it.

    Raises
    ------
    CheckpointError
        A field is missing, unknown, of another type or out of range; says which.
    """
    make = MODELS[kind].config
    if not isinstance(state, dict):
        raise unfit(f"config must be a dict, got {reprlib.repr(state)}")
    known = {field.name: field for field in fields(make)}
    missing = [name for name, field in known.items()
               if field.default is MISSING and name not in state]
    unknown = [name for name in state if name not in known]
    if missing or unknown:
        raise unfit(f"config must have the fields of a {make.__name__}; missing "
                    f"{reprlib.repr(missing)}, unknown {reprlib.repr(unknown)}")
    types = get_type_hints(make, include_extras=True)
    for name, value in state.items():
        right, what = _CHECKS[types[name]]
        if not right(value):
            raise unfit(f"{name} must be {what}, got {reprlib.repr(value)}")
    try:
        config = make(**state)
    except ValueError as error:
        raise unfit(str(error)[:200]) from error
    _check_table(config)
    return config


def _check_table(config: Any) -> None:
    if getattr(config, "position", "") != "sinusoidal":
        return
    if config.block_size * config.n_embd > _TABLE:
        raise unfit(f"block_size * n_embd must be at most {_TABLE} with sinusoidal positions, got "
                    f"{reprlib.repr(config.block_size)} * {reprlib.repr(config.n_embd)}")


def expected_shapes(kind: str, config: Any, found: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter, where the parameters that were `found` are those of the model.

    Goes no further than there are names in `found`, whatever the configuration says.

    Raises
    ------
    CheckpointError
        A parameter is missing or left over.
    """
    shapes = dict(islice(config.parameter_shapes(), len(found) + 1))
    for name in shapes:
        if name not in found:
            raise unfit(f"the configuration calls for a weight {name!r}, which is missing")
    for name in found:
        if name not in shapes:
            raise unfit(f"a {kind} of this configuration has no weight {reprlib.repr(name)}")
    return shapes
