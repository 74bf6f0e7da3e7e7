"""The operators as methods: what ``x + y``, ``x.sum()`` and ``x[0]`` call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from tape import ops
from tape.augmented import updated
from tape.foreign_names import in_our_words
from tape.promotion import plain

if TYPE_CHECKING:
    from tape.tensor import Tensor


class Methods:
    """Base of Tensor. Arithmetic is recorded at once; named methods go through the operator."""

    __slots__ = ()
    __tape_apply__: Callable
    __apply_to_two__: Callable
    _data: Any
    _record: Any

    def __add__(self, other): return self.__apply_to_two__(ops.add, self, other)
    def __radd__(self, other): return self.__apply_to_two__(ops.add, other, self)
    def __sub__(self, other): return self.__apply_to_two__(ops.sub, self, other)
    def __rsub__(self, other): return self.__apply_to_two__(ops.sub, other, self)
    def __mul__(self, other): return self.__apply_to_two__(ops.mul, self, other)
    def __rmul__(self, other): return self.__apply_to_two__(ops.mul, other, self)
    def __truediv__(self, other): return self.__apply_to_two__(ops.div, self, other)
    def __rtruediv__(self, other): return self.__apply_to_two__(ops.div, other, self)
    def __pow__(self, exponent): return ops.power(self, exponent)
    def __rpow__(self, base): return ops.power(base, self)
    def __matmul__(self, other): return self.__apply_to_two__(ops.matmul, self, other)
    def __rmatmul__(self, other): return self.__apply_to_two__(ops.matmul, other, self)
    def __mod__(self, other): return ops.remainder(self, other)
    def __rmod__(self, other): return ops.remainder(other, self)
    def __floordiv__(self, other): return ops.floor_divide(self, other)
    def __rfloordiv__(self, other): return ops.floor_divide(other, self)
    def __neg__(self): return self.__tape_apply__(ops.neg, (self,))
    def __pos__(self): return self
    def __abs__(self): return self.__tape_apply__(ops.abs, (self,))
    def __getitem__(self, index): return ops.getitem(self, index)

    # On a result x += y is x = x + y, recorded; a leaf is changed where it is. See tape/augmented.py.
    def __iadd__(self, y): return self + y if self._record else updated(self, "+=", np.add, y)
    def __isub__(self, y): return self - y if self._record else updated(self, "-=", np.subtract, y)
    def __imul__(self, y): return self * y if self._record else updated(self, "*=", np.multiply, y)
    def __itruediv__(self, y): return self / y if self._record else updated(self, "/=", np.divide, y)
    def __ipow__(self, y): return self ** y if self._record else updated(self, "**=", np.power, y)
    def __imod__(self, y): return self % y if self._record else updated(self, "%=", np.remainder, y)
    def __imatmul__(self, y): return self @ y if self._record else updated(self, "@=", np.matmul, y)

    def __ifloordiv__(self, y):
        return self // y if self._record else updated(self, "//=", np.floor_divide, y)

    # Comparisons have no derivative: they give boolean arrays, as NumPy's do; beside a node, a node.
    def __lt__(self, other): return np.less(self._data, plain(other))
    def __le__(self, other): return np.less_equal(self._data, plain(other))
    def __gt__(self, other): return np.greater(self._data, plain(other))
    def __ge__(self, other): return np.greater_equal(self._data, plain(other))
    def __eq__(self, other): return np.equal(self._data, plain(other))
    def __ne__(self, other): return np.not_equal(self._data, plain(other))
    __hash__ = object.__hash__     # by identity: a Tensor can be a key although == is elementwise

    def sum(self, axis=None, keepdims=False): return ops.sum(self, axis, keepdims)
    def mean(self, axis=None, keepdims=False): return ops.mean(self, axis, keepdims)
    def max(self, axis=None, keepdims=False): return ops.max(self, axis, keepdims)
    def min(self, axis=None, keepdims=False): return ops.min(self, axis, keepdims)

    def var(self, axis=None, ddof=0, keepdims=False):
        return ops.var(self, axis, ddof=ddof, keepdims=keepdims)

    def std(self, axis=None, ddof=0, keepdims=False):
        return ops.std(self, axis, ddof=ddof, keepdims=keepdims)

    def prod(self, axis=None, keepdims=False): return ops.prod(self, axis, keepdims)
    def cumsum(self, axis=None): return ops.cumsum(self, axis)
    def cumprod(self, axis=None): return ops.cumprod(self, axis)
    def repeat(self, repeats, axis=None): return ops.repeat(self, repeats, axis)
    def take(self, indices, axis=None, mode="raise"): return ops.take(self, indices, axis, mode=mode)
    def ravel(self, order="C"): return ops.ravel(self, order)
    def round(self, decimals=0): return ops.round(self, decimals)

    # Of the values alone: arrays, as of comparisons.
    def argmax(self, axis=None, keepdims=False): return np.argmax(self._data, axis, keepdims=keepdims)
    def argmin(self, axis=None, keepdims=False): return np.argmin(self._data, axis, keepdims=keepdims)
    def argsort(self, axis=-1): return np.argsort(self._data, axis)
    def any(self, axis=None, keepdims=False): return np.any(self._data, axis, keepdims=keepdims)
    def all(self, axis=None, keepdims=False): return np.all(self._data, axis, keepdims=keepdims)

    def norm(self, axis=None, keepdims=False): return ops.norm(self, axis, keepdims)
    def logsumexp(self, axis=None, keepdims=False): return ops.logsumexp(self, axis, keepdims)
    def exp(self): return ops.exp(self)
    def log(self): return ops.log(self)
    def sqrt(self): return ops.sqrt(self)
    def abs(self): return ops.abs(self)
    def tanh(self): return ops.tanh(self)
    def sigmoid(self): return ops.sigmoid(self)
    def relu(self): return ops.relu(self)
    def gelu(self): return ops.gelu(self)
    def clip(self, min=None, max=None): return ops.clip(self, min, max)
    def softmax(self, axis=-1): return ops.softmax(self, axis)
    def log_softmax(self, axis=-1): return ops.log_softmax(self, axis)
    def matmul(self, other): return ops.matmul(self, other)
    def dot(self, other): return ops.dot(self, other)

    def trace(self, offset=0, axis1=0, axis2=1): return ops.trace(self, offset, axis1, axis2)

    def diagonal(self, offset=0, axis1=0, axis2=1): return ops.diagonal(self, offset, axis1, axis2)

    def astype(self, dtype): return ops.astype(self, np.dtype(dtype))
    def swapaxes(self, axis1, axis2): return ops.swapaxes(self, axis1, axis2)
    def expand_dims(self, axis): return ops.expand_dims(self, axis)
    def squeeze(self, axis=None): return ops.squeeze(self, axis)
    def broadcast_to(self, shape): return ops.broadcast_to(self, shape)
    def split(self, sections, axis=0): return ops.split(self, sections, axis)

    def reshape(self, *shape):
        """``t.reshape(2, 3)`` or ``t.reshape((2, 3))``."""
        return ops.reshape(self, _one_or_many(shape))

    def flatten(self, order="C"): return ops.ravel(self, order)

    def transpose(self, *axes):
        """``t.transpose(1, 0)``, ``t.transpose((1, 0))``; no axes: reversed."""
        nothing = not axes or len(axes) == 1 and axes[0] is None
        return ops.transpose(self, None if nothing else _one_or_many(axes))

    @property
    def T(self) -> Tensor:
        """All axes reversed."""
        return ops.transpose(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return ops.matrix_transpose(self)


for _name, _method in list(vars(Methods).items()):
    if not _name.startswith("_"):
        setattr(Methods, _name, in_our_words(_method))


def _one_or_many(values: tuple) -> tuple:
    first: Any = values[0] if len(values) == 1 else None
    several = isinstance(first, (tuple, list)) or getattr(first, "ndim", 0) == 1
    return tuple(first) if several else values
