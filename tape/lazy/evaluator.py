"""`Evaluator`: computes nodes from arrays, by a schedule of calls that is made once."""

from __future__ import annotations

import functools
from operator import itemgetter
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

import numpy as np

from tape.errors import with_message
from tape.interop import as_torch, from_torch, is_torch
from tape.lazy.gradients import Updates
from tape.lazy.node import Node, Op, Variable, as_nodes, topological_sort
from tape.lazy.tape_ops import (
    Composite, Constant, KernelGradient, TapeOp, WithNumber, is_weak, of_input, op_of, promoting)
from tape.hollow import memory_of
from tape.mutation import copied_if_held, copied_if_shared, read_only
from tape.ops.arithmetic import identity
from tape.primitive import Primitive
from tape.promotion import float_dtype, in_standard_dtype
from tape.saved import stand_in
from tape.tensor import Tensor


class Evaluator:
    """Computes nodes. Everything that does not depend on the arrays is settled here, once.

    The schedule holds the order of the calls, and after which of them each value is no longer needed
    and is dropped. Nodes that none of `eval_nodes` depends on are left out; equal subexpressions are
    computed once. Who changes the `attrs` of a node afterwards makes another Evaluator.

    Parameters
    ----------
    eval_nodes : list of Node
        What `run` returns.

    Examples
    --------
    >>> import numpy as np
    >>> import tape.lazy as ad
    >>> x, y = ad.Variable("x"), ad.Variable("y")
    >>> evaluator = ad.Evaluator([x * y, x - y])
    >>> evaluator.run({x: np.array([3.0, 4.0]), y: np.array([2.0, 1.0])})
    [array([6., 4.]), array([1., 3.])]
    """

    def __init__(self, eval_nodes: Iterable[Node]):
        self.eval_nodes = as_nodes(eval_nodes, "Evaluator")
        self._graph = frozenset(topological_sort(self.eval_nodes))
        self._updates = Updates(self._graph, self.eval_nodes)
        self._schedules = {(frozenset[Node](), False): make_schedule(self.eval_nodes)}

    def run(self, input_values: Mapping[Node, Any]) -> list[np.ndarray]:
        """The values of ``eval_nodes``, in their order.

        Parameters
        ----------
        input_values : dict of Node to array
            Every Variable that is needed. Any other node can be fed too: the array then takes the
            place of what the node would compute. Nodes that play no part are ignored.

        Returns
        -------
        list of numpy.ndarray
            They share memory neither with each other nor with what was fed. Where anything fed is a
            torch.Tensor, they are tensors of PyTorch's, and operators of the program's own are given
            and return such.

        Raises
        ------
        ValueError
            A Variable is missing (the message lists every missing one). Also what an operator
            raises, with the name of the node and the shapes that met there; and weights that moved
            as if the program had summed their gradients over a batch axis again.
        TypeError
            A key is no Node, or a value no array of numbers.
        """
        tensors = isinstance(input_values, Mapping) and any(map(is_torch, input_values.values()))
        schedule = self._schedule_for(input_values, tensors)
        missing = [node.name for node in schedule.feeds if node not in input_values]
        if missing:
            raise ValueError(f"run: each Variable that is needed must be fed an array; not fed: "
                             f"{', '.join(missing)}")
        values = schedule.start.copy()
        fed = _settled([_as_fed(node, input_values[node]) for node in schedule.feeds])
        arrays = dict(zip(schedule.feeds, fed))
        self._updates.before(arrays)
        for slot, value in zip(schedule.feeds.values(), fed):
            values[slot] = value if value.ndim else value[()]       # a scalar, as on the tape
        given = [value for value in values if isinstance(value, np.ndarray)]
        with np.errstate(all="ignore"):           # infinities and NaN are values, as in backward()
            try:
                for function, sources, target, dead, node in schedule.steps:
                    values[target] = function(*[values[i] for i in sources])
                    for i in dead:
                        values[i] = None
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                raise _located(error, node, [values[i] for i in sources]) from error
        results = _owned([values[slot] for slot in schedule.outputs], given)
        self._updates.after(arrays, results)
        return [as_torch(array) for array in results] if tensors else results

    def __reduce__(self) -> tuple:
        return Evaluator, (self.eval_nodes,)       # the schedule, of functions, is made anew

    def _schedule_for(self, input_values: Mapping[Node, Any], tensors: bool) -> Schedule:
        """The schedule for feeding these nodes; a new one only where other inner nodes are fed.

        `tensors`: whether the program's own operators are given tensors of PyTorch's.
        """
        if not isinstance(input_values, Mapping):
            raise TypeError(f"run: must be given a dict of Nodes and their arrays, got "
                            f"{type(input_values).__name__}")
        for node in input_values:
            if not isinstance(node, Node):
                raise TypeError(f"run: what is fed must be named by its Node, got the key {node!r} of "
                                f"type {type(node).__name__}")
        inner = frozenset(node for node in input_values
                          if not isinstance(node, Variable) and node in self._graph)
        if (inner, tensors) not in self._schedules:
            self._schedules[inner, tensors] = make_schedule(self.eval_nodes, inner, tensors)
        return self._schedules[inner, tensors]


