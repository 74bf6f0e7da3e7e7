"""Kernels that go row by row over the last axis, each row while it is in the processor's cache.

The sum of a row is taken in steps of `STEP` elements, whose sums are added in float64, and a sum over
rows in float64, so that neither long rows nor many rows cost digits. Within a step all is of one dtype:
beside a float64 only half as many of float32 go into a vector instruction. But the mean of a row is
taken in float64 alone: less a mean that is rounded once, a row of equal elements is exactly 0.
"""

from __future__ import annotations

import math

import numpy as np

from tape.kernels import loss
from tape.kernels import numpy as plain
from tape.kernels.numba.bits import largest
from tape.kernels.numba.compiled import (
    INTEGER, READ, REAL, SUMS, TARGETS, TEAM, WIDE, WRITE, alike, as_rows, inner, loop, packed,
    suits)
from tape.kernels.numba.exponential import exp
from tape.kernels.numba.threads import in_parts, own, team_for

STEP = 256

# --- layer norm ---
#
# Of each row, as derived in `tape.layer_norm`: m = mean(x), r = 1 / sqrt(mean((x - m)^2) + eps),
#
#     n = (x - m) r,  out = n weight + bias
#     h = g weight,  dL/dx = r (h - mean(h) - n mean(h n)),  dL/dweight = sum g n,  dL/dbias = sum g
#
# the last two over the rows. A weight or a bias that is missing is an array without elements.

NONE = {dtype: np.empty(0, dtype) for dtype in (np.dtype(np.float32), np.dtype(np.float64))}


def layer_norm(x, weight, bias, eps):
    """The result; and m and r of each row, side by side."""
    if not (suits(x) and of_rows(weight, x) and of_rows(bias, x)):
        out, kept = plain.layer_norm(x, weight, bias, eps)
        m_and_r = [np.reshape(kept[name], (*x.shape[:-1], 1)) for name in ("mean", "rstd")]
        return out, {"statistics": np.concatenate(m_and_r, -1)}
    dtype = x.dtype
    out, statistics = np.empty(x.shape, dtype), np.empty((*x.shape[:-1], 2), dtype)
    none = NONE[dtype]
    _layer_norm[dtype](
        as_rows(x), none if weight is None else packed(weight), none if bias is None else packed(bias),
        float(eps), as_rows(out), as_rows(statistics), *team_for(x.size))
    return out, {"statistics": statistics}


def layer_norm_backward(g, x, weight, bias, statistics):
    """Gradients of x, weight and bias."""
    if not (alike(g, x) and of_rows(weight, x) and of_rows(bias, x) and statistics.dtype == x.dtype):
        return plain.layer_norm_backward(g, x, weight, bias, statistics[..., :1], statistics[..., 1:])
    dtype, width = x.dtype, x.shape[-1]
    none, g_x = NONE[dtype], np.empty(x.shape, dtype)
    g_weight = None if weight is None else np.empty(width, dtype)
    g_bias = None if bias is None else np.empty(width, dtype)
    _layer_norm_backward[dtype](
        as_rows(g), as_rows(x), np.ones(width, dtype) if weight is None else packed(weight),
        as_rows(statistics), as_rows(g_x), none if weight is None else g_weight,
        none if bias is None else g_bias, *team_for(x.size))
    return g_x, g_weight, g_bias


def of_rows(weight, x):
    """Whether the weight or the bias of a layer norm is None or fits to x in shape and dtype."""
    return weight is None or (
        type(weight) is np.ndarray and weight.dtype == x.dtype and weight.shape == x.shape[-1:])


@loop(READ(2), READ(1), READ(1), REAL, WRITE(2), WRITE(2), TEAM, INTEGER, checked=False)
def _layer_norm(x, weight, bias, eps, out, statistics, team, parts):
    _layer_norm_part(team, parts, (x, weight, bias, eps, out, statistics))


