"""The tape as text: what was recorded, in order, and what it keeps alive."""

from __future__ import annotations

from typing import Any

import numpy as np

from tape.engine import Record, records_behind
from tape.hollow import memory_of
from tape.saved import ZERO
from tape.tensor import Tensor


def show(*outputs: Tensor) -> str:
    """The records behind `outputs` as a table, in the order in which they ran.

    Columns: the position on the tape, counted from the first record shown; the operator; its
    parents (a position, ``leaf`` with its shape, or ``-`` for an input that wants no gradient); the
    shape of the result; the bytes that the record keeps alive for its derivative, where an array is
    counted once, at the first record that keeps it, and leaves that want a gradient are not counted;
    and, inside ``with tape.record_lines():``, the file and line that recorded it.

    Examples
    --------
    >>> import tape
    >>> x = tape.Tensor([[1.0, 2.0]], requires_grad=True)
    >>> print(tape.show((x @ x.T).relu().sum()))
    position  operator   parents         shape   bytes kept
           0  transpose  leaf (1, 2)     (2, 1)           0
           1  matmul     leaf (1, 2), 0  (1, 1)           8
           2  relu       1               (1, 1)           4
           3  sum        2               ()               0
    4 records, 12 bytes kept
    """
    records = _records(outputs)
    if not records:
        return "nothing was recorded: no input required a gradient, or it was made under no_grad"
    number = {record: i for i, record in enumerate(records)}
    counted: dict[int, Any] = {}
    rows, total = [], 0
    for record in records:
        kept = bytes_kept(record, counted)
        total += kept
        rows.append((str(number[record]), record.name, _parents(record, number), str(record.shape),
                     "released" if record.saved is None else f"{kept:,}", record.line or ""))
    has_lines = any(record.line for record in records)
    header = ("position", "operator", "parents", "shape", "bytes kept", "recorded at")
    text = table(header if has_lines else header[:5], rows, numeric=(0, 4))
    return f"{text}\n{len(records)} records, {total:,} bytes kept"


def _records(outputs: tuple) -> list[Record]:
    for value in outputs:
        if not isinstance(value, Tensor):
            raise TypeError(f"show: outputs must be Tensors, got {type(value).__name__}. A node of a "
                            f"static graph is shown by tape.lazy.show.")
    return records_behind({t._record for t in outputs if t._record is not None})


def _parents(record: Record, number: dict[Record, int]) -> str:
    names = ["-" if parent is None else str(number[parent]) if type(parent) is Record
             else f"leaf {parent.shape}" for parent in record.parents]
    return ", ".join(names[:4]) + (f", ... {len(names)} in all" if len(names) > 4 else "")


def bytes_kept(record: Record, counted: dict[int, Any]) -> int:
    """The bytes of what a record keeps, but for what is in `counted`, to which they are added.

    `counted` holds the memory itself, by its id, so that no id is given to another while it lasts.
    """
    leaves = {id(memory_of(p._data)) for p in record.parents if isinstance(p, Tensor)}
    total = 0
    for array in _arrays(record.saved or ()):
        memory = memory_of(array)
        if id(memory) not in counted and id(memory) not in leaves and memory is not ZERO:
            counted[id(memory)] = memory
            total += memory.nbytes
    return total


def _arrays(saved: Any) -> list:
    """All arrays in what a record saved, which is nested tuples of values."""
    found, stack = [], [saved]
    while stack:
        value = stack.pop()
        if isinstance(value, (tuple, list)):
            stack.extend(value)
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, (np.ndarray, np.generic)):
            found.append(value)
    return found


def table(header: tuple, rows: list[tuple], numeric: tuple[int, ...]) -> str:
    """Rows in columns as wide as they need be; those numbered in `numeric` aligned on the right."""
    rows = [header, *(row[:len(header)] for row in rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join("  ".join(
        cell.rjust(width) if i in numeric else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows)
