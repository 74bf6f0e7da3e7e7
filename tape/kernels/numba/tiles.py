"""Products of matrices of float32 in tiles that stay in the registers of a processor with AVX-512.

A product of (m, k) and (k, n) takes 2 m k n operations on m k + k n numbers. Such a processor does 64
operations in a cycle and loads two vectors of 16 numbers, so each number that is loaded must be used
many times, while it is near (K. Goto and R. van de Geijn 2008, "Anatomy of high-performance matrix
multiplication"):

1. *In registers.* A tile, 6 x 64 elements of the result, is computed at once. Its 24 vectors of sums
   stay in 24 of the 32 registers for the whole loop over k. Each step of it loads 4 vectors of b and 6
   numbers of a, and multiplies each with each: 24 operations on vectors for 10 loads.
2. *In the caches.* The 64 columns of b that a tile needs are copied to lie one row after the other (a
   panel), and the tiles of the same panel are computed in turn. So many rows of a are taken in turn
   that these stay in the second cache while all panels go by.
3. *Long sums* are taken in pieces, so that a panel is small enough; what a piece gives is added to
   what is in the result already.

Rows of a are read where they are. Where columns of a lie in memory one after the other instead, as in
the gradient of a weight, x.T @ g, tiles of 6 rows are copied as panels are; and then a and b are long,
and both are copied piece by piece.

The sum behind an element has the same order whichever rows and columns are computed with it.
"""

from __future__ import annotations

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, register_jitable

from tape.kernels.numba.compiled import inner

# What is compiled for this processor, and not, by an environment variable of Numba's, for another one.
AVAILABLE = (binding.get_host_cpu_features().get("avx512f", False)
             and config.CPU_NAME is None and config.CPU_FEATURES is None)

SIZE = 4                                # bytes of a float32
WIDTH = 16                              # numbers in a vector
ROWS, COLUMNS = 6, 64                   # of a tile
TERMS = 384                             # of a sum, in one piece at most
NEAR = 2 ** 17                          # numbers of a that are to stay in the second cache
MOST = 2 ** 21                          # numbers of b, of which all panels are copied at once