def _settled(fed: list) -> list[np.ndarray]:
    """Python's floats are weak: they take the dtype of the arrays of floats that are fed with them."""
    weak = [type(x) is float for x in fed]
    dtype = float_dtype(fed, weak) or np.float64
    return [np.asarray(x, dtype) if w else x for x, w in zip(fed, weak)]


def _as_fed(node: Node, value: Any) -> Any:
    if is_torch(value):
        value = from_torch(value, f"run: {node.name}")
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return in_standard_dtype(np.asarray(value))     # not np.matrix, whose x * y is another
    if type(value) is float:
        return value                                 # see `_settled`
    if isinstance(value, (int, np.bool_, np.integer, np.floating)):
        return np.asarray(value)
    hint = "; feed its .data" if isinstance(value, Tensor) else "; np.array(...) makes one"
    kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"run: {node.name} must be fed an array of real numbers, got {kind}{hint}")


def _located(error: Exception, node: Node, values: list) -> Exception:
    """The error that an operator raised, with the node, the operator and the shapes."""
    shapes = ", ".join(str(np.shape(value)) for value in values[:8] if hasattr(value, "dtype"))
    text = str(error).rstrip().removeprefix(f"{node.op.name}: ")
    return with_message(error, f"run: node {node.name}, operator {node.op.name}: {text} "
                               f"(inputs of shape {shapes})")


def _owned(values: list, given: list[np.ndarray]) -> list[np.ndarray]:
    """Results as arrays that share memory with nothing, copied where that takes a copy."""
    seen = {id(memory_of(array)) for array in given}
    arrays = []
    for value in values:
        array = np.asarray(value)
        memory = memory_of(array)
        if (id(memory) in seen or memory.base is not None or memory.size != array.size
                or not array.flags.writeable):
            array = memory = array.copy()
        seen.add(id(memory))
        arrays.append(array)
    return arrays


# --- from a graph to a list of calls ---


class Step(NamedTuple):
    """One call: ``values[target] = function(*(values[i] for i in sources))``."""

    function: Callable
    sources: tuple[int, ...]
    target: int
    dead: tuple[int, ...]      # slots that nobody reads after this step
    node: Node                 # which it belongs to, for errors


class Schedule(NamedTuple):
    """The steps that compute some nodes. Each value has a slot, its place in a list."""

    steps: list[Step]
    start: list[Any]           # the values before the first step: constants, and None elsewhere
    feeds: dict[Node, int]     # the slots of what is fed
    outputs: list[int]         # the slots of the results


def make_schedule(outputs: Sequence[Node], fed: frozenset[Node] = frozenset(),
                  tensors: bool = False) -> Schedule:
    """The calls that compute `outputs` from the variables and from the nodes in `fed`.

    A fed node counts as given: what it was made from is not computed for its sake. `tensors`: users'
    own operators are given tensors of PyTorch's.
    """
    scheduler = _Scheduler(tensors)
    for node in topological_sort(outputs, stop=fed):
        if isinstance(node, Variable) or node in fed:
            scheduler.slots[node] = scheduler.feeds[node] = scheduler.slot()
            scheduler.given.add(scheduler.slots[node])
        else:
            scheduler.slots[node] = scheduler.lower(node, [scheduler.slots[x] for x in node.inputs])
    slots = [scheduler.slots[node] for node in outputs]
    return Schedule(scheduler.in_order(slots), scheduler.start, scheduler.feeds, slots)