@in_parts(fastmath=SUMS)
def _layer_norm_part(x, weight, bias, eps, out, statistics, number, parts):
    x, out, statistics = own(x, number, parts), own(out, number, parts), own(statistics, number, parts)
    real = x.dtype.type
    rows, width = x.shape
    for i in range(rows):
        total = squares = 0.0
        for j in range(width):
            total += x[i, j]
        m = real(total / width)
        for start in range(0, width, STEP):
            part, row = real(0), x[i, start:start + STEP]
            for j in range(row.size):
                part += (row[j] - m) * (row[j] - m)
            squares += part
        r = real(1 / math.sqrt(squares / width + eps))
        for j in range(width):
            out[i, j] = (x[i, j] - m) * r
        if weight.size:
            for j in range(width):
                out[i, j] *= weight[j]
        if bias.size:
            for j in range(width):
                out[i, j] += bias[j]
        statistics[i, 0], statistics[i, 1] = m, r


@loop(READ(2), READ(2), READ(1), READ(2), WRITE(2), WRITE(1), WRITE(1), TEAM, INTEGER, checked=False)
def _layer_norm_backward(g, x, weight, statistics, g_x, g_weight, g_bias, team, parts):
    sums = np.zeros((parts, 2, x.shape[1]))
    _layer_norm_backward_part(team, parts, (g, x, weight, statistics, g_x, sums))
    for j in range(len(g_weight)):
        g_weight[j] = sums[:, 0, j].sum()
    for j in range(len(g_bias)):
        g_bias[j] = sums[:, 1, j].sum()


@in_parts(fastmath=SUMS)
def _layer_norm_backward_part(g, x, weight, statistics, g_x, sums, number, parts):
    g, x, g_x = own(g, number, parts), own(x, number, parts), own(g_x, number, parts)
    statistics = own(statistics, number, parts)
    g_weight, g_bias = sums[number, 0], sums[number, 1]
    real = x.dtype.type
    rows, width = x.shape
    for i in range(rows):
        m, r = statistics[i, 0], statistics[i, 1]
        total = along = 0.0
        for start in range(0, width, STEP):
            sum_h, sum_hn = real(0), real(0)
            stop = start + STEP
            x_part, g_part, w_part = x[i, start:stop], g[i, start:stop], weight[start:stop]
            for j in range(x_part.size):
                h = g_part[j] * w_part[j]
                sum_h += h
                sum_hn += h * ((x_part[j] - m) * r)
            total += sum_h
            along += sum_hn
        for j in range(width):
            g_weight[j] += g[i, j] * ((x[i, j] - m) * r)
            g_bias[j] += g[i, j]
        mean_h, mean_hn = real(total / width), real(along / width)
        for j in range(width):
            g_x[i, j] = r * (g[i, j] * weight[j] - mean_h - (x[i, j] - m) * r * mean_hn)


# --- cross-entropy ---
#
# Of each row z that counts, as derived in `tape.cross_entropy`: with m = max(z), s = log sum exp(z - m)
# the loss is s - (z[target] - m), and its gradient exp((z - m) - s) - one_hot(target), times g / count.

def cross_entropy(logits, targets, ignore_index, reduction):
    """The mean (or sum) of the losses, and m and s of each row."""
    targets = np.asarray(targets)
    if not (_loop_serves(logits, targets, ignore_index) and reduction in ("mean", "sum")):
        return loss.cross_entropy(logits, targets, ignore_index, reduction)
    rows, picks = as_rows(logits), _picks(targets)
    peak, log_sum = (np.empty((len(rows), 1), logits.dtype) for _ in range(2))
    team, parts = team_for(logits.size)
    found = np.zeros((parts, 2))
    _cross_entropy[logits.dtype](rows, picks, ignore_index, peak.reshape(-1), log_sum.reshape(-1),
                                 found, team, parts)
    total, count = found[0] if parts == 1 else found.sum(0)
    if count != count:                # NumPy's kernel says what is wrong with the targets
        loss.check_targets(logits, targets, ignore_index, reduction)
    return logits.dtype.type(total / _denominator(count, reduction)), {
        "peak": peak, "log_sum": log_sum}


