"""A model in one file: its weights, its configuration and, of a GPT, its tokenizer.

The file is a NumPy ``.npz`` without pickle (loading one runs no code from it), of these arrays:

    weight:NAME          the numbers of the parameter NAME
    checkpoint.json      a text in JSON, as bytes: format, model, config, tokenizer, info; and
                         under "arrays" the shape, the dtype and the SHA-256 of each parameter
    checkpoint.sha256    the SHA-256 of that text

Files of the first format have no digests, only the checksums of the archive.
"""

from nn.training.checkpoint.archive import CheckpointError
from nn.training.checkpoint.load import Checkpoint, load_checkpoint, newest_checkpoint
from nn.training.checkpoint.save import save_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "load_checkpoint", "newest_checkpoint", "save_checkpoint"]
