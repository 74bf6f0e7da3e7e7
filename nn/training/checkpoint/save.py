"""Saving a checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from nn.data.tokenizers import Tokenizer
from nn.layers.parameter import dtype_of
from nn.models.registry import MODELS, name_of
from nn.training.checkpoint.archive import CheckpointError, unfit
from nn.training.checkpoint.header import (
    DIGEST, FORMAT, HEADER, WEIGHT, WITH_TRAINING, parsed, understood)
from nn.training.checkpoint.training import TRAINING, Training
from nn.training.checkpoint.weights import as_weight, record_of


def save_checkpoint(path: str | Path, model: Any, tokenizer: Tokenizer | None = None,
                    info: dict | None = None, training: Training | None = None) -> Path:
    """Write a checkpoint; an older file of that name is replaced only by a complete new one.

    What `load_checkpoint` would refuse is not written, as weights that are NaN or infinite.

    Parameters
    ----------
    path : str or Path
        Missing folders are made.
    model : GPT, RecurrentLM or VisionTransformer
        Any kind that `nn.models.registry` lists. One whose parameters are all float64 is loaded as
        that, any other as float32.
    tokenizer : Tokenizer, optional
    info : dict, optional
        Anything that JSON can hold: step, loss, a prompt to try, and `start`, which `generate.py` puts
        in front of every prompt without showing it. Tuples come back as lists, and keys as texts.
    training : Training, optional
        What the training needs to go on. With it the model may be None, where that has all of it.

    Returns
    -------
    Path

    Raises
    ------
    CheckpointError
        It could not be loaded again; says why. The older file stays as it is.
    """
    path = Path(path)
    kind = None if model is None else name_of(model)
    if kind is None and (model is not None or training is None):
        raise TypeError(f"save_checkpoint: the model must be a {' or a '.join(MODELS)}, got "
                        f"{type(model).__name__}. Of any other, np.savez(path, "
                        f"**model.state_dict()) keeps the weights")
    weights = {} if model is None else _contiguous(model.state_dict())
    header = {"format": FORMAT, "model": kind, "config": model and asdict(model.config),
              "info": info or {}, "tokenizer": None if tokenizer is None else tokenizer.to_dict(),
              "arrays": {name: record_of(array) for name, array in weights.items()}}
    if model is not None and dtype_of(model.parameters()) != "float32":
        header["dtype"] = dtype_of(model.parameters())       # files of float32 are as they always were
    arrays = {WEIGHT + name: array for name, array in weights.items()}
    if training is not None:
        more = _contiguous({name: array for name, array in training.arrays.items() if array.size})
        header |= {"format": WITH_TRAINING, "training": {
            "values": training.values,
            "arrays": {name: record_of(array) for name, array in more.items()}}}
        arrays |= {TRAINING + name: array for name, array in more.items()}
    text = json.dumps(header).encode("ascii")
    try:
        _check_loadable(text, arrays)
    except CheckpointError as error:
        raise CheckpointError(f"save_checkpoint: {path} was not written: what it would hold "
                              f"{error}") from error
    _replace(path, {HEADER: np.frombuffer(text, np.uint8),
                    DIGEST: np.frombuffer(hashlib.sha256(text).digest(), np.uint8)} | arrays)
    return path


def _contiguous(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array) for name, array in state.items()}


def _check_loadable(text: bytes, arrays: dict[str, np.ndarray]) -> None:
    header = parsed(text, len(text) + sum(array.nbytes for array in arrays.values()))
    contents = understood(header, [HEADER, DIGEST, *arrays])
    for name, shape in contents.shapes.items():
        array = arrays[WEIGHT + name]
        if array.shape != shape:
            raise unfit(f"{name!r} must have shape {shape}, got {array.shape}")
        as_weight(name, array, contents.dtype)


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
    except OSError as error:        # of a full disk it does not name the file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_left_behind(path: Path) -> None:
    """Unfinished files of runs that were killed while saving; a save never takes an hour."""
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        if time.time() - stale.stat().st_mtime > 3600:
            stale.unlink(missing_ok=True)
