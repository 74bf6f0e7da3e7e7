"""Products of matrices of float32 in tiles that stay in the registers of a processor with AVX-512.

A product of (m, k) and (k, n) takes 2 m k n operations on m k + k n numbers. Such a processor does 64
operations in a cycle and loads two vectors of 16 numbers, so each number that is loaded must be used
many times, while it is near (K. Goto and R. van de Geijn 2008, "Anatomy of high-performance matrix
multiplication"):

1. *In registers.* A tile, 6 x 64 elements of the result, is computed at once. Its 24 vectors of sums
   stay in 24 of the 32 registers for the whole loop over k. Each step of it loads 4 vectors of b and 6
   numbers of a, and multiplies each with each: 24 operations on vectors for 10 loads. Where half of
   such a tile would lie beside the result, as for 32 columns, it is 12 x 32, with 14 loads.
2. *In the caches.* The columns of b that a tile needs are copied to lie one row after the other (a
   panel), and the tiles of the same panel are computed in turn. So many rows of a are taken in turn
   that these stay in the second cache while all panels go by.
3. *Long sums* are taken in pieces, so that a panel is small enough; what a piece gives is added to
   what is in the result already.

Rows of a are read where they are. Where columns of a lie in memory one after the other instead, as in
the gradient of a weight, x.T @ g, the rows of a tile are copied as panels are; and then a and b are
long, and both are copied piece by piece.

The sum behind an element has the same order whichever rows and columns are computed with it, for rows
of a; and for columns of a.
"""

from __future__ import annotations

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from tape.kernels.numba.compiled import called_by_name, external, inner

AVAILABLE = binding.get_host_cpu_features().get("avx512f", False)

SIZE = 4                                # bytes of a float32
WIDTH = 16                              # numbers in a vector
WIDE, NARROW = 64, 32                   # columns of a tile
ELEMENTS = 384                          # of a tile: 24 vectors, so 6 rows of 64 or 12 of 32
TERMS = 384                             # of a sum, in one piece at most
NEAR = 2 ** 17                          # numbers of a that are to stay in the second cache
MOST = 2 ** 21                          # numbers of b, of which all panels are copied at once

