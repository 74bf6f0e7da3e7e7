"""Cross entropy with integer targets; derived in `tape.cross_entropy`."""

from __future__ import annotations

import numpy as np

from tape.kernels.numpy import _floating, _sums_along, largest
from tape.kernels.products import as_rows
from tape.kernels.sums import gradient_in_float32, in_float32


@in_float32
def cross_entropy(logits, targets, ignore_index, reduction):
    """Mean (or sum) of log sum exp(row - max) - (row[target] - max) over the rows that count."""
    logits, targets = _floating(logits), np.asarray(targets)
    check_targets(logits, targets, ignore_index, reduction)
    rows, picks, counts = _rows(logits, targets, ignore_index)
    peak = largest(rows, -1)                                    # (N, 1)
    e = rows - peak
    np.exp(e, out=e)
    log_sum = _sums_along(e, -1)
    np.log(log_sum, out=log_sum)
    losses = log_sum[:, 0] - (rows[np.arange(len(rows)), picks] - peak[:, 0])
    # Not losses * counts: a row that does not count may well have an infinite loss.
    total = np.add.reduce(np.where(counts, losses, 0), dtype=rows.dtype)
    return total / _denominator(counts, reduction), {"peak": peak, "log_sum": log_sum}


def check_targets(logits, targets, ignore_index, reduction):
    """Raise a ValueError unless the targets are integers of the right shape and range."""
    classes = logits.shape[-1]
    if targets.dtype.kind not in "iu" or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy: targets must be integers in [0, {classes}), shape {logits.shape[:-1]}; "
            f"got {targets.dtype} {targets.shape}. Did you swap logits and targets?")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"cross_entropy: reduction must be 'mean' or 'sum', got {reduction!r}")
    if targets.size and np.minimum.reduce(targets, axis=None) >= 0 and (
            np.maximum.reduce(targets, axis=None) < classes):
        return
    wrong = ((targets < 0) | (targets >= classes)) & (targets != ignore_index)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"cross_entropy: targets must be in [0, {classes}) or {ignore_index} "
                         f"(ignored); got {targets[place]} at {place}")


@gradient_in_float32
def cross_entropy_backward(g, logits, targets, ignore_index, reduction, peak, log_sum):
    """(softmax(row) - one_hot(target)) * g / count; derived in `tape.cross_entropy`."""
    rows, picks, counts = _rows(logits, targets, ignore_index)
    g_rows = rows - peak
    g_rows -= log_sum
    np.exp(g_rows, out=g_rows)
    g_rows[np.arange(len(rows)), picks] -= 1
    g_rows *= g / _denominator(counts, reduction)
    g_rows[np.equal(counts, 0)] = 0
    return g_rows.reshape(logits.shape), None


def _rows(logits, targets, ignore_index):
    """Logits as (N, V), targets as (N,), and 1 or 0 for the rows that count."""
    rows = as_rows(logits)
    picks = np.reshape(targets, -1)
    counts = np.not_equal(picks, ignore_index)
    return rows, np.where(counts, picks, 0), counts.astype(rows.dtype)


def _denominator(counts, reduction):
    return max(float(counts.sum()), 1.0) if reduction == "mean" else 1.0


def one_hot(targets, classes, dtype, ignore_index=None):
    """(..., classes) with a 1 at each target; a row of zeros where the target is ignored."""
    return (targets[..., None] == np.arange(classes)).astype(dtype) * (
        1 if ignore_index is None else (targets != ignore_index)[..., None].astype(dtype))
