"""The gradient of a look-up.

Where no row was taken more than `STEP` times, terms are added as they come. Else those of each row
are summed in steps of so many, and these sums in float64, so that the error does not grow with their
number. All by one thread: two would write to the same cache lines of a small table, and of a large one
what they save is little beside making it.
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
            and ids.dtype.kind == "i" and (len(out) <= g.size or ids.size <= STEP)):
        return plain.add_rows(out, g, ids)              # also where there is more to count than to add
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
    if len(ids) <= STEP or _counts(ids, len(out)).max() <= STEP:
        for n in range(len(ids)):
            _add(out[ids[n]], g[n])
    else:
        _add_sums(out, g, ids)
    return True


@inner()
def _counts(ids, rows):
    """How often each row stands in ids."""
    counts = np.zeros(rows, np.int64)
    for row in ids:
        counts[row] += 1
    return counts


@inner()
def _add_sums(out, g, ids):
    """To each row the sum of its terms: rows of g, sorted by the row that they are added to."""
    starts, order = _counts(ids, len(out)).cumsum(), np.empty(len(ids), np.int64)
    for n in range(len(ids) - 1, -1, -1):
        starts[ids[n]] -= 1
        order[starts[ids[n]]] = n
    part, total = np.empty(out.shape[1], out.dtype), np.empty(out.shape[1], np.float64)
    for i in range(len(out)):
        stop = starts[i + 1] if i + 1 < len(out) else len(ids)
        if stop - starts[i] <= STEP:
            for n in order[starts[i]:stop]:
                _add(out[i], g[n])
            continue
        total[:] = 0
        for first in range(starts[i], stop, STEP):
            part[:] = 0
            for n in order[first:min(first + STEP, stop)]:
                _add(part, g[n])
            _add(total, part)
        _add(out[i], total)


@inner()
def _add(row, terms):
    """row += terms."""
    for j in range(row.size):
        row[j] += terms[j]
