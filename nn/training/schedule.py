"""The learning rate as a pure function of the step, so that it has no state to save.

Each rises linearly to `peak` over `warmup` steps first. Steps are counted from 0, and the first has the
rate peak/warmup, not 0.
"""

from __future__ import annotations

import math


def warmup_constant(step: int, *, peak: float, warmup: int = 0) -> float:
    """Rise linearly to `peak` over `warmup` steps, then stay there."""
    return peak * (step + 1) / warmup if step < warmup else peak


def warmup_linear(step: int, *, peak: float, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Rise linearly to `peak` over `warmup` steps, then fall linearly to `floor` at step `total`.

    Parameters
    ----------
    step : int
        From 0. After `total` the rate is `floor`.
    peak, floor : float
    total, warmup : int
        In steps.
    """
    if step < warmup:
        return warmup_constant(step, peak=peak, warmup=warmup)
    return floor + (peak - floor) * (1 - _progress(step, warmup, total))


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """Rise linearly to `peak` over `warmup` steps, then fall along half a cosine to `floor`.

    Parameters
    ----------
    step : int
        From 0. After `total` the rate is `floor`.
    peak, floor : float
    warmup, total : int
        In steps.

    Notes
    -----
    Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5.
    """
    if step < warmup:
        return warmup_constant(step, peak=peak, warmup=warmup)
    return floor + (peak - floor) * (1 + math.cos(math.pi * _progress(step, warmup, total))) / 2


def _progress(step: int, warmup: int, total: int) -> float:
    """How much of the way from `warmup` to `total` is done, from 0 to 1."""
    return 1.0 if step >= total > 0 else min((step - warmup) / max(total - warmup, 1), 1.0)
