"""softmax and log_softmax along the last axis, each row while it is in the processor's cache.

Sums are taken as in ``rows.py``: in steps of `STEP` elements, whose sums are added in float64. Along
other axes NumPy's kernels serve.
"""

from __future__ import annotations

import math

import numpy as np

from tape.kernels import numpy as plain
from tape.kernels.numba.bits import largest
from tape.kernels.numba.compiled import (
    INTEGER, READ, SUMS, TEAM, WRITE, alike, as_rows, loop, suits, whole)
from tape.kernels.numba.exponential import exp
from tape.kernels.numba.rows import STEP, sum_of_exp
from tape.kernels.numba.threads import in_parts, own, team_for


def _along_rows(x, axis):
    """Whether the loops serve: for floats, along the last axis."""
    return suits(x) and type(axis) is int and axis in (-1, x.ndim - 1)


def _call(loops, *arrays):
    """The result of a loop over the rows of these arrays, all of one shape."""
    like = arrays[0]
    out = np.empty(like.shape, like.dtype)
    rows = out if out.ndim == 2 else out.reshape(-1, out.shape[-1])
    loops[like.dtype](*map(as_rows, arrays), rows, *team_for(like.size))
    return out


def softmax(x, axis=-1):
    """exp(x - max) / sum exp(x - max); a row of -inf gives zeros."""
    if _along_rows(x, axis):
        return _call(_softmax, x)
    return softmax(x.astype(np.float64), axis) if whole(x) else plain.softmax(x, axis)


def softmax_backward(g, s, axis=-1):
    """s * (g - sum(g * s))."""
    if alike(g, s) and _along_rows(s, axis):
        return _call(_softmax_backward, g, s)
    return plain.softmax_backward(g, s, axis)


def log_softmax(x, axis=-1):
    """x - log sum exp(x); a row of -inf stays as it is."""
    if _along_rows(x, axis):
        return _call(_log_softmax, x)
    return log_softmax(x.astype(np.float64), axis) if whole(x) else plain.log_softmax(x, axis)


def log_softmax_backward(g, y, axis=-1):
    """g - exp(y) sum(g)."""
    if alike(g, y) and _along_rows(y, axis):
        return _call(_log_softmax_backward, g, y)
    return plain.log_softmax_backward(g, y, axis)


@loop(READ(2), WRITE(2), TEAM, INTEGER, checked=False)
def _softmax(x, out, team, parts):
    _softmax_part(team, parts, (x, out))


@in_parts(fastmath=SUMS)
def _softmax_part(x, out, number, parts):
    x, out = own(x, number, parts), own(out, number, parts)
    real = x.dtype.type
    rows, width = x.shape
    for i in range(rows):
        peak = largest(x[i])
        if peak == real(-np.inf):
            peak = real(0)
        total = 0.0
        for start in range(0, width, STEP):
            part, row, e = real(0), x[i, start:start + STEP], out[i, start:start + STEP]
            for j in range(row.size):
                e[j] = exp(row[j] - peak)
            # Not in the loop above: whether that runs as vector instructions depends on how far apart
            # the two arrays lie, and so would the order of the sum.
            for j in range(row.size):
                part += e[j]
            total += part
        scale = real(1 if total == 0 else total)
        for j in range(width):
            out[i, j] /= scale


@loop(READ(2), READ(2), WRITE(2), TEAM, INTEGER, checked=False)
def _softmax_backward(g, s, out, team, parts):
    _softmax_backward_part(team, parts, (g, s, out))


@in_parts(fastmath=SUMS)
def _softmax_backward_part(g, s, out, number, parts):
    g, s, out = own(g, number, parts), own(s, number, parts), own(out, number, parts)
    real = s.dtype.type
    rows, width = s.shape
    for i in range(rows):
        total = 0.0
        for start in range(0, width, STEP):
            part, g_part, s_part = real(0), g[i, start:start + STEP], s[i, start:start + STEP]
            for j in range(g_part.size):
                part += g_part[j] * s_part[j]
            total += part
        mean = real(total)                       # of g, weighted by s
        for j in range(width):
            out[i, j] = s[i, j] * (g[i, j] - mean)


@loop(READ(2), WRITE(2), TEAM, INTEGER, checked=False)
def _log_softmax(x, out, team, parts):
    _log_softmax_part(team, parts, (x, out))


@in_parts()
def _log_softmax_part(x, out, number, parts):
    x, out = own(x, number, parts), own(out, number, parts)
    real = x.dtype.type
    for i in range(len(x)):
        peak = largest(x[i])
        if math.isinf(peak):
            peak = real(0)
        total = sum_of_exp(x[i], peak)
        log_sum = real(0 if total == 0 else math.log(total))
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] - peak - log_sum             # in this order; see NumPy's kernel


@loop(READ(2), READ(2), WRITE(2), TEAM, INTEGER, checked=False)
def _log_softmax_backward(g, y, out, team, parts):
    _log_softmax_backward_part(team, parts, (g, y, out))


@in_parts(fastmath=SUMS)
def _log_softmax_backward_part(g, y, out, number, parts):
    g, y, out = own(g, number, parts), own(y, number, parts), own(out, number, parts)
    real = y.dtype.type
    rows, width = y.shape
    for i in range(rows):
        total = 0.0
        for start in range(0, width, STEP):
            part, row = real(0), g[i, start:start + STEP]
            for j in range(row.size):
                part += row[j]
            total += part
        sum_g = real(total)
        for j in range(width):
            out[i, j] = g[i, j] - exp(y[i, j]) * sum_g
