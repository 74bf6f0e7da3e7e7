"""The folders that runs write to: one for each, locked while it is written to.

    checkpoints/text-20260131-174500/last.npz       the latest weights, and all to go on from them
                                     best.npz       those of the lowest validation loss
                                     config.ini     the settings, for --config
                                     replay.npz     a step that gave a number that is not finite
    checkpoints/latest                              a link to the newest run
"""

from __future__ import annotations

import errno
import itertools
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:         # on Windows, where two runs in one folder are not noticed
    fcntl = None            # type: ignore[assignment]

ROOT = Path("checkpoints")
LATEST = "latest"
LAST, BEST, REPLAY, CONFIG = "last.npz", "best.npz", "replay.npz", "config.ini"


class RunError(ValueError):
    """A folder cannot be used for a run; says why, and what to do instead."""


class RunFolder:
    """A folder that this process alone writes checkpoints to, until `close`.

    Parameters
    ----------
    path : Path
        Of a folder that exists.
    made : bool
        Whether it was made for this run, and is removed if nothing is written to it.

    Raises
    ------
    RunError
        Another process has it, or nothing can be written to it.
    """

    def __init__(self, path: Path, made: bool = False):
        self.path, self.made = path, made
        self.last, self.best, self.replay = path / LAST, path / BEST, path / REPLAY
        self.config = path / CONFIG
        if not os.access(path, os.W_OK | os.X_OK):
            raise RunError(f"the folder {path} cannot be written to; name another with --out")
        self._lock = _locked(path)
        for unfinished in path.glob(".*.npz.*.tmp"):        # of a run that was killed while saving
            unfinished.unlink(missing_ok=True)

    def hold(self) -> None:
        """Before a save: the path must still be the folder that is locked, which may have been removed.

        It is made again if there is none.

        Raises
        ------
        RunError
            Another run took its place.
        """
        if self._lock is None or self.path.exists() and os.path.samestat(
                os.fstat(self._lock), os.stat(self.path)):
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = _locked(self.path)
        if self.last.exists() or self.best.exists():
            os.close(lock)
            raise RunError(f"the folder {self.path} was removed while this run wrote to it, and holds "
                           f"another run now, which is left as it is; this one ends")
        os.close(self._lock)
        self._lock = lock

    def clear(self) -> None:
        """Remove what another run wrote."""
        for file in (self.last, self.best, self.replay, self.config):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the folder up."""
        if self.made and self.path.exists() and not any(self.path.iterdir()):
            self.path.rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def new_folder(job: str, root: Path = ROOT) -> RunFolder:
    """A fresh folder in `root`, named by job and time, with a number behind them if that is taken."""
    _check_folder(root)
    latest = root / LATEST
    if latest.is_dir() and not latest.is_symlink():
        raise RunError(f"{latest} must be a link that runs replace, but is a folder; rename it")
    for unfinished in root.glob(f".{LATEST}.*.tmp"):        # of a run that was killed in `set_latest`
        if time.time() - unfinished.lstat().st_mtime > 60:
            unfinished.unlink(missing_ok=True)
    name = f"{job}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return RunFolder(path, made=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"cannot make the folder {path}: {error.strerror}") from error
    raise AssertionError("itertools.count does not end")


def given_folder(path: Path, overwrite: bool = False) -> RunFolder:
    """A folder that was asked for; it need not exist, and holds no run unless that is replaced."""
    if path.suffix == ".npz":
        raise RunError(f"--out: must name a folder, in which {LAST} is written, got {str(path)!r}")
    if path == ROOT / LATEST:
        raise RunError(f"--out: {path} is the link to the newest run; choose another name")
    _check_folder(path, "--out: ")
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out: cannot make the folder {path}: {error.strerror}") from error
    folder = RunFolder(path, made)
    if overwrite:
        folder.clear()
    elif folder.last.exists() or folder.best.exists():
        folder.close()
        raise RunError(f"--out: {path} holds a run already. To go on with it: --resume "
                       f"{shlex.quote(str(path))}; to replace it: --overwrite; or choose another name")
    elif kept := [file.name for file in (folder.config, folder.replay) if file.exists()]:
        folder.close()
        raise RunError(f"--out: {path} holds a {kept[0]}, which this run would replace; choose another "
                       f"name, move it away, or replace it with --overwrite")
    return folder


def _check_folder(path: Path, flag: str = "") -> None:
    """Refuse what exists and is no folder: a file, a device, a link that leads to nothing."""
    if path.is_symlink() and not path.exists():
        raise RunError(f"{flag}{path} is a link that leads to nothing; remove it, or choose another "
                       f"name")
    if path.exists() and not path.is_dir():
        raise RunError(f"{flag}{path} must be a folder, but is a {_kind(path)}; choose another name")


def _kind(path: Path) -> str:
    return "file" if path.is_file() else "device or pipe"


def _locked(path: Path) -> Any:
    """A descriptor with a lock, which ends with the process; None where there are no locks."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise RunError(f"another run is writing to {path}; wait until it ends, or name another "
                           f"folder with --out") from error
        return None                                     # a file system without locks
    return descriptor


def set_latest(folder: Path, root: Path = ROOT) -> str:
    """Make ``latest`` in `root` lead to a folder beside it: a link, or a text file with its name.

    It is replaced at once, so that it always leads to a run. Where that fails a text says why, because
    a training need not end for it; else the text is empty.
    """
    if folder.parent != root:
        return ""
    latest, new = root / LATEST, root / f".{LATEST}.{os.getpid()}.tmp"
    try:
        new.unlink(missing_ok=True)
        try:
            new.symlink_to(folder.name, target_is_directory=True)
        except (OSError, NotImplementedError):      # Windows asks for a privilege
            new.write_text(folder.name, encoding="utf-8")
        os.replace(new, latest)
        return ""
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        return f"{latest} does not lead to {folder}: {error.strerror}"


def checkpoint_at(path: Path, root: Path = ROOT) -> Path:
    """The checkpoint that a path means: itself, or the last of a run; ``latest`` is the newest run.

    Raises
    ------
    RunError
        There is none.
    """
    if str(path) == LATEST and not path.exists():
        path = root / LATEST
    if path.is_file() and path.name == LATEST:
        path = path.parent / path.read_text(encoding="utf-8", errors="replace").strip()
    elif path.is_symlink() and path.is_dir():
        path = path.parent / os.readlink(path)          # the run is called by its own name
    found = path / LAST if path.is_dir() else path
    if not found.is_file():
        raise RunError(f"there is no checkpoint at {found}" + (
            ": the run ended before it saved one" if path.is_dir() else
            "; python train.py begins a run" if path == root / LATEST else ""))
    return found


def own_checkpoint(path: Path) -> Path:
    """A checkpoint to go on with, unless its run would write over those of another.

    Raises
    ------
    RunError
        It has a name of its own, and lies in the folder of a run.
    """
    if path.name not in (LAST, BEST) and any((path.parent / name).exists() for name in (LAST, BEST)):
        raise RunError(f"--resume: {path} lies in a folder with a run, whose {LAST} going on would "
                       f"replace. Copy it as {LAST} to a folder of its own")
    return path
