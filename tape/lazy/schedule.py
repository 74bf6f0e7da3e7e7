"""From a graph to the list of calls that computes it. What runs them is ``tape/lazy/evaluator.py``."""

from __future__ import annotations

import functools
from operator import itemgetter
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tape.fused import Fused
from tape.lazy.composites import Composite, KernelGradient, fitted
from tape.lazy.kinds import TapeOp, WithNumber, op_of
from tape.lazy.node import Constant, Node, Op, Variable, is_weak
from tape.lazy.order import sort_from
from tape.promotion import unshared
from tape.saved import stand_in
from tape.primitive import IDENTITY, Primitive


class Step(NamedTuple):
    """One call: ``values[target] = function(*(values[i] for i in sources))``."""

    function: Callable
    sources: tuple[int, ...]
    target: int
    dead: tuple[int, ...]      # slots that nobody reads after this step
    node: Node                 # on whose behalf, for errors


class Plan(NamedTuple):
    """The steps that compute some nodes. Each value has a slot, its place in a list."""

    steps: list[Step]
    start: list[Any]           # the values before the first step: constants, and None elsewhere
    feeds: dict[Node, int]     # the slots of what is fed
    outputs: list[int]         # the slots of the results


def make_plan(outputs: Sequence[Node], fed: frozenset[Node] = frozenset()) -> Plan:
    """Plan the computation of `outputs` from the variables and from the nodes in `fed`.

    A fed node counts as given: what it was made from is not computed for its sake.
    """
    planner = _Planner()
    for node in sort_from(outputs, stop=fed):
        if isinstance(node, Variable) or node in fed:
            planner.slots[node] = planner.feeds[node] = planner.slot()
            planner.given.add(planner.slots[node])
        else:
            planner.slots[node] = planner.lower(node, [planner.slots[x] for x in node.inputs])
    slots = [planner.slots[node] for node in outputs]
    return Plan(planner.in_order(slots), planner.start, planner.feeds, slots)


