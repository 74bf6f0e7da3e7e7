"""A model in one file: its weights, its configuration and, of a GPT, its tokenizer.

The file is a NumPy ``.npz`` without pickle (loading one runs no code from it), of these arrays:

    weight:NAME          the numbers of the parameter NAME
    checkpoint.json      a text in JSON, as bytes: format, model, config, tokenizer, info; and
                         under "arrays" the shape, the dtype and the SHA-256 of each parameter
    checkpoint.sha256    the SHA-256 of that text

Files of the first format have no digests, only the checksums of the archive.
"""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Collection, Iterator

import numpy as np

from nn.data.tokenizers import Tokenizer, tokenizer_from_dict
from nn.models.gpt import GPT
from nn.models.vision import VisionTransformer
from nn.training.checkpoint.archive import Archive, CheckpointError, damaged, opened, unfit
from nn.training.checkpoint.configuration import KINDS, config_from_dict, expected_shapes

FORMAT = "tape checkpoint 2"
_FIRST_FORMAT = "tape checkpoint 1"
_HEADER = "checkpoint.json"
_DIGEST = "checkpoint.sha256"
_WEIGHT = "weight:"

# A value in JSON becomes an object of at most some 100 bytes, and a character takes at most 6. All
# of a header may take ten times the file, and of a small file this much more.
_VALUE, _CHARACTER, _SPARE = 100, 6, 2 ** 22


@dataclass
class Checkpoint:
    """What `load_checkpoint` found: the model, in evaluation mode, and what belongs to it."""

    model: Any
    tokenizer: Tokenizer | None
    info: dict = field(default_factory=dict)


@dataclass
class _Contents:
    """What a header says, found to fit together; `records` are none in the first format."""

    kind: str
    config: Any
    tokenizer: Tokenizer | None
    info: dict
    shapes: dict[str, tuple[int, ...]]
    records: dict[str, Any] | None


# --- saving ---


def save_checkpoint(path: str | Path, model: GPT | VisionTransformer,
                    tokenizer: Tokenizer | None = None, info: dict | None = None) -> Path:
    """Write a checkpoint; an older file of that name is replaced only by a complete new one.

    What `load_checkpoint` would refuse is not written: above all, weights that are NaN or infinite
    do not replace good ones.

    Parameters
    ----------
    path : str or Path
        Missing folders are made.
    model : GPT or VisionTransformer
    tokenizer : Tokenizer, optional
    info : dict, optional
        Anything that JSON can hold: step, loss, a prompt to try. Tuples come back as lists, and
        keys as texts.

    Returns
    -------
    Path

    Raises
    ------
    CheckpointError
        It could not be loaded again; says why. The older file stays as it is.
    """
    path = Path(path)
    kind = next((name for name, (_, cls, _) in KINDS.items() if isinstance(model, cls)), None)
    if kind is None:
        raise TypeError(f"save_checkpoint: the model must be a {' or a '.join(KINDS)}, got "
                        f"{type(model).__name__}. Of any other, np.savez(path, "
                        f"**model.state_dict()) keeps the weights")
    weights = {name: np.ascontiguousarray(array) for name, array in model.state_dict().items()}
    header = {"format": FORMAT, "model": kind, "config": asdict(model.config), "info": info or {},
              "tokenizer": None if tokenizer is None else tokenizer.to_dict(),
              "arrays": {name: _record(array) for name, array in weights.items()}}
    text = json.dumps(header).encode("ascii")
    try:
        _check_loadable(text, weights)
    except CheckpointError as error:
        raise CheckpointError(f"save_checkpoint: {path} was not written: what it would hold "
                              f"{error}") from error
    arrays = {_HEADER: np.frombuffer(text, np.uint8),
              _DIGEST: np.frombuffer(hashlib.sha256(text).digest(), np.uint8)}
    _replace(path, arrays | {_WEIGHT + name: array for name, array in weights.items()})
    return path


