"""Which rows of a batch a thread computes, for those layers whose results depend on the whole batch.

`nn.DataParallel` runs a model on parts of a batch. Dropout then takes the rows of a part from what it
would have drawn for all rows, so that which elements are dropped does not depend on the parts.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Iterator

import numpy as np


class Draws:
    """Random numbers for all rows of a batch: drawn by the part that asks first, for all."""

    def __init__(self, parts: int):
        self._parts, self._lock = parts, threading.Lock()
        self._drawn: dict[tuple[int, int], list] = {}

    def __reduce__(self) -> tuple:
        return Draws, (1,)           # another process has its own generators, and draws for all rows

    def take(self, rng: np.random.Generator, number: int, shape: tuple[int, ...]) -> np.ndarray:
        """What the draw of this number from `rng` gives, counted from 0 in each part."""
        key = id(rng), number
        with self._lock:
            drawn = self._drawn.setdefault(key, [None, self._parts])
            if drawn[0] is None:
                drawn[0] = rng.random(shape, np.float32)
            drawn[1] -= 1
            if not drawn[1]:
                del self._drawn[key]
        if drawn[0].shape != shape:
            raise ValueError(f"DataParallel: what is dropped must have the rows of the batch as its "
                             f"first axis; the parts need {drawn[0].shape} and {shape} numbers")
        return drawn[0]


@dataclass
class BatchPart:
    """A part of a batch.

    Attributes
    ----------
    rows : which; `total` is how many the batch has.
    counts : whether a target of the batch counts, of whichever part.
    draws : shared by all parts.
    classified : whether `nn.cross_entropy` was called, by which -1 is a target that does not count.
    """

    rows: slice
    total: int
    counts: bool
    draws: Draws
    classified: bool = False
    _taken: dict[int, int] = field(default_factory=dict)

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Of ``rng.random`` for the whole batch what is for an array of this part, in float32.

        The first axis of the shape is the rows, or something inside of them, (rows * n, ...). Another
        length is that of an array without rows, the same for all parts.
        """
        number = self._taken[id(rng)] = self._taken.get(id(rng), -1) + 1
        count = self.rows.stop - self.rows.start
        if not shape or shape[0] % count:
            return self.draws.take(rng, number, shape)
        n = shape[0] // count
        whole = self.draws.take(rng, number, (self.total * n, *shape[1:]))       # (total * n, ...)
        return whole[self.rows.start * n:self.rows.stop * n]


_current: ContextVar[BatchPart | None] = ContextVar("part of a batch", default=None)


def current_part() -> BatchPart | None:
    """The part that is computed here; None where it is the whole batch."""
    return _current.get()


@contextmanager
def in_part(part: BatchPart) -> Iterator[None]:
    """Compute a part in this block."""
    token: Any = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)
