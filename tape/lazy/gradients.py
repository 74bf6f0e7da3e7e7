"""From the graph of a result to the graph of its gradient: the walk of ``tape/engine.py``, on nodes."""

from __future__ import annotations

import warnings
from typing import Collection, Iterable, Sequence
from weakref import WeakKeyDictionary, ref

import numpy as np

from tape import ops
from tape.cotangents import Cotangents
from tape.lazy.node import BuiltIn, Node, Variable, as_nodes, topological_sort
from tape.ops import linalg, reductions, shapes

_settings: dict[str, bool | None] = {"batched": None}


def batched_gradients(on: bool | None = True) -> None:
    """Set what `batched` of `gradients` is where it is not given, from here on in the whole program."""
    _settings["batched"] = on


def gradients(output_node: Node, nodes: Sequence[Node], batched: bool | None = None) -> list[Node]:
    """Extend the graph by d(sum of output_node)/d(node) for each of `nodes`.

    Parameters
    ----------
    output_node : Node
        What to differentiate. Where it has many elements, the gradient is that of their sum.
    nodes : sequence of Node
        Variables or inner nodes.
    batched : bool, optional
        True: the gradient of a Variable that meets larger operands only in matmul, + - * and / keeps
        the axes by which they are larger, (B, D, M) for the weight of a product
        (B, T, D) @ (D, M), since there are programs that sum them in their update. By default a
        gradient has the shape of its node, and a run raises where weights move as if such a program
        had summed an axis more. False: the same without that check.

    Returns
    -------
    list of Node
        Each has the shape of the node it belongs to and, where that is of floats, its dtype. They are
        nodes like any other, so gradients of gradients work to any order. A node on which the output
        does not depend gets zeros.

    Raises
    ------
    TypeError
        Something given is no Node.
    """
    wanted = as_nodes(nodes, "gradients")
    if not isinstance(output_node, Node):
        raise TypeError(f"gradients: the output must be one Node, got {type(output_node).__name__}; "
                        f"for several differentiate their sum")
    batched = _settings["batched"] if batched is None else batched
    whole = _with_batch_axes(output_node, wanted) if batched else set()
    found = graph_vjp(output_node, ops.ones_like(output_node), wanted, batched=whole)
    for node, gradient in found.items():
        if isinstance(node, Variable) and batched is not False:
            vars(gradient)["gradient_of"] = node               # for `Updates`
    return [found[node] if node in found else ops.zeros_like(node) for node in wanted]


def graph_vjp(output: Node, cotangent: Node, targets: Sequence[Node], *, stop: Collection[Node] = (),
              stands_for: Node | None = None, batched: Collection[Node] = ()) -> dict[Node, Node]:
    """The gradients of `targets`, given that of `output`, for those that it depends on.

    Nodes in `stop` count as given: what they were made from is not looked at. `stands_for`, if given,
    is what rules get that ask for the value of `output`; see `Op._vjp`. The gradients of those in
    `batched` keep their batch axes.
    """
    order = topological_sort(output, stop)
    useful = set(targets)        # the nodes that lead to a target
    for node in order:
        if node not in stop and not useful.isdisjoint(node.inputs):
            useful.add(node)
    cotangents = Cotangents({output: cotangent}, in_place=False)
    complete: dict[Node, Node] = {}
    # In this order all users of a node have contributed to its gradient before it is passed on; see
    # `tape.engine.walk`, which adds up the same numbers in the same order.
    for node in reversed(order):
        g = cotangents.sums.pop(node, None)
        if g is None:
            continue
        complete[node] = g = g if node is output else reductions.rounded_like(g, node)
        wanted = [] if node in stop else [i for i, x in enumerate(node.inputs) if x in useful]
        if wanted:
            out = stands_for if node is output else None
            step = node
            if not set(batched).isdisjoint(node.inputs):
                step, out = _stretched(node, batched), node if out is None else out
            for i, contribution in sorted(step.op._vjp(step, g, wanted, out).items()):
                x = node.inputs[i]
                if x in batched and x in cotangents.sums:
                    contribution = shapes.alike(contribution, cotangents.sums[x])
                cotangents.add(x, contribution)
    return {node: complete[node] for node in targets if node in complete}


# --- gradients that keep their batch axes ---


def _with_batch_axes(output: Node, targets: Iterable[Node]) -> set[Node]:
    """The Variables among `targets` of which every use can leave the batch axes in the gradient."""
    found: set[Node] = {node for node in targets if isinstance(node, Variable)}
    for node in topological_sort(output):
        if not (_is_product(node) or _is_elementwise(node)):
            found.difference_update(node.inputs)
    return found


def _is_product(node: Node) -> bool:
    return isinstance(node.op, BuiltIn) and node.op.name in ("matmul", "matmul_layernorm",
                                                             "matmul_softmax")


