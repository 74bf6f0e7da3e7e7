"""Loading a checkpoint, and finding the newest."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from nn.data.tokenizers import Tokenizer
from nn.layers.parameter import parameters_of
from nn.models.registry import LANGUAGE_MODELS, MODELS
from nn.training.checkpoint.archive import Archive, CheckpointError, damaged, opened, unfit
from nn.training.checkpoint.header import WEIGHT, Contents, read_header, understood
from nn.training.checkpoint.training import TRAINING, Training
from nn.training.runs import BEST, LAST, REPLAY
from nn.training.checkpoint.weights import as_weight, record_of


@dataclass
class Checkpoint:
    """What `load_checkpoint` found: the model, in evaluation mode, and what belongs to it.

    `training` is the state of the training that wrote it, where that was saved.
    """

    model: Any
    tokenizer: Tokenizer | None
    info: dict = field(default_factory=dict)
    training: Training | None = None


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote, now or in an earlier format.

    The model is made only after the file was found to hold, undamaged, exactly the arrays that the
    configuration calls for. It is of the dtype that the file says, float32 where it says none.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        The file is something else, is damaged, does not fit together, or has weights that are NaN
        or infinite. No bad file raises anything else.
    """
    found = load_training(path)
    if found.model is None:
        raise CheckpointError(f"{path} holds no model, only the state of a training: a static graph of "
                              f"its own. python train.py --resume {path} goes on with it")
    return found


def load_training(path: str | Path) -> Checkpoint:
    """As `load_checkpoint`, but where the file has no model, only the state of a training, `model` is
    None."""
    path = Path(path)
    with _reading(path) as archive:
        contents = understood(read_header(archive), archive.names)
        weights = {name: as_weight(name, _read(archive, WEIGHT + name, shape, contents.records),
                                   contents.dtype)
                   for name, shape in contents.shapes.items()}
        training = _read_training(archive, contents)
        model = _model(contents, weights)
    return Checkpoint(model, contents.tokenizer, contents.info, training)


def _model(contents: Contents, weights: dict[str, np.ndarray]) -> Any:
    """The model of these weights in evaluation mode, or None."""
    if contents.kind is None:
        return None
    try:
        with parameters_of(contents.dtype):
            model = MODELS[contents.kind].model(contents.config, rng=0)
        model.load_state_dict(weights)
    except ValueError as error:
        raise unfit(str(error)) from error
    return model.eval()


def _read_training(archive: Archive, contents: Contents) -> Training | None:
    if contents.values is None or contents.arrays is None:
        return None
    return Training(contents.values, {
        name: _read(archive, TRAINING + name, tuple(record["shape"]), contents.arrays)
        for name, record in contents.arrays.items()})


def newest_checkpoint(folder: str | Path, kind: str | None = None) -> Path:
    """The checkpoint in `folder`, or in the folders of runs in it, that was written last, of this kind
    of model; of a run that keeps its best weights, those.

    Without a kind it is that of a language model, which can continue a text. A file that cannot be
    read counts as one of the kind, so that loading it reports the damage.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    kinds = LANGUAGE_MODELS if kind is None else (kind,)
    files = _by_age(Path(folder))
    for path in files:
        try:
            with _reading(path) as archive:
                header = read_header(archive)
                wanted = not isinstance(header, dict) or header.get("model", "GPT") in kinds
        except CheckpointError:
            wanted = True
        if wanted:
            best = path.with_name(BEST)
            return best if path.name == LAST and best.is_file() else path
    raise FileNotFoundError(f"there is no checkpoint in {folder}{os.sep}" + (
        f" of a {' or a '.join(kinds)}" if files else ""))


def _by_age(folder: Path) -> list[Path]:
    """The files that may be checkpoints of models, the newest first."""
    runs = [path for path in folder.glob("*/*.npz") if not path.parent.is_symlink()]
    files = [path for path in [*folder.glob("*.npz"), *runs] if path.is_file() and path.name != REPLAY]
    return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)


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


def _read(archive: Archive, entry: str, shape: tuple[int, ...],
          records: dict[str, Any] | None) -> np.ndarray:
    """An array, found to be what the header says of it."""
    array, name = archive.read(entry, shape), entry.partition(":")[2]
    if records is not None and records[name] != record_of(array):
        raise damaged(f"the {entry.partition(':')[0]} {name!r} is not the array whose shape, dtype and "
                      f"digest are in the header")
    return array
