"""Equal eigenvalues and singular values: which gradients exist there; all others are refused.

Let F be a function of a symmetric matrix that is computed from its eigenvalues w and eigenvectors v,
with the cotangents gw and gv. Where k eigenvalues are equal, any orthogonal Q turns their vectors v_G
into others, v_G Q, as good as they. Let M = v_G^T (dF/da) v_G, symmetric (k, k), be that part of the
gradient which `eigh` would divide by 0. Change `a` by t v_G S v_G^T with a small t. Its vectors become
v_G Q with the Q that makes S diagonal, and its values grow by t times those of S. So:

1. F is given by w and the choice of Q. If F has a value at `a`, it is the same for each Q, so that the
   antisymmetric part of v_G^T gv_G is 0. Where it is not, the gradient does not exist.
2. With a diagonal S nothing turns, so M_ii = gw_i. With another S, the derivative is sum_i s_i gw_i,
   where gw is taken at the vectors v_G Q. What gw is there cannot be known from gw at v_G, unless M is
   a multiple of the identity: then gw_i is the same for all i and all Q.
3. The other way round: if gw_i is the same for all i at a Q that was drawn at random, M is a multiple
   of the identity, except for Q in a set of probability 0. So the forward turns the vectors by such a
   Q. (Those of LAPACK will not do: of a diagonal matrix they are the axes, where (v w v^T)_12 has
   gw = 0.)

So where v_G^T gv_G is symmetric and the gw_i are equal, M = gw_i 1 if F has a gradient at all.
That holds for functions that use other vectors alone (the first principal component of a matrix
with a null space), for the projection v_G v_G^T, and for values that are treated alike. Where the
first fails, there is none. Where the second fails, as for v w v^T, F may be smooth, but gw and gv
do not contain its gradient: numpy.linalg.LinAlgError. A function of the values alone, by `eigvalsh`
or `svdvals`, is differentiated always. If it is smooth, it treats equal values alike; else what
they are given is shared equally, as where numbers tie in `max`.

For singular values that are equal, and not 0, the same holds of the symmetric part of u_G^T (dF/da)
v_G. The antisymmetric part is found by a quotient by their sum. Where r of them are not 0, u_0 can
be turned alone in n - r dimensions, and v_0 in m - r. If either is more than one, the only multiple
of the identity that is the same for all these is 0: gs must be 0. If both are one, only signs are
free, of u_0 and v_0 each; a function that needs both vectors depends on them, unless by s_0 u_0
v_0^T, and is refused. So S alone of zeros, like |x|, is given the gradient 0.

A loss that takes some of the vectors of a group, say a projection on the last two of three equal
ones, jumps there. In a random basis a column of gv_G that is exactly 0 was not used, so that a group
with such columns and others is refused too.

What cannot be seen: a function of S of `svd` with a kink where a single singular value of a square
matrix is 0. The gradient is then that of the vectors at hand.
"""

from __future__ import annotations

import numpy as np

from tape.primitive import derivative

TOO_CLOSE = ("{}: where {}, the gradient through these vectors does not exist or cannot be found. Of "
             "the values alone use {}; write a function of the whole matrix (a product, an inverse, a "
             "solution) without its decomposition, by matmul, inv, solve or cholesky; or move the "
             "values apart")
EQUAL_EIGENVALUES = "eigenvalues are equal"
EQUAL_SINGULAR = "singular values are equal"
ZERO_SINGULAR = "singular values are 0"


def refusal(name, where):
    """The error for `name`, where its values are equal or 0."""
    values = {"eigh": "eigvalsh", "eig": "eigvals", "svd": "svdvals or compute_uv=False"}[name]
    return np.linalg.LinAlgError(TOO_CLOSE.format(name, where, values))


# --- which values are equal ---


def rounding(w):
    """How far apart n values that are equal may be computed: (sqrt(n) + 10) eps of the largest."""
    largest = np.max(np.abs(w), axis=-1, keepdims=True, initial=0)
    return (w.shape[-1] ** 0.5 + 10) * np.finfo(w.dtype).eps * largest


def levels(w):
    """A number for each value along the last axis, the same for equal ones: (..., n) -> (..., n)."""
    order = np.argsort(w, axis=-1)
    steps = np.diff(np.take_along_axis(w, order, -1), axis=-1) > rounding(w)
    out = np.zeros(w.shape, int)
    np.put_along_axis(out, order[..., 1:], np.cumsum(steps, -1), -1)
    return out


def equal_pairs(w):
    """Whether w_i and w_j are equal, but for rounding: (..., n) -> (..., n, n)."""
    numbers = levels(w)
    return numbers[..., None, :] == numbers[..., :, None]


def random_basis(n, k, dtype, beside=None):
    """k orthonormal columns, always the same, at right angles to those of `beside`: (n, k)."""
    columns = np.random.default_rng([n, k]).standard_normal((n, k))
    for _ in range(2):                                    # once more against rounding
        if beside is not None:
            columns = columns - beside @ (beside.T @ columns)
        columns = np.linalg.qr(columns)[0]
    return columns.astype(dtype)


def turn_equal(w, *vectors):
    """Turn the columns of equal values, which are any basis, into a random one, in place."""
    numbers = levels(w)
    for place in np.argwhere(numbers.max(-1, initial=0) < w.shape[-1] - 1):
        own = numbers[tuple(place)]
        for number in np.flatnonzero(np.bincount(own) > 1):
            columns = own == number
            for v in vectors:
                k, own_vectors = columns.sum(), v[tuple(place)]
                own_vectors[:, columns] = own_vectors[:, columns] @ random_basis(k, k, v.dtype)


