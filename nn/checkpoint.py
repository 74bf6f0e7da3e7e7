"""A model in one file: its weights, its configuration and, of a GPT, its tokenizer.

The file is a NumPy ``.npz`` without pickle (loading one runs no code from it): an array for each
parameter, and a text in JSON for the rest.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from nn.gpt import GPT, GPTConfig
from nn.text import Tokenizer, tokenizer_from_dict
from nn.vision import VisionConfig, VisionTransformer

FORMAT = "tape checkpoint 1"
_HEADER = "checkpoint.json"
_WEIGHT = "weight:"
_KINDS: dict[str, tuple[type, type]] = {
    "GPT": (GPTConfig, GPT), "VisionTransformer": (VisionConfig, VisionTransformer)}


class CheckpointError(ValueError):
    """A file is no checkpoint, or not a whole one."""


@dataclass
class Checkpoint:
    """What `load_checkpoint` found: the model, in evaluation mode, and what belongs to it."""

    model: Any
    tokenizer: Tokenizer | None
    info: dict = field(default_factory=dict)


def save_checkpoint(path: str | Path, model: GPT | VisionTransformer,
                    tokenizer: Tokenizer | None = None, info: dict | None = None) -> Path:
    """Write a checkpoint; an older file of that name is replaced only by a complete new one.

    Parameters
    ----------
    path : str or Path
        Missing folders are made.
    model : GPT or VisionTransformer
    tokenizer : Tokenizer, optional
    info : dict, optional
        Anything that JSON can hold: step, loss, a prompt to try.

    Returns
    -------
    Path
    """
    path = Path(path)
    kind = next((name for name, (_, cls) in _KINDS.items() if isinstance(model, cls)), None)
    if kind is None:
        raise TypeError(f"save_checkpoint: the model must be a {' or a '.join(_KINDS)}, got "
                        f"{type(model).__name__}. Of any other, np.savez(path, **model.state_dict()) "
                        f"keeps the weights")
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"format": FORMAT, "model": kind, "config": asdict(model.config), "info": info or {},
              "tokenizer": tokenizer.to_dict() if tokenizer else None}
    arrays = {_WEIGHT + name: np.ascontiguousarray(array)
              for name, array in model.state_dict().items()}
    text = np.frombuffer(json.dumps(header).encode("utf-8"), np.uint8)
    # A kill at any moment leaves the old file or the new one, never half of one.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove_left_behind(path)
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, **{_HEADER: text}, **arrays)      # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _remove_left_behind(path: Path) -> None:
    """Unfinished files of runs that were killed while saving; a save takes seconds, not an hour."""
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        if time.time() - stale.stat().st_mtime > 3600:
            stale.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        The file is something else, is damaged, or does not fit together.
    """
    path = Path(path)
    with _opened(path) as (header, archive):
        weights = {name[len(_WEIGHT):]: archive[name] for name in archive.files
                   if name.startswith(_WEIGHT)}
    return _assemble(path, header, weights)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """The header in a file, and the archive, which reads an array when it is asked for."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is a folder; name a file in it" if path.is_dir() else
                                f"there is no checkpoint at {path}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged: it is not an .npz archive")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if _HEADER not in archive.files:
                raise CheckpointError(f"{path} is not a checkpoint written by this project")
            yield json.loads(archive[_HEADER].tobytes().decode("utf-8")), archive
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {error}") from error


def _assemble(path: Path, header: dict[str, Any], weights: dict[str, np.ndarray]) -> Checkpoint:
    found = header.get("format") if isinstance(header, dict) else header
    if found != FORMAT:
        raise CheckpointError(f"{path} has the format {found!r}; this version reads {FORMAT!r}")
    try:
        kind = header.get("model", "GPT")           # files of the first version say nothing
        if kind not in _KINDS:
            raise ValueError(f"there is no model {kind!r} here; known: {', '.join(_KINDS)}")
        make_config, make_model = _KINDS[kind]
        config = make_config(**header["config"])
        state = header["tokenizer"]
        tokenizer = None if state is None else tokenizer_from_dict(state)
        if tokenizer is not None and len(tokenizer) != config.vocab_size:
            raise ValueError(f"{len(tokenizer)} tokens for a vocabulary of {config.vocab_size}")
        info = header["info"]
        if not isinstance(info, dict) or not isinstance(info.get("prompt", ""), str):
            raise TypeError("info must be a dict, and its prompt a text")
        if any(array.dtype.kind != "f" for array in weights.values()):
            raise TypeError("weights must be floating-point arrays")
        model = make_model(config, rng=0)
        model.load_state_dict(weights)
    except (TypeError, KeyError, ValueError, AttributeError, MemoryError) as error:
        raise CheckpointError(f"{path} does not fit together: {error}") from error
    model.eval()
    return Checkpoint(model, tokenizer, info)


def newest_checkpoint(folder: str | Path, kind: str = "GPT") -> Path:
    """The checkpoint in `folder` that was written last, of this kind of model.

    A file that cannot be read counts as one of the kind, so that its damage is not passed over.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    found = sorted(Path(folder).glob("*.npz"), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        try:
            with _opened(path) as (header, _):
                wanted = not isinstance(header, dict) or header.get("model", "GPT") == kind
        except CheckpointError:
            wanted = True
        if wanted:
            return path
    raise FileNotFoundError(f"there is no checkpoint in {folder}{os.sep}" + (
        f" of a {kind}" if found else ""))
