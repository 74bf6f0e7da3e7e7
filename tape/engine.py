"""What an operation leaves on the tape, and the walk back over it.

An operation that runs on a Tensor which wants a gradient leaves a `Record`: its position on the
tape, its parents, and for each derivative rule the arguments that the rule will ask for. `walk`
goes over the records from the last to the first and multiplies gradients together by the chain
rule. That is all of reverse-mode differentiation; there is no mathematics in this file. The
derivatives live beside their operators in ``tape/ops``, and the table of what each one keeps is
read in ``tape/primitive.py``.

Words: the gradient of L with respect to a result, on its way back, is that result's *cotangent*, g
in the rules; what one use of an input adds to its gradient is a *contribution*.

What does not live here: the Tensor (``tape/tensor.py``), which only gives the walk two things, a
key to hang a gradient on and, for differentiable gradients, a way to lift an array onto the tape.
"""

from __future__ import annotations

import itertools
import os
import sys
from operator import attrgetter
from typing import Any, Callable

import numpy as np

from tape import mutation
from tape.kernels import HALF, broadcasts_to, sum_dtype, unbroadcast, zero_where_undefined

_next_position = itertools.count().__next__
_DTYPES = {kind: np.dtype(kind) for kind in set(np.sctypeDict.values())}
_ndarray = np.ndarray          # looked up once, not at every operation
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Record:
    """One operation on the tape. It points backwards only: to its parents, never to its result.

    So reference counting alone frees a tape, the moment the last Tensor that ends it goes away.

    Attributes
    ----------
    plan : the operator's `Plan`, that is which rules to call and what they need.
    parents : one entry per input: the Record that made it, the leaf Tensor itself, or None for an
        input that wants no gradient.
    saved : one tuple of arguments per rule (a fused operator's inputs and attributes behind them);
        None once the record is released.
    shape, dtype : of the result; the gradient that arrives here has both.
    kind : the result's type: np.ndarray, or a NumPy scalar type, which implies shape and dtype.
    position : grows with every operation, so a record's parents always have smaller ones.
    guards : what kept arrays were, where something else can write to them; see ``tape/mutation.py``.
    call : while tracing, the operands that no parent makes and the attributes (axis, ...), which
        with `parents` are the whole call; see `tape.lazy.from_tape`. Otherwise None.
    line : "file:line" where it was recorded, where `record_lines` was on.
    retained : weak reference to the Tensor that called ``retain_grad()``.
    """

    __slots__ = ("plan", "parents", "saved", "shape", "dtype", "kind", "position",
                 "guards", "call", "line", "retained", "__weakref__")

    def __init__(self, plan, parents, saved, out, guards=None):
        self.plan = plan
        self.parents = parents
        self.saved = saved
        self.kind = kind = type(out)
        if kind is np.ndarray:
            self.shape = out.shape
            self.dtype = out.dtype
        else:                       # asking a scalar takes twice as long as looking its type up
            self.shape = ()
            self.dtype = _DTYPES[kind]
        self.position = _next_position()
        self.guards = guards
        self.call: Any = None
        self.line: str | None = None
        self.retained: Callable | None = None

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.plan.operator.name

    def release(self) -> None:
        """Let go of what the rules needed, and of the tape behind."""
        self.saved = None
        self.parents = ()
        self.guards = None
        self.call = None

    def __repr__(self) -> str:
        place = f", {self.line}" if self.line else ""
        return f"<{self.name} at position {self.position}, shape {self.shape}{place}>"