def turn_null(s, u, v):
    """Choose the columns of u and v where s is 0 anew, at random, in place, if there is a choice."""
    ranks = np.sum(without_rounding.forward(s) != 0, -1)
    for place in np.argwhere(ranks < s.shape[-1]):
        r = ranks[tuple(place)]
        for x in (u[tuple(place)], v[tuple(place)]):
            if len(x) - r > 1:
                x[:, r:] = random_basis(len(x), x.shape[-1] - r, x.dtype, x[:, :r])


# --- quotients by what may be zero ---


@derivative(lambda g: g)
def without_rounding(x, /):
    """x with 0 for what is 0 but for rounding, against the largest along the last axis."""
    x = np.asarray(x)
    return np.where(np.abs(x) <= rounding(x), 0, x)


@derivative(lambda g: np.sum(g, -2) - np.sum(g, -1))
def gaps(w, /):
    """out_ij = w_j - w_i: (..., n) -> (..., n, n), and 0 for what is 0 but for rounding.

    On the diagonal infinite, so that quotients by it are 0.
    """
    out = np.where(equal_pairs(w), 0, w[..., None, :] - w[..., :, None])
    return np.where(np.eye(w.shape[-1], dtype=bool), np.inf, out).astype(w.dtype, copy=False)


@derivative(lambda g, y, name, where: divided(g, y, name, where),
            lambda g, out, y, name, where: -divided(g * out, y, name, where))
def divided(x, y, /, name, where):
    """x / y, with 0 / 0 = 0. Any other quotient by 0 is an error: the derivative does not exist."""
    x, y = np.broadcast_arrays(x, y)
    if np.any((x != 0) & (y == 0)):
        raise refusal(name, where)
    return np.where(x == 0, 0, x / np.where(y == 0, 1, y))


@derivative(None)
def lengths(columns, /):
    """The length of each column: (..., n, k) -> (..., 1, k)."""
    return np.sqrt(np.sum(np.square(columns), -2, keepdims=True))


@derivative(lambda g: g, None, None)
def zero_over_zero(x, y, size, /):
    """x, with 0 where y is 0 and x is 0 but for rounding.

    `size` is the length of the vectors whose product with unit vectors x is.
    """
    small = np.abs(x) <= (10 + x.shape[-2]) * np.finfo(x.dtype).eps * size
    return np.where(small & (y == 0), 0, x)


# --- the cotangents of the values ---


def _noise(g, others):
    """The rounding of g, which is a part of the same gradient as the matrices `others`: (..., 1)."""
    most = np.max(np.abs(others), (-2, -1), initial=0)[..., None]
    return np.maximum(rounding(g), rounding(most))


@derivative(lambda g: g, None, None)
def same_where_equal(g, w, others, /, name, where):
    """g, which must be the same for equal values w, but for the rounding of what is like `others`."""
    unlike = np.abs(g[..., None, :] - g[..., :, None]) > _noise(g, others)[..., None]
    if np.any(unlike & equal_pairs(w)):
        raise refusal(name, where)
    return g


@derivative(lambda g: g, None)
def of_whole_groups(gv, w, /, name, where):
    """gv, the cotangent of vectors (..., n, k): of equal values w, all are used or none."""
    used = np.any(gv != 0, -2)                                                          # (..., k)
    if np.any(equal_pairs(w) & (used[..., None, :] != used[..., :, None])):
        raise refusal(name, where)
    return gv


@derivative(lambda g: g, None, None, None, None)
def zero_where_free(gs, s, gu, gv, others, /):
    """gs, whose elements where s is 0 must be 0 if the vectors there can be turned.

    If these can change their signs alone, one of the two must have the cotangent 0.
    """
    zero = without_rounding.forward(s) == 0                                             # (..., k)
    turns = max(gu.shape[-2], gv.shape[-2]) - np.sum(~zero, -1, keepdims=True) > 1      # (..., 1)
    of_u, of_v = (lengths.forward(x)[..., 0, :] for x in (gu, gv))                      # (..., k)
    both = (of_u > rounding(of_u)) & (of_v > rounding(of_v))
    if np.any(zero & np.where(turns, np.abs(gs) > _noise(gs, others), both)):
        raise refusal("svd", ZERO_SINGULAR)
    return gs


@derivative(lambda g, w, name: same_where_equal(g, w, g[..., None], name, EQUAL_EIGENVALUES), None)
def shared(g, w, /, name):
    """g with the mean of its elements in the place of each of those that belong to equal values w."""
    pairs = equal_pairs(w).astype(g.dtype)
    return np.where(pairs.sum(-1) > 1, (pairs @ g[..., None])[..., 0] / pairs.sum(-1), g)


@derivative(lambda g, w, name: shared(g, w, name))
def shared_values(w, /, name):
    """The eigenvalues w of `name`, of which equal ones share their gradient."""
    return w


@derivative(lambda g, s: zero_where_zero(
    same_where_equal(g, s, g[..., None], "svd", EQUAL_SINGULAR), s), None)
def shared_but_zeros(g, s, /):
    """`shared`, and 0 where s is 0."""
    return np.where(without_rounding.forward(s) == 0, 0, shared.forward(g, s, "svd"))


@derivative(lambda g: g, None)
def zero_where_zero(g, s, /):
    """g, which must be 0 where s is."""
    if np.any((g != 0) & (without_rounding.forward(s) == 0)):
        raise refusal("svd", ZERO_SINGULAR)
    return g


@derivative(lambda g, s: shared_but_zeros(g, s))
def shared_singular_values(s, /):
    """The singular values s, of which equal ones share their gradient; those that are 0 have none."""
    return s