def _is_elementwise(node: Node) -> bool:
    return getattr(node.op, "operator", None) in (ops.add, ops.sub, ops.mul, ops.div)


def _stretched(node: Node, batched: Collection[Node]) -> Node:
    """The same step, where each input in `batched` has been copied along the axes of the other.

    The gradient of such a copy has an entry for each example, and is not summed.
    """
    inputs = list(node.inputs)
    for i, x in enumerate(node.inputs):
        if x in batched:
            inputs[i] = (reductions.expand_like(x, node) if _is_elementwise(node)
                         else linalg.stack_like(x, node.inputs[1 - i]))
    return Node(inputs, node.op, node.attrs, node.name)


# --- updates that sum an axis more ---


class _Seen:
    """A Variable as it was fed last, and its gradient: some of their rows, in float64."""

    @np.errstate(all="ignore")              # infinities and NaN are values
    def __init__(self, weights: np.ndarray, gradient: np.ndarray | None, before: _Seen | None = None):
        self.shape = weights.shape
        self.rows = slice(None, None, max(1, len(weights) // 64))
        self.eps = np.finfo(weights.dtype).eps
        self.weights = weights[self.rows].astype(np.float64)
        self.larger = None if gradient is None or gradient.ndim <= weights.ndim else gradient.shape
        self.gradient = self.sums = None
        if gradient is not None and gradient.shape == weights.shape:
            self.gradient = gradient[self.rows].astype(np.float64)
            self.sums = np.sum(gradient, axis=0, dtype=np.float64)       # of its columns
        self.steepest = 0.0 if self.gradient is None else np.abs(self.gradient).max()
        self.steps: list[float] = before.steps if before else []
        self.rate = 0.0      # of the last step to the gradient; of one that is just seen, if unmoved

    @np.errstate(all="ignore")
    def judge(self, weights: np.ndarray) -> str:
        """How the weights have moved.

        Returns
        -------
        "apart" : as they should, or with a batch axis that the program has summed.
        "alike" : every row by the same, apart from weight decay, though the gradient differs.
        "unmoved" : not at all, and the sums of the gradient over the rows are 0.
        "" : not to be told. A step of one size everywhere is what a first step of Adam gives as well.
        """
        now = weights[self.rows].astype(np.float64)
        moved = now - self.weights
        noise = 8 * self.eps * max(np.abs(now).max(), np.abs(self.weights).max())
        size = np.abs(moved).max()
        self.rate = max(size, 32 * noise) / self.steepest if self.steepest else 0.0
        if not size > 32 * noise:
            still = self.sums is not None and np.abs(self.sums).max() < 1e-4 * self.steepest
            return "unmoved" if still and size <= noise else ""
        if self.larger is not None:
            return "apart"
        moved = _without_decay(moved, self.weights)
        if np.ptp(moved, axis=0).max() > noise or not np.abs(moved).max() > 8 * noise:
            return "apart"
        if self.gradient is not None:
            # Rows that differ as those of the weights do are weight decay, in the gradient too.
            spread = np.ptp(_without_decay(self.gradient, self.weights), axis=0).max()
            if not size * spread > 8 * noise * self.steepest:          # its rows are alike too
                return ""
        if np.ptp(np.abs(moved)) > noise:
            return "alike"
        return "alike" if self._varies(moved, noise) else ""

    def _varies(self, moved: np.ndarray, noise: float) -> bool:
        """Whether steps of one size everywhere are of different sizes, and uphill for some weights.

        Else they may be the gradient's signs, or a shift that is meant.
        """
        signs = self.gradient is not None and bool(np.all(moved * self.gradient <= 0))
        uphill = self.sums is None or not moved.flat[0] * np.sum(self.sums) < 0
        if signs or np.ptp(moved) <= noise and uphill:
            return False
        self.steps.append(np.abs(moved).max())
        return len(self.steps) >= 3 and np.ptp(self.steps) > 1e-3 * self.steps[-1]


def _without_decay(moved: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What weights moved by, without a multiple of them: fitted to that in which rows differ."""
    if (len(weights) - 1) * (weights.size // len(weights)) < 4:       # too few for a fit to mean much
        return moved
    differ = weights - weights.mean(axis=0)
    square = np.sum(differ * differ)
    return moved - weights * (np.sum(moved * differ) / square) if square else moved


class Updates:
    """How the program that runs a graph changes its weights from run to run, until that is seen once.

    Programs that expect a batch axis in front of a weight's gradient sum it, as in
    ``W -= lr * grad.sum(axis=0)``. Here it is summed already, the line sums another axis, and since
    the shapes broadcast nothing fails: every row of W moves by the same. That can be seen in what is
    fed next. So can the reverse, where W takes on the batch axis that `batched` leaves in.
    """

    def __init__(self, graph: Iterable[Node], outputs: Sequence[Node]):
        places = {node: i for i, node in enumerate(outputs)}
        # A gradient that is no output is used in the graph: watched if it is summed there.
        used = {x for node in graph if _may_sum(node) for x in node.inputs}.union(outputs)
        ordered = sorted(used, key=lambda node: (node in places, node._position))      # outputs last
        watched = {of: places.get(node) for node in ordered
                   if (of := vars(node).get("gradient_of")) is not None}
        self.watched = sorted(watched.items(), key=lambda item: item[0]._position)

    def before(self, fed: dict[Node, np.ndarray]) -> None:
        """Compare what is fed with what was fed last.

        Raises
        ------
        ValueError
            All rows of a weight moved alike, or it has a batch axis now.

        Warns
        -----
        UserWarning
            A weight did not move, and its gradient sums to 0. It may be meant to stay.
        """
        judged: dict[str, dict[Node, _Seen]] = {"apart": {}, "alike": {}, "unmoved": {}, "": {}}
        for i, (variable, _) in enumerate(self.watched):
            seen, now = _last_seen(variable, i), fed.get(variable)
            if seen is not None and now is not None:
                if now.shape == seen.larger:
                    raise ValueError(_GROWN.format(name=variable.name, old=seen.shape, now=now.shape))
                judged[seen.judge(now) if now.shape == seen.shape else ""][variable] = seen
        known = judged["apart"] | judged["alike"]
        slowest = min((seen.rate for seen in known.values()), default=0.0)
        still = [variable for variable, seen in judged["unmoved"].items() if seen.rate < slowest]
        _seen.update(dict.fromkeys(variable for variable in [*known, *still] if variable in _seen))
        for variable in judged["alike"]:
            _run_once.clear()
            raise ValueError(_SUMMED.format(name=variable.name, shape=fed[variable].shape))
        for variable in still:
            warnings.warn(_STILL.format(name=variable.name), stacklevel=3)

    def after(self, fed: dict[Node, np.ndarray], results: Sequence[np.ndarray]) -> None:
        """Remember what was fed, and its gradients, where the update is not known yet."""
        most = max((array.ndim for array in fed.values()), default=0)
        once = {}
        for i, (variable, place) in enumerate(self.watched):
            array = fed.get(variable)
            known = variable in _seen and _seen[variable] is None
            if known or array is None or array.dtype.kind != "f" or not array.size:
                continue
            if not 1 <= array.ndim < most or len(array) < 2:
                continue                     # nothing fed has the axis of a batch beside it
            gradient = None if place is None else results[place]
            seen = _Seen(array, gradient, _last_seen(variable, i))
            if variable not in _seen:
                once[i, variable.name] = ref(variable), seen
            _seen[variable] = seen
        if self.watched:
            _run_once.clear()
            _run_once.update(once)


def _may_sum(node: Node) -> bool:
    return not isinstance(node.op, BuiltIn) or node.op.name in ("sum_op", "sum", "mean")


def _last_seen(variable: Node, i: int) -> _Seen | None:
    """A Variable, the i-th that is watched, as it was fed last; None where that is not known.

    A program that makes its graph anew for each step runs each once, and at the next the Variables
    have the same names and the old ones are gone. They are compared at every step, since the old
    ones may have been of another model.
    """
    of, seen = _run_once.get((i, variable.name), (None, None))
    if variable not in _seen and of is not None and of() is None:
        return seen
    return _seen.get(variable)


_seen: WeakKeyDictionary[Node, _Seen | None] = WeakKeyDictionary()       # None: the update is known
_run_once: dict[tuple[int, str], tuple[ref[Node], _Seen]] = {}         # if that was their only run
_GROWN = (
    "run: {name} was of shape {old} and now is of shape {now}: its update has added the batch axes "
    "that batched=True leaves in its gradient. Sum them there, {name} -= lr * grad.sum(axis=0), or "
    "take batched_gradients(True) out of the program")
_SUMMED = (
    "run: since the last run every row of {name} has moved by the same, as by an update that sums the "
    "gradient over an axis, {name} -= lr * grad.sum(axis=0). The gradient of {name} has the shape of "
    "{name}, {shape}: its batch axes are summed already. Take the sum (or mean) out of that line. Or "
    "say batched_gradients(True) after the import, for gradients with batch axes. An update that is "
    "meant so needs gradients(..., batched=False)")
_STILL = (
    "run: {name} has not moved while other weights have, and its gradient sums to 0 over axis 0: an "
    "update that sums it, {name} -= lr * grad.sum(axis=0), does nothing. Take the sum out of that "
    "line. Where {name} is meant to stay, all is well; gradients(..., batched=False) says so")
