"""How many threads the library of the matrix products (the BLAS) uses in this process.

Its threads wait for each other busily. Beside other threads, or other programs, on the same processors
they are therefore several times slower than one.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np


class _Blas(NamedTuple):
    """Functions of a loaded library that ask and set its number of threads."""

    ask: Callable[[], int]
    set: Callable[[int], Any]
    own: bool                   # whether it is the one that NumPy brings


_held: _Blas | None = None      # stands for NumPy's own, see `held_by`


class limit_blas_threads:
    """Let matrix products use at most so many threads, from now on or for the length of a block.

        tape.limit_blas_threads(1)                    # for the whole process
        with tape.limit_blas_threads(1): ...          # afterwards as before

    What is lower already, as by OPENBLAS_NUM_THREADS or OMP_NUM_THREADS in the environment, stays. It
    works with the library threadpoolctl where that is installed, and else with the OpenBLAS that NumPy
    brings.

    Parameters
    ----------
    limit : int
        At least 1.

    Attributes
    ----------
    works : whether a library was found that can be limited.
    """

    def __init__(self, limit: int):
        if not (isinstance(limit, (int, np.integer)) and not isinstance(limit, bool) and limit >= 1):
            raise ValueError(f"limit_blas_threads: limit must be a positive integer, got {limit!r}")
        self._before = [(blas, blas.ask()) for blas in _all()]
        self.works = bool(self._before)
        for blas, threads in self._before:
            if threads > limit:
                blas.set(int(limit))

    def __enter__(self) -> limit_blas_threads:
        return self

    def __exit__(self, *_: Any) -> None:
        for blas, threads in self._before:
            blas.set(threads)


def blas_threads() -> int | None:
    """How many threads the matrix products may use; None where no library is found that says so."""
    return max((blas.ask() for blas in _all()), default=None)


def blas_library() -> str:
    """What computes the matrix products, in words, and the kind of processor that it is in use for.

    OPENBLAS_CORETYPE in the environment makes OpenBLAS take the processor for another. That may leave
    half of its registers unused, so that products take twice as long.
    """
    functions = shipped_functions()
    if functions is None:
        return "the BLAS of this NumPy, which does not say more"
    configuration, kind = functions("openblas_get_config"), functions("openblas_get_corename")
    configuration.restype = kind.restype = ctypes.c_char_p
    name, version, *_ = configuration().decode().split()
    asked = os.environ.get("OPENBLAS_CORETYPE")
    return f"{name} {version} for {kind().decode()}" + (
        f", with OPENBLAS_CORETYPE={asked} in the environment" if asked else "")


def held_by(ask: Callable[[], int], set: Callable[[int], Any]) -> None:
    """Ask and set NumPy's own OpenBLAS by these: some of the time compiled kernels hold it to one."""
    global _held
    _held = _Blas(ask, set, True)


def _all() -> list[_Blas]:
    return [_held if _held and blas.own else blas for blas in _loaded()]


@functools.lru_cache(maxsize=None)
def _loaded() -> list[_Blas]:
    """The BLAS libraries of this process."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return [blas for path in _shipped() for blas in _of_openblas(path)]
    controllers = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [path.resolve() for path in _shipped()]
    return [_Blas(one.get_num_threads, one.set_num_threads, Path(one.filepath).resolve() in own)
            for one in controllers]


def _shipped() -> list[Path]:
    """The files of OpenBLAS that NumPy's wheels bring: for Linux and Windows, and for macOS."""
    package = Path(np.__file__).parent
    return [path for folder in (package.parent / "numpy.libs", package / ".dylibs")
            for path in sorted(folder.glob("*openblas*"))]


@functools.lru_cache(maxsize=None)
def shipped_functions() -> Callable[[str], Any] | None:
    """The functions of NumPy's own OpenBLAS by name, where it counts in 64 bits, else None."""
    for library in map(_opened, _shipped()):
        if hasattr(library, "scipy_cblas_sgemm64_"):
            return lambda name: getattr(library, f"scipy_{name}64_")
    return None


def _opened(path: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _of_openblas(path: Path) -> list[_Blas]:
    """The functions of one library, whose names depend on how it was built; none where it has none."""
    library = _opened(path)
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("64_", "_64", "", "_"):
            ask = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
            change = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
            if ask and change:
                change.argtypes, change.restype = [ctypes.c_int], None
                return [_Blas(ask, change, True)]
    return []
