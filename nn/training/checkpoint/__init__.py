"""A model in one file: its weights, its configuration and, of a GPT, its tokenizer.

The file is a NumPy ``.npz`` without pickle (loading one runs no code from it), of these arrays:

    weight:NAME          the numbers of the parameter NAME
    checkpoint.json      a text in JSON, as bytes: format, model, config, tokenizer, info; and
                         under "arrays" the shape, the dtype and the SHA-256 of each parameter
    checkpoint.sha256    the SHA-256 of that text

Files of the first format have no digests, only the checksums of the archive. Those of the third
hold the state of a training besides:

    training:NAME        an array of that state
    checkpoint.json      has "training" too: under "arrays" what it says of the parameters, and
                         under "values" what is no array

A static graph that is no model of `nn.models.registry` has no weights there, only that state.
"""

from nn.training.checkpoint.archive import CheckpointError
from nn.training.checkpoint.load import (
    Checkpoint, load_checkpoint, load_training, newest_checkpoint)
from nn.training.checkpoint.save import save_checkpoint

from nn.training.checkpoint.training import Training

__all__ = ["Checkpoint", "CheckpointError", "Training", "load_checkpoint", "load_training",
           "newest_checkpoint", "save_checkpoint"]
