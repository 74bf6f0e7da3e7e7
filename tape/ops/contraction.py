"""Einstein's summation: products of tensors whose axes are named by letters."""

from __future__ import annotations

import math
from functools import lru_cache
from string import ascii_letters

import numpy as np

from tape import kernels
from tape.primitive import derivative, implements
from tape.promotion import plain

# --- one operand: axes summed, permuted, and diagonals taken ---


@derivative(lambda g, like_x, labels, kept: laid_out_like(g, like_x, labels, kept), name="einsum")
def picked(x, /, labels, kept):
    """x, whose axes are `labels`, as an array with the axes `kept`.

    A letter that occurs twice stands for a diagonal, and one that is not kept is summed over. So each
    element of x has a part in one element of the result, or in none if it is off a diagonal.
    """
    return _einsum_of([x], [labels], kept)


@derivative(lambda g, labels, kept: picked(g, labels, kept), None)
def laid_out_like(g, like, /, labels, kept):
    """The transpose of `picked`: zeros with the axes `labels`, and g on the diagonals that were taken,
    the same along each axis that was summed over.

    An axis of length 1, in `like` or in g, that was broadcast has the length that it has in the other.
    """
    lengths = dict(zip(labels, like.shape))
    lengths.update((letter, n) for letter, n in zip(kept, g.shape) if n != 1)
    total = np.zeros([lengths[letter] for letter in labels], g.dtype)
    distinct = "".join(dict.fromkeys(labels))
    others = "".join(letter for letter in distinct if letter not in kept)
    # A view that can be written to; of no axes np.einsum makes a number.
    diagonals = np.einsum(f"{labels}->{others}{kept}", total) if labels else total
    diagonals[...] = g
    return total


