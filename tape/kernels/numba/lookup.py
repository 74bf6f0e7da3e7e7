"""The gradient of a look-up: to each row of the table the sum of its terms is added, as one number.

Terms are summed in steps of `STEP`, and these sums in float64, so that the error does not grow with
their number. All by one thread: two would write to the same cache lines of a small table, and of a
large one what they save is little beside making it.
"""

from __future__ import annotations

import math

import numpy as np

from tape.kernels import lookup as plain
from tape.kernels.numba.compiled import READ, TARGETS, WRITE, inner, loop, packed, suits

STEP = 16


def add_rows(out, g, ids):
    """out[ids[n]] += g[n] for all n: out (V, ...), ids (...), g of the shape (*ids.shape, ...)."""
    if not (suits(out) and suits(g) and g.dtype == out.dtype and out.flags.carray
            and ids.dtype.kind == "i" and len(out) <= g.size):
        return plain.add_rows(out, g, ids)          # also where there is more to count than to add
    ids = ids.astype(np.int64, order="C").reshape(-1)      # a copy: nobody changes it once checked
    width = math.prod(out.shape[1:])
    terms = packed(g).reshape(len(ids), width)
    if not _add_rows[out.dtype](out.reshape(len(out), width), terms, ids):
        plain.add_rows(out, g, ids)         # an id counts from the end, or there is no such row


@loop(WRITE(2), READ(2), TARGETS)
def _add_rows(out, g, ids):
    """Whether all ids are those of rows; nothing is added if not."""
    for row in ids:
        if not 0 <= row < len(out):
            return False
    starts, order = _sorted(ids, len(out))
    part, total = np.empty(out.shape[1], out.dtype), np.empty(out.shape[1], np.float64)
    for i in range(len(out)):
        places = order[starts[i]:starts[i + 1]]
        if len(places) == 1:
            _add(out[i], g[places[0]])
        elif len(places) > 1:
            _sum(part, total, g, places)
            _add(out[i], part)
    return True


@inner()
def _sorted(ids, rows):
    """Where the places of each row start in what comes second: the places in ids, row after row."""
    starts, order = np.zeros(rows + 1, np.int64), np.empty(len(ids), np.int64)
    for row in ids:
        starts[row] += 1
    starts = starts.cumsum()                    # here they end, and going back they start
    for n in range(len(ids) - 1, -1, -1):
        starts[ids[n]] -= 1
        order[starts[ids[n]]] = n
    return starts, order


@inner()
def _sum(part, total, g, places):
    """part = the sum of these rows of g, by way of a total in float64."""
    total[:] = 0
    for first in range(0, len(places), STEP):
        part[:] = 0
        for n in places[first:first + STEP]:
            _add(part, g[n])
        _add(total, part)
    part[:] = total


@inner()
def _add(row, terms):
    """row += terms."""
    for j in range(row.size):
        row[j] += terms[j]
