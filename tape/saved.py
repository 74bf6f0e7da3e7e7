"""What an operation keeps for its derivative rules, and how that is picked from its values."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Iterable

import numpy as np

if TYPE_CHECKING:
    from tape.primitive import Primitive

ZERO = np.zeros(16, np.uint8)    # what every stand-in shows, whatever its dtype


@lru_cache(maxsize=4096)
def _zeros_without_memory(shape: tuple, dtype: np.dtype) -> np.ndarray:
    stand_in: np.ndarray = np.ndarray(shape, dtype, buffer=ZERO, strides=(0,) * len(shape))
    stand_in.flags.writeable = False
    return stand_in


def stand_in(x) -> np.ndarray:
    """A read-only array of x's shape and dtype that holds one zero, however large the shape."""
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    return _zeros_without_memory(x.shape, x.dtype)


class Plan:
    """What one operator keeps and calls, given which of its inputs want a gradient.

    At recording time the operator's values are laid out in a row, ``inputs, out, attributes,
    residuals, stand-ins``, and each rule's arguments are picked from it by position. For `div`, whose
    rules are ``lambda g, y: ...`` and ``lambda g, out, y: ...``, with both inputs wanted:

        row      [x, y, out]
        sources  [[1], [2, 1]]                     where each rule's arguments stand in it
        pick     lambda v: ((v[1],), (v[2], v[1]))
        kept     [1]                               the inputs among them: y

    An operator with ``*arrays`` has the tuple of them in the place of x and y. `kept` is None where
    all inputs are kept, as by a fused operator.

    Attributes
    ----------
    indices, rules : of the inputs that want a gradient.
    one_by_one : whether each input's rule is simply called.
    likes : where those values stand in the row of which a rule wants a stand-in.
    looks_further : whether a rule asks for anything behind ``out`` in the row.
    """

    __slots__ = ("operator", "joint", "elementwise", "ours", "one_by_one", "indices", "rules",
                 "sources", "pick", "likes", "kept", "names", "looks_further")

    def __init__(self, operator: Primitive, indices: list[int]):
        self.operator = operator
        self.joint = operator.joint
        self.elementwise = operator.elementwise
        self.ours = operator.ours
        self.one_by_one = not operator.joint and operator.scatter is None
        self.indices = indices
        self.rules = [operator.rules[i] for i in indices]
        layout = list(operator.layout)
        names = [operator.needs[i] for i in indices]
        likes = sorted({n for needs in names for n in needs if n.startswith("like_")})
        self.likes = [layout.index(name[len("like_"):]) for name in likes]
        layout += likes
        self.sources = [[layout.index(n) for n in needs] for needs in names]
        # Fused operators also keep what running their composed definition again takes.
        tail = [] if operator.composed is None else [len(layout), len(layout) + 1]
        self.pick = _picker(self.sources, tail)
        self.looks_further = any(s > len(operator.inputs) for source in self.sources
                                 for s in source) or bool(tail) or operator.variadic
        kept = sorted({s for source in self.sources for s in source if s < len(operator.inputs)})
        self.kept = None if tail or operator.variadic and kept else kept
        self.names = [[layout[s] for s in source] for source in self.sources]
        self.names += [list(operator.inputs)] if tail else []

    def named(self, saved: Iterable) -> list[tuple[str, Any]]:
        """The single values in what a record saved, each with a name for it."""
        found = []
        for names, args in zip(self.names, saved):
            for name, value in zip(names, args):
                if not name.startswith("like_"):
                    found += [(name, v) for v in (value if isinstance(value, tuple) else (value,))]
        return found

    def describe(self, index: int) -> str:
        """Where the rule for one input stands in the source."""
        code = getattr(self.rules[0 if self.joint else self.indices.index(index)], "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else self.operator.name

    def lifted(self, record, lift: Callable) -> list[tuple]:
        """The saved arguments with inputs and result put back on the tape, as Tensors."""
        inputs = len(self.operator.inputs)

        def one(value: Any, owner: Any) -> Any:
            return value if owner is None else lift(value, owner)

        def on_tape(source: int, value: Any) -> Any:
            if source == inputs:
                return one(value, record)
            if source > inputs:
                return value
            if self.operator.variadic:
                return tuple(map(one, value, record.parents))
            return one(value, record.parents[source])

        return [tuple(map(on_tape, source, args))
                for source, args in zip(self.sources, record.saved)]


def _picker(sources: list[list[int]], tail: list[int]) -> Callable:
    """A function from the row of values to what is saved: a tuple of arguments per rule.

    Written out as an expression, say ``lambda v: ((v[1],), (v[0],))``, since it runs at every
    recorded operation and a loop would take a quarter of the time that recording takes.
    """
    rows = ["(" + "".join(f"v[{i}], " for i in source) + ")" for source in sources]
    rows += [f"v[{i}]" for i in tail]
    return eval("lambda v: (" + "".join(row + ", " for row in rows) + ")")
