"""The gradient of a look-up: rows added to the rows of a table that they were taken from."""

from __future__ import annotations

import math

import numpy as np

from tape.kernels.choice import find
from tape.kernels.sums import sum_dtype

_FEW = 2 ** 11      # elements; there to look for those that stand alone takes longer than it saves
_MANY = 16          # elements for each that is picked; with more it takes longer to go over all of them


def scatter_rows(g, ids, rows):
    """(rows, D) whose row r is the sum of the g[n] with ids[n] == r: the transpose of a look-up."""
    out = np.zeros((rows, g.shape[-1]), sum_dtype(g.dtype))
    find("add_rows")(out, g, ids)
    return out


def add_elements(out, g, places):
    """out.reshape(-1)[places[n]] += g[n] for all n, of an out that lies in memory in one piece.

    The terms of an element are added up in float64, and added as one number: by one pass over all
    elements, 3 ns each, unless out has many more than there are terms. To sort these takes 40 ns each.
    """
    if out.size > _MANY * places.size:
        find("add_rows")(out.reshape(-1, 1), np.reshape(g, (places.size, 1)), places)
        return
    total = np.bincount(places.reshape(-1), np.reshape(g, -1), out.size)
    out += total.astype(out.dtype).reshape(out.shape)


def add_rows(out, g, ids):
    """out[ids[n]] += g[n] for all n: out (V, ...), ids (...), g of the shape (*ids.shape, ...).

    Sorting the ids and summing runs of equal ones takes less than half of ``np.add.at``'s time on a
    small vocabulary (``tests/bench/bench_scatter.py``). On a large one most ids stand alone, and their
    rows are added as they are.
    """
    ids = ids.reshape(-1)
    if len(ids):
        width = math.prod(out.shape[1:])
        rows, out = g.reshape(len(ids), width), out.reshape(len(out), width)
        order = ids.argsort(kind="stable")
        ids = ids[order]
        first = np.ones(len(ids), bool)                                 # of a run
        np.not_equal(ids[1:], ids[:-1], out=first[1:])
        # In short runs most take long only to begin; of small ones that is less than to part them.
        if rows.size > _FEW and 2 * np.count_nonzero(first) > len(ids):
            alone = first & np.concatenate((first[1:], [True]))
            out[ids[alone]] += rows[order[alone]]
            order, ids, first = order[~alone], ids[~alone], first[~alone]
        if len(ids):
            (starts,) = first.nonzero()
            out[ids[starts]] += np.add.reduceat(rows[order], starts, axis=0, dtype=out.dtype)
