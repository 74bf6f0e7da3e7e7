"""A part of a model that runs once more in the backward pass, rather than to be kept on the tape."""

from __future__ import annotations

import itertools
from contextvars import ContextVar
from typing import Any, Callable

import numpy as np

import tape


class Masks:
    """The masks that a function draws: kept in bits when it runs first, and given again later.

    Parameters
    ----------
    outer : Masks, optional
        Of a function around this one, which may run again as well.
    """

    def __init__(self, outer: Masks | None):
        self.outer = outer
        self._kept: list[tuple[np.ndarray, tuple[int, ...]]] = []
        self._next: Any = None

    def begin(self, again: bool) -> None:
        """The function runs, for the first time or again."""
        self._next = iter(self._kept) if again else None

    def take(self, draw: Callable[[], np.ndarray]) -> np.ndarray:
        """The mask that `draw` returns, or in its place the one that it returned before."""
        if self._next is None:
            mask = draw() if self.outer is None else self.outer.take(draw)
            self._kept.append((np.packbits(mask), mask.shape))
            return mask
        bits, shape = next(self._next)
        return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


_masks: ContextVar[Masks | None] = ContextVar("masks of what runs again", default=None)


def recomputed(function: Callable, *args: Any) -> Any:
    """`tape.checkpoint` for a function with dropout, which drops the same elements each time it runs.

    The masks are kept, a bit for each element, and not the states of generators: threads that compute
    parts of a batch share a generator, and each draws its rows from what is drawn for all.
    """
    masks, runs = Masks(_masks.get()), itertools.count()

    def run(*given: Any) -> Any:
        masks.begin(again=next(runs) > 0)
        token = _masks.set(masks)
        try:
            return function(*given)
        finally:
            _masks.reset(token)

    return tape.checkpoint(run, *args)


def drawn_once(draw: Callable[[], np.ndarray]) -> np.ndarray:
    """The boolean array that `draw` returns; where `recomputed` runs again, that of the first run."""
    masks = _masks.get()
    return draw() if masks is None else masks.take(draw)
