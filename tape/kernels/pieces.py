"""Large arrays in pieces that stay in the processor's cache from one NumPy call to the next."""

from __future__ import annotations

from typing import Iterator, Sequence

import numpy as np

PIECE = 2 ** 16         # elements: 256 KB of float32, so that four arrays leave half of 2 MB for others


def pieces(*arrays: np.ndarray) -> Iterator[Sequence[np.ndarray]]:
    """Views of PIECE elements of each array, for elementwise operations on arrays of one shape.

    What has no more than four pieces, or does not lie in memory in the order of its elements, is left
    whole: each call is one more for which threads side by side wait for Python's lock. A result written
    to a piece (``out=``) is written to the array.
    """
    first = arrays[0]
    if first.size <= 4 * PIECE or not all(
            x.flags.c_contiguous and x.shape == first.shape for x in arrays):
        yield arrays
        return
    flat = [x.reshape(-1) for x in arrays]
    for start in range(0, first.size, PIECE):
        yield [x[start:start + PIECE] for x in flat]
