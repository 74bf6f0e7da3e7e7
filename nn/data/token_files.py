"""Token ids in files that are mapped into memory, in a cache folder that all runs share.

    tokens-KEY.bin     the ids, uint16 or uint32, in the byte order of the machine
    tokens-KEY.json    what they are; written last, so that where it is, the ids are whole
    known-KEY.txt      the digest of texts whose files have these paths, sizes and times

An unfinished file has a name of its own, and is locked by the process that writes it. So a kill at any
moment leaves whole files and unfinished ones without a lock, which the next run removes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Iterator, Sequence

import numpy as np

from nn.data.text import PIECE, Report, Source, silent

try:
    import fcntl
except ImportError:                 # not on Windows: there an unfinished file is kept for a day
    fcntl = None                    # type: ignore[assignment]

_END = ".unfinished"
_DAY = 24 * 3600
_FRESH = 2 * 10 ** 9                # nanoseconds: the coarsest times that file systems keep


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/tape-nn``, by default ``~/.cache/tape-nn``; made if it is missing."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tape-nn"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 2 ** 16 else np.uint32)


def known_digest(source: Source, folder: Path, report: Report = silent) -> str:
    """The digest of a text; of an earlier run if its files have the same paths, sizes and times.

    The times are those of the last write, which a program may set back, and of the last change of any
    kind, which none can. Files that were written in the last two seconds, and could be again within the
    resolution of the times, are read in any case.
    """
    names = file_states(source.paths)
    newest = max((path.stat().st_mtime_ns for path in source.paths), default=time.time_ns())
    note = folder / f"known-{_key(names)}.txt"
    settled = newest < time.time_ns() - _FRESH
    if settled and note.is_file():
        return note.read_text(encoding="ascii")
    digest = source.digest(report)
    if settled:
        with unfinished(note) as file:
            file.write(digest.encode("ascii"))
    return digest


def file_states(paths: Sequence[Path]) -> list[list]:
    """The path, size, times and number of each file: the same as long as none was changed."""
    return [[str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
            for path in paths for state in [path.stat()]]


def _key(names: Any) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]


class TokenFile:
    """The place in the cache of the tokens that were made of one text in one way.

    Parameters
    ----------
    folder : Path
    names : anything that JSON can hold
        The digest of the text, and all that its tokens depend on.
    """

    def __init__(self, folder: Path, names: Any):
        self.ids_path = folder / f"tokens-{_key(names)}.bin"
        self.about_path = self.ids_path.with_suffix(".json")

    def read(self) -> tuple[np.ndarray, dict] | None:
        """The ids, mapped into memory, and what is said of them; None where they are not whole."""
        try:
            about = json.loads(self.about_path.read_text(encoding="ascii"))
            dtype, count = np.dtype(about["dtype"]), about["count"]
            if self.ids_path.stat().st_size != count * dtype.itemsize:
                return None
            return np.memmap(self.ids_path, dtype, "r", shape=(count,)), about
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, parts: Iterable[tuple[np.ndarray, np.ndarray]],
              dtype: np.dtype) -> tuple[int, int]:
        """Write the ids: all first of the pairs, and behind them all second; how many of each."""
        counts = [0, 0]
        self.about_path.unlink(missing_ok=True)
        with (unfinished(self.ids_path) as file,
              tempfile.TemporaryFile(dir=self.ids_path.parent) as rest):
            for first, second in parts:
                for i, (ids, to) in enumerate([(first, file), (second, rest)]):
                    to.write(ids.astype(dtype).tobytes())
                    counts[i] += len(ids)
            rest.seek(0)
            while block := rest.read(PIECE):
                file.write(block)
        return counts[0], counts[1]

    def finish(self, about: dict, count: int, dtype: np.dtype) -> None:
        """Say what the ids are, which is also that they are whole."""
        with unfinished(self.about_path) as file:
            file.write(json.dumps({**about, "count": count, "dtype": dtype.name}).encode("ascii"))

    def ids(self, count: int, dtype: np.dtype) -> np.ndarray:
        """The ids that were just written, mapped into memory."""
        return np.memmap(self.ids_path, dtype, "r", shape=(count,))


@contextmanager
def unfinished(path: Path) -> Iterator[BinaryIO]:
    """A new file, which takes the name `path` when the block is left, and is removed if that fails.

    Raises
    ------
    OSError
        It cannot be written, as on a full disk: says which file.
    """
    _remove_left_behind(path.parent)
    name = path.with_name(f"{path.name}.{os.getpid()}{_END}")
    try:
        with _locked(name) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(name, path)
    except OSError as error:
        if error.filename not in (None, str(name), name):       # of what is read, not of this file
            raise
        raise OSError(f"cannot write {path}: {error.strerror or error}. The folder is "
                      f"$XDG_CACHE_HOME/tape-nn; set that variable to use another") from error
    finally:
        name.unlink(missing_ok=True)


def _locked(name: Path) -> BinaryIO:
    """A new file, locked. Before it was, another process may have taken it for left behind."""
    while True:
        file = open(name, "wb")
        if not fcntl:
            return file
        fcntl.flock(file, fcntl.LOCK_EX)
        if name.exists():
            return file
        file.close()


def _remove_left_behind(folder: Path) -> None:
    """Unfinished files of processes that were killed: those that nobody has locked."""
    for path in folder.glob(f"*{_END}"):
        try:
            if fcntl:
                with open(path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif time.time() - path.stat().st_mtime < _DAY:
                continue
            path.unlink()
        except (BlockingIOError, FileNotFoundError):       # it is being written, or was just finished
            continue