_FLOAT, _WORD = ir.FloatType(), ir.IntType(64)
_HALF, _VECTOR = (ir.VectorType(_FLOAT, n) for n in (WIDTH // 2, WIDTH))
_INDICES = ir.VectorType(ir.IntType(32), WIDTH)


# --- what Numba has no words for ---
# Written for LLVM, which makes functions of it when this file is imported; Numba's loops call them by
# name. All arguments are integers; addresses, and the steps between neighbours, are in bytes.

def _at(builder, address, offset, kind):
    """A pointer."""
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _multiples(builder, step, count):
    """0, step, 2 step ..."""
    return [builder.mul(step, _WORD(i)) for i in range(count)]


def _wide_tile(builder, a, a_row, a_term, panel, terms, out, out_row, adds):
    """out (6, 64) = a (6, terms) @ panel (terms, 64), or is added to, unless `adds` is 0."""
    _tile_code(builder, WIDE, a, a_row, a_term, panel, terms, out, out_row, adds)


def _narrow_tile(builder, a, a_row, a_term, panel, terms, out, out_row, adds):
    """The same of (12, 32)."""
    _tile_code(builder, NARROW, a, a_row, a_term, panel, terms, out, out_row, adds)


def _tile_code(builder, columns, a, a_row, a_term, panel, terms, out, out_row, adds):
    places = [_at(builder, out, builder.add(row, _WORD(j * SIZE)), _VECTOR)
              for row in _multiples(builder, out_row, ELEMENTS // columns)
              for j in range(0, columns, WIDTH)]
    for place in places:
        _fetch(builder, place)
    sums = _sums(builder, columns, a, a_row, a_term, panel, terms)
    with builder.if_else(builder.icmp_signed("!=", adds, _WORD(0))) as (yes, no):
        with yes:
            for place, vector in zip(places, sums):
                vector = builder.fadd(builder.load(place, align=SIZE), vector)
                builder.store(vector, place, align=SIZE)
        with no:
            for place, vector in zip(places, sums):
                builder.store(vector, place, align=SIZE)


def _sums(builder, columns, a, a_row, a_term, panel, terms):
    """The elements of a tile: the loop over the terms."""
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{WIDTH}f32")
    rows, before = _multiples(builder, a_row, ELEMENTS // columns), builder.block
    loop, end = builder.append_basic_block("terms"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    left, a_at, b_at = (builder.phi(_WORD) for _ in range(3))
    sums = [[builder.phi(_VECTOR) for _ in range(0, columns, WIDTH)] for _ in rows]
    vectors = [builder.load(_at(builder, b_at, _WORD(j * SIZE), _VECTOR), align=WIDTH * SIZE)
               for j in range(0, columns, WIDTH)]
    new = []
    for row, old in zip(rows, sums):
        number = _everywhere(builder, builder.load(_at(builder, a_at, row, _FLOAT)))
        new += [builder.call(fma, [number, vector, so_far]) for vector, so_far in zip(vectors, old)]
    later = [builder.sub(left, _WORD(1)), builder.add(a_at, a_term),
             builder.add(b_at, _WORD(columns * SIZE)), *new]
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


def _turn_code(builder, to, to_row, source, source_row):
    """(16, 16) at `to` = the transpose of (16, 16) at `source`.

    Vector i and vector i + 8 become vectors 2i and 2i + 1, in which their elements are put in turn.
    Element e of vector v has a place of 8 bits, those of v and those of e. The highest bit of v becomes
    the lowest of e, and the highest of e the lowest of v. After four times v and e have changed places.
    """
    x = [builder.load(_at(builder, source, row, _VECTOR), align=SIZE)
         for row in _multiples(builder, source_row, WIDTH)]
    half = WIDTH // 2
    in_turn = [ir.Constant(_INDICES, [start + i // 2 + i % 2 * WIDTH for i in range(WIDTH)])
               for start in (0, half)]
    for _ in range(WIDTH.bit_length() - 1):
        x = [builder.shuffle_vector(x[i // 2], x[i // 2 + half], in_turn[i % 2])
             for i in range(WIDTH)]
    for vector, row in zip(x, _multiples(builder, to_row, WIDTH)):
        builder.store(vector, _at(builder, to, row, _VECTOR), align=SIZE)


def _compiled(code):
    """How Numba's loops call this code."""
    count = code.__code__.co_argcount - 1
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WORD] * count), code.__name__)
    builder = ir.IRBuilder(function.append_basic_block())
    code(builder, *function.args)
    builder.ret_void()
    machine = binding.Target.from_default_triple().create_target_machine(
        binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), opt=3)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    return called_by_name(code.__name__, count, engine.get_function_address(code.__name__), engine)


_tile_6_64, _tile_12_32, _turn = map(_compiled, (_wide_tile, _narrow_tile, _turn_code))


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
def _read(typing_context, source):
    """The number at an address."""
    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], _FLOAT.as_pointer()))
    return types.float32(types.int64), generate


@intrinsic
def _write(typing_context, to, number):
    """Put a number at an address."""
    def generate(context, builder, signature, arguments):
        builder.store(arguments[1], builder.inttoptr(arguments[0], _FLOAT.as_pointer()))
        return context.get_dummy_value()
    return types.void(types.int64, types.float32), generate


@intrinsic
def _keep(typing_context, array):
    """Nothing; but Numba lets go of an array after the last line that names it."""
    def generate(context, builder, signature, arguments):
        return context.get_dummy_value()
    return types.void(array), generate


# --- the product ---

@inner()
def _tile(wide, a, a_row, a_term, panel, terms, out, out_row, adds):
    """One tile, in panels as wide as `wide` says."""
    if wide == WIDE:
        _tile_6_64(a, a_row, a_term, panel, terms, out, out_row, adds)
    else:
        _tile_12_32(a, a_row, a_term, panel, terms, out, out_row, adds)


@inner()
def _put(wide, tile, row, term, panel, terms, out, out_row, rows, columns, adds, scratch):
    """A tile of the result, of which there may be fewer rows and columns than are computed."""
    if rows * columns == ELEMENTS:
        _tile(wide, tile, row, term, panel, terms, out, out_row, adds)
        return
    _tile(wide, tile, row, term, panel, terms, scratch, wide * SIZE, 0)
    for i in range(rows):
        for j in range(columns):
            to = out + i * out_row + j * SIZE
            number = _read(scratch + (i * wide + j) * SIZE)
            _write(to, number + _read(to) if adds else number)


@external(16)
def _put_rows(wide, top, bottom, direct, a, a_row, terms, tiles, a_tile, panels, a_panel, out, out_row,
              columns, adds, scratch):
    """These rows of the result: panel by panel, and of each panel piece by piece."""
    pieces, high = -(-terms // TERMS), ELEMENTS // wide
    for left in range(0, columns, wide):
        for piece in range(pieces):
            first, after = terms * piece // pieces, terms * (piece + 1) // pieces
            panel = panels + left // wide * a_panel + first * wide * SIZE
            for i in range(top, bottom, high):
                if i < direct:
                    tile, row, term = a + i * a_row + first * SIZE, a_row, SIZE
                else:
                    tile = tiles + (i - direct) // high * a_tile + first * high * SIZE
                    row, term = SIZE, high * SIZE
                _put(wide, tile, row, term, panel, after - first, out + i * out_row + left * SIZE,
                     out_row, min(bottom - i, high), min(columns - left, wide), adds + piece, scratch)


@external(8)
def _copy_to_panels(wide, b, b_row, b_column, terms, columns, panels, a_panel):
    """See `panels_of`."""
    even = columns // WIDTH * WIDTH                   # columns that are copied as vectors
    done = terms if b_column == SIZE else terms // WIDTH * WIDTH      # rows of these that are
    for j in range(0, -(-columns // wide) * wide, WIDTH):
        panel = panels + j // wide * a_panel + j % wide * SIZE
        if j < even and b_column == SIZE:
            for i in range(terms):
                _move_16(panel + i * wide * SIZE, b + i * b_row + j * SIZE)
        elif j < even:
            for i in range(0, done, WIDTH):
                _turn(panel + i * wide * SIZE, wide * SIZE, b + i * SIZE + j * b_column, b_column)
        for i in range(done if j < even else 0, terms):
            for n in range(WIDTH):
                inside, source = j + n < columns, b + i * b_row + (j + n) * b_column
                _write(panel + (i * wide + n) * SIZE, _read(source) if inside else np.float32(0))


@external(8)
def _copy_to_tiles(high, a, a_row, a_column, rows, terms, tiles, a_tile):
    """(m, k) to (tiles, k * high + 16), with zeros behind the last row, of tiles of 6 rows or 12."""
    # 8 or 16 numbers are copied at a time. The next term's are written over the last two or four;
    # behind the last term there is room for them.
    at_once = WIDTH // 2 if high <= WIDTH // 2 else WIDTH
    even = (rows - at_once) // high + 1 if a_row == SIZE and rows >= at_once else 0
    for low in range(0, terms if even else 0, WIDTH):
        for t in range(even):
            for i in range(low, min(low + WIDTH, terms)):
                to, source = tiles + t * a_tile + i * high * SIZE, a + t * high * SIZE + i * a_column
                if at_once == WIDTH:
                    _move_16(to, source)
                else:
                    _move_8(to, source)
    for j in range(even * high, -(-rows // high) * high):
        for i in range(terms):
            source = a + j * a_row + i * a_column
            _write(tiles + j // high * a_tile + (i * high + j % high) * SIZE,
                   _read(source) if j < rows else np.float32(0))


@register_jitable
def width_for(columns):
    """Of the panels for so many columns: the wider, where they are hardly padded."""
    return WIDE if -columns % WIDE <= columns // 16 else NARROW


@register_jitable
def suits(a, b):
    """Whether `multiply` is faster than the BLAS: of many rows, and where panels are hardly padded."""
    columns = b.shape[1]
    return (AVAILABLE and a.itemsize == SIZE and len(a) >= WIDE
            and -columns % NARROW <= columns // 16 and b.size <= MOST)


@inner()
def multiply(a, b, out):
    """out = a b, of (m, k) and (k, n) in float32, no size being 0.

    The elements of a row or of a column of a and b are neighbours in memory, and those of a row of out.
    """
    at_once = 4 * TERMS if a.strides[1] == SIZE else TERMS
    for low in range(0, len(b), at_once):
        multiply_panels(a[:, low:low + at_once], panels_of(b[low:low + at_once]), out, low > 0)


@inner()
def panels_of(b):
    """(k, n) as (panels, k, 64), or 32 in the place of 64, with zeros behind the last column."""
    terms, columns = b.shape
    wide = width_for(columns)
    count = -(-columns // wide)
    panels = _aligned(count * terms * wide, b.dtype).reshape(count, terms, wide)
    _copy_to_panels(wide, b.ctypes.data, *b.strides, terms, columns, panels.ctypes.data,
                    panels.strides[0])
    return panels


@inner()
def multiply_panels(a, panels, out, adds):
    """out = a b, or out += a b if `adds`, of a as above and the panels of b."""
    rows, terms = a.shape
    wide = panels.shape[2]
    high = ELEMENTS // wide
    direct = rows // high * high if a.strides[1] == SIZE else 0         # rows read where they are
    tiles = np.empty((-(-(rows - direct) // high), terms * high + WIDTH), a.dtype)
    if direct < rows:
        _copy_to_tiles(high, a[direct:].ctypes.data, *a.strides, rows - direct, terms,
                       tiles.ctypes.data, tiles.strides[0])
    near = max(NEAR // terms // high, 1) * high if direct else rows
    scratch = _aligned(ELEMENTS, a.dtype)
    for top in range(0, rows, near):
        _put_rows(wide, top, min(top + near, rows), direct, a.ctypes.data, a.strides[0], terms,
                  tiles.ctypes.data, tiles.strides[0], panels.ctypes.data, panels.strides[0],
                  out.ctypes.data, out.strides[0], out.shape[1], np.int64(adds), scratch.ctypes.data)
    _keep(tiles)
    _keep(scratch)


@inner()
def _aligned(size, dtype):
    """So many numbers, from the start of a cache line on."""
    space = np.empty(size + WIDTH, dtype)
    start = -(space.ctypes.data // SIZE) % WIDTH
    return space[start:start + size]
