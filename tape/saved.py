"""What an operation saves for its derivative rules, and how the rules are given it."""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

import numpy as np

from tape.errors import place_of

if TYPE_CHECKING:
    from tape.primitive import Primitive

ZERO = np.zeros(16, np.uint8)    # what every stand-in shows, whatever its dtype


# Attributes of these types nobody can change.
_PLAIN = frozenset({int, float, bool, str, type(None)})


def is_fixed(attribute: Any) -> bool:
    """Whether an attribute can be kept as it is: a number, say, or a tuple of numbers."""
    kind = type(attribute)
    return kind in _PLAIN or kind is tuple and _PLAIN.issuperset(map(type, attribute))


def fixed(attribute: Any) -> Any:
    """An attribute that nobody else can change: lists as tuples, arrays as copies, at any depth."""
    if isinstance(attribute, (list, tuple)):
        return tuple(map(fixed, attribute))
    if isinstance(attribute, dict):
        return {name: fixed(item) for name, item in attribute.items()}
    return np.array(attribute) if isinstance(attribute, np.ndarray) else attribute


@lru_cache(maxsize=4096)
def _zeros_without_memory(shape: tuple, dtype: np.dtype) -> np.ndarray:
    stand_in: np.ndarray = np.ndarray(shape, dtype, buffer=ZERO, strides=(0,) * len(shape))
    stand_in.flags.writeable = False
    return stand_in


def stand_in(x: Any) -> np.ndarray:
    """A read-only array of x's shape and dtype that holds one zero, however large the shape."""
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    return _zeros_without_memory(x.shape, x.dtype)


