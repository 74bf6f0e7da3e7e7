"""How an operator is defined: its forward on arrays and one derivative rule for each input.

    div = primitive(np.divide,
                    lambda g, y:      g / y,
                    lambda g, out, y: -g * out / y)

The first parameter of a rule is the cotangent ``g``, that is dL/d(out) for the scalar L being
differentiated; it returns dL/d(input). The names of the others say what the tape keeps, and
nothing else is kept:

    out        the result
    x, y       an input, by its name in the forward (a NumPy ufunc's inputs are x and y)
    like_x     only the shape and dtype of x: a stand-in that takes no memory
    axis, ...  an attribute: any parameter of the forward behind its inputs

Rules are plain NumPy. On arrays they compute; on Tensors, which speak NumPy's protocols, the same
text is recorded, and so can be differentiated again. A rule need not mention broadcasting, dtypes
or accumulation: the walk sees to them once, for all.

An operator follows its operands, as NumPy's own functions do: given arrays it returns an array,
given a Tensor it returns a Tensor and records itself.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import itertools
import pickle
import sys
import types
from operator import add, mul, neg, sub, truediv
from typing import Any, Callable, Sequence

import numpy as np

from tape.engine import carefully
from tape.kernels import sum_dtype
from tape.saved import Plan
from tape.mutation import read_only

# NumPy function -> what to call when it meets a Tensor. Filled as operators are defined.
NUMPY_FUNCTIONS: dict[Callable, Callable] = {}

# Python's operators do what these ufuncs do, ten times as fast, where an operand is NumPy's: on lists
# they do something else.
_SAME_BUT_FASTER: dict[Callable, Callable] = {
    np.add: add, np.subtract: sub, np.multiply: mul, np.divide: truediv, np.negative: neg}


class Primitive:
    """An operator that can be differentiated. Make one with `primitive` or `derivative`.

    Attributes
    ----------
    name : what errors, `tape.show` and the gradient checker call it.
    forward : arrays -> array.
    on_numpy : the same for operands of which one at least is NumPy's: faster, where there is such a
        way, and of a user's operator with arrays that it cannot write to.
    fresh : whether the forward always makes a new array, rather than a view of an input.
    scatter : for an operator that picks elements of its input x: ``scatter(total, g, *args)`` adds to
        `total`, in place, what the rule of x returns for the same arguments.
    rules : a derivative rule (or None) for each input; a joint operator has one rule that returns
        the gradients of all its inputs.
    """

    residuals: tuple[str, ...] = ()      # both for `tape.fused.Fused` alone
    composed: Callable | None = None

    def __init__(self, forward: Callable, rules: tuple, *, name: str | None = None,
                 doc: str | None = None, joint: bool = False, elementwise: bool = False,
                 scatter: Callable | None = None):
        self.name = name or forward.__name__
        self.elementwise = elementwise or (isinstance(forward, np.ufunc) and not forward.signature)
        self._read_signature(forward)
        self.__doc__ = doc or forward.__doc__
        self.__name__ = self.__qualname__ = self.name
        self.__wrapped__ = forward
        self.forward = forward
        self.on_numpy = _SAME_BUT_FASTER.get(forward, forward)
        self.fresh = isinstance(forward, np.ufunc)
        self.scatter = scatter
        if isinstance(forward, np.ufunc):
            NUMPY_FUNCTIONS.setdefault(forward, self)      # a user's own exp leaves np.exp alone
        self.joint = joint or self.variadic      # *arrays: one rule for however many there are
        self.rules = rules
        if len(rules) != (1 if self.joint else len(self.inputs)):
            raise TypeError(
                f"{self.name}: one rule for each input (None where there is no derivative), or one "
                f"for all of *arrays: inputs are {self.inputs}, got {len(rules)} rules")
        self.layout = (*self.inputs, "out", *self.defaults, *self.residuals)
        self.needs = [self._read_rule(rule) for rule in rules]
        x, like = self.inputs[0], "like_" + self.inputs[0]
        if self.variadic and rules[0] and not {x, like} & {*self.needs[0]}:
            raise TypeError(f"{self.name}: the rule of an operator on *{x} returns a list with a "
                            f"gradient for each; it must take {x} or {like}: lambda g, {like}: [...]")
        self._settle()

    def _settle(self) -> None:
        """What follows from the rules, worked out once.

        `bits` says which inputs have a rule, `plans` has a `Plan` for each set of them that wants a
        gradient, `mixes` is whether integers beside float operands become floats, and `ours`
        whether forward and rules are known not to write to what they are given.
        """
        self.differentiable = any(self.rules)
        # Bits of the inputs that have a rule: the key of `plans` is the sum of those that want it.
        self.bits = (itertools.repeat(1 if self.rules[0] else 0) if self.joint
                     else tuple(1 << i if rule else 0 for i, rule in enumerate(self.rules)))
        self.plans: dict[int, Plan] = {}
        self.mixes = self.variadic or not self.joint
        self.ours = all(isinstance(f, np.ufunc) or getattr(f, "__module__", "").startswith("tape.")
                        for f in (self.forward, *self.rules) if f)
        if not self.ours:
            self.on_numpy = _careful_forward(self.forward)

    def _read_signature(self, forward: Callable) -> None:
        """Inputs are the parameters before ``/`` (or ``*arrays``); the others are attributes."""
        self.defaults: dict[str, Any] = {}
        self.variadic = False
        if isinstance(forward, np.ufunc):
            self.inputs: tuple[str, ...] = ("x", "y")[:forward.nin]
            self.__signature__ = inspect.Signature(       # not the ufunc's out=, where=, ...
                [inspect.Parameter(x, inspect.Parameter.POSITIONAL_ONLY) for x in self.inputs])
            return
        inputs = []
        for p in inspect.signature(forward).parameters.values():
            if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL):
                inputs.append(p.name)
                self.variadic |= p.kind == p.VAR_POSITIONAL
            else:
                self.defaults[p.name] = p.default
        if not inputs:     # no "/" in the signature: every parameter without a default is an input
            inputs = [n for n, default in self.defaults.items() if default is inspect.Parameter.empty]
            self.defaults = {n: d for n, d in self.defaults.items() if n not in inputs}
        self.inputs = tuple(inputs)

    def _read_rule(self, rule: Callable | None) -> list[str]:
        if rule is None:
            return []
        try:
            parameters = [] if isinstance(rule, np.ufunc) else [*inspect.signature(rule).parameters]
        except ValueError:                  # some of Python's own functions have none
            parameters = []
        if not parameters:
            raise TypeError(f"{self.name}: a rule is a Python function whose first parameter is the "
                            f"cotangent, such as lambda g, x: g * x; got {rule!r}")
        names = parameters[1:]
        known = [*self.layout, *("like_" + name for name in self.inputs)]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise TypeError(
                    f"{self.name}: a rule's parameters are named for what it needs, one of {known}; "
                    f"got {name!r}" + (f". Did you mean {near[0]!r}?" if near else ""))
        return names

    def plan(self, wanted: int) -> Plan:
        """The plan for the inputs whose bits are set in `wanted`, made once."""
        if wanted not in self.plans:
            indices = [0] if self.joint else [
                i for i in range(len(self.inputs)) if wanted >> i & 1]
            self.plans[wanted] = Plan(self, indices)
        return self.plans[wanted]

    def bind(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Split a call's arguments into inputs and a complete dict of attributes."""
        count = len(args) if self.variadic else len(self.inputs)
        inputs, positional = args[:count], args[count:]
        if not kwargs and not positional and len(inputs) == count and not self.defaults:
            return inputs, self.defaults
        if len(inputs) < count or len(positional) > len(self.defaults):
            raise TypeError(f"{self.name}: takes {self.describe()}; got {len(args)} positional "
                            f"arguments")
        attributes = {**self.defaults, **dict(zip(self.defaults, positional))}
        for name, value in kwargs.items():
            if name not in self.defaults:
                near = difflib.get_close_matches(name, self.defaults, 1)
                hint = f". Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{self.name}: takes {self.describe()}; got {name}={value!r}{hint}")
            attributes[name] = value
        for name, value in attributes.items():
            if value is inspect.Parameter.empty:
                raise TypeError(f"{self.name}: takes {self.describe()}; {name!r} is missing")
            if isinstance(value, (list, tuple, dict, np.ndarray)):
                attributes[name] = _fixed(value)           # the caller may change theirs later
            elif not self.ours and hasattr(type(value), "_data"):
                raise TypeError(f"{self.name}: {name} is an attribute, which gets no gradient, and "
                                f"cannot be a Tensor. Inputs stand before a / in the signature.")
        return inputs, attributes

    def input_name(self, i: int | str) -> str:
        """What to call input number `i` in an error."""
        if isinstance(i, str):
            return i
        return f"input {i}" if self.variadic else f"input {self.inputs[i]}"

    def describe(self) -> str:
        """The signature, for messages: ``sum(x, axis=None, keepdims=False)``."""
        empty = inspect.Parameter.empty
        inputs = [f"*{self.inputs[0]}"] if self.variadic else list(self.inputs)
        attributes = [n if d is empty else f"{n}={d!r}" for n, d in self.defaults.items()]
        return f"{self.name}({', '.join(inputs + attributes)})"

    def __call__(self, *args, **kwargs):
        inputs, attributes = self.bind(args, kwargs)
        lists = False
        for value in inputs:
            kind = type(value)
            apply = getattr(kind, "__tape_apply__", None)
            if apply is not None:
                return apply(self, inputs, attributes)
            lists = lists or kind is list or kind is tuple
        if lists:
            inputs = tuple(np.asarray(x) if type(x) in (list, tuple) else x for x in inputs)
        return self.on_arrays(*inputs, **attributes)

    def on_arrays(self, *arrays, **attributes):
        """The forward, with nothing recorded."""
        return self.forward(*arrays, **attributes)

    def pull_all(self, record, g, lift) -> Sequence:
        """The gradients of all inputs of a joint operator; see `Plan.joint`."""
        rule: Any = self.rules[0]
        (args,) = record.saved if lift is None else record.plan.lifted(record, lift)
        gradients = rule(g, *args) if self.ours else carefully(rule, record, g, args)
        return self.one_each(gradients, len(record.parents))

    def one_each(self, gradients: Any, count: int) -> Sequence:
        """What a joint rule returned, checked: a gradient (or None) for each input."""
        if not isinstance(gradients, (list, tuple)) or len(gradients) != count:
            length = f" of {len(gradients)}" if isinstance(gradients, (list, tuple)) else ""
            raise TypeError(f"{self.name}: the derivative rule of an operator on *arrays must return a "
                            f"list with a gradient for each of them, here {count}; got "
                            f"{type(gradients).__name__}{length}")
        return gradients

    def undo_picks(self, picks: list[tuple], shape: tuple, dtype: Any) -> Any:
        """The gradient of a value of this shape from which several operators picked elements.

        `picks` has (operator, g, arguments of its rule) for each.
        """
        operators, pieces, args = zip(*picks)
        attributes = {"operators": operators, "args": args, "shape": shape, "dtype": dtype}
        return type(pieces[0]).__tape_apply__(PICKED, pieces, attributes)      # none of it is a user's

    def pick_again(self, g: Any, args: tuple) -> Any:
        """This operator on g, with all else as it was when its rule was given `args`."""
        named = dict(zip(self.needs[0], args))
        return self(g, *(named[name] for name in self.inputs[1:]),
                    **{name: named[name] for name in self.defaults})

    def __repr__(self) -> str:
        return f"<operator {self.describe()}>"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """In a class body an operator becomes a method, as a function does (and help() shows it)."""
        return self if instance is None else types.MethodType(self, instance)

    # Like a function, an operator is copied and pickled by name: a copied model shares it.

    def __deepcopy__(self, memo) -> Primitive:
        return self

    def __reduce__(self) -> tuple:
        for module, content in list(sys.modules.items()):
            if module.split(".")[0] == "tape":
                for name, value in vars(content).items():
                    if value is self:
                        return _operator_at, (module, name)
        raise pickle.PicklingError(f"{self!r} is not one of tape's own operators, which alone can be "
                                   f"pickled, by name")


