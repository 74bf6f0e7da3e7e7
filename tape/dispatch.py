"""How an operator runs on Tensors, and what it leaves on the tape when one of them wants a gradient."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from tape.engine import Record, caller_line
from tape.grad_mode import USUAL, Modes, modes
from tape.promotion import as_constant, as_result, unshared, with_floats, with_name
from tape.saved import Plan, stand_in
from tape.primitive import Primitive
from tape.mutation import guard_of, guards_of
from tape.tensor import Tensor, from_array

_PYTHON_NUMBERS = frozenset({int, float, bool})
_SCALARS = frozenset(np.sctypeDict.values())
_NO_ATTRIBUTES: dict = {}
_ndarray = np.ndarray          # looked up once, not at every operation


def apply(operator: Primitive, inputs: Sequence, attributes: dict = _NO_ATTRIBUTES) -> Any:
    """Run an operator on `inputs`, of which some are Tensors, and record it if one wants that."""
    arrays: list = []
    parents: list = []
    wanted = 0            # the bits of the inputs whose gradient is wanted
    mixed = False         # whether there is an operand whose dtype may yield to that of the others
    for value, bit in zip(inputs, operator.bits):
        if type(value) in _PYTHON_NUMBERS:
            arrays.append(value)          # Python numbers are weak: they take the others' dtype
        elif isinstance(value, Tensor):
            arrays.append(value._data)
            if type(arrays[-1]) is _ndarray and not arrays[-1].ndim:
                arrays[-1] = arrays[-1][()]       # a scalar, as every other value without axes
            if value._requires_grad and bit:
                wanted |= bit
                parents.append(value._record or value)
                continue
            mixed = mixed or value.dtype.kind != "f"
        else:
            arrays.append(as_constant(operator, value, bit))
            mixed = mixed or type(value) is not _ndarray or value.dtype.kind != "f"
        parents.append(None)
    if mixed and operator.mixes:
        with_floats(operator, inputs, arrays)
    try:
        out = operator.on_numpy(*arrays, **attributes) if attributes else operator.on_numpy(*arrays)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise with_name(error, operator, arrays) from error
    residuals = None
    if operator.residuals:
        out, residuals = out
    if type(out) not in _SCALARS:
        out = _own_result(operator, out, inputs, arrays)
    mode = modes.get()
    if not wanted or not mode.recording:
        if mode.tracing and any(map(_on_tape, inputs)):
            return _traced_constant(operator, inputs, arrays, attributes, out)
        return from_array(out)
    plan = operator.plans.get(wanted) or operator.plan(wanted)
    guards = None
    for i in range(len(arrays)) if plan.kept is None else plan.kept:
        if type(arrays[i]) is _ndarray:          # a scalar cannot be changed in place
            guards = _protect(operator, inputs, arrays, i, guards)
    if plan.looks_further:
        row = _more_values(plan, arrays, out, attributes, residuals)
    else:
        row = [*arrays, out]
    record = Record(plan, parents, plan.pick(row), out, guards)
    if mode is not USUAL:
        _take_notes(record, mode, inputs, arrays, attributes)
    return from_array(out, record)


# How an operator that is given a Tensor finds its way here; see `Primitive.__call__`.
Tensor.__tape_apply__ = staticmethod(apply)


def _more_values(plan: Plan, arrays: list, out: Any, attributes: dict,
                 residuals: dict | None) -> list:
    """The row of values that a plan picks from, where it wants more than inputs and result."""
    operator = plan.operator
    values = [tuple(arrays), out] if operator.variadic else [*arrays, out]
    values += attributes.values()
    values += [residuals[name] for name in operator.residuals] if residuals else ()
    values += [tuple(map(stand_in, v)) if operator.variadic else stand_in(v)
               for v in [values[i] for i in plan.likes]]
    if operator.composed is not None:        # higher derivatives run the composed definition again
        values += [tuple(arrays), attributes]
    return values


def _own_result(operator: Primitive, out: Any, inputs: Sequence, arrays: list) -> Any:
    """What a forward returned, as an array that nobody can write to, or a scalar."""
    if type(out) is not _ndarray:
        out = as_result(operator, out)
    if not out.ndim:
        return out[()]
    if operator.fresh or operator.ours and out.base is None and not any(
            array is out for array in arrays):
        return out
    return unshared(out, [array for value, array in zip(inputs, arrays)
                          if type(array) is _ndarray and getattr(value, "_writable", True)])


def _protect(operator: Primitive, inputs: Sequence, arrays: list, i: int,
             guards: tuple | None) -> tuple | None:
    """See to it that an input array that is kept stays what it is, or that a change shows.

    One of the caller's is copied, in `arrays`. That of a leaf gets a guard, behind those in `guards`.
    """
    value = inputs[i]
    if not isinstance(value, Tensor):
        arrays[i] = arrays[i].copy(order="K")
    elif value._writable and value._data is arrays[i]:
        # Too low a count costs a checksum, no more.
        guard = i, guard_of(value, _count(arrays, i) if len(arrays) < 5 else 1)
        guards = (guard,) if guards is None else (*guards, guard)
    return guards


def _count(arrays: list, i: int) -> int:
    """How often an array stands in a list."""
    count = 0
    for array in arrays:
        if array is arrays[i]:
            count += 1
    return count


def _take_notes(record: Record, mode: Modes, inputs: Sequence, arrays: list,
                attributes: dict) -> None:
    """What a record keeps besides in some of the modes."""
    if mode.lines:
        record.line = caller_line()
    if mode.strict:
        record.guards = guards_of(record.plan.named(record.saved))
    if mode.tracing:
        record.call = _call(inputs, arrays, record.parents), attributes


def _on_tape(value: Any) -> bool:
    return isinstance(value, Tensor) and (value._requires_grad or value._record is not None)


def _traced_constant(operator: Primitive, inputs: Sequence, arrays: list, attributes: dict,
                     out: Any) -> Tensor:
    """A result through which no gradient passes, as of sign(x) or under no_grad, to be frozen too."""
    record = Record(operator.plan(0), [None] * len(inputs), (), out)
    record.call = _call(inputs, arrays, record.parents), attributes
    tensor = from_array(out, record)
    tensor._requires_grad = False
    return tensor


def _call(inputs: Sequence, arrays: list, parents: list) -> list:
    """What `tape.lazy.from_tape` needs of the operands that no record made: number, or operand and
    its array as it is now."""
    return [None if type(parent) is Record
            else value if type(value) in _PYTHON_NUMBERS
            else (value, array if isinstance(value, Tensor) and not value._writable
                  else np.array(array)[()] if isinstance(array, (_ndarray, np.generic)) else array)
            for value, array, parent in zip(inputs, arrays, parents)]
