"""Products of vectors, matrices and tensors, made of matmul, einsum and mul."""

from __future__ import annotations

from string import ascii_letters

import numpy as np

from tape.ops.arithmetic import mul
from tape.ops.contraction import contracted, einsum, rank
from tape.ops.indexing import getitem
from tape.ops.joining import stack
from tape.ops.linalg import inner_with_matrix, matmul
from tape.ops.reductions import sum
from tape.ops.shapes import expand_dims, moveaxis, reshape
from tape.primitive import implements
from tape.promotion import is_number, plain


@implements(np.dot)
def dot(x, y):
    """np.dot: a product by a scalar, or the sum over the last axis of x and the last but one of y.

    Up to two axes of y this is x @ y. Beyond, every row of x meets every matrix of y, where x @ y pairs
    the matrices of the two: x (..., k) and y (*batch, k, m) give (..., *batch, m).
    """
    n, m = rank(x, "dot"), rank(y, "dot")
    if n == 0 or m == 0:
        return mul(x, y)
    return tensordot(x, y, axes=([-1], [-2])) if n > 1 and m > 2 else matmul(x, y)


@implements(np.tensordot)
def tensordot(x, y, axes=2):
    """The sum of products over pairs of axes of x and y; the result has the other axes of both.

    Parameters
    ----------
    x, y : array_like or Tensor
    axes : int or pair of ints or sequences
        How many last axes of x are summed with as many first ones of y; or which of x, and which of y.
    """
    n, m = rank(x, "tensordot"), rank(y, "tensordot")
    if isinstance(axes, (int, np.integer)):
        axes = range(n - axes, n), range(axes)
    of_x, of_y = ([*a] if np.ndim(a) else [a] for a in axes)
    if len(of_x) != len(of_y):
        raise ValueError(f"tensordot: as many axes of x as of y; got {of_x} and {of_y}")
    left, right = [*ascii_letters[:n]], [*ascii_letters[n:n + m]]
    for i, j in zip(of_x, of_y):
        right[j] = left[i]
    kept = [*(a for a in left if a not in right), *(a for a in right if a not in left)]
    return contracted(x, y, "".join(left), "".join(right), "".join(kept))


@implements(np.inner)
def inner(x, y):
    """The sum of products over the last axis of x and that of y: (..., k), (*b, k) -> (..., *b)."""
    n, m = rank(x, "inner"), rank(y, "inner")
    if n == 0 or m == 0:
        return mul(x, y)
    if m == 2:
        return inner_with_matrix(x, y)
    return tensordot(x, y, axes=([-1], [-1]))


@implements(np.outer)
def outer(x, y):
    """out_ij = x_i y_j, of the elements of x and y in their order: n and m of them -> (n, m)."""
    return mul(x if is_number(x) else reshape(x, (-1, 1)), y if is_number(y) else reshape(y, (1, -1)))


@implements(np.kron)
def kron(x, y):
    """The Kronecker product: each element of x times the whole of y, (n, m), (p, q) -> (n p, m q).

    For matrices out_(ip+k)(jq+l) = x_ij y_kl: the outer product with the axes in the order i k j l, and
    then i with k, and j with l, as one axis. Whichever has fewer axes gets new ones in front.
    """
    left, right = ascii_letters[:rank(x, "kron")], ascii_letters[26:26 + rank(y, "kron")]
    most = max(len(left), len(right))
    sizes = np.ones((2, most), int)
    sizes[0, most - len(left):], sizes[1, most - len(right):] = np.shape(plain(x)), np.shape(plain(y))
    pairs = zip(left.rjust(most), right.rjust(most))
    out = contracted(x, y, left, right, "".join(map("".join, pairs)).replace(" ", ""))
    return reshape(out, tuple(sizes.prod(axis=0).tolist()))


@implements(np.cross)
def cross(x, y, axisa=-1, axisb=-1, axisc=-1, axis=None):
    """The vector at right angles to x and y, three elements along an axis of each:

        out_0 = x_1 y_2 - x_2 y_1, and so on, with 0, 1, 2 exchanged in turn.

    Of vectors of two elements, as if the third were 0, only out_2 is given.
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = moveaxis(x, axisa, -1), moveaxis(y, axisb, -1)
    lengths = {v.shape[-1] for v in (x, y) if hasattr(v, "shape")} or {3}
    if lengths == {2}:
        return _component(x, y, 0, 1)
    if lengths != {3}:
        raise ValueError(f"cross: both must have 3 elements along the axis, or both 2; got "
                         f"{' and '.join(map(str, sorted(lengths)))}. Put a 0 behind those of 2.")
    return stack([_component(x, y, i, j) for i, j in ((1, 2), (2, 0), (0, 1))], axis=axisc)


def _component(x, y, i, j):
    return (getitem(x, (..., i)) * getitem(y, (..., j)) - getitem(x, (..., j)) * getitem(y, (..., i)))


@implements(np.vdot)
def vdot(x, y):
    """The sum of products of all elements of x with those of y, in their order."""
    return matmul(reshape(x, (-1,)), reshape(y, (-1,)))


@implements(np.vecdot)
def vecdot(x, y, axis=-1):
    """The sum of products over one axis; the others broadcast."""
    return sum(mul(x, y) if axis == -1 else mul(moveaxis(x, axis, -1), moveaxis(y, axis, -1)), -1)


def matvec(x, y):
    """Matrices times vectors: (..., n, m), (..., m) -> (..., n)."""
    return getitem(matmul(x, expand_dims(y, -1)), (..., 0))


def vecmat(x, y):
    """Vectors times matrices: (..., n), (..., n, m) -> (..., m)."""
    return getitem(matmul(expand_dims(x, -2), y), (..., 0, slice(None)))


for _name, _function in (("matvec", matvec), ("vecmat", vecmat)):
    if hasattr(np, _name):                             # from NumPy 2.2 on
        implements(getattr(np, _name))(_function)


def multi_dot(arrays):
    """The product of two or more matrices, in the order that takes the fewest multiplications.

    The first may be a vector, that is a row, and the last one, that is a column.
    """
    if len(arrays) < 2:
        raise ValueError(f"multi_dot: two arrays or more; got {len(arrays)}")
    labels = [ascii_letters[i:i + 2] for i in range(len(arrays))]
    if rank(arrays[0], "multi_dot") == 1:
        labels[0] = labels[0][1:]
    if rank(arrays[-1], "multi_dot") == 1:
        labels[-1] = labels[-1][:1]
    out = labels[0][:-1] + labels[-1][1:]
    return einsum(f"{','.join(labels)}->{out}", *arrays, optimize="optimal")


implements(np.linalg.multi_dot)(multi_dot)
implements(np.linalg.matmul)(matmul)
implements(np.linalg.tensordot)(tensordot)
implements(np.linalg.vecdot)(vecdot)
