"""How calls of linear algebra are drawn: sums of products, and diagonals."""

from __future__ import annotations

from typing import Any, Callable

from tests.differential.builder import Builder

LETTERS = "abc"


def _shuffled(b: Builder, letters: Any) -> str:
    """Some of the letters, in any order."""
    letters = sorted(letters)
    kept = b.rng.permutation(len(letters))[:b.rng.integers(len(letters) + 1)]
    return "".join(letters[i] for i in kept)


def einsum(b: Builder) -> None:
    """Of one operand or two; an axis of the second may have the length 1 and be broadcast."""
    x = b.pick(lambda y: 0 < len(b.shape(y)) < 4)
    of_x = LETTERS[:len(b.shape(x))]
    if b.chance(0.3):
        b.emit("einsum", f"{of_x}->{_shuffled(b, of_x)}", x)
        return
    of_y = _shuffled(b, of_x) + b.some(["", "d"])
    sizes = {**dict(zip(of_x, b.shape(x))), "d": b.some([1, 2, 3])}
    y = b.wanted(tuple(1 if b.chance(0.1) else sizes[a] for a in of_y))
    b.emit("einsum", f"{of_x},{of_y}->{_shuffled(b, {*of_x, *of_y})}", x, y)


def over_last(b: Builder) -> None:
    """Products over the last axis of x."""
    x = b.pick(lambda y: 0 < len(b.shape(y)) < 3)
    shape = b.shape(x)
    of_x, k = LETTERS[:len(shape)], shape[-1]
    name = b.some(["inner", "tensordot", "vecdot", "matvec", "vecmat", "vdot"])
    if name == "inner":
        spelled = f"{of_x},d{of_x[-1]}->{of_x[:-1]}d"
        y = b.wanted((2, k))
        b.emit("inner", x, y, for_nodes=("einsum", spelled, x, y))
    elif name == "tensordot":
        y = b.wanted((k, 2))
        b.emit("tensordot", x, y, 1,
               for_nodes=("einsum", f"{of_x},{of_x[-1]}d->{of_x[:-1]}d", x, y))
    elif name == "matvec" and len(shape) == 2:
        b.emit("matvec", x, b.wanted((k,)))
    else:
        name = name if name in ("vecdot", "vdot", "vecmat") else "vecdot"
        b.emit(name, x, b.wanted({"vecmat": (k, 2), "vdot": shape}.get(name, (k,))))


def of_vectors(b: Builder) -> None:
    x = b.pick(lambda y: len(b.shape(y)) == 1)
    y = b.wanted(b.some([(2,), (3,), b.shape(x)]))
    outer = b.emit("outer", x, y)
    if b.chance(0.4):
        b.emit("kron", x, y, for_nodes=("reshape", outer, (-1,)))


def cross(b: Builder) -> None:
    x = b.wanted(b.some([(3,), (2, 3)]))
    b.emit("cross", x, b.wanted((3,)))


def diagonals(b: Builder) -> None:
    name = b.some(["trace", "diagonal", "matrix_transpose", "diag", "diagflat"])
    least, most = {"diag": (1, 2), "diagflat": (0, 2)}.get(name, (2, 4))
    x = b.pick(lambda y: least <= len(b.shape(y)) <= most and b.array(y).size < 7 + 60 * (least > 1))
    offset = () if name == "matrix_transpose" else b.some([(), (1,), (-1,)])
    b.emit(name, x, *offset)


TABLE: dict[Callable, float] = {einsum: 3, over_last: 2, of_vectors: 1, cross: 0.6, diagonals: 2}
