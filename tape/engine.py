"""What an operation leaves on the tape, and the walk back over it.

An operation that runs on a Tensor which wants a gradient leaves a `Record`: its position on the
tape, its parents, and the values that its derivative rules ask for. `walk` goes over the records from
the last to the first and multiplies gradients together by the chain rule. That is all of reverse-mode
differentiation; there is no mathematics in this file. The derivatives are beside their operators in
``tape/ops``; ``tape/saved.py`` says what each one saves; ``tape/cotangents.py`` adds gradients up.
"""

from __future__ import annotations

import itertools
import os
import sys
from functools import partial
from operator import attrgetter
from typing import Any, Callable, Collection, Sequence

import numpy as np

from tape import mutation
from tape.cotangents import Cotangents, fit, unshared
from tape.kernels import HALF, broadcasts_to, has_nan
from tape.ops.arithmetic import identity, widened, zero_where_undefined
from tape.ops.forking import fork
from tape.ops.fused import recompute
from tape.threads import side_by_side
from tape.topological import topological_order

FORKED = fork.vjp(1)           # of the record that stands for branches; see `tape.parallel_map`
next_position = itertools.count().__next__
_parents, _position = attrgetter("parents"), attrgetter("position")
_DTYPES = {kind: np.dtype(kind) for kind in set(np.sctypeDict.values())}
_ndarray, _half = np.ndarray, np.float16          # looked up once, not at every operation
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Record:
    """One operation on the tape. It points backwards only: to its parents, never to its result.

    So reference counting alone frees a tape, as soon as the last Tensor that needs it is deleted.

    Attributes
    ----------
    vjp : the operator's `Vjp`: which rules to call, and what they are given.
    parents : one entry per input: the Record that made it, the leaf Tensor itself, or None for an
        input that wants no gradient.
    saved : the values that the rules ask for, in the order of ``vjp.rules``; None once the record is
        released.
    shape, dtype : of the result; the gradient that arrives here has both.
    kind : the result's type: np.ndarray, or a NumPy scalar type, which implies shape and dtype.
    position : grows with every operation, so a record's parents always have smaller ones.
    versions : what saved arrays were, where something else can write to them; see ``tape/mutation.py``.
    call : while tracing, the operands that no parent makes and the attributes (axis, ...), which
        with `parents` are the whole call; see `tape.lazy.from_tape`. Otherwise None.
    line : "file:line" where it was recorded, where `record_lines` was on.
    retained : weak reference to the Tensor that called ``retain_grad()``.
    """

    __slots__ = ("vjp", "parents", "saved", "shape", "dtype", "kind", "position",
                 "versions", "call", "line", "retained", "__weakref__")

    def __init__(self, vjp, parents, saved, out, versions=None):
        self.vjp = vjp
        self.parents = parents
        self.saved = saved
        self.kind = kind = type(out)
        if kind is np.ndarray:
            self.shape = out.shape
            self.dtype = out.dtype
        else:                       # asking a scalar takes twice as long as looking its type up
            self.shape = ()
            self.dtype = _DTYPES[kind]
        self.position = next_position()
        self.versions = versions
        self.call: Any = None
        self.line: str | None = None
        self.retained: Callable | None = None

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.vjp.operator.name

    def release(self) -> None:
        """Let go of what the rules needed, and of the tape behind."""
        self.saved = None
        self.parents = ()
        self.versions = None
        self.call = None

    def __repr__(self) -> str:
        place = f", {self.line}" if self.line else ""
        return f"<{self.name} at position {self.position}, shape {self.shape}{place}>"


