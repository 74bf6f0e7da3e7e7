"""np.where for large arrays, by the bits of the elements rather than by a decision for each.

np.where decides element by element which of its operands to copy. A processor guesses each decision
before the condition is at hand, and a wrong guess costs some 15 cycles. Where a condition holds at
random places, every second guess is wrong.

Here nothing is decided. Of a condition c, 0 or 1, the integer m = -c has no bit set or all of them,
since -1 is all ones in two's complement. With & (and) and ^ (exclusive or) on the bits of x and y,

    ((x ^ y) & m) ^ y

is 0 ^ y = y where c is 0, and (x ^ y) ^ y = x where c is 1: to the last bit, NaN and -0 included. The
bits of the number 0 are all 0, so that x & m is x or 0, and x & (c - 1) is 0 or x.
"""

from __future__ import annotations

import numpy as np

FEW = 2 ** 13           # elements; for fewer np.where takes as long
_KINDS = np.ndarray, np.generic, int, float            # of operands; np.where takes any object
_BITS = {np.dtype(f"f{size}"): np.dtype(f"i{size}") for size in (2, 4, 8)}


def where(condition, x, y):
    """np.where(condition, x, y), of arrays and numbers."""
    most = max(getattr(condition, "size", 1), getattr(x, "size", 1), getattr(y, "size", 1))
    if most < FEW or type(condition) is not np.ndarray or condition.dtype != bool or not (
            isinstance(x, _KINDS) and isinstance(y, _KINDS)):
        return np.where(condition, x, y)
    dtype = np.result_type(x, y)
    if dtype not in _BITS:
        return np.where(condition, x, y)
    try:
        shape = np.broadcast_shapes(condition.shape, np.shape(x), np.shape(y))
    except ValueError:
        return np.where(condition, x, y)                # which says of all three what does not fit
    out = np.empty(shape, dtype)
    zero_for_x, zero_for_y = (type(operand) is int and operand == 0 for operand in (x, y))
    x, y = (np.asarray(operand, dtype).view(_BITS[dtype]) for operand in (x, y))
    bits, mask = out.view(_BITS[dtype]), condition.astype(_BITS[dtype])
    if zero_for_x:
        mask -= 1
        np.bitwise_and(y, mask, bits)
        return out
    np.negative(mask, mask)
    if zero_for_y:
        np.bitwise_and(x, mask, bits)
        return out
    np.bitwise_xor(x, y, bits)
    bits &= mask
    bits ^= y
    return out