def caller_line() -> str:
    """``file:line`` of the innermost frame that is not in this package."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "?"


# --- the walk --------------------------------------------------------------------------------


def walk(roots: dict, *, targets: set | None = None, lift: Callable | None = None,
         retain: bool = False) -> dict:
    """Carry gradients from `roots` back to the leaves, or to `targets`.

    Parameters
    ----------
    roots : gradient of each starting point, keyed by Record or leaf Tensor.
    targets : keys whose gradients are wanted. None means every leaf that is reached; otherwise
        records that lead to no target are not called.
    lift : None, and rules run on raw arrays; or ``lift(array, record) -> Tensor``, and they run
        on Tensors, so that the gradients are themselves recorded (``create_graph``).
    retain : keep the records for another walk.

    Returns
    -------
    dict
        Gradients keyed like `roots`. Each is an array that nothing else refers to (or a Tensor,
        with `lift`).
    """
    cotangents = Cotangents(roots, lift)
    sums = cotangents.sums
    kept, retained = {}, []
    with np.errstate(all="ignore"):      # infinite derivatives are values; see also _pull
        order, useful = _in_walking_order(roots, targets)
        for record in order:
            # Descending positions are a reverse topological order: every user of a result comes
            # after it on the tape, so by the time the walk is here all of them have contributed,
            # and g is complete. In b = a + a; c = b + b a walk that went depth first would pull
            # b's gradient back twice, the second time with the first half counted again.
            if cotangents.scattered or record.dtype is HALF:
                g = cotangents.take(record)
            else:
                g = sums.pop(record, None)
            if g is None:        # no path from the roots ended here
                continue
            if targets is not None and record in targets:
                kept[record] = g
            elif record.retained is not None and targets is None:      # grad() touches no .grad
                retained.append((record.retained, np.array(g)))
            if record.guards is not None:
                mutation.check(record)
            if type(g) is _ndarray and not g.ndim:
                g = g[()]
            _pull(record, g, lift, useful, cotangents)
            if not retain:
                record.release()
    for tensor, g in retained:           # only now: a walk that fails leaves no gradient behind
        if tensor() is not None:
            tensor()._add_grad(g)
    kept.update((key, cotangents.take(key)) for key in cotangents.keys(targets))
    if lift is None:
        kept = {key: g if key in cotangents.owned else np.array(g) for key, g in kept.items()}
    return kept


class Cotangents:
    """The gradients on their way back, by Record or leaf Tensor: sums of contributions.

    A rule may return its g itself, a view, or an array that the tape keeps. So the first
    contribution is only stored, the second makes a fresh sum, which is `owned`, and later ones are
    added to that in place. Contributions to a float16 value are added up in float32.
    """

    def __init__(self, roots: dict, lift: Callable | None):
        self.sums = dict(roots)
        self.lift = lift
        self.owned: set = set()          # keys whose sum is an array that was made here
        self.scattered: dict = {}        # key -> (operator, g, args) of the picks still to be undone

    def add(self, key, contribution) -> None:
        """Add what one use of a value contributes to its gradient."""
        previous = self.sums.get(key)
        if previous is None:
            self.sums[key] = contribution
        elif key in self.owned:
            np.add(previous, contribution, out=previous)
        else:
            self.sums[key] = total = previous + contribution
            if type(total) is np.ndarray:
                self.owned.add(key)

    def scatter(self, key, operator, g, args) -> None:
        """The same for an operator that picks elements, at the cost of what it picked.

        Its rule would make an array of zeros as large as the value for each pick, and n picks of an
        array of n rows would cost n^2. So g is added in place; Tensors, which have no places to
        write to, are collected, and undone by one operator.
        """
        if self.lift is not None:
            self.scattered.setdefault(key, []).append((operator, g, args))
            return
        previous = self.sums.get(key)
        # The kernels write to rows of it, which a reshape must not copy.
        if previous is None or key not in self.owned or not previous.flags.c_contiguous:
            dtype = sum_dtype(key.dtype)
            self.sums[key] = (np.zeros(key.shape, dtype) if previous is None
                              else np.array(previous, dtype, order="C"))
            self.owned.add(key)
        operator.scatter(self.sums[key], g, *args)

    def take(self, key) -> Any:
        """The whole gradient of a value, in its dtype, which is done with; None if there is none."""
        if self.scattered and key in self.scattered:
            picks = self.scattered.pop(key)
            self.add(key, picks[0][0].undo_picks(picks, key.shape, sum_dtype(key.dtype)))
        g = self.sums.pop(key, None)
        if key.dtype is HALF and g is not None:
            self.owned.discard(key)
            g = g.astype(HALF)
        return g

    def keys(self, targets: set | None) -> list:
        """What is still here: of the targets, or of all."""
        found = dict.fromkeys((*self.sums, *self.scattered)) if self.scattered else self.sums
        return [key for key in found if targets is None or key in targets]


def _in_walking_order(roots, targets) -> tuple[list[Record], set | None]:
    """The records to call, last recorded first, and the keys that lead to a target.

    Iterative: a chain of 100,000 operations is no deeper for this loop than a chain of two.
    """
    # Nothing at or before the earliest target can lead to a target.
    floor = -1
    if targets is not None:
        floor = min(key.position if type(key) is Record else -1 for key in targets)
    found = {key for key in roots if type(key) is Record}
    stack, order = list(found), []
    while stack:
        record = stack.pop()
        if record.position <= floor:
            continue
        order.append(record)
        if record.saved is None and not (targets and record in targets):
            raise RuntimeError(_released(record))
        for parent in record.parents:
            if type(parent) is Record and parent not in found:
                found.add(parent)
                stack.append(parent)
    order.sort(key=attrgetter("position"))     # a chain was found in order: one pass
    useful = None
    if targets is not None:
        useful, everything, order = set(targets), order, []
        for record in everything:     # parents first, so one pass settles who leads to a target
            if not useful.isdisjoint(record.parents):
                useful.add(record)
                order.append(record)
    order.reverse()
    return order, useful


def _released(record: Record) -> str:
    place = f" recorded at {record.line}" if record.line else \
        " (tape.record_lines() would say where it was recorded)"
    return (
        f"backward: the tape behind this result was already walked and released; the record in "
        f"question is {record.name}, shape {record.shape},{place}. If that value was carried over "
        f"from an earlier step, cut the tape there: value.detach(). If you mean to walk the same "
        f"tape twice, call the first backward(retain_graph=True).")


def _pull(record: Record, g, lift, useful, cotangents: Cotangents) -> None:
    """Add what one record contributes to the gradient of each of its parents."""
    plan, parents, sums = record.plan, record.parents, cotangents.sums
    if not plan.one_by_one:
        _pull_otherwise(record, g, lift, useful, cotangents)
        return
    args_of_rules = record.saved if lift is None else plan.lifted(record, lift)
    for index, rule, args in zip(plan.indices, plan.rules, args_of_rules):
        parent = parents[index]
        if useful and parent not in useful:
            continue
        contribution = rule(g, *args) if plan.ours else carefully(rule, record, g, args)
        kind = parent.kind if type(parent) is Record else type(parent._data)
        # A scalar of the right type fits by its type alone, and takes the short way below.
        if type(contribution) is not kind or kind is _ndarray or kind is np.float16:
            if plan.elementwise and contribution is not g and hasattr(contribution, "dtype"):
                contribution = zero_where_undefined(contribution, g)
            contribution = _fitting(contribution, record, index, lift)
        elif contribution != contribution and plan.elementwise and g == 0:
            contribution = kind(0)     # the same for scalars, which also fit already
        previous = sums.get(parent)
        if previous is None:
            sums[parent] = contribution
        else:
            cotangents.add(parent, contribution)


def _pull_otherwise(record: Record, g, lift, useful, cotangents: Cotangents) -> None:
    """The same for an operator with one rule for all inputs, or one that picks elements."""
    plan, parents = record.plan, record.parents
    if plan.joint:
        for i, contribution in enumerate(plan.operator.pull_all(record, g, lift)):
            if parents[i] is not None and contribution is not None:
                if plan.elementwise and contribution is not g:
                    contribution = zero_where_undefined(contribution, g)
                cotangents.add(parents[i], _fitting(contribution, record, i, lift))
        return
    (index,) = plan.indices
    if not useful or parents[index] in useful:
        (args,) = record.saved if lift is None else plan.lifted(record, lift)
        cotangents.scatter(parents[index], plan.operator, g, args)


def carefully(rule: Callable, record: Record, g, args: tuple) -> Any:
    """Call a rule of a user's, which may write to its g, but not to what the tape keeps."""
    try:
        own = np.array(g) if type(g) is _ndarray else g
        return rule(own, *mutation.read_only(args))
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise ValueError(f"{record.name}: a derivative rule must not write to what the tape keeps for "
                         f"it; it may write to its first parameter. The rules stand at "
                         f"{record.plan.describe(record.plan.indices[0])}") from error


def _fitting(contribution, record: Record, index: int, lift):
    """The contribution as a gradient of the record's input: its shape, its dtype, its kind."""
    parent = record.parents[index]
    if not hasattr(contribution, "dtype"):
        if type(contribution) not in (int, float):
            raise TypeError(f"{record.name}: the derivative rule for input {index} must return an "
                            f"array, got {type(contribution).__name__}. The rule stands at "
                            f"{record.plan.describe(index)}")
        contribution = np.asarray(contribution, parent.dtype)
    if lift is not None and not hasattr(contribution, "_record"):
        contribution = lift(contribution, None)
    shape = parent.shape
    if contribution.shape != shape:
        given = contribution.shape
        if not broadcasts_to(shape, given):
            raise ValueError(
                f"{record.name}: the derivative rule for input {index} must return a gradient to "
                f"which that input's shape {shape} broadcasts; it returned shape {given}. The rule "
                f"stands at {record.plan.describe(index)}")
        contribution = unbroadcast(contribution, shape)
    dtype = sum_dtype(parent.dtype)
    return contribution if contribution.dtype == dtype else contribution.astype(dtype)
