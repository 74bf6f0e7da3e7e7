"""Every way to change an array behind the engine's back: how to get hold of it, and what to do."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from tape import Tensor

# --- how to get hold of the array of a tensor, before the forward or after it ---

HANDLES: dict[str, Callable[[Tensor], np.ndarray]] = {
    "t.data": lambda t: t.data,
    "np.asarray(t)": np.asarray,
    "t.numpy()": lambda t: t.numpy(),
    "t.data[...]": lambda t: t.data[...],
    "t.data.view()": lambda t: t.data.view(),
    "t.data.reshape(-1)": lambda t: t.data.reshape(-1),
    "t.data.T": lambda t: t.data.T,
    "memoryview(t.data)": lambda t: np.asarray(memoryview(t.data)),
    "np.asarray(t)[None]": lambda t: np.asarray(t)[None],
    "t.data.flat": lambda t: t.data.flat.base,
}

# --- what to do to it; a permutation leaves the sum of the elements as it was ---


def _swap(a: np.ndarray) -> None:
    if a.size > 1:
        first, last = a.flat[0], a.flat[-1]
        a.flat[0], a.flat[-1] = last, first


def _reverse(a: np.ndarray) -> None:
    a.flat[:] = a.flatten()[::-1]


def _sort(a: np.ndarray) -> None:
    if a.ndim:
        a.sort(axis=-1)


def _first(a: np.ndarray) -> None:
    if a.size:
        a.flat[0] = not a.flat[0] if a.dtype == bool else a.flat[0] + 1


def _plus_one(a: np.ndarray) -> None:
    if a.dtype == bool:
        np.logical_not(a, out=a)
    else:
        np.add(a, 1, out=a)


def _negative(a: np.ndarray) -> None:
    if a.dtype == bool:
        np.logical_not(a, out=a)
    else:
        np.multiply(a, -1, out=a)


CHANGES: dict[str, Callable[[np.ndarray], Any]] = {
    "np.add(a, 1, out=a)": _plus_one,
    "a[...] = 0": lambda a: a.__setitem__(..., 0),
    "a.fill(1)": lambda a: a.fill(1),
    "np.copyto(a, 1)": lambda a: np.copyto(a, np.ones((), a.dtype)),
    "one element": _first,
    "swap two elements": _swap,
    "reverse the elements": _reverse,
    "sort": _sort,
    "np.random shuffle": lambda a: np.random.default_rng(0).shuffle(a) if a.ndim else None,
    "a *= -1": _negative,
}


def change_list(values: list) -> None:
    """Reverse it, down to its last lists, and put a zero at its front."""
    for inner in values:
        if isinstance(inner, list):
            change_list(inner)
    values.reverse()
    if values and not isinstance(values[0], list):
        values[0] = False if isinstance(values[0], bool) else type(values[0])(0)


# --- tensors that may share memory with another ---

ALIASES: dict[str, Callable[[Tensor], Tensor]] = {
    "p.squeeze()": lambda p: p.squeeze(),
    "p[...]": lambda p: p[...],
    "p.reshape(p.shape)": lambda p: p.reshape(p.shape),
    "p.transpose().transpose()": lambda p: p.transpose().transpose(),
    "p.broadcast_to(p.shape)": lambda p: p.broadcast_to(p.shape),
    "p.astype(p.dtype)": lambda p: p.astype(p.dtype),
    "p[None][0]": lambda p: p[None][0],
    "p.detach()": lambda p: p.detach(),
    "Tensor(p)": Tensor,
    "Tensor(p.data)": lambda p: Tensor(p.data),
    "+p": lambda p: +p,
}
