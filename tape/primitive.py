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
or accumulation: the walk does these for all.

An operator follows its operands, as NumPy's own functions do: given arrays it returns an array,
given a Tensor it returns a Tensor and records itself.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pickle
import sys
import types
import weakref
from operator import add, mul, neg, sub, truediv
from typing import Any, Callable, Sequence

import numpy as np

from tape.errors import did_you_mean
from tape.foreign_names import CALLS, keyword_hint
from tape.mutation import protected_rule, read_only
from tape.saved import Vjp, fixed, is_fixed

# NumPy function -> what to call when it meets a Tensor. Filled as operators are defined.
NUMPY_FUNCTIONS: dict[Callable, Callable] = {}

# Python's operators do what these ufuncs do, ten times as fast, where an operand is NumPy's: on lists
# they do something else.
_SAME_BUT_FASTER: dict[Callable, Callable] = {
    np.add: add, np.subtract: sub, np.multiply: mul, np.divide: truediv, np.negative: neg}

# Where all operands and attributes are of these types, nothing is recorded and nothing converted.
_COMPUTED_WITH = frozenset({np.ndarray, np.float32, np.float64, int, float, bool, type(None)})


class Primitive:
    """An operator that can be differentiated. Make one with `primitive` or `derivative`.

    Attributes
    ----------
    name : what errors, `tape.show` and the gradient checker call it.
    symbol : how it is written between its operands, if it is: ``+``.
    inputs, defaults : the names of its inputs; its attributes with their defaults.
    arity : how many these are together; -1 where they cannot all be given by their places.
    complete : whether a call without attributes can be given `defaults` as they are.
    forward : arrays -> array; of a fused operator with residuals, (array, {name: residual}).
    on_arrays : arrays -> array.
    protected : the same with read-only arrays, for a user's operator, which may write to what it is
        given.
    on_numpy : the fastest way to the same, for operands of which one at least is NumPy's.
    rules : a derivative rule (or None) for each input; a joint operator has one rule that returns
        the gradients of all its inputs.
    needs : the names of what each rule asks for.
    elementwise : whether the result at one place depends on the inputs at that place alone.
    fresh : whether the forward always makes a new array, rather than a view of an input.
    promotes : whether integers and lists beside floats take the dtype of the floats.
    counts_booleans : whether booleans, which NumPy's function refuses, count as 0 and 1.
    optional_inputs : whether an input may be None.
    trusted : whether forward and rules are known not to write to what they are given.
    scatter, gather : for an operator that picks elements of its input x. ``scatter(total, g, *args)``
        adds to `total`, in place, what the rule of x returns for the same arguments, and
        ``gather(g, *args)`` picks the same elements of g.
    residuals : what a fused operator's forward returns besides, for its rule.
    gradient_bits, ruled : for each input 1 << i if it has a rule, else 0; and all of them together. The
        sum of those that want a gradient is the key of a `Vjp`. Of a joint operator 1 or 0.
    numeric_bits, numeric : the same for the inputs that are computed with, and share a dtype: those
        that have a rule, unless `computes_with_all`. An index or a condition stays what it is.
    """

    composed: Callable | None = None           # these two for `Fused` alone; see tape/fusion.py
    optional_inputs = False
    counts_booleans = False

    def __init__(self, forward: Callable, rules: Sequence, *, name: str = "", doc: str = "",
                 symbol: str = "", joint: bool = False, elementwise: bool = False,
                 scatter: Callable | None = None, gather: Callable | None = None,
                 signature: Callable | None = None, fresh: bool = False):
        ufunc = forward if isinstance(forward, np.ufunc) else None
        self.name = self.__name__ = self.__qualname__ = name or forward.__name__
        self.__doc__ = doc or forward.__doc__
        self.__wrapped__ = signature or forward
        self.symbol = symbol
        self.forward = forward
        self.fresh = fresh or ufunc is not None
        self.elementwise = elementwise or ufunc is not None and not ufunc.signature
        self.scatter, self.gather = scatter, gather
        self._read_signature(self.__wrapped__)
        self.joint = joint or self.variadic      # *arrays: one rule for however many there are
        self.promotes = self.variadic or not self.joint
        self.rules = tuple(rules)
        self.needs = [self._names_in(rule) for rule in rules]
        self.complete = all(map(is_fixed, self.defaults.values()))
        self.residuals = self._residual_names()
        self.layout = (*self.inputs, "out", *self.defaults, *self.residuals)
        self._check_rules()
        bits = [1 << i if rule else 0 for i, rule in enumerate(self.rules)]
        self.ruled = sum(bits)
        self.gradient_bits: Any = itertools.repeat(bits[0]) if self.joint else tuple(bits)
        self.numeric_bits: Any = self.gradient_bits
        self.numeric = self.ruled
        self.vjps: Any = {}
        self.trusted = all(
            isinstance(f, np.ufunc) or (getattr(f, "__module__", "") or "").startswith("tape.")
            for f in (forward, *rules) if f)
        self.protected = forward
        if not self.trusted:
            self.vjps = weakref.WeakValueDictionary()      # so that no cycle keeps it alive
            self.protected = lambda *arrays, **attributes: forward(*read_only(arrays), **attributes)
            self.rules = tuple(rule and protected_rule(rule, self.name) for rule in self.rules)
        self.on_arrays = forward if not self.residuals else (
            lambda *arrays, **attributes: forward(*arrays, **attributes)[0])
        self.on_numpy = _SAME_BUT_FASTER.get(forward, self.protected)
        if ufunc is not None:
            NUMPY_FUNCTIONS.setdefault(forward, self)      # a user's own exp leaves np.exp alone

    @property
    def differentiable(self) -> bool:
        """Whether an input has a rule."""
        return any(self.rules)

    # --- what the definition says ---

    def _read_signature(self, forward: Callable) -> None:
        """Inputs are the parameters before ``/`` (or ``*arrays``); the others are attributes."""
        self.defaults: dict[str, Any] = {}
        self.variadic = False
        if isinstance(forward, np.ufunc):
            self.inputs: tuple[str, ...] = ("x", "y")[:forward.nin]
            self.arity = forward.nin
            self.__signature__ = inspect.Signature(       # not the ufunc's out=, where=, ...
                [inspect.Parameter(x, inspect.Parameter.POSITIONAL_ONLY) for x in self.inputs])
            return
        inputs = []
        parameters = inspect.signature(forward).parameters
        for p in parameters.values():
            if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL):
                inputs.append(p.name)
                self.variadic |= p.kind == p.VAR_POSITIONAL
            else:
                self.defaults[p.name] = p.default
        if not inputs:     # no "/" in the signature: every parameter without a default is an input
            inputs = [n for n, default in self.defaults.items() if default is inspect.Parameter.empty]
            self.defaults = {n: d for n, d in self.defaults.items() if n not in inputs}
        self.inputs = tuple(inputs)
        by_place = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        self.arity = len(parameters) if by_place.issuperset(p.kind for p in parameters.values()) else -1

    def computes_with_all(self) -> Primitive:
        """Say that inputs without a rule are numbers too, of the same dtype as the others."""
        self.numeric_bits = tuple(1 << i for i in range(len(self.inputs)))
        self.numeric = sum(self.numeric_bits)
        return self

    def _residual_names(self) -> tuple[str, ...]:
        return ()

    def _check_rules(self) -> None:
        if len(self.rules) != (1 if self.joint else len(self.inputs)):
            raise TypeError(
                f"{self.name}: one rule for each input (None where there is no derivative), or one "
                f"for all of *arrays: inputs are {self.inputs}, got {len(self.rules)} rules")
        for name in itertools.chain(*self.needs):
            known = [*self.layout, *("like_" + name for name in self.inputs)]
            if name not in known:
                raise TypeError(f"{self.name}: a rule's parameters are named for what it needs, one of "
                                f"{known}; got {name!r}{did_you_mean(name, known)}")
        x, like = self.inputs[0], "like_" + self.inputs[0]
        if self.variadic and self.rules[0] and not {x, like} & {*self.needs[0]}:
            raise TypeError(f"{self.name}: the rule of an operator on *{x} returns a list with a "
                            f"gradient for each; it must take {x} or {like}: lambda g, {like}: [...]")

    def _names_in(self, rule: Callable | None) -> list[str]:
        """The parameters of a rule behind its first, the cotangent."""
        if rule is None:
            return []
        try:
            parameters = [] if isinstance(rule, np.ufunc) else [*inspect.signature(rule).parameters]
        except ValueError:                  # some of Python's own functions have none
            parameters = []
        if not parameters:
            raise TypeError(f"{self.name}: a rule is a Python function whose first parameter is the "
                            f"cotangent, such as lambda g, x: g * x; got {rule!r}")
        return parameters[1:]

    def vjp(self, wanted: int) -> Vjp:
        """The rules for the inputs whose bits are set in `wanted`, and what they are given."""
        found = self.vjps.get(wanted)
        if found is None:
            found = self.vjps[wanted] = Vjp(self, wanted)
        return found

    # --- a call ---

    def bind(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Split a call's arguments into inputs and a complete dict of attributes."""
        count = len(args) if self.variadic else len(self.inputs)
        if len(args) == count and self.complete and not kwargs:
            return args, self.defaults
        inputs, positional = args[:count], args[count:]
        given = len(args)
        if not kwargs and all(map(is_fixed, positional)):
            if given == self.arity:
                return inputs, dict(zip(self.defaults, positional))
            if self.complete and count <= given < self.arity:
                return inputs, {**self.defaults, **dict(zip(self.defaults, positional))}
        if len(inputs) < count or len(positional) > len(self.defaults):
            raise TypeError(f"{self.name}: takes {self.describe()}; got {len(args)} positional "
                            f"arguments{CALLS.get(self.name, '')}")
        attributes = {**self.defaults, **dict(zip(self.defaults, positional))}
        for name, value in kwargs.items():
            if name not in self.defaults:
                raise TypeError(f"{self.name}: takes {self.describe()}; got {name}={value!r}"
                                f"{keyword_hint(name, self.defaults, self.name)}")
            attributes[name] = value
        for name, value in attributes.items():
            if is_fixed(value):
                continue
            if value is inspect.Parameter.empty:
                raise TypeError(f"{self.name}: takes {self.describe()}; {name!r} is missing")
            if isinstance(value, (list, tuple, dict, np.ndarray)):
                attributes[name] = fixed(value)           # the caller may change theirs later
            elif hasattr(type(value), "__tape_apply__") and not hasattr(type(value), "_data"):
                raise TypeError(f"{self.name}: {name} must be known when the graph is built, got the "
                                f"node {value.name}")
            elif not self.trusted and hasattr(type(value), "_data"):
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
        if len(args) == self.arity and not kwargs:
            for value in args:
                if type(value) not in _COMPUTED_WITH:
                    break
            else:
                return self.on_arrays(*args)           # in a sixth of the time of what follows
        if self.defaults or kwargs or len(args) != self.arity:
            inputs, attributes = self.bind(args, kwargs)
        else:
            inputs, attributes = args, self.defaults
        lists = False
        for value in inputs:
            kind = type(value)
            if kind in _COMPUTED_WITH:
                continue
            apply = getattr(kind, "__tape_apply__", None)
            if apply is not None:
                return apply(self, inputs, attributes)
            lists = lists or kind is list or kind is tuple
        if lists:
            inputs = tuple(np.asarray(x) if type(x) in (list, tuple) else x for x in inputs)
        return self.on_arrays(*inputs, **attributes)

    # --- as an object of Python's ---

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


def _operator_at(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def primitive(forward: Callable, *rules: Callable | None, name: str = "", doc: str = "",
              symbol: str = "", elementwise: bool = False) -> Primitive:
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
    symbol : str, optional
        How it is written between its operands, say ``+``.
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
    return Primitive(forward, rules, name=name, doc=doc, symbol=symbol, elementwise=elementwise)


def derivative(*rules: Callable | None, numpy: Callable | None = None,
               **options: Any) -> Callable[[Callable], Primitive]:
    """`primitive` as a decorator of the forward; `numpy` is the NumPy function it stands in for."""
    def define(forward: Callable) -> Primitive:
        operator = Primitive(forward, rules, **options)
        if numpy is not None:
            NUMPY_FUNCTIONS[numpy] = operator
        return operator
    return define


def implements(*functions: Callable | None) -> Callable[[Callable], Callable]:
    """Decorator: when one of these functions meets a Tensor or a Node, call what is decorated instead.

    Parameters
    ----------
    *functions : functions of NumPy's, or ufuncs of any library's. None, for one that this version of
        NumPy lacks, is passed over.

    Returns
    -------
    A decorator of an operator, or of a function made of operators, which needs no rule.

    Examples
    --------
    >>> import numpy as np, tape
    >>> i0 = tape.implements(np.i0)(tape.primitive(
    ...     lambda x, /: 1 + x ** 2 / 4, lambda g, x: g * x / 2, name="i0"))    # for small x
    >>> np.i0(tape.Tensor(0.2, requires_grad=True))
    Tensor(1.01, from=i0)
    """
    for f in functions:
        if not (f is None or callable(f)):
            raise TypeError(f"implements: must be given functions, such as np.i0; got {f!r:.80}")

    def register(function: Callable) -> Callable:
        NUMPY_FUNCTIONS.update({f: function for f in functions if f is not None})
        return function
    return register
