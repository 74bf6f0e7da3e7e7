"""Saving a checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nn.data.tokenizers import Tokenizer
from nn.models.registry import MODELS, name_of
from nn.training.checkpoint.archive import CheckpointError, unfit
from nn.training.checkpoint.header import DIGEST, FORMAT, HEADER, WEIGHT, parsed, understood
from nn.training.checkpoint.weights import as_weight, record_of


def save_checkpoint(path: str | Path, model: Any, tokenizer: Tokenizer | None = None,
                    info: dict | None = None) -> Path:
    """Write a checkpoint; an older file of that name is replaced only by a complete new one.

    What `load_checkpoint` would refuse is not written, as weights that are NaN or infinite.

    Parameters
    ----------
    path : str or Path
        Missing folders are made.
    model : GPT, RecurrentLM or VisionTransformer
        Any kind that `nn.models.registry` lists.
    tokenizer : Tokenizer, optional
    info : dict, optional
        Anything that JSON can hold: step, loss, a prompt to try, and `start`, which `generate.py` puts
        in front of every prompt without showing it. Tuples come back as lists, and keys as texts.

    Returns
    -------
    Path

    Raises
    ------
    CheckpointError
        It could not be loaded again; says why. The older file stays as it is.
    """
    path = Path(path)
    kind = name_of(model)
    if kind is None:
        raise TypeError(f"save_checkpoint: the model must be a {' or a '.join(MODELS)}, got "
                        f"{type(model).__name__}. Of any other, np.savez(path, "
                        f"**model.state_dict()) keeps the weights")
    weights = {name: np.ascontiguousarray(array) for name, array in model.state_dict().items()}
    header = {"format": FORMAT, "model": kind, "config": asdict(model.config), "info": info or {},
              "tokenizer": None if tokenizer is None else tokenizer.to_dict(),
              "arrays": {name: record_of(array) for name, array in weights.items()}}
    text = json.dumps(header).encode("ascii")
    try:
        _check_loadable(text, weights)
    except CheckpointError as error:
        raise CheckpointError(f"save_checkpoint: {path} was not written: what it would hold "
                              f"{error}") from error
    arrays = {HEADER: np.frombuffer(text, np.uint8),
              DIGEST: np.frombuffer(hashlib.sha256(text).digest(), np.uint8)}
    _replace(path, arrays | {WEIGHT + name: array for name, array in weights.items()})
    return path


def _check_loadable(text: bytes, weights: dict[str, np.ndarray]) -> None:
    header = parsed(text, len(text) + sum(array.nbytes for array in weights.values()))
    shapes = understood(header, [HEADER, DIGEST, *(WEIGHT + name for name in weights)]).shapes
    for name, array in weights.items():
        if array.shape != shapes[name]:
            raise unfit(f"{name!r} must have shape {shapes[name]}, got {array.shape}")
        as_weight(name, array)


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