def _check_loadable(text: bytes, weights: dict[str, np.ndarray]) -> None:
    header = _parsed(text, len(text) + sum(array.nbytes for array in weights.values()))
    shapes = _understood(header, [_HEADER, _DIGEST, *(_WEIGHT + name for name in weights)]).shapes
    for name, array in weights.items():
        if array.shape != shapes[name]:
            raise unfit(f"{name!r} must have shape {shapes[name]}, got {array.shape}")
        _as_weight(name, array)


def _replace(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an ``.npz``. A kill at any moment leaves the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove_left_behind(path)
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, **arrays)      # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_left_behind(path: Path) -> None:
    """Unfinished files of runs that were killed while saving; a save never takes an hour."""
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        if time.time() - stale.stat().st_mtime > 3600:
            stale.unlink(missing_ok=True)


# --- loading ---


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote, now or in its first format.

    Nothing is taken on trust: the model is made only after the file was found to hold, undamaged,
    exactly the numbers that the configuration calls for.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        The file is something else, is damaged, does not fit together, or has weights that are NaN
        or infinite. No bad file raises anything else.
    """
    path = Path(path)
    with _reading(path) as archive:
        contents = _understood(_header(archive), archive.names)
        weights = {name: _read_weight(archive, name, shape, contents.records)
                   for name, shape in contents.shapes.items()}
        try:
            model = KINDS[contents.kind][1](contents.config, rng=0)
            model.load_state_dict(weights)
        except ValueError as error:
            raise unfit(str(error)) from error
    model.eval()
    return Checkpoint(model, contents.tokenizer, contents.info)


def newest_checkpoint(folder: str | Path, kind: str = "GPT") -> Path:
    """The checkpoint in `folder` that was written last, of this kind of model.

    A file that cannot be read counts as one of the kind, so that its damage is not passed over.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    files = [path for path in Path(folder).glob("*.npz") if path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            with _reading(path) as archive:
                header = _header(archive)
                wanted = not isinstance(header, dict) or header.get("model", "GPT") == kind
        except CheckpointError:
            wanted = True
        if wanted:
            return path
    raise FileNotFoundError(f"there is no checkpoint in {folder}{os.sep}" + (
        f" of a {kind}" if files else ""))


@contextmanager
def _reading(path: Path) -> Iterator[Archive]:
    """The archive in a file. What the block finds wrong is raised with the path in front of it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is a folder; name a file in it" if path.is_dir() else
                                f"there is no checkpoint at {path}")
    try:
        with opened(path) as archive:
            yield archive
    except CheckpointError as error:
        raise CheckpointError(f"{path} {str(error)[:400]}") from error
    except MemoryError as error:
        raise CheckpointError(f"{path} does not fit into the memory that is left") from error


def _header(archive: Archive) -> Any:
    """The header as JSON gives it, whatever it is, found to be undamaged."""
    if _HEADER not in archive.names:
        raise CheckpointError("is not a checkpoint written by this project")
    text = archive.read(_HEADER).tobytes()
    digest = hashlib.sha256(text).digest()
    if _DIGEST in archive.names and archive.read(_DIGEST).tobytes() != digest:
        raise damaged(f"{_HEADER!r} is not the text whose digest is in {_DIGEST!r}")
    return _parsed(text, archive.size)


def _parsed(text: bytes, size: int) -> Any:
    """The JSON in the header of a file of `size` bytes."""
    values = sum(map(text.count, (b",", b":", b"[", b"{")))
    if _VALUE * values + _CHARACTER * len(text) > 10 * size + _SPARE:
        raise unfit(f"a header of some {values:,} values is too much for a file of {size:,} bytes")
    try:
        return json.loads(text.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise damaged(f"{_HEADER!r} cannot be read as JSON") from error


def _understood(header: Any, names: Collection[str]) -> _Contents:
    """What a header says, checked against itself and the names of the arrays beside it."""
    found = header.get("format") if isinstance(header, dict) else header
    if not isinstance(header, dict) or found not in (_FIRST_FORMAT, FORMAT):
        raise CheckpointError(f"has the format {reprlib.repr(found)}; this version reads "
                              f"{FORMAT!r} and {_FIRST_FORMAT!r}")
    first = found == _FIRST_FORMAT
    header = {"model": "GPT"} | header if first else header     # the earliest files do not say it
    for key in ("model", "config", "tokenizer", "info", *(() if first else ("arrays",))):
        if key not in header:
            raise unfit(f"its header has no {key!r}")
    kind, info = header["model"], header["info"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise unfit(f"there is no model {reprlib.repr(kind)} here; known: {', '.join(KINDS)}")
    if not isinstance(info, dict) or not isinstance(info.get("prompt", ""), str):
        raise unfit("info must be a dict, and its prompt a text")
    _check_entries(names, {_HEADER} if first else {_HEADER, _DIGEST})
    config = config_from_dict(kind, header["config"])
    tokenizer = _tokenizer(header["tokenizer"], config)
    shapes = expected_shapes(kind, config, {name[len(_WEIGHT):]: None for name in names
                                            if name.startswith(_WEIGHT)})
    records = None if first else header["arrays"]
    if records is not None and (not isinstance(records, dict) or records.keys() != shapes.keys()):
        raise unfit("the arrays in its header are not its weights")
    return _Contents(kind, config, tokenizer, info, shapes, records)


def _check_entries(names: Collection[str], wanted: set[str]) -> None:
    for name in wanted.difference(names):
        raise damaged(f"the entry {name!r} is missing")
    for name in names:
        if name not in wanted and not name.startswith(_WEIGHT):
            raise CheckpointError(f"is not a checkpoint written by this project: it has an entry "
                                  f"{reprlib.repr(name)}")


def _tokenizer(state: Any, config: Any) -> Tokenizer | None:
    if state is None:
        return None
    try:
        tokenizer = tokenizer_from_dict(state)
    except ValueError as error:
        raise unfit(str(error)) from error
    size = getattr(config, "vocab_size", 0)
    if len(tokenizer) != size:
        raise unfit(f"{len(tokenizer)} tokens for a vocabulary of {reprlib.repr(size)}")
    return tokenizer


# --- weights ---


def _read_weight(archive: Archive, name: str, shape: tuple[int, ...],
                 records: dict[str, Any] | None) -> np.ndarray:
    array = archive.read(_WEIGHT + name, shape)
    if records is not None and records[name] != _record(array):
        raise damaged(f"the weight {name!r} is not the array whose shape, dtype and digest are in "
                      f"the header")
    return _as_weight(name, array)


def _record(array: np.ndarray) -> dict[str, Any]:
    """What the header says of an array; the digest is of dtype, shape and numbers in C order."""
    shape, dtype = list(array.shape), array.dtype.str
    digest = hashlib.sha256(f"{dtype} {shape}\n".encode("ascii"))
    digest.update(np.ascontiguousarray(array).data)
    return {"shape": shape, "dtype": dtype, "sha256": digest.hexdigest()}


def _as_weight(name: str, array: np.ndarray) -> np.ndarray:
    """The array in the dtype of the models, if it can be a parameter."""
    if array.dtype.kind != "f":
        raise unfit(f"weights must be floating-point arrays, got {array.dtype} for {name!r}")
    with np.errstate(over="ignore"):
        weight = array.astype(np.float32, copy=False)
    finite = np.isfinite(weight)
    if not finite.all():
        first = np.unravel_index(finite.argmin(), finite.shape)
        bad = finite.size - np.count_nonzero(finite)
        raise CheckpointError(f"has a weight {name!r} with numbers that are not finite: {bad} of "
                              f"{finite.size}, the first is {array[first]} at "
                              f"{tuple(map(int, first))}")
    return weight
