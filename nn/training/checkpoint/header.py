"""The header of a checkpoint: read, and checked against itself and the arrays beside it."""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import dataclass
from typing import Any, Collection

from nn.data.tokenizers import Tokenizer, tokenizer_from_dict
from nn.layers.parameter import DTYPES
from nn.models.registry import MODELS
from nn.training.checkpoint.archive import Archive, CheckpointError, damaged, unfit
from nn.training.checkpoint.configuration import config_from_dict, expected_shapes
from nn.training.checkpoint.training import TRAINING, checked_training

FORMAT = "tape checkpoint 2"
WITH_TRAINING = "tape checkpoint 3"
_FIRST_FORMAT = "tape checkpoint 1"
HEADER = "checkpoint.json"
DIGEST = "checkpoint.sha256"
WEIGHT = "weight:"          # before the name of a parameter

# A value in JSON becomes an object of at most some 100 bytes, and a character takes at most 6. All
# of a header may take ten times the file, and of a small file this much more.
_VALUE, _CHARACTER, _SPARE = 100, 6, 2 ** 22


@dataclass
class Contents:
    """What a header says, found to fit together; `records` are none in the first format.

    Without a model `kind` is None. `values` and `arrays`, of a training, are None in files of a model.
    `dtype` is that of the model, whatever that of the arrays; float32 where a file does not say it.
    """

    kind: str | None
    config: Any
    tokenizer: Tokenizer | None
    info: dict
    shapes: dict[str, tuple[int, ...]]
    records: dict[str, Any] | None
    values: dict | None = None
    arrays: dict[str, dict] | None = None
    dtype: str = "float32"


def read_header(archive: Archive) -> Any:
    """The header as JSON gives it, whatever it is, found to be undamaged."""
    if HEADER not in archive.names:
        raise CheckpointError("is not a checkpoint written by this project")
    text = archive.read(HEADER).tobytes()
    digest = hashlib.sha256(text).digest()
    if DIGEST in archive.names and archive.read(DIGEST).tobytes() != digest:
        raise damaged(f"{HEADER!r} is not the text whose digest is in {DIGEST!r}")
    return parsed(text, archive.size)


def parsed(text: bytes, size: int) -> Any:
    """The JSON in the header of a file of `size` bytes."""
    values = sum(map(text.count, (b",", b":", b"[", b"{")))
    if _VALUE * values + _CHARACTER * len(text) > 10 * size + _SPARE:
        raise unfit(f"a header of some {values:,} values is too much for a file of {size:,} bytes")
    try:
        return json.loads(text.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise damaged(f"{HEADER!r} cannot be read as JSON") from error


def understood(header: Any, names: Collection[str]) -> Contents:
    """What a header says, checked against itself and the names of the arrays beside it."""
    found = header.get("format") if isinstance(header, dict) else header
    if not isinstance(header, dict) or found not in (_FIRST_FORMAT, FORMAT, WITH_TRAINING):
        raise CheckpointError(f"has the format {reprlib.repr(found)}; this version reads "
                              f"{WITH_TRAINING!r}, {FORMAT!r} and {_FIRST_FORMAT!r}")
    first, more = found == _FIRST_FORMAT, found == WITH_TRAINING
    header = {"model": "GPT"} | header if first else header     # the earliest files do not say it
    for key in ("model", "config", "tokenizer", "info", *(() if first else ("arrays",)),
                *(("training",) if more else ())):
        if key not in header:
            raise unfit(f"its header has no {key!r}")
    kind, info, dtype = header["model"], header["info"], header.get("dtype", "float32")
    if not (isinstance(kind, str) and kind in MODELS or more and kind is None):
        raise unfit(f"there is no model {reprlib.repr(kind)} here; known: {', '.join(MODELS)}")
    if dtype not in DTYPES:
        raise unfit(f"dtype must be {' or '.join(DTYPES)}, got {reprlib.repr(dtype)}")
    for name in ("prompt", "start"):
        if not isinstance(info, dict) or not isinstance(info.get(name, ""), str):
            raise unfit(f"info must be a dict, and its {name} a text")
    _check_entries(names, {HEADER} if first else {HEADER, DIGEST},
                   (WEIGHT, TRAINING) if more else (WEIGHT,))
    config, shapes = _model(kind, header["config"], _without(WEIGHT, names))
    tokenizer = _tokenizer(header["tokenizer"], config)
    records = None if first else header["arrays"]
    if records is not None and (not isinstance(records, dict) or records.keys() != shapes.keys()):
        raise unfit("the arrays in its header are not its weights")
    values, arrays = (checked_training(header["training"], _without(TRAINING, names)) if more
                      else (None, None))
    return Contents(kind, config, tokenizer, info, shapes, records, values, arrays, dtype)


def _model(kind: str | None, state: Any, found: list[str]) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The configuration, and the shapes of the weights, whose names were found."""
    if kind is not None:
        config = config_from_dict(kind, state)
        return config, expected_shapes(kind, config, dict.fromkeys(found))
    if state is not None or found:
        raise unfit("there is no model, but a configuration or weights")
    return None, {}


def _without(prefix: str, names: Collection[str]) -> list[str]:
    """What follows a prefix in the names that have it."""
    return [name[len(prefix):] for name in names if name.startswith(prefix)]


def _check_entries(names: Collection[str], wanted: set[str], prefixes: tuple[str, ...]) -> None:
    for name in wanted.difference(names):
        raise damaged(f"the entry {name!r} is missing")
    for name in names:
        if name not in wanted and not name.startswith(prefixes):
            raise CheckpointError(f"is not a checkpoint written by this project: it has an entry "
                                  f"{reprlib.repr(name)}")


def _tokenizer(state: Any, config: Any) -> Tokenizer | None:
    if state is None:
        return None
    try:
        tokenizer = tokenizer_from_dict(state)
    except ImportError as error:
        raise CheckpointError(f"cannot be used yet: {error}") from error
    except ValueError as error:
        raise unfit(str(error)) from error
    size = getattr(config, "vocab_size", 0)
    if len(tokenizer) != size:
        raise unfit(f"{len(tokenizer)} tokens for a vocabulary of {reprlib.repr(size)}")
    return tokenizer