def caller_frame() -> Any:
    """The innermost frame that is not in this package."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return frame


def caller_line() -> str:
    """``file:line`` of that frame."""
    frame = caller_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "?"


# --- the walk --------------------------------------------------------------------------------


def walk(roots: dict, *, targets: set | None = None, as_tensor: Callable | None = None,
         retain: bool = False, stop: Collection = ()) -> dict:
    """Carry gradients from `roots` back to the leaves, or to `targets`.

    Parameters
    ----------
    roots : gradient of each starting point, keyed by Record or leaf Tensor.
    targets : keys whose gradients are wanted. None means every leaf that is reached; otherwise
        records that lead to no target are not called.
    as_tensor : None, and rules run on raw arrays; or ``as_tensor(array, record) -> Tensor``, which
        puts a saved array back on the tape, and they run on Tensors, so that the gradients are
        themselves recorded (``create_graph``).
    retain : keep the records for another walk.
    stop : records among the targets that count as given: what they were made from is not looked at.

    Returns
    -------
    dict
        Gradients keyed like `roots`. Each is an array that nothing else refers to (or a Tensor,
        with `as_tensor`).
    """
    cotangents = Cotangents(roots, in_place=as_tensor is None)
    kept: dict = {}
    retained: list = []
    order, useful = _reversed_order(roots, targets, stop)
    _call_rules(order, cotangents, (targets, useful, as_tensor, retain), kept, retained)
    for tensor, g in retained:           # only now: a walk that fails leaves no gradient behind
        if tensor() is not None:
            tensor()._add_grad(g)
    for key in cotangents.keys():
        if targets is None or key in targets:
            kept[key] = cotangents.take(key)
    if as_tensor is None:
        for key in kept:
            if key not in cotangents.owned:
                kept[key] = unshared(kept, key)
    return kept


@np.errstate(all="ignore")           # infinite derivatives are values; see `fit`
def _call_rules(order: list[Record], cotangents: Cotangents, of: tuple, kept: dict,
                retained: list) -> None:
    """Call the rules of records, last recorded first.

    `of` has what holds for the whole walk: its targets; the keys that lead to one, or None for all; and
    `as_tensor` and `retain`, as in `walk`. `kept` gets the gradients of those that are targets,
    `retained` those that `retain_grad` asks for.
    """
    targets, useful, as_tensor, retain = of
    sums, picks = cotangents.sums, cotangents.picks
    for record in order:
        # Descending positions are a reverse topological order: every user of a result comes
        # after it on the tape, so by the time the walk is here all of them have contributed,
        # and g is complete. In b = a + a; c = b + b a walk that went depth first would carry
        # b's gradient back twice, the second time with the first half counted again.
        if picks or record.dtype is HALF:
            g = cotangents.take(record)
        else:
            g = sums.pop(record, None)
        if g is None:        # no path from the roots ended here
            continue
        if targets is not None and record in targets:
            kept[record] = g
        elif record.retained is not None and targets is None:      # grad() touches no .grad
            retained.append((record.retained, np.array(g)))
        if record.versions is not None:
            mutation.check(record)
        if type(g) is _ndarray and not g.ndim:
            g = g[()]
        if record.vjp is FORKED:         # never released: another result may be walked later
            _call_rules_of_branches(record, order, cotangents, of, kept, retained)
            continue
        _contribute(record, g, as_tensor, useful, cotangents)
        if not retain:
            record.release()


def _call_rules_of_branches(fork: Record, order: list[Record], cotangents: Cotangents, of: tuple,
                            kept: dict, retained: list) -> None:
    """Call the rules of what was recorded side by side: side by side too, a thread for each branch.

    Here all that was recorded later has contributed. What the branches add to the same leaf is added up
    in their order, so that it does not depend on which was faster. Where rules run on Tensors, or a
    record belongs to two branches or to none (it is behind no result, but behind what somebody kept),
    nothing is done: the walk arrives at all these records anyway.
    """
    branches, floor = fork.saved
    _, _, as_tensor, _ = of
    if as_tensor is not None:
        return
    within = {record for record in order if floor < record.position < fork.position}

    def inputs_of(record: Record) -> list[Record]:
        return [parent for parent in record.parents if type(parent) is Record and parent in within]
    orders = [records_behind(within.intersection(results), inputs_of)[::-1] for results in branches]
    if not sum(map(len, orders)) == len(set().union(*orders)) == len(within):
        return
    parts: list[tuple] = []
    for own in orders:
        found = ((record, cotangents.take(record)) for record in own)
        roots = {record: g for record, g in found if g is not None}
        parts.append((own, Cotangents(roots), of, {}, []))
    side_by_side([partial(_call_rules, *part) for part in parts])
    for _, found, _, own_kept, own_retained in parts:
        kept.update(own_kept)
        retained += own_retained
        for key in found.keys():
            mine = key in found.owned and key not in cotangents.sums
            cotangents.add(key, found.sums.pop(key))      # not `take`: only the whole sum is rounded
            if mine:
                cotangents.owned.add(key)


def records_behind(last: Any, inputs_of: Callable[[Record], Any] | None = None) -> list[Record]:
    """Some records and those that they depend on, in the order in which they ran."""
    return topological_order(last, inputs_of or _parents, _position, Record)


def parents_of(record: Record) -> list[Record]:
    """The records that made its inputs."""
    return [parent for parent in record.parents if type(parent) is Record]


def _reversed_order(roots: dict, targets: set | None,
                    stop: Collection) -> tuple[list[Record], set | None]:
    """The records to call, last recorded first, and the keys that lead to a target."""
    starts = [key for key in roots if type(key) is Record]
    if targets is None:
        order, useful = records_behind(starts), None
        for record in order:
            if record.saved is None:
                raise RuntimeError(_released(record))
    else:
        order, useful = _leading_to(targets, starts, stop)
    order.reverse()
    return order, useful


def _leading_to(targets: set, starts: list[Record], stop: Collection) -> tuple[list[Record], set]:
    """The records behind `starts` that depend on a target, in their order; and they and the targets."""
    # Nothing at or before the earliest target can lead to a target.
    floor = min(key.position if type(key) is Record else -1 for key in targets)

    def inputs_of(record: Record) -> Sequence:
        return record.parents if record.position > floor and record not in stop else ()

    order: list[Record] = []
    useful = set(targets)
    for record in records_behind(starts, inputs_of):    # parents first, so one pass settles who leads
        if record.position <= floor or record in stop:
            continue
        # Of what was released nobody knows any more whether a target before it lies behind it.
        if record.saved is None and not (record in targets and all(
                key is record or type(key) is Record and key.position > record.position
                for key in targets)):
            raise RuntimeError(_released(record))
        if record.vjp is FORKED or not useful.isdisjoint(record.parents):
            useful.add(record)
            order.append(record)
    return order, useful


def _released(record: Record) -> str:
    place = f" recorded at {record.line}" if record.line else \
        " (tape.record_lines() would say where it was recorded)"
    return (
        f"backward: the tape behind this result was already walked and released; the record in "
        f"question is {record.name}, shape {record.shape},{place}. If that value was carried over "
        f"from an earlier step, cut the tape there: value.detach(). If you mean to walk the same "
        f"tape twice, call the first backward(retain_graph=True), grad(..., retain_graph=True), or use "
        f"GradientTape(persistent=True).")


def _contribute(record: Record, g: Any, as_tensor: Callable | None, useful: set | None,
                cotangents: Cotangents) -> None:
    """Add what one record contributes to the gradient of each of its parents."""
    vjp, parents, sums = record.vjp, record.parents, cotangents.sums
    if vjp.joint:
        return _contribute_jointly(record, g, as_tensor, cotangents)
    saved = record.saved if as_tensor is None else vjp.unpack(record, as_tensor)
    for index, rule, where, only in vjp.rules:
        parent = parents[index]
        if useful and parent not in useful:
            continue
        if vjp.scatters:
            cotangents.scatter(parent, vjp.operator, g, saved[where])
            continue
        if only is not None:
            contribution = rule(g, saved[only])
        else:
            contribution = rule(g, *saved[where]) if saved else rule(g)
        if type(parent) is Record:
            like, kind = parent, parent.kind
        else:
            like, kind = parent._data, type(parent._data)
        # What is of the right type, dtype and shape takes the short way, where only NaN is looked for.
        if type(contribution) is not kind or kind is _half:
            contribution = _fitted(contribution, g, record, index, as_tensor)
        elif kind is not _ndarray:                 # a scalar, of which the type says all
            if contribution != contribution and vjp.elementwise and g == 0:
                contribution = kind(0)
        elif as_tensor is not None or contribution.shape != like.shape or not (
                contribution.dtype is like.dtype is not HALF):
            contribution = _fitted(contribution, g, record, index, as_tensor)
        elif vjp.elementwise and contribution is not g and has_nan(contribution):
            contribution = zero_where_undefined(contribution, g)
        previous = sums.get(parent)
        if previous is None:
            sums[parent] = contribution
        elif kind is not _ndarray and type(previous) is type(contribution) is kind:
            sums[parent] = previous + contribution         # scalars, which nobody can write to
        else:
            cotangents.add(parent, contribution)


def _contribute_jointly(record: Record, g: Any, as_tensor: Callable | None,
                        cotangents: Cotangents) -> None:
    """The same for an operator with one rule for all its inputs."""
    vjp, parents, sums = record.vjp, record.parents, cotangents.sums
    if as_tensor is not None and vjp.recomputes:
        contributions = _recomputed(record, g, as_tensor)
    else:
        saved = record.saved if as_tensor is None else vjp.unpack(record, as_tensor)
        contributions = vjp.joint_gradients(g, saved, len(parents))
    for i, contribution in enumerate(contributions):
        parent = parents[i]
        if parent is None or contribution is None:
            continue
        like = parent if type(parent) is Record else parent._data
        if as_tensor is not None or vjp.elementwise or type(contribution) is not _ndarray or not (
                contribution.dtype is like.dtype is not HALF and contribution.shape == like.shape):
            contribution = _fitted(contribution, g, record, i, as_tensor)
        if parent in sums:
            cotangents.add(parent, contribution)
        else:
            sums[parent] = contribution


def _recomputed(record: Record, g: Any, as_tensor: Callable) -> list:
    """The gradients of a fused operator as Tensors, by running its composed definition again.

    The second run starts from fresh stand-ins of the inputs (`identity`), where its own walk stops: an
    input that depends on another input must not carry back that one's gradient twice.
    """
    *_, inputs, attributes = record.saved
    linked = [value if parent is None else identity(as_tensor(value, parent))
              for value, parent in zip(inputs, record.parents)]
    out = recompute(record.vjp.operator, linked, attributes)
    targets = [getattr(x, "_record", None) for x in linked]
    found = walk({out._record: widened(g)}, targets={t for t in targets if t is not None},
                 as_tensor=as_tensor, retain=True)
    return [found.get(t, as_tensor(np.zeros_like(x), None)) if t is not None else None
            for t, x in zip(targets, inputs)]


def _fitted(contribution: Any, g: Any, record: Record, index: int, as_tensor: Callable | None) -> Any:
    """`fit`, for what may be a user's rule: its mistakes are said with the place of the rule."""
    parent = record.parents[index]
    if type(contribution) is not _ndarray and not hasattr(contribution, "dtype"):
        if type(contribution) not in (int, float):
            raise TypeError(f"{record.name}: the derivative rule for input {index} must return an "
                            f"array, got {type(contribution).__name__}. The rule stands at "
                            f"{record.vjp.place(index)}")
        contribution = np.asarray(contribution, parent.dtype)
    if contribution.shape != parent.shape and not broadcasts_to(parent.shape, contribution.shape):
        raise ValueError(
            f"{record.name}: the derivative rule for input {index} must return a gradient to "
            f"which that input's shape {parent.shape} broadcasts; it returned shape "
            f"{contribution.shape}. The rule stands at {record.vjp.place(index)}")
    if as_tensor is not None and not hasattr(contribution, "_record"):
        contribution = as_tensor(contribution, None)
    return fit(contribution, g, parent, record.vjp.elementwise)
