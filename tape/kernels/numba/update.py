"""Updates of arrays in place, each in one pass; the mathematics is in ``tape/kernels/update.py``."""

from __future__ import annotations

import math

import numpy as np

from tape.kernels import update as plain
from tape.kernels.numba.compiled import DTYPES, INTEGER, READ, REAL, TEAM, WRITE, is_packed, loop
from tape.kernels.numba.threads import in_parts, own, team_for


def adam_update(arrays, gradients, m, v, t, lr, betas, eps, weight_decay=0.0, decoupled=False):
    """Update number t of some arrays, given their gradients and running means; array by array."""
    beta1, beta2 = betas
    root = math.sqrt(1 - beta2 ** t)
    # Of the decay one factor is 0: what is taken from p besides, or what is added to g.
    scalars = (beta1, beta2, eps * root, lr * root / (1 - beta1 ** t),
               lr * weight_decay if decoupled else 0.0, 0.0 if decoupled else weight_decay)
    end = 0
    for p, g in zip(arrays, gradients):
        start, end = end, end + p.size
        if not (p.dtype == g.dtype == m.dtype == v.dtype in DTYPES and is_packed(g)
                and p.flags.carray and m.flags.carray and v.flags.carray):
            plain.adam_update([p], [g], m[start:end], v[start:end], t, lr, betas, eps, weight_decay,
                              decoupled)
        elif p.size:
            _adam_update[p.dtype](p.reshape(-1), g.reshape(-1), m[start:end], v[start:end], *scalars,
                                  *team_for(p.size))


@loop(WRITE(1), READ(1), WRITE(1), WRITE(1), REAL, REAL, REAL, REAL, REAL, REAL, TEAM, INTEGER)
def _adam_update(p, g, m, v, beta1, beta2, eps, rate, decay, coupled, team, parts):
    _adam_update_part(team, parts, (p, g, m, v, beta1, beta2, eps, rate, decay, coupled))


@in_parts()
def _adam_update_part(p, g, m, v, beta1, beta2, eps, rate, decay, coupled, number, parts):
    p, g = own(p, number, parts), own(g, number, parts)
    m, v = own(m, number, parts), own(v, number, parts)
    real = p.dtype.type
    take1, keep2, take2 = real(1 - beta1), real(beta2), real(1 - beta2)
    eps, rate, decay, coupled = real(eps), real(rate), real(decay), real(coupled)
    for i in range(p.size):
        gradient = g[i]
        if coupled != 0:                # 0 times a parameter that is infinite is none
            gradient += coupled * p[i]
        mean = m[i] + take1 * (gradient - m[i])
        square = keep2 * v[i] + take2 * (gradient * gradient)
        m[i], v[i] = mean, square
        step = rate * (mean / (np.sqrt(square) + eps))
        if decay != 0:
            step += decay * p[i]
        p[i] -= step
