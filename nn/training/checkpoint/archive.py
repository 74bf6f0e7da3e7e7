"""The arrays of an ``.npz`` file that may be damaged or malicious.

Sizes and offsets in the file are checked before they are used. No entry may be compressed, so that
what is read takes no more memory than the file has bytes. Every entry is read to its end, which is
where `zipfile` compares its checksum.
"""

from __future__ import annotations

import io
import math
import os
import reprlib
import struct
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator

import numpy as np
from numpy.lib import format as npy

_DTYPES = {np.dtype(name) for name in ("u1", "i8", "f2", "f4", "f8")}
_NPY_HEADER = 1000          # characters; NumPy's own of an array with two axes has about 120
_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"


class CheckpointError(ValueError):
    """A file is no checkpoint, or is damaged; or what is to be saved could not be loaded again."""


def damaged(what: str) -> CheckpointError:
    """The error of a file that is not as it was written; the caller puts the path before it."""
    return CheckpointError(f"is damaged: {what}")


def unfit(what: str) -> CheckpointError:
    """The error of a file whose parts contradict each other; the caller puts the path before it."""
    return CheckpointError(f"does not fit together: {what}")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive in a file, open as long as the block runs.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        It cannot be read, or is no archive of plain arrays.
    """
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}") from error
    with file:
        yield Archive(file)


class Archive:
    """The entries of an ``.npz`` file.

    Attributes
    ----------
    size : length of the file in bytes.
    names : of the arrays, in the order of the file.
    """

    def __init__(self, file: BinaryIO):
        self.size = os.fstat(file.fileno()).st_size
        try:
            _check_directory(file, self.size)
            self._zip = zipfile.ZipFile(file)
        except CheckpointError:
            raise
        except Exception as error:      # zipfile raises many kinds
            raise CheckpointError("is not a checkpoint, or is damaged: the directory at the end "
                                  "of the archive cannot be read") from error
        self._entries = _checked_entries(self._zip, self.size)
        self.names = list(self._entries)

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """An array, read-only; of this shape, or without one of any length on one axis."""
        info = self._entries[name]
        try:
            with self._zip.open(info) as entry:
                data = entry.read(info.file_size)
        except Exception as error:
            raise damaged(f"the bytes of {name!r} do not have their checksum, or cannot be found"
                          ) from error
        if len(data) != info.file_size:
            raise damaged(f"{name!r} has {len(data)} of {info.file_size} bytes")
        return _array(name, data, shape)


def _check_directory(file: BinaryIO, size: int) -> None:
    """Refuse a directory longer than half of the file, before objects are made of its records.

    A record is shorter than the entry that it lists: that has a header of its own, with the name
    once more, and the header of an array.
    """
    file.seek(max(0, size - 98))
    tail = file.read(98)
    if len(tail) < 22 or tail[-22:-18] != _END:
        raise CheckpointError("is not a checkpoint, or is damaged: it does not end as an .npz "
                              "archive does")
    (length,) = struct.unpack("<L", tail[-10:-6])
    if tail[-42:-38] == _LOCATOR_64 and tail[-98:-94] == _END_64:
        (length,) = struct.unpack("<Q", tail[-58:-50])
    if 2 * length > size:
        raise damaged(f"a directory of {length} bytes in a file of {size}")


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by the names of their arrays."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise damaged(f"there are two entries {reprlib.repr(name)}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CheckpointError(f"is damaged, or was written by something else: the entry "
                                  f"{reprlib.repr(name)} is compressed, which no checkpoint is")
        found[name] = info
    promised = sum(info.file_size for info in found.values())
    if promised > size:
        raise damaged(f"its entries should have {promised} bytes, in a file of {size}")
    return found


def _array(name: str, data: bytes, wanted: tuple[int, ...] | None) -> np.ndarray:
    """The array in the bytes of an ``.npy`` file."""
    shape, fortran, dtype, start = _array_header(name, data)
    if dtype.kind not in "fiu" or dtype.newbyteorder("=") not in _DTYPES:
        raise unfit(f"{name!r} has a dtype that no array of a checkpoint has")
    if shape != wanted and (wanted is not None or len(shape) != 1):
        expected = "one axis" if wanted is None else f"shape {wanted}"
        raise unfit(f"{name!r} must have {expected}, got {reprlib.repr(shape)}")
    if min(shape) < 1 or math.prod(shape) * dtype.itemsize != len(data) - start:
        raise damaged(f"the {len(data) - start} bytes of {name!r} are not an array of shape "
                      f"{reprlib.repr(shape)} and dtype {dtype.str}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def _array_header(name: str, data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether in Fortran's order, dtype, and where the numbers begin."""
    stream = io.BytesIO(data)
    try:
        read = {(1, 0): npy.read_array_header_1_0,
                (2, 0): npy.read_array_header_2_0}[npy.read_magic(stream)]
        shape, fortran, dtype = read(stream, max_header_size=_NPY_HEADER)
    except Exception as error:          # the parser raises many kinds, which quote the bytes
        raise damaged(f"{name!r} does not begin with the header of an array") from error
    return tuple(int(n) for n in shape), fortran, dtype, stream.tell()
