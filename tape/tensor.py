"""`Tensor`: an array that remembers how it was made.

This file is the class itself and how it behaves in Python. How an operator runs on it is in
``tape/dispatch.py``; what the operators compute is in ``tape/ops``, and ``tape/methods.py`` makes
methods of them; the backward pass is in ``tape/engine.py``; how NumPy's own functions
call our operators is in ``tape/numpy_protocol.py``.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any, Iterator

import numpy as np

from tape import numpy_protocol
from tape.engine import Record, walk
from tape.foreign_names import COUNTS, NamesOfOthers
from tape.methods import Methods
from tape.mutation import Version, note
from tape.ops.arithmetic import stop_gradient
from tape.grad_mode import modes
from tape.hollow import Outline, copied, hollow, is_hollow
from tape.promotion import as_new_array, in_standard_dtype

_new, _ndarray = object.__new__, np.ndarray      # looked up once, not at every operation
_ONE = {kind: kind(1) for kind in (np.float16, np.float32, np.float64)}


class Tensor(Methods, NamesOfOthers):
    """A NumPy array whose operations are recorded, so that they can be differentiated.

    Parameters
    ----------
    data : array_like
        Copied. Python numbers and lists of them become float32; an array keeps its dtype.
    requires_grad : bool
        Whether ``backward()`` should leave a gradient in ``.grad``. Needs a floating dtype.
    dtype : optional
        Overrides the dtype of `data`.

    Attributes
    ----------
    grad : numpy.ndarray or None
        What ``backward()`` left here: same shape and dtype as ``data``. Sums up over several
        calls, until it is set to None.

    Examples
    --------
    >>> from tape import Tensor
    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> loss = (x ** 2).sum()
    >>> loss.backward()
    >>> x.grad
    array([2., 4., 6.], dtype=float32)
    """

    __slots__ = ("_data", "_grad", "_requires_grad", "_record", "_writable", "_version",
                 "__weakref__")

    # Whether t += y changes t's array even where no gradient is wanted, as of a frozen parameter.
    is_variable = False

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None):
        self._data = as_new_array(data, dtype)
        self._grad: np.ndarray | None = None
        self._record: Record | None = None
        self._writable = True
        self._version: Version | None = None
        self._requires_grad = False
        self.requires_grad = requires_grad

    # --- the array, its gradient, its place on the tape ---

    # _writable: made by hand, rather than computed. _version: of the array, for the records that saved
    # it; see ``tape/mutation.py``. A value without axes is kept as a NumPy scalar, on which arithmetic
    # is ten times as fast as on an array, until the array is asked for.

    @property
    def data(self) -> np.ndarray:
        """The array. Read-only where it was computed: the tape relies on it.

        That of a tensor made by hand can be changed, as an optimiser does: ``t.data -= step``,
        ``t.data[0] = 1``, ``np.add(t.data, 1, out=t.data)``. A tape that still needs the old values
        notices, and refuses to go on. No result shares memory with it.
        """
        if self._writable:
            if self._version is not None:       # a record saved the array, which the caller may change
                note(self)
            if type(self._data) is not _ndarray:
                self._data = np.asarray(self._data)
            return self._data
        view = np.asarray(self._data).view()
        view.flags.writeable = False
        return view

    @data.setter
    def data(self, value: Any) -> None:
        if self._record is not None:
            raise TypeError("data: the result of a recorded operation cannot be assigned to. Make a "
                            "leaf of it first: t = t.detach(), or compute a new tensor.")
        array = in_standard_dtype(np.asarray(value, dtype=self.dtype))
        if array.shape != self.shape:
            raise ValueError(f"data: the new array must have shape {self.shape}, got {array.shape}. "
                             f"For another shape make a new Tensor.")
        if array is not self._data:           # it is in t.data -= step, which was done in place
            self._own(copied(array))

    def _own(self, array: np.ndarray) -> None:
        """Take an array that nobody else has."""
        self._data, self._writable, self._version = array, True, None

    @property
    def grad(self) -> np.ndarray | None:
        if self._grad is None and self._record is not None and self._record.retained is None:
            warnings.warn("grad: only leaves keep a gradient, and this tensor is the result of "
                          f"{self._record.name}. Call t.retain_grad() before backward().",
                          stacklevel=2)
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            value = np.asarray(value, dtype=self.dtype)
            if value.shape != self.shape:
                raise ValueError(f"grad: a gradient has the shape of its tensor, {self.shape}; "
                                 f"got {value.shape}")
        self._grad = value

    def _add_grad(self, gradient: np.ndarray) -> None:
        # A fresh sum, not +=: an array that was kept from the last step must not change.
        self._grad = gradient if self._grad is None else np.asarray(self._grad + gradient)

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded. Settable on leaves."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self._record is not None:
            raise TypeError("requires_grad: this tensor is the result of a recorded operation and "
                            "always takes part; use detach() for a copy that does not.")
        if value and self.dtype.kind != "f":
            raise TypeError(f"requires_grad: only floating-point tensors have gradients, got dtype "
                            f"{self.dtype}. Make it of floats: 1.0 rather than 1, or "
                            f"array.astype(np.float32).")
        if not self._writable:            # computed: from here on it is a leaf like any other
            self._own(np.array(self._data))
        self._requires_grad = bool(value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return COUNTS[self._data.size]

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by hand rather than by a recorded operation."""
        return self._record is None

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add dL/dt to the ``.grad`` of every leaf t that this result, L, was made from.

        Parameters
        ----------
        gradient : array_like, optional
            dL/d(self), of this tensor's shape, when this tensor is not L itself. Default: 1, for
            a tensor with one element.
        retain_graph : bool
            Keep the tape for another walk. By default the walk releases what it has used.

        Raises
        ------
        RuntimeError
            Nothing was recorded, or the tape was already released.
        ValueError
            This tensor has several elements and no `gradient` is given, or its shape is wrong.
        """
        seed = self._seed(gradient, "backward")
        for leaf, g in walk({self._record or self: seed}, retain=retain_graph).items():
            leaf._add_grad(g)

    def _seed(self, gradient: Any, caller: str) -> Any:
        """The cotangent a walk starts from here, as an array of this tensor's shape and dtype."""
        if not self._requires_grad:
            raise RuntimeError(
                f"{caller}: nothing was recorded for this tensor of shape {self.shape}: no input "
                f"of it had requires_grad=True, or it was computed under no_grad or detached.")
        if gradient is None:
            one = _ONE.get(type(self._data))
            if one is not None:
                return one
            if self.size != 1:
                raise ValueError(
                    f"{caller}: the gradient of a tensor of shape {self.shape} is not one number per "
                    f"input. Reduce it first, t.sum() or t.mean(), or give a gradient= of this shape.")
            return np.ones(self.shape, self.dtype)[()]
        data = self._data
        array = np.asarray(gradient._data if isinstance(gradient, Tensor) else gradient, data.dtype)
        if array.shape != data.shape:
            raise ValueError(f"{caller}: gradient must have this tensor's shape {self.shape}, got "
                             f"{array.shape}")
        return array if array.ndim else array[()]       # a scalar rather than an array without axes

    def retain_grad(self) -> Tensor:
        """Keep the gradient of this intermediate result in ``.grad`` too. Returns the tensor."""
        if self._record is not None:
            self._record.retained = weakref.ref(self)
        return self

    def detach(self) -> Tensor:
        """A copy that takes no part in any tape; while tracing, a result without a gradient."""
        if modes.get().tracing and (self._requires_grad or self._record is not None):
            return stop_gradient(self)
        copy = from_array(self._data)
        copy._own(copied(np.asarray(self._data)))
        return copy

    def numpy(self) -> np.ndarray:
        """The array, as ``.data``; read-only where it was computed."""
        return self.data

    def item(self) -> Any:
        """The one element, as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: only a tensor with one element is a number; this one has shape "
                             f"{self.shape}")
        return self._data.item()

    def tolist(self) -> Any:
        """Nested Python lists of numbers."""
        return self._data.tolist()

    # --- Python's protocols ---

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a tensor of shape () has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iter: a tensor of shape () cannot be iterated over; .item() gives its "
                            "number")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool(np.any(self == value))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"bool: the truth of a tensor of shape {self.shape} is ambiguous. Use "
                             f"(t != 0).any() or (t != 0).all()")
        return bool(self._data)

    def __float__(self) -> float:
        return float(self._number("float"))

    def __int__(self) -> int:
        return int(self._number("int"))

    def _number(self, caller: str) -> Any:
        if self._requires_grad:
            raise TypeError(f"{caller}: turning a tensor into a number loses its gradient, so it must "
                            f"be asked for: t.item(). For math.exp(t) write tape.exp(t); for an array "
                            f"filled by a[i] = t keep a list, and write tape.stack(list).")
        return self.item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self._requires_grad:
            raise TypeError("array: turning a tensor into a plain array loses its gradient, so it "
                            "must be asked for: t.numpy(). To join tensors and numbers write "
                            "tape.stack([[t, u], [v, w]]) for np.array([[t, u], [v, w]]); for an array "
                            "filled by a[i] = t keep a list, and write tape.stack(list).")
        return np.array(self.data, dtype=dtype, copy=copy)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "setitem: a tensor cannot be changed in place, because the tape may need its old values. "
            "Build a new one: tape.where(mask, value, t) for t[mask] = value, "
            "tape.concatenate([t[:i], value, t[j:]]) for t[i:j] = value; or, for a leaf that no tape "
            "needs (a parameter outside of training), t.data[index] = value.")

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else str(self).__format__(spec)

    def __repr__(self) -> str:
        numbers = np.array2string(np.asarray(self._data), separator=", ", prefix="Tensor(")
        dtype = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        if self._record is not None:
            return f"Tensor({numbers}{dtype}, from={self._record.name})"
        return f"Tensor({numbers}{dtype}{', requires_grad=True' if self._requires_grad else ''})"

    def __reduce__(self) -> tuple:
        """Pickle and copy the values; a recorded result comes back without its tape."""
        leaf = self._record is None
        data = Outline(self.shape, self.dtype) if is_hollow(self._data) else self.data
        return _rebuild, (type(self), data, self._requires_grad and leaf,
                          self._grad, getattr(self, "__dict__", {}))

    def __dir__(self) -> list[str]:
        own = getattr(self, "__dict__", ())             # of a subclass
        return [name for name in super().__dir__() if name in own or hasattr(type(self), name)]

    # --- NumPy's protocols ---

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return numpy_protocol.call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        return numpy_protocol.call_function(function, args, kwargs)


def from_array(data: Any, record: Record | None = None) -> Tensor:
    """A Tensor around an array that is not copied."""
    tensor = _new(Tensor)
    tensor._data = data
    tensor._grad = None
    tensor._record = record
    tensor._requires_grad = record is not None
    tensor._writable = False
    tensor._version = None
    return tensor


def as_tensor(array: Any, owner: Any) -> Tensor:
    """Put a saved array back on the tape, as the Tensor it came from; see `engine.walk`."""
    if not isinstance(owner, Tensor):
        return from_array(array, owner)
    if owner._data is not array and not (
            owner.ndim == 0 and np.array_equal(owner._data, array, equal_nan=True)):
        raise RuntimeError(f"grad: a leaf of shape {owner.shape} was given a new array after it was "
                           f"recorded; with create_graph=True update it after the last backward.")
    return owner


def _rebuild(cls: type, data: np.ndarray | Outline, requires_grad: bool, grad: np.ndarray | None,
             attributes: dict) -> Tensor:
    tensor: Tensor = object.__new__(cls)
    Tensor.__init__(tensor, hollow(*data) if isinstance(data, Outline) else data, requires_grad)
    tensor._grad = None if grad is None else np.array(grad)
    for name, value in attributes.items():       # of a subclass
        setattr(tensor, name, value)
    return tensor