def cross_entropy_backward(g, logits, targets, ignore_index, reduction, peak, log_sum):
    """The gradient of the logits."""
    targets = np.asarray(targets)
    if not (_loop_serves(logits, targets, ignore_index)
            and peak.dtype == log_sum.dtype == logits.dtype):
        return loss.cross_entropy_backward(g, logits, targets, ignore_index, reduction, peak, log_sum)
    picks = _picks(targets)
    count = np.count_nonzero(picks != ignore_index)
    g_logits = np.empty(logits.shape, logits.dtype)
    _cross_entropy_backward[logits.dtype](
        as_rows(logits), picks, ignore_index, packed(peak).reshape(-1), packed(log_sum).reshape(-1),
        float(g) / _denominator(count, reduction), g_logits.reshape(-1, logits.shape[-1]),
        *team_for(logits.size))
    return g_logits, None


def _loop_serves(logits, targets, ignore_index):
    if type(ignore_index) is not int or abs(ignore_index) >= 2 ** 63:
        return False
    return suits(logits) and targets.dtype.kind == "i" and (
        targets.shape == logits.shape[:-1])


def _picks(targets):
    """Targets (...) as (N,) of int64."""
    return packed(targets.astype(np.int64, copy=False)).reshape(-1)


def _denominator(count, reduction):
    return max(count, 1) if reduction == "mean" else 1


@loop(READ(2), TARGETS, INTEGER, WRITE(1), WRITE(1), WIDE(2), TEAM, INTEGER)
def _cross_entropy(rows, targets, ignored, peak, log_sum, found, team, parts):
    _cross_entropy_part(team, parts, (rows, targets, ignored, peak, log_sum, found))


@inner(fastmath=SUMS)
def sum_of_exp(row, peak):
    """sum exp(row - peak). Apart: a sum of losses whose terms are taken in any order loses digits."""
    real, total = row.dtype.type, 0.0
    for start in range(0, row.size, STEP):
        part, few = real(0), row[start:start + STEP]
        for j in range(few.size):
            part += exp(few[j] - peak)
        total += part
    return total


@in_parts()
def _cross_entropy_part(rows, targets, ignored, peak, log_sum, found, number, parts):
    """found (parts, 2): the sum of the losses and how many count; NaN: a target is out of range."""
    rows, targets = own(rows, number, parts), own(targets, number, parts)
    peak, log_sum = own(peak, number, parts), own(log_sum, number, parts)
    sum_of_losses, count = 0.0, 0
    width = rows.shape[1]
    for i in range(len(rows)):
        if targets[i] == ignored:
            peak[i] = log_sum[i] = 0
            continue
        if not 0 <= targets[i] < width:
            found[number, 1] = np.nan
            return
        peak[i] = largest(rows[i])
        log_sum[i] = math.log(sum_of_exp(rows[i], peak[i]))
        sum_of_losses += log_sum[i] - (rows[i, targets[i]] - peak[i])
        count += 1
    found[number, 0], found[number, 1] = sum_of_losses, count


@loop(READ(2), TARGETS, INTEGER, READ(1), READ(1), REAL, WRITE(2), TEAM, INTEGER)
def _cross_entropy_backward(rows, targets, ignored, peak, log_sum, scale, out, team, parts):
    _cross_entropy_backward_part(team, parts, (rows, targets, ignored, peak, log_sum, scale, out))


@in_parts()
def _cross_entropy_backward_part(rows, targets, ignored, peak, log_sum, scale, out, number, parts):
    rows, targets, out = own(rows, number, parts), own(targets, number, parts), own(out, number, parts)
    peak, log_sum = own(peak, number, parts), own(log_sum, number, parts)
    real = rows.dtype.type
    scale = real(scale)
    for i in range(len(rows)):
        if targets[i] == ignored:
            out[i] = real(0)
            continue
        for j in range(rows.shape[1]):
            out[i, j] = exp(rows[i, j] - peak[i] - log_sum[i]) * scale
        t = targets[i]
        out[i, t] = (exp(rows[i, t] - peak[i] - log_sum[i]) - real(1)) * scale