def _fixed(value: Any) -> Any:
    """An attribute that nobody else can change: lists as tuples, arrays as copies, at any depth."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_fixed, value))
    if isinstance(value, dict):
        return {name: _fixed(item) for name, item in value.items()}
    return np.array(value) if isinstance(value, np.ndarray) else value


def _careful_forward(forward: Callable) -> Callable:
    return lambda *arrays, **attributes: forward(*read_only(arrays), **attributes)


def _operator_at(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _sum_of_scattered(*pieces, operators, args, shape, dtype):
    total = np.zeros(shape, sum_dtype(np.dtype(dtype)))
    for operator, piece, rest in zip(operators, pieces, args):
        operator.scatter(total, piece, *rest)
    return total.astype(dtype, copy=False)


def _pick_all_again(g, like_pieces, operators, args):
    return [operator.pick_again(g, rest) for operator, rest in zip(operators, args)]


# Picking is linear, L = sum_i <g_i, pick_i(x)>, so the gradient of x is the sum of the g_i put back to
# their places, and the gradient of each g_i is what pick_i picks.
PICKED = Primitive(_sum_of_scattered, (_pick_all_again,), name="scatter_add")

IDENTITY = Primitive(lambda x, /: x, (lambda g: g,), name="identity", elementwise=True)
STOP_GRADIENT = Primitive(lambda x, /: x, (None,), name="stop_gradient", elementwise=True)


def primitive(forward: Callable, *rules: Callable | None, name: str | None = None,
              doc: str | None = None, elementwise: bool = False) -> Primitive:
    """Define an operator: a forward on arrays, and a derivative rule for each of its inputs.

    Parameters
    ----------
    forward : callable
        Arrays in, array out. A NumPy ufunc, or a function whose inputs stand before a ``/`` in
        its signature and whose attributes (axis, ...) stand behind it. Without a ``/``, the
        parameters without a default are the inputs.
    *rules : callable or None
        One per input, in order; see the head of this file. None: no derivative (a condition, an
        index). A rule returns a gradient of the shape of ``out`` or of its input. A forward with
        ``*arrays`` has one rule, which returns a list with a gradient for each of them.
    name, doc : str, optional
        Default to the forward's own.
    elementwise : bool
        The result at one place depends on the inputs at that place alone (known for a ufunc). A
        zero cotangent then gives a zero gradient even where the derivative is infinite.

    Returns
    -------
    Primitive
        Call it with Tensors to record, with arrays to compute.

    Examples
    --------
    >>> import numpy as np, tape
    >>> cube = tape.primitive(lambda x: x ** 3, lambda g, x: g * 3 * x ** 2, name="cube")
    >>> t = tape.Tensor(2.0, requires_grad=True)
    >>> cube(t).backward()
    >>> t.grad
    array(12., dtype=float32)
    """
    return Primitive(forward, rules, name=name, doc=doc, elementwise=elementwise)


def derivative(*rules: Callable | None, numpy: Callable | None = None, elementwise: bool = False,
               scatter: Callable | None = None) -> Callable[[Callable], Primitive]:
    """`primitive` as a decorator of the forward; `numpy` is the NumPy function it stands in for."""
    def define(forward: Callable) -> Primitive:
        operator = Primitive(forward, rules, elementwise=elementwise, scatter=scatter)
        if numpy is not None:
            NUMPY_FUNCTIONS[numpy] = operator
        return operator
    return define


def joint_derivative(rule: Callable, numpy: Callable | None = None) -> Callable:
    """Like `derivative`, with one rule that returns the gradients of all inputs, as a sequence."""
    def define(forward: Callable) -> Primitive:
        operator = Primitive(forward, (rule,), joint=True)
        if numpy is not None:
            NUMPY_FUNCTIONS[numpy] = operator
        return operator
    return define


def implements(*functions: Callable) -> Callable[[Callable], Callable]:
    """Decorator: when one of these NumPy functions meets a Tensor, call this instead."""
    def register(function: Callable) -> Callable:
        for numpy_function in functions:
            NUMPY_FUNCTIONS[numpy_function] = function
        return function
    return register