class Vjp:
    """The vector-Jacobian product of an operator: the rules to call, and what they are given.

    There is one for each set of inputs that want a gradient. The values of a call are laid out in a
    row, ``inputs, out, attributes, residuals, stand-ins``. What the rules ask for is picked from it by
    position, rule by rule, and saved as one sequence. For `div`, whose rules are ``lambda g, y: ...``
    and ``lambda g, out, y: ...``, with both inputs wanted:

        row      [x, y, out]
        sources  [1, 2, 1]            where the saved values stand in it
        saved    (y, out, y)
        rules    [(0, rule of x, slice(0, 1), 0), (1, rule of y, slice(1, 3), None)]

    so that the gradient of input 0 is ``rule(g, saved[0])``, and that of input 1
    ``rule(g, *saved[1:3])``. An operator with ``*arrays`` has the tuple of them in the place of x and
    y. A joint operator has one rule, which returns the gradients of all inputs.

    Attributes
    ----------
    rules : for each input that wants a gradient (input, rule, slice of the saved values, and the place
        of a single one, which is faster to pick, else None).
    scatters : whether the operator picks elements, and its rule gives way to its `scatter`.
    kept : the inputs that are saved, by number; None where all are, as by a fused operator.
    short : whether the rules ask for inputs and the result alone.
    pick : from a row to the saved values.
    recomputes : whether derivatives of higher order run the composed definition of the operator again.
    attributes : the names of the operator's attributes.
    layout, residuals : the operator's, of the kernels that it had when this was made.
    """

    __slots__ = ("operator", "joint", "variadic", "elementwise", "scatters", "recomputes", "rules",
                 "sources", "names", "likes", "kept", "short", "pick", "layout", "attributes",
                 "residuals", "__weakref__")

    def __init__(self, operator: Primitive, wanted: int):
        self.operator = operator
        self.layout, self.residuals = operator.layout, operator.residuals
        self.attributes = [*operator.defaults]
        self.joint, self.variadic = operator.joint, operator.variadic
        self.elementwise = operator.elementwise
        self.scatters = operator.scatter is not None
        count = len(operator.inputs)
        indices = [0] if operator.joint else [i for i in range(count) if wanted >> i & 1]
        asked = {name for i in indices for name in operator.needs[i]}
        # An input that is kept anyway is its own stand-in.
        needs = [[name[len("like_"):] if name not in operator.layout and name[len("like_"):] in asked
                  else name for name in operator.needs[i]] for i in indices]
        likes = sorted({name for names in needs for name in names} - {*operator.layout})
        layout = [*operator.layout, *likes]
        self.likes = [layout.index(name[len("like_"):]) for name in likes]
        self.rules: list[tuple[int, Any, slice, int | None]] = []
        self.names: list[str] = []
        for i, names in zip(indices, needs):
            first, end = len(self.names), len(self.names) + len(names)
            self.rules.append((i, operator.rules[i], slice(first, end),
                               first if len(names) == 1 else None))
            self.names += names
        self.sources = [layout.index(name) for name in self.names]
        self.recomputes = operator.composed is not None
        if self.recomputes:                 # which takes all inputs and attributes
            self.names += ["inputs", "attributes"]
            self.sources += [len(layout), len(layout) + 1]
        self.pick = _picker(self.sources)
        self.short = all(s <= count for s in self.sources) and not operator.variadic
        kept = sorted({s for s in self.sources if s < count})
        self.kept = None if self.recomputes or operator.variadic and kept else kept

    def bind(self, inputs: Sequence, out: Any, attributes: dict, residuals: dict | None = None,
             like: Callable = stand_in) -> Sequence:
        """The values of a call that the rules ask for, of arrays or of nodes; see `rules`.

        `like` makes of a value what a rule gets that asks for its shape and dtype.
        """
        row = [tuple(inputs), out] if self.variadic else [*inputs, out]
        if self.attributes:
            row += (attributes.values() if [*attributes] == self.attributes else
                    [attributes.get(name, value) for name, value in self.operator.defaults.items()])
        if self.residuals:
            row += map((residuals or {}).get, self.residuals)
        for i in self.likes:
            row.append(tuple(map(like, row[i])) if self.variadic else like(row[i]))
        if self.recomputes:
            row += [tuple(inputs), attributes]
        return self.pick(row)

    def joint_gradients(self, g: Any, saved: Sequence, count: int) -> Sequence:
        """What a joint rule returns: a gradient (or None) for each of `count` inputs."""
        ((_, rule, where, _),) = self.rules
        gradients = rule(g, *saved[where])
        if not isinstance(gradients, (list, tuple)) or len(gradients) != count:
            length = f" of {len(gradients)}" if isinstance(gradients, (list, tuple)) else ""
            raise TypeError(f"{self.operator.name}: the derivative rule of an operator on *arrays must "
                            f"return a list with a gradient for each of them, here {count}; got "
                            f"{type(gradients).__name__}{length}")
        return gradients

    def unpack(self, record: Any, as_tensor: Callable) -> list:
        """The saved values of a record, with inputs and result put back on the tape as Tensors."""
        count = len(self.operator.inputs)

        def one(value: Any, owner: Any) -> Any:
            return value if owner is None else as_tensor(value, owner)

        def on_tape(source: int, value: Any) -> Any:
            if source >= count:
                return one(value, record) if source == count else value
            if self.operator.variadic:
                return tuple(map(one, value, record.parents))
            return one(value, record.parents[source])
        return [on_tape(source, value) for source, value in zip(self.sources, record.saved)]

    def named(self, saved: Iterable) -> list[tuple[str, Any]]:
        """The single values among the saved ones, each with the name of what it is."""
        found: list[tuple[str, Any]] = []
        for name, value in zip(self.names, saved):
            if name == "inputs" and self.operator.composed is not None:
                found += zip(self.operator.inputs, value)
            elif name in self.layout:
                found += [(name, v) for v in (value if isinstance(value, tuple) else (value,))]
        return found

    def place(self, index: int) -> str:
        """Where the rule for one input stands in the source."""
        rules = {i: rule for i, rule, *_ in self.rules}
        return place_of(rules.get(index, self.rules[0][1]), self.operator.name)


def _picker(sources: list[int]) -> Callable[[list], Sequence]:
    """From a row to a sequence of the values at these positions."""
    if len(sources) > 1:
        return itemgetter(*sources)
    return itemgetter(slice(sources[0], sources[0] + 1)) if sources else lambda row: ()
