"""How a loop is compiled with Numba: at its first use for a dtype, and cached on disk."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import numba
import numpy as np
from llvmlite import binding
from numba import types
from numba.core import event

# What a loop may do to the order of operations. Each of these keeps infinities and NaN what they are;
# of LLVM's others "nnan" and "ninf" do not, and "afn" allows functions of fewer digits.
CONTRACT = frozenset({"contract"})                  # x * y + z rounded once
# Sums in another order, which vector instructions need, x * (1 / y) for x / y, and -0 for 0.
SUMS = CONTRACT | {"reassoc", "arcp", "nsz"}

INTEGER, REAL = lambda real: types.int64, lambda real: types.float64
_LOCK = threading.RLock()
LOOPS: dict[str, Loop] = {}                         # by the names of their functions


def READ(rank: int) -> Callable:
    """The type of an array that is read: read-only, to which Numba converts one that is not."""
    return lambda real: types.Array(real, rank, "C", readonly=True)


def STRIDED(rank: int) -> Callable:
    """The type of an array that is read, wherever its elements lie."""
    return lambda real: types.Array(real, rank, "A", readonly=True)


def SPREAD(rank: int) -> Callable:
    """The type of an array that is written to, wherever its elements lie."""
    return lambda real: types.Array(real, rank, "A")


def WRITE(rank: int) -> Callable:
    """The type of an array that is written to."""
    return lambda real: types.Array(real, rank, "C")


def WIDE(rank: int) -> Callable:
    """The type of an array of float64, whatever the others are, that sums are added to."""
    return lambda real: types.Array(types.float64, rank, "C")


def TEAM(real: Any) -> Any:
    """The type of the array that threads share; see ``tape/kernels/numba/threads.py``."""
    return types.Array(types.int64, 1, "C")


def TARGETS(real: Any) -> Any:
    """The type of an array (n,) of int64 that is read."""
    return types.Array(types.int64, 1, "C", readonly=True)


class Loop(dict):
    """A function on arrays: dtype -> the same compiled for it. Made by `loop`.

    It is compiled, or loaded from the cache on disk, when a dtype is first asked for. The types are
    given rather than found at each call, since Numba would compile again for each mixture of
    read-only arrays and others. Several Python threads may run it at once: it lets go of the
    interpreter's lock.

    Attributes
    ----------
    checked : whether a call with other types is refused. To ask each argument for its type takes 0.15
        us a call. Not `checked` may be a loop whose kernel has made what is written to, and what is
        read passed through `packed` or `as_rows`, of one dtype: other memory would be misread.
    """

    def __init__(self, function: Callable, parameters: tuple, options: dict[str, Any], checked: bool):
        super().__init__()
        self.function, self.parameters, self.options = function, parameters, options
        self.checked = checked

    def __missing__(self, dtype: np.dtype) -> Callable:
        with _LOCK:
            if dtype not in self:
                real = numba.from_dtype(dtype)
                dispatcher = self._dispatcher()
                if dispatcher.stats.cache_path:
                    self._drop_what_is_older_than_its_source(Path(dispatcher.stats.cache_path))
                with event.install_listener("numba:compile", _SAYS_SO):
                    dispatcher.compile(tuple(parameter(real) for parameter in self.parameters))
                dispatcher.disable_compile()
                self[dtype] = dispatcher if self.checked else _without_checks(dispatcher)
        return self[dtype]

    def _dispatcher(self) -> Any:
        return _cached(lambda cache: numba.njit(cache=cache, **self.options)(self.function))

    def _drop_what_is_older_than_its_source(self, folder: Path) -> None:
        """Numba notices that the file of a loop was changed, but not that of a function it calls."""
        changed = max(file.stat().st_mtime for file in Path(__file__).parent.glob("*.py"))
        with contextlib.suppress(OSError):               # a cache that others own
            for index in folder.glob(f"*.{self.function.__name__}-*.nbi"):
                if index.stat().st_mtime < changed:
                    index.unlink()

    def cached(self) -> tuple[Path | None, bool]:
        """The folder of the cache, if there is one, and whether it holds this loop, for some dtype."""
        path = self._dispatcher().stats.cache_path
        folder = Path(path) if path else None
        return folder, folder is not None and any(folder.glob(f"*.{self.function.__name__}-*.nbc"))


def _without_checks(dispatcher: Any) -> Callable:
    (compiled,) = dispatcher.overloads.values()
    _OWNERS.append(dispatcher)
    return compiled.entry_point


def _cached(compiled: Callable[[bool], Any]) -> Any:
    """What `compiled` makes with a cache; without, where no folder for one can be written to."""
    try:
        return compiled(True)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return compiled(False)


def _options(fastmath: frozenset) -> dict[str, Any]:
    return {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}


def loop(*parameters: Callable, fastmath: frozenset = CONTRACT,
         checked: bool = True) -> Callable[[Callable], Loop]:
    """Decorator: compile a function whose parameters have these types; see `Loop`."""
    def define(function: Callable) -> Loop:
        LOOPS[function.__name__] = Loop(function, parameters, _options(fastmath), checked)
        return LOOPS[function.__name__]
    return define


def inner(fastmath: frozenset = CONTRACT) -> Callable:
    """Decorator of a function that loops call: compiled into them, for the types that they give it.

    Into them, so that a loop from the cache has the bits of one that was compiled just now: left to
    itself, Numba calls a copy of the function that was compiled alone, while that one lives, whose sums
    may be in another order.
    """
    return numba.njit(forceinline=True, **_options(fastmath))


def external(count: int) -> Callable[[Callable], types.ExternalFunction]:
    """Decorator of a function of so many integers, which loops call by its name rather than contain.

    What stands in a loop is compiled once more for each function around it. It must not fail, nor ask
    for memory: whoever calls it would not be told.
    """
    def define(function: Callable) -> types.ExternalFunction:
        signature = types.void(*[types.int64] * count)
        with event.install_listener("numba:compile", _SAYS_SO):
            compiled = _cached(lambda cache: numba.cfunc(
                signature, cache=cache, error_model="numpy")(function))
        return called_by_name(function.__name__, count, compiled.address, compiled)
    return define


def called_by_name(name: str, count: int, address: int, owner: Any) -> types.ExternalFunction:
    """How loops call code at this address, with so many integers; its owner is kept."""
    _OWNERS.append(owner)
    binding.add_symbol(f"tape_{name}", address)
    return types.ExternalFunction(f"tape_{name}", types.void(*[types.int64] * count))


class _SaysSo(event.Listener):
    """One line at the first compilation: it takes long enough for a user to wonder."""

    said = False

    def on_start(self, event: Any) -> None:
        if not self.said:
            self.said = True
            print("tape: compiling kernels, once, which takes some 20 s; they are kept for later runs "
                  "(python -m tape.kernels says where)", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


_SAYS_SO = _SaysSo()
_OWNERS: list[Any] = []             # of code that is called by name, which would be freed with them


# --- what kernels ask of their arrays ---

DTYPES = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


def suits(x: Any) -> bool:
    """Whether x is an array that a loop can take, its layout aside.

    One without axes is not, so that it has the bits of a number.
    """
    return type(x) is np.ndarray and x.dtype in DTYPES and x.size > 0 and x.ndim > 0


def alike(x: Any, y: Any) -> bool:
    """Whether a loop can take x and y together, element by element."""
    return suits(x) and suits(y) and x.dtype == y.dtype and x.shape == y.shape


def whole(x: Any) -> bool:
    """Whether x holds integers or booleans, which are computed with in float64, as np.exp does."""
    return hasattr(x, "dtype") and x.dtype.kind in "iub"


def is_packed(x: np.ndarray) -> bool:
    """Whether the elements of x lie one after the other, at addresses that are aligned."""
    flags = x.flags
    return flags.c_contiguous and flags.aligned


# `is_packed` is written out in these two, which small arrays wait for: a call less each.

def packed(x: np.ndarray) -> np.ndarray:
    """x, or a copy of it that is packed."""
    flags = x.flags
    return x if flags.c_contiguous and flags.aligned else x.copy()


def as_rows(x: np.ndarray) -> np.ndarray:
    """(..., D) as (N, D), packed, for an x that is not empty."""
    flags = x.flags
    if not (flags.c_contiguous and flags.aligned):
        x = x.copy()
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
