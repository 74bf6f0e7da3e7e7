"""The bits of a floating-point number as an integer, and back, in compiled loops."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

_INTEGERS = {types.float32: (types.int32, 32), types.float64: (types.int64, 64)}


@intrinsic
def as_integer(typing_context, x):
    """The int32 (int64) that has the bits of a float32 (float64)."""
    integer, size = _INTEGERS[x]

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(size))
    return integer(x), generate


@intrinsic
def as_float(typing_context, bits):
    """The float32 (float64) that has the bits of an int32 (int64)."""
    real, kind = (types.float32, ir.FloatType()) if bits == types.int32 else (
        types.float64, ir.DoubleType())

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], kind)
    return real(bits), generate


@intrinsic
def _ordered(typing_context, bits):
    """The bits of a float as an integer of the same order; of that integer the bits again.

    Floats are ordered as their bits are, if those below the sign are turned around for negative
    numbers.
    """
    kind = ir.IntType(bits.bitwidth)

    def generate(context, builder, signature, arguments):
        sign = builder.ashr(arguments[0], kind(bits.bitwidth - 1))          # all bits 0, or all 1
        return builder.xor(arguments[0], builder.and_(sign, kind(2 ** (bits.bitwidth - 1) - 1)))
    return bits(bits), generate


@register_jitable
def largest(row):
    """The largest element, -inf of an empty row; NaN may be taken for larger or smaller than all.

    LLVM makes vector instructions of comparisons of integers, and for the sake of NaN not of floats.
    """
    key = _ordered(as_integer(row.dtype.type(-np.inf)))
    for j in range(row.size):
        other = _ordered(as_integer(row[j]))
        key = other if other > key else key
    return as_float(_ordered(key))
