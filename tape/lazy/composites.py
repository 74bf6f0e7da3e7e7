"""The kinds of step that stand for several of tape's operators, or for a backward kernel.

There are no derivatives here: a `Composite` is pulled back through the operators that it is made of.
"""

from __future__ import annotations

import inspect
import weakref
from typing import Any, Callable, Sequence

import numpy as np

from tape import ops
from tape.fused import WIDENED, Fused
from tape.kernels import unbroadcast
from tape.lazy.gradients import pull_back
from tape.lazy.node import BuiltIn, Node, as_node, is_none
from tape.primitive import IDENTITY


class Composite(BuiltIn):
    """Several of tape's operators under one name. Its gradient is pulled back through them."""

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        """What it is made of, as a graph on these inputs."""
        raise NotImplementedError

    def pull(self, node: Node, output_grad: Node, wanted: Sequence[int],
             out: Node | None = None) -> dict[int, Node]:
        seen: set[Node] = set()
        # An input that occurs twice must be told apart from itself: each has a gradient of its own.
        inputs: list[Node] = []
        for x in node.inputs:
            inputs.append(IDENTITY(x) if x in seen else x)
            seen.add(x)
        found = pull_back(self.expand(inputs, node.attrs), output_grad, [inputs[i] for i in wanted],
                          stop=frozenset(inputs), stands_for=node if out is None else out)
        return {i: found[inputs[i]] for i in wanted if inputs[i] in found}


class KernelGradient(Composite):
    """The gradient of one input of a fused operator, by its backward kernel.

    Inputs: the gradient of the result, then those of the fused operator. Its own derivative is that
    of the composed definition, pulled back twice.
    """

    def __init__(self, operator: Fused):
        self.operator = operator
        self.name = f"{operator.name}_gradient"
        self.takes = operator.defaults
        # What the forward kernel leaves, `made` below, is its residuals or its result, not both.
        assert not (operator.residuals and "out" in operator.needs[0])

    def __call__(self, output_grad: Node, node: Node, i: int) -> Node:
        return Node([output_grad, *node.inputs], self, {**node.attrs, "input": i})

    def compute(self, node: Node, input_values: list) -> Any:
        g, *inputs = input_values
        attributes = self.attributes(node.attrs)
        made = self.operator.forward(*inputs, **attributes)
        made = made[1] if self.operator.residuals else made
        i = node.attrs["input"]
        return fitted(self.backward(g, made, *inputs, attributes=attributes)[i], inputs[i])

    def backward(self, g: Any, made: Any, *inputs: Any, attributes: dict) -> Sequence:
        """The gradients of all inputs, by the kernel, which asks for what it needs by name.

        `made` is what the forward kernel left for it: the residuals, or else its result.
        """
        left = made if self.operator.residuals else {"out": made}
        named = {**dict(zip(self.operator.inputs, inputs)), **attributes, **left}
        kernel: Any = self.operator.rules[0]
        return kernel(g, *(named[name] for name in self.operator.needs[0]))

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        g, *rest = inputs
        x = rest[attrs["input"]]
        out = self.operator.compose(*(None if is_none(node) else node for node in rest),
                                    **self.attributes(attrs))
        found = pull_back(out, WIDENED(g), [x], stop=frozenset(rest))
        return found[x] if x in found else ops.zeros_like(x)

    def __reduce__(self) -> tuple:
        return kernel_gradient, (self.operator,)


def fitted(gradient: Any, x: Any) -> Any:
    """What a kernel gives for an input, in its shape; None, say for targets, stands for no gradient."""
    return np.zeros_like(x) if gradient is None else unbroadcast(np.asarray(gradient), np.shape(x))


def kernel_gradient(operator: Fused) -> KernelGradient:
    """The one `KernelGradient` of an operator."""
    op = _KERNEL_GRADIENTS.get(id(operator))
    if op is None:
        op = _KERNEL_GRADIENTS[id(operator)] = KernelGradient(operator)
    return op


_KERNEL_GRADIENTS: weakref.WeakValueDictionary[int, KernelGradient] = weakref.WeakValueDictionary()


class Named(Composite):
    """A composite written as a function of its inputs (``node_A``, ...) and attributes."""

    def __init__(self, function: Callable):
        self.function = function
        self.name = function.__name__
        self.__signature__ = self.signature = inspect.signature(function)
        self.takes = {name: p.default for name, p in self.signature.parameters.items()
                      if not name.startswith("node_")}
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            near = " ".join(f"Did you mean {_OTHER_NAMES[name]!r}?" for name in kwargs
                            if name in _OTHER_NAMES)
            raise TypeError(f"{self.name}{self.signature}: {error}. {near}".rstrip(" ")) from error
        bound.apply_defaults()
        inputs, attrs = [], {}
        for name, value in bound.arguments.items():
            if name.startswith("node_"):
                inputs.append(as_node(value))
            else:
                attrs[name] = tuple(value) if isinstance(value, list) else value
                if name in ("dim", "dim0", "dim1"):
                    _check_dim(self, name, attrs[name])
        return Node(inputs, self, attrs)

    def compute(self, node: Node, input_values: list) -> Any:
        return self.function(*input_values, **self.attributes(node.attrs))

    def expand(self, inputs: list[Node], attrs: dict) -> Node:
        return self.function(*inputs, **self.attributes(attrs))


_OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def _check_dim(op: Named, name: str, value: Any) -> None:
    several = value if isinstance(value, tuple) else (value,)
    optional = value is None and op.takes[name] is None
    if not optional and not all(isinstance(dim, (int, np.integer)) for dim in several):
        raise TypeError(f"{op.name}: {name} must be an integer, or several where the operator takes "
                        f"them; got {value!r}")
