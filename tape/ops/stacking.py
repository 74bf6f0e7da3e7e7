"""NumPy's other ways to join and to take apart: vstack, array_split, atleast_2d, meshgrid ...

All are made of ``joining.py``'s, and of reshapes.
"""

from __future__ import annotations

import numpy as np

from tape.ops.indexing import getitem
from tape.ops.joining import concatenate, pieces, split
from tape.ops.shapes import atleast, reshape
from tape.primitive import derivative, implements
from tape.promotion import float_dtype, is_number
from tape.saved import stand_in


def _alike(arrays):
    """Numbers and lists as arrays of the dtype that the others have; the others as they are."""
    weak = [is_number(x) or isinstance(x, (list, tuple)) for x in arrays]
    dtype = float_dtype(arrays, weak)
    return [np.asarray(x, dtype) if w else x for x, w in zip(arrays, weak)]


def _each(arrays, ndim):
    return [atleast(x, ndim) for x in arrays]


@implements(np.atleast_1d)
def atleast_1d(*arrays):
    """Each of the arrays with one axis at least; several as a tuple."""
    found = _each(arrays, 1)
    return found[0] if len(found) == 1 else tuple(found)


@implements(np.atleast_2d)
def atleast_2d(*arrays):
    """Each of the arrays with two axes at least, the new ones in front; several as a tuple."""
    found = _each(arrays, 2)
    return found[0] if len(found) == 1 else tuple(found)


@implements(np.atleast_3d)
def atleast_3d(*arrays):
    """Each of the arrays with three axes at least: (N,) -> (1, N, 1), (M, N) -> (M, N, 1)."""
    found = _each(arrays, 3)
    return found[0] if len(found) == 1 else tuple(found)


def vstack(arrays):
    """Join rows (or matrices) one below the other, along the first axis."""
    return concatenate(_each(_alike(arrays), 2), 0)


@implements(np.vstack)
def _numpy_vstack(arrays, *, dtype=None, casting="same_kind"):
    return vstack(arrays)


def hstack(arrays):
    """Join along the second axis; what has one axis along that."""
    arrays = _each(_alike(arrays), 1)
    return concatenate(arrays, 0 if np.ndim(arrays[0]) == 1 else 1)


@implements(np.hstack)
def _numpy_hstack(arrays, *, dtype=None, casting="same_kind"):
    return hstack(arrays)


@implements(np.dstack)
def dstack(arrays):
    """Join along the third axis."""
    return concatenate(_each(_alike(arrays), 3), 2)


@implements(np.column_stack)
def column_stack(arrays):
    """Join along the second axis, where what has one axis is a column."""
    return concatenate([reshape(x, (-1, 1)) if np.ndim(x) < 2 else x for x in _alike(arrays)], 1)


@implements(np.append)
def append(x, values, axis=None):
    """x and `values` joined along `axis` (None: both flattened)."""
    return concatenate(_alike([x, values]), axis)


@implements(np.block)
def block(arrays):
    """A matrix made of blocks: a list of rows of blocks, as ``[[a, b], [c, d]]``."""
    def depth(value):
        return 1 + max(map(depth, value)) if isinstance(value, list) else 0

    def joined(value, level, ndim):
        if not isinstance(value, list):
            return atleast_leading(value, ndim)
        return concatenate([joined(item, level - 1, ndim) for item in value], -level)

    def ranks(value):
        return max(map(ranks, value)) if isinstance(value, list) else np.ndim(value)

    def blocks(value):
        return sum(map(blocks, value), []) if isinstance(value, list) else [value]

    def filled(value):
        return list(map(filled, value)) if isinstance(value, list) else next(alike)
    alike = iter(_alike(blocks(arrays)))
    arrays = filled(arrays)
    levels = depth(arrays)
    return joined(arrays, levels, max(levels, ranks(arrays)))


def atleast_leading(x, ndim):
    """x with so many axes at least, the new ones in front."""
    missing = ndim - np.ndim(x)
    return reshape(x, (*(1,) * missing, *np.shape(x))) if missing > 0 else x


# --- taking apart ---


@derivative(None)
def uneven_joints(like, /, sections, axis):
    """Where each of `sections` pieces along `axis` begins; the first ones are longer by one."""
    length, longer = divmod(like.shape[axis], sections)
    return np.cumsum([0] + [length + 1] * longer + [length] * (sections - longer))


@implements(np.array_split)
def array_split(x, sections, axis=0):
    """`split` into pieces that need not be of one length: the first ones are longer by one."""
    if not isinstance(sections, (int, np.integer)):
        return split(x, sections, axis)
    if sections < 1:
        raise ValueError(f"array_split: the number of pieces must be positive, got {sections}")
    x = np.asarray(x) if isinstance(x, (list, tuple)) else x
    like = stand_in(x) if hasattr(x, "shape") else x
    return pieces(x, uneven_joints(like, int(sections), axis), axis, sections)


@implements(np.vsplit)
def vsplit(x, sections):
    """`split` along the first axis."""
    return split(x, sections, 0)


@implements(np.hsplit)
def hsplit(x, sections):
    """`split` along the second axis, or the only one."""
    return split(x, sections, 0 if np.ndim(x) == 1 else 1)


@implements(np.dsplit)
def dsplit(x, sections):
    """`split` along the third axis."""
    return split(x, sections, 2)


@implements(getattr(np, "unstack", None))
def unstack(x, *, axis=0):
    """A tuple of what stands at each place along `axis`."""
    along = (slice(None),) * (axis % np.ndim(x))
    return tuple(getitem(x, (*along, i)) for i in range(np.shape(x)[axis]))


# --- broadcasting several ---


@implements(np.broadcast_arrays)
def broadcast_arrays(*arrays, subok=False):
    """The arrays, each broadcast to the shape that they have together: a tuple."""
    shape = np.broadcast_shapes(*map(np.shape, arrays))
    return tuple(np.broadcast_to(x, shape) for x in arrays)


@implements(np.meshgrid)
def meshgrid(*xi, copy=True, sparse=False, indexing="xy"):
    """Arrays of coordinates: the i-th varies along axis i ('ij'), or with axes 0 and 1 swapped."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    axes = [*range(len(xi))]
    if indexing == "xy":
        axes[:2] = axes[:2][::-1]
    grids = [reshape(x, (*(1,) * axis, -1, *(1,) * (len(xi) - 1 - axis))) for x, axis in zip(xi, axes)]
    return tuple(grids) if sparse else broadcast_arrays(*grids)
