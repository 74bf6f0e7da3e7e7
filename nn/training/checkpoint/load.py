"""Loading a checkpoint, and finding the newest."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from nn.data.tokenizers import Tokenizer
from nn.models.registry import LANGUAGE_MODELS, MODELS
from nn.training.checkpoint.archive import Archive, CheckpointError, damaged, opened, unfit
from nn.training.checkpoint.header import WEIGHT, read_header, understood
from nn.training.checkpoint.weights import as_weight, record_of


@dataclass
class Checkpoint:
    """What `load_checkpoint` found: the model, in evaluation mode, and what belongs to it."""

    model: Any
    tokenizer: Tokenizer | None
    info: dict = field(default_factory=dict)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote, now or in its first format.

    The model is made only after the file was found to hold, undamaged, exactly the arrays that the
    configuration calls for.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        The file is something else, is damaged, does not fit together, or has weights that are NaN
        or infinite. No bad file raises anything else.
    """
    path = Path(path)
    with _reading(path) as archive:
        contents = understood(read_header(archive), archive.names)
        weights = {name: _read_weight(archive, name, shape, contents.records)
                   for name, shape in contents.shapes.items()}
        try:
            model = MODELS[contents.kind].model(contents.config, rng=0)
            model.load_state_dict(weights)
        except ValueError as error:
            raise unfit(str(error)) from error
    model.eval()
    return Checkpoint(model, contents.tokenizer, contents.info)


def newest_checkpoint(folder: str | Path, kind: str | None = None) -> Path:
    """The checkpoint in `folder` that was written last, of this kind of model.

    Without a kind it is that of a language model, which can continue a text. A file that cannot be
    read counts as one of the kind, so that loading it reports the damage.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    kinds = LANGUAGE_MODELS if kind is None else (kind,)
    files = [path for path in Path(folder).glob("*.npz") if path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            with _reading(path) as archive:
                header = read_header(archive)
                wanted = not isinstance(header, dict) or header.get("model", "GPT") in kinds
        except CheckpointError:
            wanted = True
        if wanted:
            return path
    raise FileNotFoundError(f"there is no checkpoint in {folder}{os.sep}" + (
        f" of a {' or a '.join(kinds)}" if files else ""))


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


def _read_weight(archive: Archive, name: str, shape: tuple[int, ...],
                 records: dict[str, Any] | None) -> np.ndarray:
    array = archive.read(WEIGHT + name, shape)
    if records is not None and records[name] != record_of(array):
        raise damaged(f"the weight {name!r} is not the array whose shape, dtype and digest are in "
                      f"the header")
    return as_weight(name, array)
