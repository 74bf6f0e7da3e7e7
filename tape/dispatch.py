"""How an operator runs on Tensors, and what it leaves on the tape when one of them wants a gradient."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from tape.engine import Record, caller_line
from tape.errors import with_operator
from tape.foreign_names import Count
from tape.grad_mode import DEFAULT, Modes, modes
from tape.hollow import copied
from tape.mutation import copied_if_shared, version_of, versions_of
from tape.primitive import Primitive
from tape.promotion import PYTHON_NUMBERS, as_constant, as_result, counted, promote
from tape.tensor import Tensor, from_array

_SCALARS = frozenset(np.sctypeDict.values())
_WITHOUT_DTYPE = PYTHON_NUMBERS | {type(None)}
_NO_ATTRIBUTES: dict = {}
_ndarray = np.ndarray          # looked up once, not at every operation


def apply(operator: Primitive, inputs: Sequence, attributes: dict = _NO_ATTRIBUTES) -> Any:
    """Run an operator on `inputs`, of which some are Tensors, and record it if one wants that."""
    arrays: list = []
    parents: list = []
    parent: Any
    wanted = 0            # the bits of the inputs whose gradient is wanted
    mixed: Any = False    # whether there is an operand whose dtype may yield to that of the others
    shared = False        # whether there is an array that others may write to
    bit, ruled, numeric, joint = 0, operator.ruled, operator.numeric, operator.joint
    for value in inputs:
        bit = 1 if joint else bit + bit or 1                # 1 << i
        if isinstance(value, Tensor):
            array, parent = value._data, value._record
            if parent is None:
                parent = value
                if type(array) is _ndarray:
                    shared = True
                    if not array.ndim:
                        array = array[()]         # a scalar, as every other value without axes
            arrays.append(array)
            if value._requires_grad and ruled & bit:
                wanted |= bit
                parents.append(parent)
                continue
            mixed = mixed or numeric & bit and array.dtype.kind != "f"
        elif type(value) in PYTHON_NUMBERS:
            arrays.append(+value if type(value) is Count else value)   # weak; x.size as a plain int
        else:
            shared = True
            if type(value) is _ndarray and value.dtype.kind == "f":
                arrays.append(value)
            else:
                arrays.append(as_constant(operator, value, numeric & bit))
                # A condition or an index stays what it is; a NumPy scalar has become a weak number.
                mixed = mixed or numeric & bit and type(arrays[-1]) not in _WITHOUT_DTYPE
        parents.append(None)
    if mixed and operator.promotes:
        _promote(operator, inputs, arrays)
    array = None                # or there would be one more reference to it, and they are counted
    return _run(operator, inputs, arrays, parents, wanted, shared, attributes)


def apply_to_two(operator: Primitive, x: Any, y: Any) -> Any:
    """`apply` to the two operands of an operator with two rules and no attributes.

    Most are Tensors that both want a gradient. Then no dtype yields to another, all rules are wanted,
    and without the loop of `apply` recording takes a tenth less.
    """
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and x._requires_grad and y._requires_grad):
        return apply(operator, (x, y))
    first: Any = x._record
    second: Any = y._record
    arrays, shared = [x._data, y._data], False
    if first is None:
        first, shared = x, type(arrays[0]) is _ndarray
    if second is None:
        second, shared = y, shared or type(arrays[1]) is _ndarray
    if shared and not (arrays[0].ndim and arrays[1].ndim):
        arrays = [array if array.ndim else array[()] for array in arrays]
    return _run(operator, (x, y), arrays, [first, second], operator.ruled, shared, _NO_ATTRIBUTES)


def _run(operator: Primitive, inputs: Sequence, arrays: list, parents: list, wanted: int, shared: bool,
         attributes: dict) -> Any:
    """The forward on `arrays`, and the Record of it if an input's gradient is wanted."""
    mode = modes.get()
    forward = operator.on_numpy if mode is DEFAULT else mode.forward_of(operator)
    try:
        out = forward(*arrays, **attributes) if attributes else forward(*arrays)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise with_operator(error, operator, arrays) from error
    residuals = None
    if operator.residuals:
        out, residuals = out
    kind = type(out)
    if kind not in _SCALARS and (kind is not _ndarray or not out.ndim or shared and not operator.fresh):
        out = _own_result(operator, out, inputs, arrays)
    if not wanted or not mode.recording:
        return from_array(out) if not mode.tracing else (
            _traced_constant(operator, inputs, arrays, attributes, out))
    vjp = operator.vjps.get(wanted) or operator.vjp(wanted)
    versions = _protect(inputs, arrays, vjp.kept) if shared and vjp.kept != [] else None
    saved = vjp.pick([*arrays, out]) if vjp.short else vjp.bind(arrays, out, attributes, residuals)
    record = Record(vjp, parents, saved, out, versions)
    if mode is not DEFAULT:
        _annotate(record, mode, inputs, arrays, attributes)
    return from_array(out, record)


