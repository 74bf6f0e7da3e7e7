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

from tape.kernels import broadcasts_to, has_nan, unbroadcast
from tape.modes import lines

_next_position = itertools.count().__next__
_DTYPES = {kind: np.dtype(kind) for kind in set(np.sctypeDict.values())}
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
    constants : for each input whose parent is None, the number or (operand, its array). With
        `attributes` it is the part of the call that no parent makes; see `tape.lazy.from_tape`.
    attributes : the call's attributes (axis, ...).
    guards : leaf Tensors whose array is kept, with the version it had; see `Tensor.data`.
    line : "file:line" where it was recorded, where `record_lines` was on.
    retained : weak reference to the Tensor that called ``retain_grad()``.
    """

    __slots__ = ("plan", "parents", "saved", "shape", "dtype", "kind", "position",
                 "constants", "attributes", "guards", "line", "retained", "__weakref__")

    def __init__(self, plan, parents, saved, out, constants, attributes):
        self.plan = plan
        self.parents = parents
        self.saved = saved
        self.constants = constants
        self.attributes = attributes
        self.kind = kind = type(out)
        if kind is np.ndarray:
            self.shape = out.shape
            self.dtype = out.dtype
        else:                       # asking a scalar takes twice as long as looking its type up
            self.shape = ()
            self.dtype = _DTYPES[kind]
        self.position = _next_position()
        self.guards: tuple | None = None
        self.line = caller_line() if lines.get() else None
        self.retained: Callable | None = None

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.plan.operator.name

    def release(self) -> None:
        """Let go of what the rules needed, and of the tape behind."""
        self.saved = None
        self.parents = ()
        self.constants = None
        self.guards = None

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
    gradients = dict(roots)
    owned: set = set()           # keys whose gradient is an array made by this walk alone
    kept = {}
    with np.errstate(all="ignore"):      # infinite derivatives are values; see also _pull
        order, useful = _in_walking_order(roots, targets)
        for record in order:
            # Descending positions are a reverse topological order: every user of a result comes
            # after it on the tape, so by the time the walk is here all of them have contributed,
            # and g is complete. In b = a + a; c = b + b a walk that went depth first would pull
            # b's gradient back twice, the second time with the first half counted again.
            g = gradients.pop(record, None)
            if g is None:        # no path from the roots ended here
                continue
            if targets is not None and record in targets:
                kept[record] = g
            tensor = record.retained() if record.retained is not None else None
            if tensor is not None and targets is None:      # grad() touches no .grad
                tensor._add_grad(np.array(getattr(g, "_data", g)))
            for parent, contribution in _pull(record, g, lift, useful):
                previous = gradients.get(parent)
                # A rule may return g itself, a view, or an array the tape keeps, so the first
                # contribution is only stored. The second makes a fresh sum, which is ours, and
                # later ones go in place.
                if previous is None:
                    gradients[parent] = contribution
                elif parent in owned:
                    np.add(previous, contribution, out=previous)
                else:
                    gradients[parent] = total = previous + contribution
                    if type(total) is np.ndarray:
                        owned.add(parent)
            if not retain:
                record.release()
    if targets is None:
        kept = gradients
    else:
        kept.update((key, g) for key, g in gradients.items() if key in targets)
    if lift is None:
        kept = {key: g if key in owned else np.array(g) for key, g in kept.items()}
    return kept


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


def _pull(record: Record, g, lift, useful) -> list[tuple[Any, Any]]:
    """What one record contributes to the gradient of each parent: (parent, gradient)."""
    plan, parents = record.plan, record.parents
    if record.guards is not None:
        check_guards(record)
    if plan.joint:
        pulled = plan.operator.pull_all(record, g, lift)
        return [(parents[i], _fitting(contribution, record, i, lift))
                for i, contribution in enumerate(pulled) if parents[i] is not None]
    saved = record.saved if lift is None else plan.lifted(record, lift)
    contributions = []
    for index, rule, args in zip(plan.indices, plan.rules, saved):
        parent = parents[index]
        if useful and parent not in useful:
            continue
        contribution = rule(g, *args)
        kind = parent.kind if type(parent) is Record else type(parent._data)
        # A scalar of the right type fits by its type alone, and takes the short way below.
        if type(contribution) is not kind or kind is np.ndarray:
            if plan.elementwise and contribution is not g and hasattr(contribution, "dtype"):
                contribution = _zero_where_zero(g, contribution)
            contribution = _fitting(contribution, record, index, lift)
        elif contribution != contribution and plan.elementwise and g == 0:
            contribution = kind(0)     # the same for scalars, which also fit already
        contributions.append((parent, contribution))
    return contributions


def _zero_where_zero(g, contribution):
    """A cotangent that is exactly zero gives an exactly zero gradient, whatever the derivative.

    Taken literally, 0 * inf and 0 * NaN are NaN, and where(x > 0, sqrt(x), x) would have a NaN
    gradient through the branch that it did not take. So where there is a NaN, it is looked into.
    """
    undefined = has_nan(np.asarray(getattr(contribution, "_data", contribution)))
    return np.where(np.equal(g, 0), 0, contribution) if undefined else contribution


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
    if contribution.dtype != parent.dtype:
        contribution = contribution.astype(parent.dtype)
    return contribution


def check_guards(record: Record) -> None:
    """Refuse a record whose kept inputs were changed in place since."""
    for tensor, version in record.guards or ():
        if tensor._version != version:
            place = f" (recorded at {record.line})" if record.line else ""
            raise RuntimeError(
                f"{record.name}{place}: an input of shape {tensor.shape} was changed in place after "
                f"this operation recorded it, so its gradient would be wrong. Call backward() before "
                f"the update, or give the tensor a new array: t.data = t.data + change.")
