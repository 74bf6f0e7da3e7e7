"""Operators defined twice: composed of primitives, and as a pair of kernels of the set in use."""

from __future__ import annotations

from typing import Any, Callable, Sequence

from tape.kernels import choice
from tape.primitive import Primitive


class Fused(Primitive):
    """An operator defined twice: composed of primitives, and as a pair of kernels.

    The composed definition is the explanation, the test oracle and the derivative of higher
    order; the kernels are there for speed. The backward kernel's parameter names say what it
    needs, as in any rule; a name that is neither an input nor an attribute is a residual, and the
    forward kernel then returns ``(out, {name: array})``. Kernels return new arrays.

    The kernels are those that `tape.kernels.choice.find` has under `kernel` and `kernel` with
    "_backward" behind it. When another set is chosen, an operator forgets all that depends on them
    and is set up again when it is next used: so a call costs nothing more, and Numba is imported
    when it is needed. A `Vjp` made before keeps the rules that it was made with.

    An operator around another one has no kernels of its own in the sets: `around` makes its pair from
    that of the other, whichever is in use. `constants` are the inputs that are no floats and have no
    gradient, such as targets; of the others integers and lists take the dtype of the floats.
    """

    optional_inputs = True
    _OF_KERNELS = ("forward", "rules", "needs", "residuals", "layout", "vjps", "trusted", "protected",
                   "on_arrays", "on_numpy")

    def __init__(self, composed: Callable, kernel: str, name: str = "",
                 around: Callable | None = None, constants: Sequence[str] = ()):
        self.composed, self.kernel, self.around = composed, kernel, around
        self.constants = constants
        self._set_up(name or composed.__name__)
        choice.followers.add(self)

    def _set_up(self, name: str) -> None:
        """Take the kernels in use, all at once: another thread may be using the operator meanwhile."""
        forward, backward = choice.find(self.kernel), choice.find(self.kernel + "_backward")
        if self.around is not None:
            forward, backward = self.around(forward, backward)
        fresh = object.__new__(Fused)
        fresh.__dict__.update(self.__dict__)
        Primitive.__init__(fresh, forward, (backward,), name=name, doc=self.composed.__doc__ or "",
                           joint=True, signature=self.composed, fresh=True)
        fresh.numeric_bits = tuple(name not in self.constants for name in fresh.inputs)
        fresh.promotes = sum(fresh.numeric_bits) > 1
        self.__dict__ = fresh.__dict__
        self.__class__ = Fused

    def forget_kernels(self) -> None:
        self.__class__ = _WithoutKernels
        for attribute in self._OF_KERNELS:
            self.__dict__.pop(attribute, None)

    def _residual_names(self) -> tuple[str, ...]:
        known = {*self.inputs, "out", *self.defaults, *("like_" + name for name in self.inputs)}
        return tuple(name for name in self.needs[0] if name not in known)


class _WithoutKernels(Fused):
    """What a `Fused` is from `forget_kernels` until an attribute that depends on them is read.

    A class of its own, since one that has ``__getattr__`` takes longer to read every attribute.
    """

    def __getattr__(self, attribute: str) -> Any:
        if attribute not in self._OF_KERNELS:
            raise AttributeError(f"{Fused.__name__!r} object has no attribute {attribute!r}")
        with choice.LOCK:
            if attribute not in self.__dict__:
                self._set_up(self.name)
        return self.__dict__[attribute]


def fused(kernel: str, name: str = "", around: Callable | None = None,
          constants: Sequence[str] = ()) -> Callable[[Callable], Fused]:
    """Decorator of a composed definition: run this pair of kernels in its place; see `Fused`."""
    return lambda composed: Fused(composed, kernel, name, around, constants)
