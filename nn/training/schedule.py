"""The learning rate as a pure function of the step, so that it has no state to save."""

from __future__ import annotations

import math


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
    Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5. The first step has peak/warmup, not 0.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2
