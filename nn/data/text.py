"""Texts to train on, and the loss that the frequencies of their tokens give."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, as it is.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
    ValueError
        The file is empty, or not UTF-8.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a text file")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: byte 0x{data[error.start]:02x} at position "
                         f"{error.start:,}") from error
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text


def python_help_text() -> str:
    """The help topics of Python's own interactive help: a text that needs no download."""
    topics = importlib.import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file without the spaces around them; empty ones are left out.

    Raises what `read_text` raises.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def python_words() -> list[str]:
    """The distinct words of `python_help_text`, of two letters a-z or more, lower-cased and sorted."""
    return sorted(set(re.findall("[a-z]{2,}", python_help_text().lower())))


def unigram_entropy(ids: np.ndarray) -> float:
    """Entropy of the token frequencies, in nats: the loss of a model that ignores the context."""
    _, counts = np.unique(ids, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum())
