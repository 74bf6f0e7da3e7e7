"""The README's table of systems, whose rows are commands: what it says, and how a row is run small."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

import train
from tests.checks import ROOT, idx_bytes

README = (ROOT / "README.md").read_text(encoding="utf-8")


class Row(NamedTuple):
    """A row: the words of the command after train.py, the number of parameters, what was reached."""

    words: tuple[str, ...]
    parameters: str
    reached: str

    @property
    def job(self) -> str:
        return self.words[0] if self.words and self.words[0] in train.JOBS else train.DEFAULT

    @property
    def flags(self):
        """The flags of the job that the command gives."""
        return train.parser(self.job).parse(self.words[self.words[:1] == (self.job,):])


ROWS = [Row(tuple(command.split()), parameters, reached) for command, parameters, reached in re.findall(
    r"^\| `python train\.py ?(.*?)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)]

# What makes each job small, its model being that of the preset.
SMALL = {
    "sentences": ("--steps", "6", "--log-interval", "1"),
    "text": ("--steps", "6", "--log-interval", "1", "--batch-size", "4"),
    "names": ("--steps", "6", "--log-interval", "1"),
    "translate": ("--steps", "6", "--log-interval", "1", "--batch-size", "16", "--held-out", "3"),
    "images": ("--epochs", "3", "--lr", "0.01")}

# The 65 characters of Shakespeare, and the 27 tokens of the names.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT = "the old man and the sea. " * 60 + LETTERS + LETTERS.upper() + "\n !$&',-.3:;?"
NAMES = "\n".join([LETTERS, *["anna"] * 300])


def data_of(job: str, folder: Path) -> Path:
    """A small file or folder in the place of FILE or DIR, from which as large a model is made."""
    if job == "images":
        labels = np.arange(60) % 10                      # ten classes by their brightness, 28 x 28
        images = np.tile(25 * labels[:, None, None], (1, 28, 28)).astype(np.uint8)
        for part in ("train", "t10k"):
            (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels.astype(np.uint8)))
        return folder
    path = folder / f"{job}.txt"
    path.write_text({"text": TEXT, "names": NAMES}[job], encoding="utf-8")
    return path


def losses(printed: str) -> list[float]:
    """The losses of the lines of progress."""
    found = re.findall(r"^(?:step|epoch) .*?loss +(\S+)", printed, re.MULTILINE)
    return [float(loss) for loss in found]
