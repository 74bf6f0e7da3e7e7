"""Every operator on jets: the reference that the engine is held against.

The names and parameters are those of `tape`, since a program is run with this module in its place.
Everything is float64 and computed from the textbook definition. What a convention decides (0 times
infinity, ties, norm at 0) stands in ``jets.py`` and beside the operator.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.differential.jets import (
    Jet, added, bilinear, chosen, decided, decided_tie, elementwise, jet, linear, product, scaled,
    times, value_of)

# --- arithmetic ---


def add(x, y): return added(x, y)
def sub(x, y): return added(x, scaled(y, -1.0))
def mul(x, y): return product(x, y)
def neg(x): return scaled(x, -1.0)
def div(x, y): return product(x, power(y, -1))
def square(x): return product(x, x)


def _falling(exponent, n):
    """exponent (exponent - 1) ... with n factors: what the n-th derivative of x^exponent has."""
    out = 1.0
    for i in range(n):
        out = out * (exponent - i)
    return out


def _power_number(x, exponent):
    def derivative(n):
        factor = _falling(exponent, n)

        def of(a):
            zeros = np.zeros(np.broadcast(a, exponent).shape)
            powers = np.power(a, exponent - n, where=np.not_equal(factor, 0), out=zeros)
            return times(powers, factor)
        return of
    return elementwise(x, *(derivative(n) for n in range(4)))


def power(x, exponent):
    """x^y for numbers y; exp(y log x) where y has a derivative too, for x > 0."""
    if np.ndim(value_of(exponent)) == 0 and not isinstance(exponent, Jet):
        return _power_number(jet(x), float(exponent))
    base, y = jet(x), jet(exponent)
    if set(y.parts) == {0} and not (value_of(x) > 0).all():
        shape = np.broadcast_shapes(base.shape, y.shape)
        return _power_number(broadcast_to(base, shape), np.broadcast_to(y.value, shape))
    return exp(product(y, log(base)))


def exp(x): return elementwise(x, np.exp, np.exp, np.exp, np.exp)
def expm1(x): return elementwise(x, np.expm1, np.exp, np.exp, np.exp)
def sqrt(x): return _power_number(jet(x), 0.5)


def log(x):
    return elementwise(x, np.log, lambda a: 1 / a, lambda a: -1 / a ** 2, lambda a: 2 / a ** 3)


def log1p(x): return log(added(x, 1.0))


def sin(x):
    return elementwise(x, np.sin, np.cos, lambda a: -np.sin(a), lambda a: -np.cos(a))


def cos(x):
    return elementwise(x, np.cos, lambda a: -np.sin(a), lambda a: -np.cos(a), np.sin)


def tanh(x):
    def slope(a): return 1 - np.tanh(a) ** 2
    return elementwise(x, np.tanh, slope, lambda a: -2 * np.tanh(a) * slope(a),
                       lambda a: (6 * np.tanh(a) ** 2 - 2) * slope(a))


def sigmoid(x): return added(scaled(tanh(scaled(x, 0.5)), 0.5), 0.5)


def gelu(x):
    u = scaled(added(x, scaled(_power_number(jet(x), 3), 0.044715)), math.sqrt(2 / math.pi))
    return scaled(product(x, added(tanh(u), 1.0)), 0.5)


def erf(x):
    def slope(a): return 2 / math.sqrt(math.pi) * np.exp(-a * a)
    return elementwise(x, np.vectorize(math.erf, otypes=[float]), slope, lambda a: -2 * a * slope(a),
                       lambda a: (4 * a * a - 2) * slope(a))


def gelu_exact(x): return scaled(product(x, added(erf(scaled(x, math.sqrt(0.5))), 1.0)), 0.5)


def user_double(x): return scaled(x, 2.0)
def user_same(x): return jet(x)
def user_view(x): return jet(x)
def user_kept(x, y): return added(x, scaled(y, 0.0))


# --- choices: the derivative is that of what is chosen, half of each where two tie ---


def relu(x): return scaled(x, decided_tie(value_of(x), value_of(x)) > 0)
def abs(x): return scaled(x, np.sign(decided_tie(value_of(x), value_of(x))))
def sign(x): return jet(np.sign(decided_tie(value_of(x), value_of(x))))
def zeros_like(x): return jet(np.zeros(value_of(x).shape))
def ones_like(x): return jet(np.ones(value_of(x).shape))


def _larger(x, y, direction):
    same = x is y and isinstance(x, Jet)
    x, y = jet(x), jet(y)
    difference = x.value - y.value
    if not same:
        decided_tie(difference, x.value, y.value)
    share = (1 + direction * np.sign(difference)) / 2
    return added(scaled(x, share), scaled(y, 1 - share))


def maximum(x, y): return _larger(x, y, 1)
def minimum(x, y): return _larger(x, y, -1)


def clip(x, min=None, max=None):
    low, high = -np.inf if min is None else min, np.inf if max is None else max
    a = value_of(x)
    for bound in (low, high):
        if np.isfinite(bound):
            decided_tie(a - bound, a)
    inside = (low <= a) & (a <= high)
    return chosen(inside, x, np.where(a < low, low, high))


def where(condition, x, y):
    if isinstance(condition, Jet):
        condition = decided(condition.value) != 0
    return chosen(np.asarray(condition, bool), x, y)


def astype(x, dtype):
    if np.dtype(dtype).kind == "f":
        return jet(x)
    decided(value_of(x) - np.round(value_of(x)))
    return jet(np.trunc(value_of(x)))


def dropout(x, p, rng):
    keep = np.random.default_rng(rng).random(value_of(x).shape, np.float32) >= p
    return scaled(x, keep / (1 - p))


# --- reductions ---


def sum(x, axis=None, keepdims=False):
    return linear(lambda a: np.sum(a, axis=axis, keepdims=keepdims), x)


def mean(x, axis=None, keepdims=False):
    return linear(lambda a: np.mean(a, axis=axis, keepdims=keepdims), x)


def _extreme(function, x, axis, keepdims):
    x = jet(x)
    peak = function(x.value, axis=axis, keepdims=True)
    decided_tie(x.value - peak, np.where(_alone(x.value == peak, axis), 0, x.value))
    winners = np.equal(x.value, peak)
    return sum(scaled(x, winners / np.sum(winners, axis=axis, keepdims=True)), axis, keepdims)


def _alone(winners, axis):
    """Where a winner wins without a tie, which no rounding changes."""
    return winners & (np.sum(winners, axis=axis, keepdims=True) == 1)


def max(x, axis=None, keepdims=False): return _extreme(np.max, x, axis, keepdims)
def min(x, axis=None, keepdims=False): return _extreme(np.min, x, axis, keepdims)


def var(x, axis=None, ddof=0, keepdims=False):
    x = jet(x)
    count = x.value.size // np.sum(x.value, axis=axis).size
    centred = sub(x, mean(x, axis, True))
    return scaled(sum(square(centred), axis, keepdims), 1 / (count - ddof))


def std(x, axis=None, ddof=0, keepdims=False): return _root(var(x, axis, ddof, keepdims))
def norm(x, axis=None, keepdims=False): return _root(sum(square(x), axis, keepdims))


def _root(x):
    """A square root all of whose derivatives are 0 at 0: the convention of norm and std."""
    tiny = np.less(x.value, 1e-20)
    if (tiny & (x.value > 0)).any():
        raise ArithmeticError("rounding decides whether this is zero")
    return chosen(tiny, np.zeros(x.shape), sqrt(chosen(tiny, np.ones(x.shape), x)))


def _peak(x, axis, among=True):
    """The largest element with its derivatives: what is left of the others cancels nothing."""
    values = np.where(among, x.value, -np.inf)
    largest = np.equal(values, np.max(values, axis=axis, keepdims=True))
    share = largest / np.sum(largest, axis=axis, keepdims=True)        # of those that tie the mean
    return linear(lambda a: np.sum(times(share, a), axis=axis, keepdims=True), x)


def logsumexp(x, axis=None, keepdims=False):
    x = jet(x)
    peak = _peak(x, axis)
    total = log(sum(exp(sub(x, peak)), axis, True))
    out = added(total, peak)
    return out if keepdims else squeeze(out, axis)


def softmax(x, axis=-1): return exp(log_softmax(x, axis))
def log_softmax(x, axis=-1): return sub(x, logsumexp(x, axis, True))


# --- products of matrices: by the sum that defines them ---


def matmul(x, y):
    return bilinear(_matmul_arrays, x, y)


def _matmul_arrays(a, b):
    left, right = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    out = times(left[..., :, :, None], right[..., None, :, :]).sum(axis=-2)
    out = out[..., 0] if b.ndim == 1 else out
    return (out[0] if b.ndim == 1 else out[..., 0, :]) if a.ndim == 1 else out


def dot(x, y):
    return mul(x, y) if np.ndim(value_of(x)) == 0 or np.ndim(value_of(y)) == 0 else matmul(x, y)


def einsum(subscripts, x, *y):
    if not y:
        return linear(lambda a: np.einsum(subscripts, a), x)
    return bilinear(lambda a, b: np.einsum(subscripts, a, b), x, *y)


def _of_two(function: Any) -> Any:
    return lambda x, y, *args: bilinear(lambda a, b: function(a, b, *args), x, y)


inner, outer, kron, cross = map(_of_two, (np.inner, np.outer, np.kron, np.cross))
tensordot, vdot = map(_of_two, (np.tensordot, np.vdot))
vecdot = _of_two(lambda a, b: np.sum(a * b, -1))
matvec = _of_two(lambda a, b: np.sum(a * b[..., None, :], -1))
vecmat = _of_two(lambda a, b: np.sum(a[..., :, None] * b, -2))


def causal_attention(q, k, v, scale=None):
    return attention(q, k, v, causal=True, scale=scale)


def attention(q, k, v, mask=True, causal=False, scale=None, block_size=None):
    scale = value_of(q).shape[-1] ** -0.5 if scale is None else scale
    scores = scaled(matmul(q, swapaxes(k, -1, -2)), scale)
    queries, keys = scores.shape[-2:]
    seen = np.ones((queries, keys), bool) & mask
    seen = np.tril(seen, keys - queries) if causal else seen
    peak = _peak(scores, -1, seen)
    weights = scaled(exp(sub(chosen(seen, scores, peak), peak)), seen)
    return matmul(div(weights, sum(weights, -1, True)), v)


def causal_self_attention(x, n, w_q, w_k, w_v, w_o, b_q=None, b_k=None, b_v=None, b_o=None):
    def projected(x, weight, bias):
        return matmul(x, weight) if bias is None else added(matmul(x, weight), bias)

    q, k, v = (split_heads(projected(x, weight, bias), n)
               for weight, bias in ((w_q, b_q), (w_k, b_k), (w_v, b_v)))
    return projected(merge_heads(causal_attention(q, k, v), n), w_o, b_o)


def layer_norm(x, weight=None, bias=None, eps=1e-5):
    centred = sub(x, mean(x, -1, True))
    out = product(centred, power(added(mean(square(centred), -1, True), eps), -0.5))
    out = out if weight is None else product(out, weight)
    return out if bias is None else added(out, bias)


def rms_norm(x, weight=None, eps=1e-5):
    out = product(x, power(added(mean(square(x), -1, True), eps), -0.5))
    return out if weight is None else product(out, weight)


def swiglu(gate, x): return product(product(gate, sigmoid(gate)), x)


def rnn(projected, weight, h, steps=None):
    states = []
    for t in range(value_of(projected).shape[0]):
        h = tanh(added(getitem(projected, t), matmul(h, weight)))
        states.append(h)
    return stack(states)


def gru(projected, weight, bias, h, steps=None):
    states = []
    for t in range(value_of(projected).shape[0]):
        a_r, a_z, a_n = split(getitem(projected, t), 3, axis=-1)
        u_r, u_z, u_n = split(matmul(h, weight), 3, axis=-1)
        r, z = sigmoid(added(a_r, u_r)), sigmoid(added(a_z, u_z))
        n = tanh(added(a_n, product(r, added(u_n, bias))))
        h = added(n, product(z, sub(h, n)))
        states.append(h)
    return stack(states)


def lstm(projected, weight, h, c, steps=None):
    states = []
    for t in range(value_of(projected).shape[0]):
        i, f, g, o = split(added(getitem(projected, t), matmul(h, weight)), 4, axis=-1)
        c = added(product(sigmoid(f), c), product(sigmoid(i), tanh(g)))
        h = product(sigmoid(o), tanh(c))
        states.append(stack([h, c]))
    return stack(states, 1)


def rotate_pairs(x, cos, sin):
    even, odd = (getitem(x, (..., slice(i, None, 2))) for i in range(2))
    turned = [sub(product(even, cos), product(odd, sin)), added(product(even, sin), product(odd, cos))]
    return reshape(stack(turned, -1), value_of(x).shape)


def cross_entropy(logits, targets, ignore_index=-1, reduction="mean"):
    targets = np.asarray(targets)
    counted = np.not_equal(targets, ignore_index)
    picked = (targets[..., None] == np.arange(value_of(logits).shape[-1])) & counted[..., None]
    total = scaled(sum(chosen(picked, log_softmax(logits), 0.0)), -1.0)
    count = np.maximum(counted.sum(), 1) if reduction == "mean" else 1
    return scaled(total, 1 / count)


def embedding(weight, ids): return getitem(weight, np.asarray(ids))


# --- moving elements: what NumPy does, to each coefficient ---


def _moved(name: str) -> Any:
    function = getattr(np, name)
    return lambda x, *args, **kwargs: linear(lambda a: function(a, *args, **kwargs), x)


reshape, transpose, swapaxes, moveaxis = map(
    _moved, ("reshape", "transpose", "swapaxes", "moveaxis"))
squeeze, expand_dims, broadcast_to = map(_moved, ("squeeze", "expand_dims", "broadcast_to"))


trace, diagonal, diag, diagflat = map(_moved, ("trace", "diagonal", "diag", "diagflat"))


def split_heads(x, n): return linear(lambda a: np.stack(np.split(a, n, -1), -3), x)
def merge_heads(x, n): return linear(lambda a: np.concatenate(np.moveaxis(a, -3, 0), -1), x)
def matrix_transpose(x): return swapaxes(x, -1, -2)
def getitem(x, index): return linear(lambda a: a[index], x)
def concatenate(arrays, axis=0): return linear(lambda *a: np.concatenate(a, axis), *arrays)
def stack(arrays, axis=0): return linear(lambda *a: np.stack(a, axis), *arrays)


def split(x, sections, axis=0):
    pieces = len(np.split(value_of(x), sections, axis))
    return [linear(lambda a, i=i: np.split(a, sections, axis)[i], x) for i in range(pieces)]


def pad(x, pad_width, constant_values=0):
    x = jet(x)
    return Jet({s: np.pad(part, pad_width, constant_values=constant_values if s == 0 else 0)
                for s, part in x.parts.items()})