_FLOAT, _WORD = ir.FloatType(), ir.IntType(64)
_HALF, _VECTOR = (ir.VectorType(_FLOAT, n) for n in (WIDTH // 2, WIDTH))
_INDICES = ir.VectorType(ir.IntType(32), WIDTH)


# --- what Numba has no words for ---
# Addresses and the steps between neighbours are in bytes.

def _at(builder, address, offset, kind):
    """A pointer."""
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _times(builder, step, count):
    """0, step, 2 step ..."""
    return [builder.mul(step, _WORD(i)) for i in range(count)]


@intrinsic
def _tile(typing_context, a, a_row, a_term, panel, terms, out, out_row, adds):
    """out (6, 64) = a (6, terms) @ panel (terms, 64), or is added to, if `adds`."""
    def generate(context, builder, signature, arguments):
        *given, out, out_row, adds = arguments
        places = [_at(builder, out, builder.add(row, _WORD(j * SIZE)), _VECTOR)
                  for row in _times(builder, out_row, ROWS) for j in range(0, COLUMNS, WIDTH)]
        for place in places:
            _fetch(builder, place)
        sums = _sums(builder, *given)
        with builder.if_else(adds) as (yes, no):
            with yes:
                for place, vector in zip(places, sums):
                    vector = builder.fadd(builder.load(place, align=SIZE), vector)
                    builder.store(vector, place, align=SIZE)
            with no:
                for place, vector in zip(places, sums):
                    builder.store(vector, place, align=SIZE)
        return context.get_dummy_value()
    return types.void(*[types.int64] * 7, types.boolean), generate


def _sums(builder, a, a_row, a_term, panel, terms):
    """The elements of a tile: the loop over the terms."""
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{WIDTH}f32")
    rows, before = _times(builder, a_row, ROWS), builder.block
    loop, end = builder.append_basic_block("terms"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    left, a_at, b_at = (builder.phi(_WORD) for _ in range(3))
    sums = [[builder.phi(_VECTOR) for _ in range(0, COLUMNS, WIDTH)] for _ in rows]
    vectors = [builder.load(_at(builder, b_at, _WORD(j * SIZE), _VECTOR), align=WIDTH * SIZE)
               for j in range(0, COLUMNS, WIDTH)]
    new = []
    for row, old in zip(rows, sums):
        number = _everywhere(builder, builder.load(_at(builder, a_at, row, _FLOAT)))
        new += [builder.call(fma, [number, vector, so_far]) for vector, so_far in zip(vectors, old)]
    later = [builder.sub(left, _WORD(1)), builder.add(a_at, a_term),
             builder.add(b_at, _WORD(COLUMNS * SIZE)), *new]
    zero = ir.Constant(_VECTOR, [0.0] * WIDTH)
    for phi, first, next_one in zip((left, a_at, b_at, *sum(sums, [])),
                                    (terms, a, panel, *[zero] * len(new)), later):
        phi.add_incoming(first, before)
        phi.add_incoming(next_one, loop)
    builder.cbranch(builder.icmp_signed(">", later[0], _WORD(0)), loop, end)
    builder.position_at_end(end)
    return new


def _fetch(builder, place):
    """Have memory at hand by the time when it is written to."""
    number, to_bytes = ir.IntType(32), ir.IntType(8).as_pointer()
    prefetch = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [to_bytes] + [number] * 3), "llvm.prefetch.p0i8")
    builder.call(prefetch, [builder.bitcast(place, to_bytes), number(1), number(3), number(1)])


def _everywhere(builder, number):
    """A vector of a number."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INDICES, [0] * WIDTH))


def _move(kind):
    """A function (to, source) that copies so many numbers."""
    @intrinsic
    def move(typing_context, to, source):
        def generate(context, builder, signature, arguments):
            to, source = (builder.inttoptr(x, kind.as_pointer()) for x in arguments)
            builder.store(builder.load(source, align=SIZE), to, align=SIZE)
            return context.get_dummy_value()
        return types.void(types.int64, types.int64), generate
    return move


_move_8, _move_16 = _move(_HALF), _move(_VECTOR)


@intrinsic
def _turn(typing_context, to, to_row, source, source_row):
    """(16, 16) at `to` = the transpose of (16, 16) at `source`.

    Vector i and vector i + 8 become vectors 2i and 2i + 1, in which their elements are put in turn.
    Element e of vector v has a place of 8 bits, those of v and those of e. The highest bit of v becomes
    the lowest of e, and the highest of e the lowest of v. After four times v and e have changed places.
    """
    def generate(context, builder, signature, arguments):
        to, to_row, source, source_row = arguments
        x = [builder.load(_at(builder, source, row, _VECTOR), align=SIZE)
             for row in _times(builder, source_row, WIDTH)]
        half = WIDTH // 2
        in_turn = [ir.Constant(_INDICES, [start + i // 2 + i % 2 * WIDTH for i in range(WIDTH)])
                   for start in (0, half)]
        for _ in range(WIDTH.bit_length() - 1):
            x = [builder.shuffle_vector(x[i // 2], x[i // 2 + half], in_turn[i % 2])
                 for i in range(WIDTH)]
        for vector, row in zip(x, _times(builder, to_row, WIDTH)):
            builder.store(vector, _at(builder, to, row, _VECTOR), align=SIZE)
        return context.get_dummy_value()
    return types.void(*[types.int64] * 4), generate


# --- the product ---
# Addresses of arrays that are made here are asked for where they are used: Numba lets go of an array
# after the last line that names it.

@register_jitable
def suits(a, b):
    """Whether `multiply` is faster than the BLAS, which has smaller tiles besides, for what is left."""
    columns = b.shape[1]
    return (a.itemsize == SIZE and len(a) >= COLUMNS and -columns % COLUMNS <= columns // 16
            and b.size <= MOST)


@inner()
def multiply(a, b, out):
    """out = a b, of (m, k) and (k, n) in float32.

    The elements of a row or of a column of a and b are neighbours in memory, and those of a row of out.
    """
    at_once = 4 * TERMS if a.strides[1] == SIZE else TERMS
    for low in range(0, len(b), at_once):
        times(a[:, low:low + at_once], panels_of(b[low:low + at_once]), out, low > 0)


@inner()
def times(a, panels, out, adds):
    """out = a b, or out += a b if `adds`, of a as above and the panels of b."""
    rows, terms = a.shape
    by_rows = a.strides[1] == SIZE
    direct = rows // ROWS * ROWS if by_rows else 0              # rows that are read where they are
    near = max(NEAR // terms // ROWS, 1) * ROWS if by_rows else rows
    pieces = -(-terms // TERMS)
    tiles, scratch = _tiles(a[direct:]), _aligned(ROWS * COLUMNS, a.dtype)
    for top in range(0, rows, near):
        for left in range(0, out.shape[1], COLUMNS):
            for piece in range(pieces):
                first, after = terms * piece // pieces, terms * (piece + 1) // pieces
                panel = panels[left // COLUMNS, first:after]
                for i in range(top, min(top + near, rows), ROWS):
                    if i < direct:
                        tile, row, term = a[i, first:].ctypes.data, a.strides[0], SIZE
                    else:
                        tile = tiles[(i - direct) // ROWS, first * ROWS:].ctypes.data
                        row, term = SIZE, ROWS * SIZE
                    _put(tile, row, term, panel, scratch, out[i:i + ROWS, left:left + COLUMNS],
                         adds or piece > 0)


@inner()
def _put(tile, row, term, panel, scratch, out, adds):
    """A tile of the result, of which there may be fewer rows and columns than are computed."""
    whole = out.shape == (ROWS, COLUMNS)
    if whole:
        to, to_row = out.ctypes.data, out.strides[0]
    else:
        to, to_row = scratch.ctypes.data, COLUMNS * SIZE
    _tile(tile, row, term, panel.ctypes.data, len(panel), to, to_row, adds and whole)
    if not whole:
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                out[i, j] = scratch[i * COLUMNS + j] + (out[i, j] if adds else np.float32(0))


@inner()
def panels_of(b):
    """(k, n) as (panels, k, 64), with zeros behind the last column."""
    terms, columns = b.shape
    count = -(-columns // COLUMNS)
    panels = _aligned(count * terms * COLUMNS, b.dtype).reshape(count, terms, COLUMNS)
    by_rows = b.strides[1] == SIZE
    even_rows, even = (terms if by_rows else terms // WIDTH * WIDTH), columns // WIDTH * WIDTH
    if by_rows:
        for i in range(terms):
            for j in range(0, even, WIDTH):
                _move_16(panels[j // COLUMNS, i, j % COLUMNS:].ctypes.data, b[i, j:].ctypes.data)
    else:
        for j in range(0, even, WIDTH):
            for i in range(0, even_rows, WIDTH):
                _turn(panels[j // COLUMNS, i, j % COLUMNS:].ctypes.data, COLUMNS * SIZE,
                      b[i:, j].ctypes.data, b.strides[1])
    for i in range(terms):
        for j in range(even if i < even_rows else 0, count * COLUMNS):
            panels[j // COLUMNS, i, j % COLUMNS] = b[i, j] if j < columns else np.float32(0)
    return panels


@inner()
def _tiles(a):
    """(m, k) as (tiles, k * 6 + 16), with zeros behind the last row."""
    rows, terms = a.shape
    tiles = np.empty((-(-rows // ROWS), terms * ROWS + WIDTH), a.dtype)
    # 8 numbers are copied at a time. The last two are overwritten by the next term's.
    even = (rows - WIDTH // 2) // ROWS + 1 if a.strides[0] == SIZE and rows >= WIDTH // 2 else 0
    for low in range(0, terms if even else 0, WIDTH):
        for t in range(even):
            for i in range(low, min(low + WIDTH, terms)):
                _move_8(tiles[t, i * ROWS:].ctypes.data, a[t * ROWS:, i].ctypes.data)
    for j in range(even * ROWS, len(tiles) * ROWS):
        for i in range(terms):
            tiles[j // ROWS, i * ROWS + j % ROWS] = a[j, i] if j < rows else np.float32(0)
    return tiles


@inner()
def _aligned(size, dtype):
    """So many numbers, from the start of a cache line on."""
    space = np.empty(size + WIDTH, dtype)
    start = -(space.ctypes.data // SIZE) % WIDTH
    return space[start:start + size]