# An operator that is given a Tensor calls the first; see `Primitive.__call__`.
Tensor.__tape_apply__ = staticmethod(apply)
Tensor.__apply_to_two__ = staticmethod(apply_to_two)


def _promote(operator: Primitive, inputs: Sequence, arrays: list) -> None:
    """Give mixed operands, in `arrays`, the dtype that they have together."""
    weak = [isinstance(x, (list, tuple)) for x in inputs]
    arrays[:] = promote(arrays, weak, operator.numeric_bits)
    if operator.counts_booleans:
        arrays[:] = map(counted, arrays)


def _own_result(operator: Primitive, out: Any, inputs: Sequence, arrays: list) -> Any:
    """What a forward returned, as an array that nobody can write to, or a scalar."""
    if type(out) is not _ndarray:
        out = as_result(operator, out)
    if not out.ndim:
        return out[()]
    if operator.fresh or operator.trusted and out.base is None and not any(
            [array is out for array in arrays]):
        return out
    return copied_if_shared(out, [
        array for value, array in zip(inputs, arrays)
        if type(array) is _ndarray and getattr(value, "_writable", True)])


def _protect(inputs: Sequence, arrays: list, kept: list | None) -> tuple | None:
    """See to it that input arrays that are saved stay what they are, or that a change is noticed.

    Those of the caller's are copied, in `arrays`. Those of leaves get versions, which are returned.
    `kept` has the numbers of the inputs that are saved, or is None for all.
    """
    versions: tuple | None = None
    for i in range(len(arrays)) if kept is None else kept:
        value, array = inputs[i], arrays[i]
        if type(array) is not _ndarray:          # a scalar cannot be changed in place
            continue
        if not isinstance(value, Tensor):
            arrays[i] = copied(array)
        elif value._writable and value._data is array:
            array = None                         # as in `apply`
            version = i, version_of(value, arrays)
            versions = (version,) if versions is None else (*versions, version)
    return versions


def _annotate(record: Record, mode: Modes, inputs: Sequence, arrays: list, attributes: dict) -> None:
    """What a record keeps besides in some of the modes."""
    if mode.measurement is not None:
        mode.measurement.add(record)
    if mode.lines:
        record.line = caller_line()
    if mode.strict:
        record.versions = versions_of(record.vjp.named(record.saved))
    if mode.tracing:
        record.call = _operands(inputs, arrays, record.parents), attributes


# --- tracing: what `tape.lazy.from_tape` needs besides ---


def _on_tape(value: Any) -> bool:
    return isinstance(value, Tensor) and (value._requires_grad or value._record is not None)


def _traced_constant(operator: Primitive, inputs: Sequence, arrays: list, attributes: dict,
                     out: Any) -> Tensor:
    """A result through which no gradient passes, as of sign(x) or under no_grad, to be traced too."""
    if not any(map(_on_tape, inputs)):
        return from_array(out)
    record = Record(operator.vjp(0), [None] * len(inputs), (), out)
    record.call = _operands(inputs, arrays, record.parents), attributes
    tensor = from_array(out, record)
    tensor._requires_grad = False
    return tensor


def _operands(inputs: Sequence, arrays: list, parents: list) -> list:
    """The operands that no record made: a number, or what was given and its array as it is now."""
    found: list = []
    for value, array, parent in zip(inputs, arrays, parents):
        if type(parent) is Record:
            found.append(None)
        elif type(value) in PYTHON_NUMBERS:
            found.append(value)
        elif isinstance(value, Tensor) and not value._writable:        # nobody can change it
            found.append((value, array))
        else:
            found.append((value, np.array(array)[()] if hasattr(array, "dtype") else array))
    return found
