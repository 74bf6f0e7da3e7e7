"""How the contribution of one operation is fitted to its input, and how contributions add up.

The gradient of L with respect to a result, while the walk computes it, is that result's *cotangent*, g
in the rules; what one use of an input adds to its gradient is a *contribution*.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tape.kernels import HALF, find, fit_to, has_nan, sum_dtype
from tape.ops.arithmetic import zero_where_undefined
from tape.ops.indexing import scatter_add
from tape.ops.reductions import accumulate, sum_to_like
from tape.promotion import plain


def fit(contribution: Any, cotangent: Any, like: Any, elementwise: bool,
        computed: bool = True) -> Any:
    """What a rule returned as a gradient of its input: of arrays, of Tensors and of Nodes.

    Parameters
    ----------
    contribution : what the rule returned.
    cotangent : the g that it was given. Where this is exactly 0, an elementwise operator's contribution
        is 0 too, though an infinite derivative makes it NaN.
    like : what has the shape and the dtype of the input: a Record, a leaf, or the Node itself.
    elementwise : whether the operator is.
    computed : False for nodes, whose shape and values are known when they run.

    Returns
    -------
    In the shape of the input, and in its dtype, but in float32 at least, since it is to be added to
    others.
    """
    if not computed:
        if elementwise:
            contribution = zero_where_undefined(contribution, cotangent)
        return sum_to_like(contribution, like)
    if elementwise and contribution is not cotangent and has_nan(
            contribution if type(contribution) is np.ndarray else plain(contribution)):
        contribution = zero_where_undefined(contribution, cotangent)
    # Not `sum_to_like`, which would leave the shape of this run in a gradient that is traced.
    return fit_to(contribution, like.shape, like.dtype)


_add = np.add          # looked up once, not at every contribution
_LARGE = 2 ** 15       # elements; for fewer, no set of kernels has anything better than NumPy's sum


class Cotangents:
    """The gradient of each value so far, by what stands for the value: a Record, a leaf, a Node.

    A rule may return its g itself, a view, or an array that the tape keeps. So the first
    contribution is only stored, the second makes a fresh sum, which is `owned`, and later ones are
    added to that in place. Contributions to a float16 value are added up in float32.

    Attributes
    ----------
    sums : the sum of the contributions so far.
    owned : the keys whose sum was made here, so that nothing else refers to it.
    in_place : whether sums are arrays, which can be added to.
    """

    def __init__(self, roots: dict, in_place: bool = True):
        self.sums = dict(roots)
        self.in_place = in_place
        self.owned: set = set()
        self.picks: dict = {}          # key -> [(operator, g, saved values)], not yet scattered

    def add(self, key: Any, contribution: Any) -> None:
        """Add what one use of a value contributes to its gradient."""
        previous = self.sums.get(key)
        if previous is None:
            self.sums[key] = contribution
        elif key not in self.owned:
            large = type(previous) is np.ndarray and previous.size >= _LARGE
            self.sums[key] = total = (
                find("add")(previous, contribution) if large else previous + contribution)
            if not self.in_place or type(total) is np.ndarray:
                self.owned.add(key)
        elif self.in_place:
            (_add if previous.size < _LARGE else find("add"))(previous, contribution, previous)
        else:
            self.sums[key] = accumulate(previous, contribution)

    def scatter(self, key: Any, operator: Any, g: Any, args: Any) -> None:
        """The same for an operator that picks elements, at the cost of what it picked.

        Its rule would make an array of zeros as large as the value for each pick, and n picks of an
        array of n rows would cost n^2. So g is added in place; Tensors, which have no places to
        write to, are collected, and scattered by one operator.
        """
        if not self.in_place:
            self.picks.setdefault(key, []).append((operator, g, args))
            return
        previous = self.sums.get(key)
        # The kernels write to rows of it, which a reshape must not copy.
        if previous is None or key not in self.owned or not previous.flags.c_contiguous:
            dtype = sum_dtype(key.dtype if key.dtype.kind == "f" else g.dtype)
            self.sums[key] = (np.zeros(key.shape, dtype) if previous is None
                              else np.array(previous, dtype, order="C"))
            self.owned.add(key)
        operator.scatter(self.sums[key], g, *args)

    def take(self, key: Any) -> Any:
        """The whole gradient of a value, in its dtype, which is done with; None if there is none."""
        if key in self.picks:
            operators, pieces, args = zip(*self.picks.pop(key))
            attributes = {"operators": operators, "args": args, "shape": key.shape}
            self.add(key, type(pieces[0]).__tape_apply__(scatter_add, pieces, attributes))
        g = self.sums.pop(key, None)
        if g is not None and key.dtype is HALF:
            self.owned.discard(key)
            with np.errstate(all="ignore"):          # as in the rules: too large a gradient is infinite
                g = g.astype(HALF)
        return g

    def keys(self) -> list:
        """The values that have a gradient here."""
        return list(dict.fromkeys((*self.sums, *self.picks)) if self.picks else self.sums)


_one = {0: object()}
_IN_DICT = sys.getrefcount(_one[0])        # where there is no other reference; see tape/mutation.py


def unshared(gradients: dict, key: Any) -> np.ndarray:
    """One of the gradients as an array that nothing else refers to: itself, if nothing does."""
    if sys.getrefcount(gradients[key]) <= _IN_DICT:
        g = gradients[key]
        if type(g) is np.ndarray and g.flags.owndata and g.flags.writeable:
            return g
    return np.array(gradients[key])