@derivative(lambda g: g, None)          # as for any broadcasting, the engine sums over the copies
def broadcast_with(x, like, /):
    """x broadcast to the shape that it has together with `like`."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, like.shape))


# --- two operands ---


@lru_cache(maxsize=1024)
def _distinct(labels, known):
    """Those of the letters that are known, each once."""
    return "".join(dict.fromkeys(letter for letter in labels if letter in known))


def _of_one(g, other, like, labels, other_labels, out_labels):
    """The gradient of one operand of `contracted`, with the axes `labels`, given the other."""
    kept = _distinct(labels, out_labels + other_labels)
    g = contracted(g, other, out_labels, other_labels, kept)
    if kept != labels:
        return laid_out_like(g, like, labels, kept)
    # A letter that the result lacks may have the length 1 in the other operand, and not in this.
    return g if set(labels) <= set(out_labels) else broadcast_with(g, like)


@derivative(lambda g, like_x, y, of_x, of_y, of_out: _of_one(g, y, like_x, of_x, of_y, of_out),
            lambda g, x, like_y, of_x, of_y, of_out: _of_one(g, x, like_y, of_y, of_x, of_out),
            name="einsum")
def contracted(x, y, /, of_x, of_y, of_out):
    """The sum of products of x and y, whose axes, and those of the result, are these letters.

    With x_a y_b summed into out_c, where a, b and c are lists of letters, L's derivative is

        dL/dx_a = sum over the letters in b and c, but not in a, of g_c y_b:

    the same kind of product, with the axes of x as those of the result. A letter of a that is in
    neither b nor c was summed over in x alone: the derivative does not depend on it, so the product is
    repeated along it. One that occurs twice in a stands for a diagonal of x: the product is put there,
    and the rest of the derivative is 0.
    """
    return _einsum_of([x, y], [of_x, of_y], of_out)


def _einsum_of(arrays, labels, kept):
    """np.einsum, by way of the fast matrix product if it is one; added up in float32 at least."""
    dtype = np.result_type(*arrays)
    wide = kernels.sum_dtype(dtype)
    arrays = [np.asarray(array).astype(wide, copy=False) for array in arrays]
    plan = _as_matrices(*labels, kept) if len(arrays) == 2 else None
    out = None if plan is None else _by_matmul(*arrays, *plan)
    if out is None:
        out = np.einsum(f"{','.join(labels)}->{kept}", *arrays)
    return out if wide == dtype else np.asarray(out).astype(dtype)


@lru_cache(maxsize=1024)
def _as_matrices(of_x, of_y, of_out):
    """How a product of x and y is one of matrices, or None: arguments of `_by_matmul`.

    With the letters in groups, x is (batch, left, summed), y (batch, summed, right), and the result
    (batch, left, right). It must have something to sum, and more to do than one row times one column
    for each member of a batch, for which a loop is faster.
    """
    batch = [a for a in of_out if a in of_x and a in of_y]
    left, right = [a for a in of_out if a not in of_y], [a for a in of_out if a not in of_x]
    summed = [a for a in of_x if a in of_y and a not in of_out]
    for_x, for_y, made = batch + left + summed, batch + summed + right, batch + left + right
    rows = left or right or not batch
    if not (summed and rows) or [*map(sorted, (for_x, for_y, made))] != [
            *map(sorted, (of_x, of_y, of_out))]:              # diagonals, and axes summed in one alone
        return None
    return ([of_x.index(a) for a in for_x], [of_y.index(a) for a in for_y],
            [made.index(a) for a in of_out], len(batch), len(left), len(summed))


def _by_matmul(x, y, order_x, order_y, order_out, batch, left, summed):
    """The product that `_as_matrices` found, or None if an axis of length 1 is broadcast in the sum."""
    x, y = x.transpose(order_x), y.transpose(order_y)
    rows, inner = x.shape[batch:batch + left], x.shape[batch + left:]
    columns = y.shape[batch + summed:]
    if y.shape[batch:batch + summed] != inner:
        return None
    x = _for_blas(x.reshape(x.shape[:batch] + (math.prod(rows), math.prod(inner))))
    y = _for_blas(y.reshape(y.shape[:batch] + (math.prod(inner), math.prod(columns))))
    out = np.matmul(x, y)
    return out.reshape(out.shape[:batch] + rows + columns).transpose(order_out)


def _for_blas(x):
    """Matrices whose rows or columns lie in one piece, as np.matmul needs them to be fast."""
    return x if x.itemsize in x.strides[-2:] else np.ascontiguousarray(x)


# --- any number of operands ---


@implements(np.einsum)
def einsum(subscripts, /, *operands, optimize=False):
    """The sum of products of tensors, whose axes are named by letters: NumPy's einsum.

    Parameters
    ----------
    subscripts : str
        The axes of each operand, separated by commas, and after ``->`` those of the result:
        ``"bij,bjk->bik"``. A letter that is not in the result is summed over; one that occurs twice in
        an operand stands for its diagonal; ``...`` for axes without a name, which broadcast. Without
        ``->`` the result has ``...`` and the letters that occur once, in alphabetical order.
    *operands : array_like, Tensor or Node
        Nodes have no rank yet, so among them ``...`` cannot stand.
    optimize : bool, str or list
        The order in which three and more operands are multiplied, two at a time: False from left to
        right, else that of ``np.einsum_path``. Nodes have no lengths yet: from left to right.

    Returns
    -------
    Tensor or ndarray
        The gradient of each operand is an einsum of that of the result with the other operands, as
        derived at `contracted`.

    Raises
    ------
    TypeError
        The operands stand before the subscripts, or in turn with lists of numbers.
    ValueError
        The subscripts do not fit the operands.
    """
    if not isinstance(subscripts, str):
        raise TypeError(f"einsum: the subscripts must be a text, such as 'ij,jk->ik', before the "
                        f"operands; got {type(subscripts).__name__}")
    ranks = [rank(x, "einsum") if "..." in subscripts else 0 for x in operands]
    labels, out = _parsed(subscripts.replace(" ", ""), *ranks)
    if len(operands) == 2:
        return contracted(*operands, *labels, out)
    terms = list(zip(operands, labels))
    for step in _order(terms, out, optimize):
        product, *others = [terms[i] for i in sorted(step)]
        terms = [term for i, term in enumerate(terms) if i not in step]
        while others:
            product = _product(product, others.pop(0), [*terms, *others], out)
        terms.append(product)
    (x, of_x), = terms
    return x if of_x == out and len(operands) > 1 else picked(x, of_x, out)


def _product(first, second, rest, out):
    """Two operands as one, with the axes that the rest or the result still need."""
    (x, of_x), (y, of_y) = first, second
    needed = out + "".join(labels for _, labels in rest)
    kept = _distinct(of_x + of_y, needed) if rest else out
    return contracted(x, y, of_x, of_y, kept), kept


def _order(terms, out, optimize):
    """Which of the operands are multiplied in each step; their product is put behind the others."""
    if not optimize or len(terms) < 3 or not all(hasattr(plain(x), "shape") for x, _ in terms):
        return [range(len(terms))]
    equation = f"{','.join(labels for _, labels in terms)}->{out}"
    path, _ = np.einsum_path(equation, *(plain(x) for x, _ in terms), optimize=optimize)
    return path[1:]


@lru_cache(maxsize=1024)
def _parsed(subscripts, *ranks):
    """The letters of each operand and of the result, with letters for the axes that ... stands for."""
    left, arrow, out = subscripts.partition("->")
    labels = left.split(",")
    if len(labels) != len(ranks):
        raise ValueError(f"einsum: the subscripts {subscripts!r} are for {len(labels)} operands; got "
                         f"{len(ranks)}")
    batch = ""
    if "..." in left:
        free = "".join(letter for letter in ascii_letters if letter not in subscripts)
        counts = [n - len(own.replace("...", "")) if "..." in own else 0
                  for n, own in zip(ranks, labels)]
        batch = free[:max(counts)]
        labels = [own.replace("...", batch[len(batch) - max(n, 0):]) for own, n in zip(labels, counts)]
        if arrow and batch and "..." not in out:
            raise ValueError(f"einsum: the result of {subscripts!r} must have the axes that ... stands "
                             f"for; write ... behind the arrow")
    if not arrow:
        named = left.replace(",", "").replace("...", "")
        out = "..." + "".join(sorted(letter for letter in named if named.count(letter) == 1))
    return tuple(labels), out.replace("...", batch)


def rank(x, name):
    """How many axes x has. A node has no rank yet."""
    if hasattr(x, "__tape_apply__") and not hasattr(x, "ndim"):
        raise TypeError(f"{name}: how many axes a node has is not known before it is computed. Name "
                        f"its axes: einsum('ij,jk->ik', x, y) without ..., norm(x, axis=1)")
    return np.ndim(plain(x))
