"""Images with labels: files in the format of MNIST, and the digits of scikit-learn."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

_UNSIGNED_BYTE = 8

# Images are packed to a fifth or a third of their size. A gzip file that claims to have more bytes than
# so many times its own, and these, is not unpacked: nothing else bounds the memory that would take.
_UNPACKED, _SPARE = 50, 2 ** 24


class ImageData(NamedTuple):
    """Images (N, H, W), float32 in [0, 1], and their labels (N,), integers from 0."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return int(self.train_labels.max()) + 1

    @property
    def mean_and_std(self) -> tuple[float, float]:
        """Of the pixels to train on; the second is not zero even where they are all the same."""
        return float(self.train_images.mean()), max(float(self.train_images.std()), 1e-8)

    def standardised(self) -> ImageData:
        """Shifted and scaled so that the pixels to train on have mean 0 and variance 1."""
        mean, std = self.mean_and_std
        return self._replace(train_images=(self.train_images - mean) * (1 / std),
                             test_images=(self.test_images - mean) * (1 / std))


def read_idx(path: str | Path, ndim: int) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, gzipped or not.

    The format, in order: two zero bytes; a byte for the type of the elements (8: unsigned byte); a
    byte for the number of axes; the length of each axis in four bytes, the highest first; and the
    elements, the last axis fastest. LeCun, Cortes and Burges, "The MNIST database".

    Parameters
    ----------
    path : str or Path
    ndim : int
        How many axes there must be: 3 for images, 1 for labels.

    Raises
    ------
    ValueError
        The file is something else, or not whole: says which file, what it must hold and what it holds.
    """
    path, start = Path(path), 4 + 4 * ndim
    size = path.stat().st_size
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"      # the first bytes of every gzip file, whatever its name
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            head = file.read(start)
            shape = _shape(path, head, ndim)
            body = math.prod(shape)
            if body > (_UNPACKED * size + _SPARE if packed else size):
                raise ValueError(f"{path} is not whole: its header promises {shape}, that is {start} + "
                                 f"{body:,} bytes, and it has {size:,}{' packed' if packed else ''}")
            data = file.read(body + 1)           # one more than is right, and of a bomb no further
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    if len(head) + len(data) != start + body:
        found = f"{len(head) + len(data):,}" if len(data) < body else f"more than {start + body:,}"
        raise ValueError(f"{path} is not whole: its header promises {shape}, that is {start} + "
                         f"{body:,} bytes, and it has {found if packed else f'{size:,}'}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(path: Path, head: bytes, ndim: int) -> tuple[int, ...]:
    """The shape in the first bytes of an IDX file."""
    if head[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or len(head) < 4:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: it must begin with 00 00 08, "
                         f"got {head[:3].hex(' ') or 'nothing'}")
    if head[3] != ndim:
        raise ValueError(f"{path} must have {ndim} axes ({'images' if ndim == 3 else 'labels'}), got "
                         f"{head[3]}")
    return tuple(int(n) for n in np.frombuffer(head[4:].ljust(4 * ndim, b"\0"), ">u4"))


def load_idx(folder: str | Path) -> ImageData:
    """The four files of a data set in the format of MNIST.

    ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same with ``t10k`` for the test,
    each with or without ``.gz``.

    Raises
    ------
    FileNotFoundError
        The folder or one of the files is missing.
    ValueError
        A file is damaged, or the files do not fit together.
    """
    folder = Path(folder)
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file; give the folder that holds the four files")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    arrays = []
    for part in ("train", "t10k"):
        images_path = _find(folder, f"{part}-images", 3)
        labels_path = _find(folder, f"{part}-labels", 1)
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels) or not images.size:
            raise ValueError(f"{images_path} has images of shape {images.shape} and {labels_path} has "
                             f"{len(labels):,} labels: there must be one for each, and at least one")
        arrays += [images.astype(np.float32) / 255, labels.astype(np.int64)]
    data = ImageData(*arrays)
    if data.train_images.shape[1:] != data.test_images.shape[1:]:
        raise ValueError(f"{folder}: images to train on are {data.train_images.shape[1:]}, those to "
                         f"test on {data.test_images.shape[1:]}; they must be of one size")
    if data.test_labels.max() >= data.classes:
        raise ValueError(f"{folder}: the label {data.test_labels.max()} occurs in the test alone")
    return data


def _find(folder: Path, stem: str, ndim: int) -> Path:
    names = [f"{stem}{dot}idx{ndim}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has no file {names[0]} (or {names[1]})")


def load_digits(seed: int = 0) -> ImageData:
    """1,797 handwritten digits, 8 by 8 pixels, from scikit-learn; a fifth of them to test on.

    Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits".

    Parameters
    ----------
    seed : int
        Of the shuffle that decides which fifth it is.

    Raises
    ------
    ImportError
        scikit-learn is not installed; says how to get it.
    """
    try:
        from sklearn.datasets import load_digits as digits
    except ImportError as error:
        raise ImportError("the handwritten digits come with scikit-learn, which is not installed: "
                          'pip install -e ".[images]"') from error
    found = digits()
    images = (found.images / 16).astype(np.float32)              # (1797, 8, 8), pixels 0 to 16
    order = np.random.default_rng(seed).permutation(len(images))
    test, train = np.split(order, [len(order) // 5])
    labels = found.target.astype(np.int64)
    return ImageData(images[train], labels[train], images[test], labels[test])
