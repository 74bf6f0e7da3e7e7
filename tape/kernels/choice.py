"""Which set of kernels is in use: NumPy's, or the one compiled with Numba."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import weakref
from types import ModuleType
from typing import Any, Callable

# The modules of a set, in the order in which a kernel is looked up in them.
SETS = {"numpy": ("tape.kernels",), "numba": ("tape.kernels.numba", "tape.kernels")}
# What `find` has: NumPy's set has all of these, Numba's some.
KERNELS = (
    "adam_update", "add", "add_rows", "attention", "attention_backward", "causal_attention",
    "causal_attention_backward", "cross_entropy", "cross_entropy_backward", "gelu", "gelu_backward",
    "gelu_exact", "gelu_exact_backward",
    "gru", "gru_backward", "gru_step", "gru_step_backward", "layer_norm", "layer_norm_backward",
    "log_softmax", "log_softmax_backward", "lstm", "lstm_backward", "lstm_step",
    "lstm_step_backward", "product", "relu", "relu_backward", "rms_norm", "rms_norm_backward",
    "rnn", "rnn_backward", "sigmoid", "sigmoid_backward", "softmax", "softmax_backward", "swiglu",
    "swiglu_backward")
LOCK = threading.RLock()

# Operators that are to be set up with other kernels at each change; see `tape.fusion.Fused`.
followers: weakref.WeakSet[Any] = weakref.WeakSet()
_found: dict[str, Callable] = {}
_INSTALLED = "Numba is installed"
_in_use, _reason = "numpy", "Numba is not installed"
_threads: int | None = None


class Before(str):
    """The name of the set that was in use, which comes back at the end of a ``with`` block."""

    reason: str
    threads: int | None

    def __enter__(self) -> Before:
        return self

    def __exit__(self, *exception: object) -> None:
        _change(str(self), self.reason, self.threads)


def use_kernels(name: str | None = None, threads: int | None = None) -> Before:
    """Compute with the set of kernels of this name from now on, in all threads.

    The kernels are those of the fused operators (`layer_norm`, `gelu`, `gelu_exact`, `cross_entropy`,
    attention, `rms_norm`, `swiglu`, `rnn`, `lstm`, `gru`), of `softmax`, `log_softmax`, `relu`,
    `sigmoid`, products, sums, the gradient of a look-up and `adam_update`. Both sets compute the same,
    up to rounding. What fused operators recorded before goes back by the kernels that it was made with.
    Not to be called while another thread computes.

    Parameters
    ----------
    name : "numpy" or "numba"
        By default the set stays what it is. "numba" is used from the start where Numba is installed,
        else "numpy"; ``TAPE_KERNELS=numpy`` (or ``numba``) in the environment decides otherwise.
    threads : int, optional
        With how many threads a large kernel of "numba" computes, a product of matrices too. By default
        as many as the products may use; see `limit_blas_threads`. Some sums are added up in another
        order with another number.

    Returns
    -------
    str
        The name of the set that was in use. ``with tape.use_kernels("numpy"):`` goes back to it at
        the end.

    Raises
    ------
    ValueError, ImportError
        There is no such set, it has no threads, or Numba is not installed.

    Examples
    --------
    >>> import tape
    >>> with tape.use_kernels("numpy"):
    ...     tape.gelu(1.0)
    np.float64(0.8411919906082768)
    """
    if name is None:
        name, reason = in_use()
    else:
        _check(name, "use_kernels: the name")
        reason = "use_kernels"
    if threads is not None and (name != "numba" or isinstance(threads, bool)
                                or not (isinstance(threads, int) and threads >= 1)):
        raise ValueError(f"use_kernels: threads must be a positive integer, and for 'numba', got "
                         f"{threads!r} for {name!r}; NumPy's kernels are limited by "
                         f"tape.limit_blas_threads")
    return _change(name, reason, threads)


def _change(name: str, reason: str, threads: int | None) -> Before:
    global _in_use, _reason, _threads
    with LOCK:
        before = Before(_in_use)
        before.reason, before.threads = _reason, _threads
        _in_use, _reason, _threads = name, reason, threads
        _forget()
    return before


def kernels_in_use() -> str:
    """The name of the set in use; see `use_kernels`."""
    return _in_use


def kernel_threads() -> int:
    """With how many threads a large kernel of the set in use computes; 1 for those of NumPy.

    Its products of matrices are the BLAS's, and have threads of their own.
    """
    if _in_use != "numba" or _module("tape.kernels.numba") is None:
        return 1
    return importlib.import_module("tape.kernels.numba.threads").threads()


def threads_wanted() -> int | None:
    """What `use_kernels` was told last."""
    return _threads


def in_use() -> tuple[str, str]:
    """The name of the set in use, and why it is."""
    return _in_use, _reason


def find(name: str) -> Callable:
    """The kernel of this name, one of `KERNELS`, in the set in use."""
    kernel = _found.get(name)
    if kernel is None:
        with LOCK:
            module = next(m for m in map(_module, SETS[_in_use]) if m and name in m.__all__)
            kernel = _found[name] = getattr(module, name)
    return kernel


def _forget() -> None:
    _found.clear()
    for operator in followers:
        operator.forget_kernels()


def _module(name: str) -> ModuleType | None:
    """The module; None, with a line that says so, where Numba was not asked for and fails."""
    global _in_use, _reason
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if _reason != _INSTALLED:
            raise
        print(f"tape: Numba is installed, but importing it fails ({error}); the kernels in use are "
              f"NumPy's. TAPE_KERNELS=numpy in the environment leaves out this line.", file=sys.stderr)
        _in_use, _reason = "numpy", "importing Numba fails"
        return None


def _check(name: Any, what: str) -> None:
    if name not in SETS:
        raise ValueError(f"{what} must be one of {list(SETS)}, got {name!r}")
    if name == "numba" and importlib.util.find_spec("numba") is None:
        raise ImportError(f"{what} is 'numba', and Numba is not installed: pip install numba, or, in a "
                          f'clone of tape, pip install -e ".[fast]"')


def choose() -> None:
    """Use the set that the environment names, else Numba's where it is installed.

    Called at the end of ``import tape``. Operators are defined before, with NumPy's kernels, so that
    this need not import Numba.
    """
    global _in_use, _reason
    name = os.environ.get("TAPE_KERNELS", "")
    if name:
        _check(name, "TAPE_KERNELS in the environment")
        _in_use, _reason = name, "TAPE_KERNELS in the environment"
    elif importlib.util.find_spec("numba") is not None:
        _in_use, _reason = "numba", _INSTALLED
    _forget()
