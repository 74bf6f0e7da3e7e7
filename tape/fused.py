"""Operators that are defined twice: composed of others, and as a pair of kernels."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Sequence

import numpy as np

from tape.engine import walk
from tape.kernels import sum_dtype
from tape.primitive import IDENTITY, Primitive


def _widened(x, /):
    x = np.asarray(x)
    return x.astype(sum_dtype(x.dtype), copy=False) if x.dtype.kind == "f" else x


WIDENED = Primitive(_widened, (lambda g: g,), name="widened", elementwise=True)


class Fused(Primitive):
    """An operator defined twice: composed of primitives, and as a pair of kernels.

    The composed definition is the explanation, the test oracle and the derivative of higher
    order; the kernels are there for speed. The backward kernel's parameter names say what it
    needs, as in any rule; a name that is neither an input nor an attribute is a residual, and the
    forward kernel then returns ``(out, {name: array})``.
    """

    composed: Callable

    def __init__(self, composed: Callable, forward: Callable, backward: Callable):
        self.composed = composed
        self._read_signature(composed)
        _, *names = inspect.signature(backward).parameters
        known = {*self.inputs, "out", *self.defaults, *("like_" + name for name in self.inputs)}
        self.residuals = tuple(name for name in names if name not in known)
        super().__init__(composed, (backward,), joint=True)
        self.forward = self.on_numpy = forward
        self.mixes = False

    def compose(self, *inputs, **attributes):
        """The composed definition, run in float32 on what is in float16, as the kernels do."""
        return self.composed(*(None if x is None else WIDENED(x) for x in inputs), **attributes)

    def on_arrays(self, *arrays, **attributes):
        out = self.forward(*arrays, **attributes)
        return out[0] if self.residuals else out

    def pull_all(self, record, g, lift) -> Sequence:
        """By the backward kernel on arrays; on Tensors by running the composed definition again.

        The second run starts from fresh stand-ins of the inputs (`IDENTITY`), where its own walk
        stops: an input that depends on another input must not pull that one's gradient twice.
        """
        args, inputs, attributes = record.saved
        kernel: Any = self.rules[0]
        if lift is None:
            return kernel(g, *args)
        linked = [value if parent is None else IDENTITY(lift(value, parent))
                  for value, parent in zip(inputs, record.parents)]
        out = self.compose(*linked, **attributes)
        targets = [getattr(x, "_record", None) for x in linked]
        pulled = walk({out._record: WIDENED(g)}, targets={t for t in targets if t is not None},
                      lift=lift, retain=True)
        return [pulled.get(t, lift(np.zeros_like(x), None)) if t is not None else None
                for t, x in zip(targets, inputs)]


def fused(forward: Callable, backward: Callable) -> Callable[[Callable], Fused]:
    """Decorator of a composed definition: run this pair of kernels in its place; see `Fused`."""
    return lambda composed: Fused(composed, forward, backward)
