"""How calls of operators are drawn that move elements: shapes, joining, every kind of index."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from tests.differential.builder import Builder, Name

MANY = 3000


def reshape(b: Builder) -> None:
    x = b.pick()
    size = b.array(x).size
    shapes: list[tuple] = [b.shape(x), (-1,), (1, -1), (size,)]
    shapes += [(n, size // n) for n in (2, 3) if size % n == 0]
    shapes += [(n, 1, -1) for n in (2, 3) if size and size % n == 0]
    if size == 1:
        shapes.append(())
    shape = b.some(shapes if size else [b.shape(x), (0,), (0, 2)])
    b.emit("reshape", x, b.constant(list(shape)) if shape and b.chance(0.2) else shape)


def permuted(b: Builder) -> None:
    x = b.pick()
    rank = len(b.shape(x))
    kind = b.rng.integers(4)
    if kind == 0 or rank == 0:
        b.emit("transpose", x)
    elif kind == 1:
        axes = (b.rng.permutation(rank) - (rank if b.chance(0.2) else 0)).tolist()
        b.emit("transpose", x, b.constant(axes) if b.chance(0.3) else tuple(axes))
    elif kind == 2:
        b.emit("swapaxes", x, int(b.rng.integers(rank)), -int(b.rng.integers(1, rank + 1)))
    elif rank > 1 and b.chance(0.4):
        source, target = (tuple(b.rng.permutation(rank)[:2].tolist()) for _ in range(2))
        b.emit("moveaxis", x, source, target)
    else:
        b.emit("moveaxis", x, int(b.rng.integers(rank)), -int(b.rng.integers(1, rank + 1)))


def heads(b: Builder) -> None:
    """Split off the last axis, and merged into it."""
    x = b.pick(lambda y: len(b.shape(y)) > 1)
    shape = b.shape(x)
    if len(shape) > 2 and shape[-3] and b.chance(0.5):
        b.emit("merge_heads", x, shape[-3])
    else:
        b.emit("split_heads", x, int(b.some([n for n in (1, 2, 3) if shape[-1] % n == 0])))


def length_one_axes(b: Builder) -> None:
    """Put in and taken away; also where there is nothing to take away."""
    x = b.pick()
    shape = b.shape(x)
    ones = [i for i, n in enumerate(shape) if n == 1]
    if b.chance(0.5):
        if ones and b.chance(0.5):
            b.emit("squeeze", x, axis=b.some([ones[0], ones[-1] - len(shape), tuple(ones)]))
        else:
            b.emit("squeeze", x)
    elif len(shape) < 4:
        b.emit("expand_dims", x, b.some([0, -1, len(shape), (0, -1)]))


def broadcast(b: Builder) -> None:
    x = b.pick()
    shape = tuple(int(b.rng.integers(1, 4)) if n == 1 else n for n in b.shape(x))
    if len(shape) < 4 and b.chance(0.5):
        shape = (int(b.rng.integers(1, 4)), *shape)
    b.emit("broadcast_to", x, shape)


def joined(b: Builder) -> None:
    """The same operand may occur twice, and constants beside values."""
    x = b.pick()
    shape = b.shape(x)
    pieces: list = [x, b.wanted(shape)] if b.chance(0.8) else [x, x, b.wanted(shape)]
    if not shape or b.chance(0.4):
        b.emit("stack", pieces, axis=b.some([0, -1, len(shape)]))
        return
    axis = int(b.rng.integers(-len(shape), len(shape)))
    if b.chance(0.4):
        other = list(shape)
        other[axis] = b.some([1, 2, 0])
        pieces.append(b.wanted(tuple(other)))
    if b.chance(0.15):
        pieces = [x]
    b.emit("concatenate", pieces, axis=axis)


def split(b: Builder) -> None:
    x = b.pick(lambda y: len(b.shape(y)) > 0 and max(b.shape(y)) > 1 and y in b.tensors)
    axis = int(np.argmax(b.shape(x)))
    length = b.shape(x)[axis]
    sections: Any = b.some([length, [1], [1, length]])
    bounds = [0, *(range(1, length) if sections == length else sections), length]
    i = int(b.rng.integers(len(bounds) - 1))
    given = sections if sections == length or b.chance(0.5) else b.constant(sections)
    piece = (*(slice(None),) * axis, slice(bounds[i], bounds[i + 1]))
    b.emit("split", x, given, axis=axis, suffix=f"[{i}]", for_nodes=("getitem", x, piece))


def padded(b: Builder) -> None:
    x = b.pick()
    rank = len(b.shape(x))
    widths: list[Any] = [1, (1, 0)]
    if rank:
        widths.append(tuple((int(b.rng.integers(2)), int(b.rng.integers(3))) for _ in range(rank)))
        widths.append(b.constant(np.array([[1, 0]] * rank)))
        widths.append(b.constant([[0, 1] for _ in range(rank)]))
    options = {"constant_values": b.some([0.5, 2])} if b.chance(0.4) else {}
    b.emit("pad", x, b.some(widths), **options)


# --- indices ---


def picked(b: Builder) -> None:
    x = b.pick(lambda y: y in b.tensors)
    kind = b.some([basic, basic, by_arrays, by_arrays, by_mask, mixed])
    b.emit("getitem", x, kind(b, b.shape(x)))


def one_index(b: Builder, length: int) -> Any:
    """An int or a slice for an axis of this length."""
    if length and b.chance(0.35):
        return int(b.rng.integers(-length, length))
    return b.some([slice(None), slice(None, None, -1), slice(1, None), slice(None, -1),
                   slice(None, None, 2), slice(-1, None, -2), slice(0, 1), slice(0, 0)])


def basic(b: Builder, shape: tuple) -> Any:
    """Ints, slices, None and Ellipsis."""
    index = [one_index(b, n) for n in shape[:b.rng.integers(len(shape) + 1)]]
    if b.chance(0.3):
        index.insert(int(b.rng.integers(len(index) + 1)), None)
    if b.chance(0.4):
        index = index[:1] + [Ellipsis] + [one_index(b, n) for n in shape[::-1][:1]] \
            if len(index) and len(shape) > 1 and index[0] is not None else [Ellipsis, *index[:0]]
    return index[0] if len(index) == 1 and b.chance(0.5) else tuple(index)


def integers(b: Builder, length: int, shape: Any = None) -> Any:
    """Positions along an axis, some of them repeated: an array, a list or a nested tuple."""
    if length == 0:
        return slice(None)
    shape = b.some([(2,), (3,), (2, 2), (1,)]) if shape is None else shape
    ids = b.rng.integers(-length, length, shape)
    if b.chance(0.5):
        ids.flat[-1] = ids.flat[0]
    kind = b.rng.integers(6)
    if kind < 3:
        return b.constant(ids.astype(b.some([np.int64, np.int64, np.int32])))
    if kind == 3:
        return b.constant(ids.tolist())
    return _as_tuple(ids.tolist()) if kind == 4 else ids.tolist()


def _as_tuple(nested: Any) -> Any:
    return tuple(map(_as_tuple, nested)) if isinstance(nested, list) else nested


def by_arrays(b: Builder, shape: tuple) -> Any:
    """One array of integers, or one for each of several axes, which broadcast."""
    if not shape:
        return None
    if len(shape) > 1 and b.chance(0.5):
        common = b.some([(2,), (2, 2)])
        return integers(b, shape[0], common), integers(b, shape[1], b.some([common, (1,), (2, 1)]))
    index = integers(b, shape[0])
    return (index,) if isinstance(index, (tuple, slice)) or b.chance(0.2) else index


def by_mask(b: Builder, shape: tuple) -> Any:
    rank = int(b.rng.integers(0, len(shape) + 1))
    mask = b.rng.random(shape[:rank]) > 0.4
    if rank == 0:
        return b.some([True, False])
    kinds: list[Any] = [b.constant(mask), b.constant(mask)]
    if 0 not in mask.shape:
        kinds.append(mask.tolist())
    return b.some(kinds)


def mixed(b: Builder, shape: tuple) -> Any:
    """Arrays beside slices, ints, None and Ellipsis."""
    if len(shape) < 2:
        return (None, *((integers(b, shape[0]),) if shape else ()))
    first, last = shape[0], shape[-1]
    kinds: list[Any] = [
        (integers(b, first), Ellipsis), (Ellipsis, integers(b, last)),
        (one_index(b, first), integers(b, shape[1])), (integers(b, first), one_index(b, shape[1])),
        (integers(b, first), None, one_index(b, shape[1]))]
    if len(shape) > 2:
        kinds += [(integers(b, first, (2,)), slice(None), integers(b, shape[2], (2,))),
                  (slice(None), integers(b, shape[1], (2,)), integers(b, shape[2], (2,))),
                  (b.constant(b.rng.random(first) > 0.3), slice(None), one_index(b, shape[2]))]
    return b.some(kinds)


def index_tensor(b: Builder) -> None:
    """A tensor of integers as the index."""
    x = b.pick(lambda y: len(b.shape(y)) > 0 and b.shape(y)[0] > 0 and y in b.tensors)
    ids = b.rng.integers(0, b.shape(x)[0], b.some([(2,), (3,), (2, 2)]))
    name = f"t{len(b.constants)}"
    b.constants[name] = ids
    b.emit("getitem", x, Name(name))


def many_copies(b: Builder) -> None:
    """A gradient that is the sum of thousands of small terms: too many for a short float."""
    x = b.leaf((2,), "positive")
    ids = np.zeros(MANY, int)
    copies = b.some([
        lambda: b.emit("broadcast_to", x, (MANY, 2), show=False),
        lambda: b.emit("getitem", x, b.constant(ids), show=False),
        lambda: b.emit("embedding", b.leaf((1, 2), "positive"), b.constant(ids), show=False)])()
    b.emit("mean", copies, axis=0)


TABLE: dict[Callable, float] = {
    reshape: 2, permuted: 2.5, heads: 2, length_one_axes: 2, broadcast: 1.5, joined: 2.5, split: 1,
    padded: 1, picked: 6, index_tensor: 0.5}
