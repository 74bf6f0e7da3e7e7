"""NumPy's functions that move, repeat or leave out elements, and compute nothing.

A move is undone by the opposite move, and what was copied gets the sum over its copies. Of the other
functions `picks` makes operators: the gradient adds every element of g to the place that it was picked
from, and the places are what the function itself makes of the numbers 0, 1, 2, ... in x's shape.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable

import numpy as np

from tape import kernels
from tape.ops.arithmetic import where
from tape.ops.indexing import getitem, places
from tape.primitive import Primitive, derivative, implements
from tape.promotion import plain


# --- moves ---


def _opposite(shift):
    return [-int(s) for s in np.ravel(np.asarray(shift, object))]    # of any size


@derivative(lambda g, shift, axis: roll(g, _opposite(shift), axis), numpy=np.roll)
def roll(x, /, shift, axis=None):
    """x with its elements moved on by `shift` along `axis`; what leaves at the end enters in front."""
    return np.roll(x, shift, axis)


@derivative(lambda g, axis: flip(g, axis), numpy=np.flip)
def flip(x, /, axis=None):
    """x with the order along `axis` reversed (an int, a tuple, or None for all)."""
    return np.flip(x, axis)


@derivative(lambda g: fliplr(g), numpy=np.fliplr)
def fliplr(x, /):
    """x with its second axis reversed."""
    return np.fliplr(x)


@derivative(lambda g: flipud(g), numpy=np.flipud)
def flipud(x, /):
    """x with its first axis reversed."""
    return np.flipud(x)


@derivative(lambda g, k, axes: rot90(g, -k, axes), numpy=np.rot90)
def rot90(x, /, k=1, axes=(0, 1)):
    """x turned by k times 90 degrees in the plane of two axes, from the first towards the second."""
    return np.rot90(x, k, axes)


# --- copies: the gradient is the sum over them ---


@derivative(lambda g, like_x, repeats, axis: sum_of_repeats(g, like_x, repeats, axis), numpy=np.repeat)
def repeat(x, /, repeats, axis=None):
    """Each element of x `repeats` times (a number, or one for each place along `axis`)."""
    return np.repeat(x, repeats, axis)


@derivative(lambda h, repeats, axis: repeat(h, repeats, axis), None)
def sum_of_repeats(g, like, /, repeats, axis):
    """The gradient of `repeat`: in the place of each element of `like` the sum over its copies in g."""
    shape, axis = ((like.size,), 0) if axis is None else (like.shape, axis % max(like.ndim, 1))
    if np.size(repeats) == 1:                   # as if broadcast along a new axis
        one_each = (*shape[:axis + 1], 1, *shape[axis + 1:])
        copies = (*shape[:axis + 1], int(np.ravel(repeats)[0]), *shape[axis + 1:])
        return kernels.unbroadcast(np.reshape(g, copies), one_each).reshape(like.shape)
    g = np.moveaxis(np.asarray(g), axis, 0)
    total = np.zeros((shape[axis], *g.shape[1:]), kernels.sum_dtype(g.dtype))
    kernels.find("add_rows")(total, g, np.repeat(np.arange(len(total)), repeats))
    return np.moveaxis(total, 0, axis).reshape(like.shape)


@derivative(lambda g, like_x, reps: sum_of_tiles(g, like_x, reps), numpy=np.tile)
def tile(x, /, reps):
    """Copies of x side by side, ``reps[i]`` along axis i."""
    return np.tile(x, plain(reps))


@derivative(lambda h, reps: tile(h, reps), None)
def sum_of_tiles(g, like, /, reps):
    """The gradient of `tile`: the sum over the copies of `like` in g."""
    times = [int(n) for n in np.ravel(reps)]
    count = max(len(times), like.ndim)
    times, sizes = [1] * (count - len(times)) + times, (1,) * (count - like.ndim) + like.shape
    copies = [n for pair in zip(times, sizes) for n in pair]          # one axis for them, one in each
    one_each = tuple(n for size in sizes for n in (1, size))
    return kernels.unbroadcast(np.reshape(g, copies), one_each).reshape(like.shape)


# --- elements left out, or taken in an order that only the function itself knows ---


@derivative(lambda g, like_x, forward, attributes: put_back(g, like_x, forward, attributes))
def pick(x, /, forward, attributes):
    """forward(x, **attributes), for a function that picks elements of x."""
    return forward(x, **attributes)


@derivative(lambda g, forward, attributes: pick(g, forward, attributes), None)
def put_back(g, like, /, forward, attributes):
    """Zeros of the shape of `like`, with each element of g added where `forward` picks it."""
    return _added(g, like, forward(_numbered(like), **attributes))


def _numbered(like):
    """The place of each element in the flattened array, in the shape of `like`."""
    return np.arange(like.size).reshape(like.shape)


def _added(g, like, places):
    total = np.zeros(like.shape, kernels.sum_dtype(g.dtype))
    if total.size:                  # np.resize fills up with zeros where there is nothing to pick
        kernels.add_elements(total, g, np.asarray(places))
    return total


def picks(numpy: Callable, name: str = "") -> Callable[[Callable], Primitive]:
    """Decorator of a forward that picks elements of its first argument, as `numpy` does."""
    def define(forward: Callable) -> Primitive:
        names = [*inspect.signature(forward).parameters][1:]

        def rule(g, like_x, *values):
            return put_back(g, like_x, forward, dict(zip(names, values)))
        parameter = inspect.Parameter
        rule.__signature__ = inspect.Signature(                      # type: ignore[attr-defined]
            [parameter(name, parameter.POSITIONAL_OR_KEYWORD) for name in ("g", "like_x", *names)])
        return derivative(rule, numpy=numpy, name=name)(forward)
    return define


@picks(np.resize)
def resize(x, /, new_shape):
    """The elements of x, as often over as it takes to fill `new_shape`."""
    return np.resize(x, new_shape)


@picks(np.rollaxis)
def rollaxis(x, /, axis, start=0):
    """x with `axis` moved to stand before the axis that was at `start`."""
    return np.rollaxis(x, axis, start)


@picks(np.delete)
def delete(x, /, obj, axis=None):
    """x without what stands at `obj` (an int, a slice, integers, a mask) along `axis`."""
    return np.delete(x, obj, axis)


@picks(np.compress, name="compress")
def _compress(x, /, condition, axis=None):
    return np.compress(condition, x, axis)


@implements(np.compress)
def compress(condition, x, axis=None):
    """What stands along `axis` where the one-dimensional `condition` holds."""
    return _compress(x, np.asarray(plain(condition), bool), axis)


@implements(np.extract)
def extract(condition, x):
    """The elements of x, in order, where `condition` of the same size holds."""
    return _compress(x, np.ravel(np.asarray(plain(condition), bool)), None)


# --- triangles ---


@derivative(lambda g, k: tril(g, k), numpy=np.tril)
def tril(x, /, k=0):
    """x with zeros above diagonal k of its last two axes."""
    return kernels.where(_below("tril", x, k), x, np.asarray(x).dtype.type(0))


@derivative(lambda g, k: triu(g, k), numpy=np.triu)
def triu(x, /, k=0):
    """x with zeros below diagonal k of its last two axes."""
    return kernels.where(_below("triu", x, k - 1), np.asarray(x).dtype.type(0), x)


def _below(name, x, k):
    """True up to diagonal k of the last two axes; x with one axis is taken as all rows of a matrix."""
    shape = np.shape(x)
    if not shape:
        raise ValueError(f"{name}: x must have one axis or more, got shape ()")
    return np.tri(shape[-2:][0], shape[-1], k, bool)


# --- picks by an index ---


@implements(np.take)
def take(x, indices, axis=None, out=None, mode="raise"):
    """What stands at the integers `indices` along `axis` (None: of the flattened x)."""
    if out is not None or mode not in ("raise", "wrap"):
        raise TypeError(f"take: of mode= there are 'raise' and 'wrap', and no out=; got mode={mode!r}. "
                        f"For 'clip' write np.clip(indices, 0, n - 1) first.")
    indices = np.asarray(plain(indices))
    if axis is None:
        x, axis = np.reshape(x, (-1,)), 0
    if mode == "wrap":
        indices = indices % np.shape(x)[axis]
    if axis < 0:
        return getitem(x, (Ellipsis, indices, *(slice(None),) * (-1 - axis)))
    return getitem(x, (*(slice(None),) * axis, indices))


@derivative(lambda g, like_x, indices, axis: put_along_axis_like(g, like_x, indices, axis), None,
            name="take_along_axis")
def _take_along_axis(x, indices, /, axis):
    return np.take_along_axis(x, indices, axis)


@derivative(lambda g, indices, axis: _take_along_axis(g, indices, axis), None, None)
def put_along_axis_like(g, like, indices, /, axis):
    """Zeros of the shape of `like`, with g added where `take_along_axis` picks it."""
    return _added(g, like, places(like.shape, lambda x: np.take_along_axis(x, indices, axis)))


@implements(np.take_along_axis)
def take_along_axis(x, indices, axis=-1):
    """One pick along `axis` for each integer of `indices`, which has x's other axes (or 1)."""
    if axis is None:
        x, axis = np.reshape(x, (-1,)), 0
    return _take_along_axis(x, indices, axis)


# --- choices among several ---


@implements(np.select)
def select(condlist, choicelist, default=0):
    """At each place the choice of the first condition that holds, else `default`."""
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ValueError(f"select: there must be a choice for each condition, and one at least; got "
                         f"{len(condlist)} conditions and {len(choicelist)} choices")
    out: Any = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist)):
        out = where(condition, choice, out)
    return out


@implements(np.choose)
def choose(a, choices, out=None, mode="raise"):
    """At each place element ``a`` of the choices there: ``choices[a[i]][i]``, broadcast."""
    a = np.asarray(plain(a))
    if out is not None or mode != "raise" or a.dtype.kind not in "biu":
        raise TypeError(f"choose: the first argument must be integers, mode= 'raise', and no out=; got "
                        f"dtype {a.dtype}, mode={mode!r}")
    if a.size and not 0 <= a.min() <= a.max() < len(choices):
        raise ValueError(f"choose: the integers must be in [0, {len(choices)}), the number of choices; "
                         f"got {a.min()} to {a.max()}")
    conditions = [np.equal(a, i) for i in range(len(choices))]
    return select(conditions[:-1], [*choices][:-1], choices[-1]) if len(choices) > 1 else \
        where(conditions[0], choices[0], 0)
