"""Losses: one number from predictions and targets, whose shapes must match.

Shapes that differ would broadcast, so that (N,) beside (N, 1) made N x N differences without a word.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

import tape
from nn.layers.batch_part import current_part
from nn.layers.foreign_names import in_our_words
from tape import Tensor


@in_our_words
def cross_entropy(logits: Any, targets: Any, ignore_index: int = -1, label_smoothing: float = 0.0,
                  *, reduction: str = "mean") -> Tensor:
    """How surprised a classifier was by the targets, in nats; see `tape.cross_entropy`.

        L = sum_k q_k (-log p_k),   p = softmax(logits),   q = (1 - s) one_hot(target) + s / V

    with s the label smoothing. For s = 0 that is -log p of the target; s > 0 keeps the logits from
    growing without bound, since it is smallest at a p that leaves s / V for every class. Szegedy et al.
    2016, arXiv:1512.00567, section 7.

    Parameters
    ----------
    logits : Tensor (..., V)
    targets : integer array (...)
        In [0, V), or `ignore_index` for positions that do not count.
    ignore_index : int
    label_smoothing : float
        In [0, 1]. With it a logit of -inf makes the loss infinite, and a graph that `tape.lazy` freezes
        keeps which targets were ignored.
    reduction : "mean" or "sum"
        Over the targets that count. Where all are ignored the loss is 0, and a warning says so.

    Raises
    ------
    ValueError
        The targets are no integers of the right shape and range, or the logits have no axis.
    """
    logits = _tensor(logits)
    if not (isinstance(label_smoothing, (int, float)) and 0 <= label_smoothing <= 1):
        raise ValueError(f"cross_entropy: label_smoothing must be a number in [0, 1], got "
                         f"{label_smoothing!r}")
    if getattr(logits, "ndim", 1) == 0:
        raise ValueError("cross_entropy: logits must have shape (..., V), with a last axis of classes, "
                         "got (). Two classes need two logits; of one, take "
                         "binary_cross_entropy_with_logits.")
    hard = tape.cross_entropy(logits, targets, ignore_index, reduction)
    _warn_if_none_counts(targets, ignore_index)
    if (part := current_part()) is not None:
        part.classified = True
        _warn_if_weighted_otherwise(targets, ignore_index, reduction)
    if not label_smoothing:
        return hard
    counted = logits[np.asarray(targets) != ignore_index]        # (N, V)
    rows = -tape.log_softmax(counted).mean(-1)                   # (N,), which float16 can hold
    even = rows.mean() if reduction == "mean" and len(counted) else rows.sum()
    return (1 - label_smoothing) * hard + label_smoothing * even


@in_our_words
def mse(predictions: Any, targets: Any) -> Tensor:
    """The mean of (prediction - target)^2 over all elements.

    Parameters
    ----------
    predictions : Tensor (...)
    targets : array (...)
        Of the same shape; taken in the dtype of the predictions.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    predictions = _tensor(predictions)
    difference = predictions - _matching("mse", "predictions", predictions, targets)
    return (difference * difference).mean()


@in_our_words
def binary_cross_entropy_with_logits(logits: Any, targets: Any) -> Tensor:
    """The mean of -y log p - (1 - y) log(1 - p), where p = sigmoid(logit) and y is the target.

    Parameters
    ----------
    logits : Tensor (...)
    targets : array (...)
        Probabilities of the class, in [0, 1], of the same shape; taken in the dtype of the logits.

    Raises
    ------
    ValueError
        The shapes differ, or a target is not in [0, 1].

    Notes
    -----
    -log sigmoid(x) = log(1 + e^-x) = softplus(-x) and -log(1 - sigmoid(x)) = softplus(x). With
    softplus(x) = log(e^0 + e^x), by logaddexp, nothing overflows, and no digits are lost where x is
    large and right: p itself would be rounded to 1. Its derivative is the sigmoid, so
    dL/dx = sigmoid(x) - y.
    """
    caller = "binary_cross_entropy_with_logits"
    logits = _tensor(logits)
    y = _matching(caller, "logits", logits, targets)
    values = y.numpy() if isinstance(y, Tensor) else y
    if not np.all((0 <= values) & (values <= 1)):
        raise ValueError(f"{caller}: targets must be in [0, 1], got {values.min()} to {values.max()}")
    return (y * tape.logaddexp(-logits, 0) + (1 - y) * tape.logaddexp(logits, 0)).mean()


def _tensor(x: Any) -> Any:
    """A number or a list as a Tensor; anything else as it is."""
    return Tensor(x) if isinstance(x, (int, float, list, tuple)) else x


def _warn_if_none_counts(targets: Any, ignore_index: int) -> None:
    """Warn where all targets are ignored, at the line outside of this package that led here.

    In a part of a batch they may be, as long as one counts in another part.
    """
    part = current_part()
    if part is not None and part.counts:
        return
    values = targets.numpy() if isinstance(targets, Tensor) else targets
    if not isinstance(values, (int, list, tuple, np.ndarray)) or not np.size(values):
        return
    first_counts = isinstance(values, np.ndarray) and values.item(0) != ignore_index
    if first_counts or np.any(np.not_equal(values, ignore_index)):
        return
    _warn(f"cross_entropy: all {np.size(values):,} targets are {ignore_index}, which is ignored, so "
          f"the loss is 0 and nothing is learned from them. Is the batch padding alone?")


def _warn_if_weighted_otherwise(targets: Any, ignore_index: int, reduction: str) -> None:
    """Warn where the parts of a batch do not count in its loss as they should.

    They are weighted by their targets other than -1, so that a mean over these is that of the batch.
    """
    if ignore_index == -1 and reduction == "mean":
        return
    values = np.asarray(targets.numpy() if isinstance(targets, Tensor) else targets)
    if reduction == "sum" or np.any((values == ignore_index) != (values == -1)):
        _warn(f"cross_entropy: DataParallel takes the loss of each part of a batch for a mean over its "
              f"targets other than -1, and this is one with ignore_index={ignore_index} and "
              f"reduction={reduction!r}, so that the loss of the batch may be wrong. Let -1 stand for "
              f"what does not count, and take the mean; or call parallel.model(...)")


def _warn(text: str) -> None:
    """Warn at the line outside of this package that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "nn":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def _matching(caller: str, name: str, predictions: Any, targets: Any) -> Any:
    """The targets, of the shape of the predictions; in their dtype, if that is of floats."""
    if np.shape(targets) != predictions.shape:
        raise ValueError(f"{caller}: targets must have the shape of the {name}, {predictions.shape}, "
                         f"got {np.shape(targets)}. Reshape one of them; they are not broadcast.")
    targets = targets if isinstance(targets, Tensor) else np.asarray(targets)
    dtype = predictions.dtype if predictions.dtype.kind == "f" else np.result_type(targets, np.float32)
    return tape.astype(targets, dtype)