class _Scheduler:
    """Takes nodes, inputs first, and writes down the calls that they need.

    Equal calls share a slot: a key says which function meets which slots with which attributes, and
    a key that is known costs nothing. That is safe because tape's operators are pure functions, as
    one made with `tape.primitive` must be. A node of a user's own Op is never shared, nor is a fed
    one, whose value is not what its operator would give.
    """

    def __init__(self, tensors: bool) -> None:
        self.tensors = tensors
        self.start: list[Any] = []
        self.feeds: dict[Node, int] = {}
        self.slots: dict[Node, int] = {}
        self.given: set[int] = set()                 # slots of what is fed or constant
        self._calls: list[tuple] = []                # (order, function, sources, target, node)
        self._made: dict[int, float] = {}            # slot -> order of the call that makes it
        self._known: dict[Any, int] = {}
        self._held: list[Any] = []                   # what is in a key by its id
        self._owner: Node | None = None              # the composite whose parts these are

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
        return self.call(node, functools.partial(_computed, op, node, self.tensors), inputs,
                         key=None)

    def _operator(self, node: Node, operator: Primitive, inputs: list[int],
                  attributes: dict) -> int:
        if operator is identity:
            return inputs[0]
        if operator.composed is not None:
            made = self._kernel(node, operator, inputs, attributes)
            return self._pick(node, made, 0) if operator.residuals else made
        if operator.trusted:          # a user's input may be called likelihood
            names = operator.inputs * len(inputs) if operator.variadic else operator.inputs
            inputs = [self._stand_in(node, slot) if name.startswith("like") else slot
                      for name, slot in zip(names, inputs)]
        weak = tuple(map(is_weak, node.inputs))
        function = _bound(op_of(operator).forward_on(node.inputs), attributes)
        if not operator.fresh and not self.given.isdisjoint(inputs):
            function = functools.partial(_owned_result, function)
        return self.call(node, function, inputs, (operator, weak, self._key(attributes)))

    def _composite(self, node: Node, op: Composite, inputs: list[int]) -> int:
        """A composite becomes the calls of its parts, so that those can be shared too."""
        inner = op.expand(node.inputs, node.attrs)
        slots = dict(zip(node.inputs, inputs))
        outermost, self._owner = self._owner is None, self._owner_or(node)
        for part in topological_sort([inner], stop=frozenset(node.inputs)):
            if part not in slots:
                slots[part] = self.lower(part, [slots[x] for x in part.inputs])
        if outermost:
            self._owner = None
        return slots[inner]

    def _kernel(self, node: Node, operator: Primitive, inputs: Sequence[int], attributes: dict) -> int:
        """The forward kernel: one call for the result and for what the backward kernel needs of it."""
        operands = node.inputs[-len(inputs):]           # those of a gradient stand behind the cotangent
        forward = promoting(operator, operator.forward, operands)
        return self.call(node, _bound(forward, attributes), inputs,
                         (operator, tuple(map(is_weak, operands)), self._key(attributes)))

    def _kernel_gradient(self, node: Node, op: KernelGradient, inputs: list[int]) -> int:
        """The backward kernel: one call for the gradients of all inputs."""
        g, *rest = inputs
        operator, attributes = op.operator, op.attributes(node.attrs)
        made = self._kernel(node, operator, rest, attributes)
        if operator.residuals:
            made = self._pick(node, made, 1)
        weak = tuple(map(is_weak, node.inputs[1:]))
        backward = _bound(op.backward, {"vjp": operator.vjp(1), "weak": weak, "attributes": attributes})
        every = self.call(node, backward, [g, made, *rest], (op, weak, self._key(attributes)))
        i = node.attrs["input"]
        return self.call(node, lambda every, x: of_input(every[i], x), [every, rest[i]],
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


def _computed(op: Op, node: Node, tensors: bool, *values: Any) -> Any:
    """What a user's own operator computes, as an array that it has not kept for itself."""
    given = read_only(values) if not tensors else [
        as_torch(x) if isinstance(x, (np.ndarray, np.generic)) else x for x in values]
    try:
        out = op.compute(node, given)
    except (ValueError, TypeError, BufferError) as error:       # it writes to them, or might
        if not any(words in str(error) for words in ("read-only", "readonly", "not writable")):
            raise
        out = op.compute(node, [np.array(x) if type(x) is np.ndarray else x for x in values])
    if is_torch(out):
        return from_torch(out, op.name)
    if not isinstance(out, (np.ndarray, np.generic, int, float)):
        raise TypeError(f"compute must return an array, got {type(out).__name__}")
    return copied_if_held(out) if isinstance(out, np.ndarray) else out


def _owned_result(function: Callable, *values: Any) -> Any:
    """A call whose result shares no memory with what is given, as on the tape.

    So it has the layout of the eager result too, on which the last digits of sums depend.
    """
    out = function(*values)
    given = [x for x in values if isinstance(x, np.ndarray)]
    return copied_if_shared(out, given) if isinstance(out, np.ndarray) else out


def _bound(function: Callable, attributes: dict) -> Callable:
    return functools.partial(function, **attributes) if attributes else function