class _Planner:
    """Takes nodes, inputs first, and writes down the calls that they need.

    Equal calls share a slot: a key says which function meets which slots with which attributes, and
    a key that is known costs nothing. That is safe because tape's operators are pure functions, as
    one made with `tape.primitive` must be. A node of a user's own Op is never shared, nor is a fed
    one, whose value is not what its operator would give.
    """

    def __init__(self) -> None:
        self.start: list[Any] = []
        self.feeds: dict[Node, int] = {}
        self.slots: dict[Node, int] = {}
        self.given: set[int] = set()                 # slots of what is fed or constant
        self._calls: list[tuple] = []                # (order, function, sources, target, node)
        self._made: dict[int, float] = {}            # slot -> order of the call that makes it
        self._known: dict[Any, int] = {}
        self._held: list[Any] = []                   # what is in a key by its id
        self._owner: Node | None = None              # the composite whose parts are being planned

    def in_order(self, outputs: list[int]) -> list[Step]:
        """The calls as steps, each with the slots that die after it."""
        self._calls.sort(key=itemgetter(0))
        alive = set(outputs)
        steps = []
        for _, function, sources, target, node in reversed(self._calls):
            steps.append(Step(function, sources, target, tuple({*sources, target} - alive), node))
            alive.update(sources)
        return steps[::-1]

    def slot(self, value: Any = None) -> int:
        """A new place in the list of values."""
        self.start.append(value)
        return len(self.start) - 1

    def call(self, node: Node, function: Callable, sources: Sequence[int], key: Any,
             order: float | None = None) -> int:
        """Write down a call, unless an equal one is known; returns the slot of its result."""
        if key is not None:
            key = (key, *sources)
            if key in self._known:
                return self._known[key]
        target = self.slot()
        order = float(target) if order is None else order
        self._made[target] = order
        self._calls.append((order, function, tuple(sources), target, self._owner_or(node)))
        if key is not None:
            self._known[key] = target
        return target

    def _owner_or(self, node: Node) -> Node:
        return node if self._owner is None else self._owner

    # --- what each kind of node needs ---

    def lower(self, node: Node, inputs: list[int]) -> int:
        """Write down the calls of a node whose inputs are in the slots `inputs`."""
        op = node.op
        if isinstance(op, WithNumber):
            operator, number = op.call(node.attrs)
            return self._operator(node, operator, [*inputs, self._constant(number)], {})
        if isinstance(op, TapeOp):
            return self._operator(node, op.operator, inputs, op.attributes(node.attrs))
        if isinstance(op, KernelGradient):
            return self._kernel_gradient(node, op, inputs)
        if isinstance(op, Composite):
            return self._composite(node, op, inputs)
        if isinstance(op, Constant):
            return self._constant(node.attrs["value"])
        return self.call(node, functools.partial(_computed, op, node), inputs, key=None)

    def _operator(self, node: Node, operator: Primitive, inputs: list[int],
                  attributes: dict) -> int:
        if operator is IDENTITY:
            return inputs[0]
        if isinstance(operator, Fused):
            made = self._kernel(node, operator, inputs, attributes)
            return self._pick(node, made, 0) if operator.residuals else made
        if "like" in operator.inputs:
            names = operator.inputs * len(inputs) if operator.variadic else operator.inputs
            inputs = [self._stand_in(node, slot) if name == "like" else slot
                      for name, slot in zip(names, inputs)]
        weak = tuple(map(is_weak, node.inputs))
        function = _bound(op_of(operator).forward_on(node.inputs), attributes)
        if not operator.fresh and not self.given.isdisjoint(inputs):
            function = functools.partial(_unshared, function)
        return self.call(node, function, inputs, (operator, weak, self._key(attributes)))

    def _composite(self, node: Node, op: Composite, inputs: list[int]) -> int:
        """A composite is planned as what it is made of, so that its parts can be shared too."""
        inner = op.expand(node.inputs, node.attrs)
        slots = dict(zip(node.inputs, inputs))
        outermost, self._owner = self._owner is None, self._owner_or(node)
        for part in sort_from([inner], stop=frozenset(node.inputs)):
            if part not in slots:
                slots[part] = self.lower(part, [slots[x] for x in part.inputs])
        if outermost:
            self._owner = None
        return slots[inner]

    def _kernel(self, node: Node, operator: Fused, inputs: Sequence[int], attributes: dict) -> int:
        """The forward kernel: one call for the result and for what the backward kernel needs of it."""
        return self.call(node, _bound(operator.forward, attributes), inputs,
                         (operator, self._key(attributes)))

    def _kernel_gradient(self, node: Node, op: KernelGradient, inputs: list[int]) -> int:
        """The backward kernel: one call for the gradients of all inputs."""
        g, *rest = inputs
        operator, attributes = op.operator, op.attributes(node.attrs)
        made = self._kernel(node, operator, rest, attributes)
        if operator.residuals:
            made = self._pick(node, made, 1)
        every = self.call(node, _bound(op.backward, {"attributes": attributes}), [g, made, *rest],
                          (op, self._key(attributes)))
        i = node.attrs["input"]
        return self.call(node, lambda every, x: fitted(every[i], x), [every, rest[i]],
                         ("gradient of input", i), self._made[every] + 0.5)

    def _pick(self, node: Node, slot: int, i: int) -> int:
        """One of several results, at once: what is asked for later must not hold the others."""
        return self.call(node, itemgetter(i), [slot], ("pick", i), self._made[slot] + 0.5)

    def _stand_in(self, node: Node, slot: int) -> int:
        """Of an operand called `like` only shape and dtype are asked for, and the array can go.

        The call stands right behind the one that makes the array.
        """
        return self.call(node, stand_in, [slot], "stand-in", self._made.get(slot, -1.0) + 0.5)

    def _constant(self, value: Any) -> int:
        key = ("constant", self._key(value))
        if key not in self._known:
            scalar = isinstance(value, np.ndarray) and not value.ndim
            self._known[key] = self.slot(value[()] if scalar else value)
            self.given.add(self._known[key])
        return self._known[key]

    def _key(self, value: Any) -> Any:
        """Equal for values with which an operator gives equal results; 1, 1.0 and True are not."""
        if isinstance(value, dict):
            return tuple((name, self._key(item)) for name, item in sorted(value.items()))
        if isinstance(value, (tuple, list)):
            return type(value), tuple(map(self._key, value))
        if value is None or isinstance(value, (int, float, str, slice, np.dtype)):
            return type(value), repr(value)
        self._held.append(value)             # an array, say: while it lives its id is its own
        return id(value)


def _computed(op: Op, node: Node, *values: Any) -> Any:
    out = op.compute(node, list(values))
    if not isinstance(out, (np.ndarray, np.generic, int, float)):
        raise TypeError(f"compute must return an array, got {type(out).__name__}")
    return out


def _unshared(function: Callable, *values: Any) -> Any:
    """A call whose result shares no memory with what is given, as on the tape.

    So it has the layout of the eager result too, on which the last digits of sums depend.
    """
    out = function(*values)
    return unshared(out, [x for x in values if isinstance(x, np.ndarray)]) if (
        isinstance(out, np.ndarray)) else out


def _bound(function: Callable, attributes: dict) -> Callable:
    return functools.partial(function, **attributes) if attributes else function
