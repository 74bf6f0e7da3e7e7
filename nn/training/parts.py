"""A batch in parts: how much each counts in the mean loss of the whole."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np


def counted_targets(targets: Any) -> int:
    """Over how many targets a mean loss is: of integers all but -1, which is ignored, else all."""
    targets = np.asarray(targets)
    return int(np.count_nonzero(targets != -1)) if targets.dtype.kind in "iu" else targets.size


def shares(targets: Any, parts: Sequence[slice]) -> list[float]:
    """The share of each part of the rows in the targets that count; zeros where none counts.

    A model's loss is the mean over the n_i targets of part i that count, and the rows differ in how
    many do. So the loss of the batch is sum_i n_i / n loss_i with n = sum_i n_i, and not the mean of
    the loss_i.
    """
    counts = [counted_targets(targets[rows]) for rows in parts]
    return [count / max(sum(counts), 1) for count in counts]


def even_parts(rows: int, parts: int) -> list[slice]:
    """Slices of so many rows into at most so many parts, whose lengths differ by one at most."""
    parts = max(1, min(parts, rows))
    cuts = [rows * i // parts for i in range(parts + 1)]
    return [slice(start, stop) for start, stop in zip(cuts, cuts[1:])]
