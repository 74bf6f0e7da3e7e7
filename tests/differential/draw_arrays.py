"""How calls of operators are drawn that work on axes: reductions, products, fused operators."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from tests.differential.builder import Builder, Name, Rejected

REDUCTIONS = ("sum", "mean", "sum", "mean", "max", "min", "var", "std", "logsumexp", "norm")


def axis_of(b: Builder, rank: int, several: bool = True) -> Any:
    """None, an axis counted from either end, or a tuple of axes."""
    if rank == 0 or b.chance(0.2):
        return None
    axis = int(b.rng.integers(rank))
    if several and rank > 1 and b.chance(0.3):
        axes = b.rng.permutation(rank)[:b.rng.integers(1, rank + 1)]
        return tuple(int(a) - (rank if b.chance(0.3) else 0) for a in axes)
    return axis - rank if b.chance(0.4) else axis


def reduction(b: Builder) -> None:
    name = b.some(REDUCTIONS)
    x = b.pick(lambda y: name in ("sum",) or 0 not in b.shape(y))
    options: dict[str, Any] = {}
    axis = axis_of(b, len(b.shape(x)), several=name != "norm")
    if axis is not None:
        options["axis"] = axis
    if name in ("var", "std") and b.chance(0.4):
        count = b.array(x).size // np.sum(b.array(x), axis=axis).size
        if count > 1:
            options["ddof"] = 1
    if b.chance(0.4):
        options["keepdims"] = True
    b.emit(name, x, **options)


def along_axis(b: Builder) -> None:
    x = b.pick(lambda y: len(b.shape(y)) > 0 and 0 not in b.shape(y))
    name = b.some(["softmax", "log_softmax"])
    if b.chance(0.5):
        b.emit(name, x)
    else:
        rank = len(b.shape(x))
        b.emit(name, x, axis=int(b.rng.integers(-rank, rank)))


def product(b: Builder) -> None:
    """All combinations of ranks; leading axes broadcast."""
    x = b.pick(lambda y: len(b.shape(y)) > 0)
    shape = b.shape(x)
    inner, batch = shape[-1], shape[:-2]
    size = int(b.rng.integers(1, 4))
    kinds: list[tuple] = [(inner,), (inner, size), (inner, size), (2, inner, size),
                          (*batch, inner, size), (*(1 for _ in batch), inner, size)]
    if batch == () and b.chance(0.2):
        kinds.append((2, 1, inner, size))
    y = b.wanted(b.some(kinds))
    if b.chance(0.3) and len(shape) == 1:
        y = b.wanted((size, inner))
        x, y = y, x
    b.emit("matmul", x, y)


def by_itself(b: Builder) -> None:
    """x @ x^T: both operands are one value."""
    x = b.pick(lambda y: len(b.shape(y)) > 1)
    other = b.emit("swapaxes", x, -1, -2)
    b.emit("matmul", *((x, other) if b.chance(0.5) else (other, x)))


def dot(b: Builder) -> None:
    x = b.pick(lambda y: len(b.shape(y)) in (1, 2))
    if b.chance(0.3):
        y: Any = b.pick(lambda y: b.shape(y) == ())
        b.emit("dot", x, y, for_nodes=("mul", x, y))
        return
    inner = b.shape(x)[-1]
    y = b.wanted(b.some([(inner,), (inner, 2)]))
    b.emit("dot", x, y, for_nodes=("matmul", x, y))


def layer_norm(b: Builder) -> None:
    x = b.pick(lambda y: len(b.shape(y)) > 0 and b.shape(y)[-1] > 1 and 0 not in b.shape(y))
    if (np.ptp(b.array(x), axis=-1) < 0.1).any():
        raise Rejected("nearly constant rows: the third derivative is very large")
    width = b.shape(x)[-1:]
    weight = b.wanted(width) if b.chance(0.7) else None
    bias = b.wanted(width) if b.chance(0.6) else None
    if b.chance(0.5) and bias is None:
        b.emit("layer_norm", x, *(() if weight is None else (weight,)))
    else:
        b.emit("layer_norm", x, weight, bias, 1e-5)


def rms_norm(b: Builder) -> None:
    x = b.pick(lambda y: len(b.shape(y)) > 0 and 0 not in b.shape(y))
    if (np.abs(b.array(x)).max(axis=-1) < 0.1).any():
        raise Rejected("rows near zero: the third derivative is very large")
    weight = b.wanted(b.shape(x)[-1:]) if b.chance(0.7) else None
    b.emit("rms_norm", x, *(() if weight is None else (weight,)))


def swiglu(b: Builder) -> None:
    gate = b.pick(lambda y: len(b.shape(y)) > 0)
    b.emit("swiglu", gate, gate if b.chance(0.2) else b.wanted(b.shape(gate)))


def rotation(b: Builder) -> None:
    x = b.pick(lambda y: len(b.shape(y)) > 1 and b.shape(y)[-1] % 2 == 0 and 0 not in b.shape(y))
    *_, length, width = b.shape(x)
    angle, dtype = b.rng.standard_normal((length, width // 2)), b.some(b.leaf_dtypes)
    b.emit("rotate_pairs", x, *(b.constant(f(angle).astype(dtype)) for f in (np.cos, np.sin)))


def recurrent(b: Builder) -> None:
    """One step or two from any matrix as h, which may be an LSTM's c too."""
    h = b.pick(lambda y: len(b.shape(y)) == 2 and 0 not in b.shape(y))
    (rows, width), steps, name = b.shape(h), int(b.some([1, 2])), b.some(["rnn", "lstm", "gru"])
    parts = {"rnn": 1, "lstm": 4, "gru": 3}[name]
    operands = [b.wanted((steps, rows, parts * width)), b.wanted((width, parts * width))]
    operands += [b.wanted((width,)), h] if name == "gru" else [h]
    if name == "lstm":
        operands.append(h if b.chance(0.2) else b.wanted((rows, width)))
    b.emit(name, *operands, steps=steps)


def cross_entropy(b: Builder) -> None:
    x = b.pick(lambda y: len(b.shape(y)) > 0 and 0 not in b.shape(y))
    *rows, classes = b.shape(x)
    targets = np.asarray(b.rng.integers(0, classes, rows))
    options: dict[str, Any] = {}
    if b.chance(0.4):
        ignored = b.some([-1, -100, 0])
        targets = np.where(b.rng.random(rows) < 0.3, ignored, targets)
        options["ignore_index"] = ignored
    if b.chance(0.4):
        options["reduction"] = "sum"
    kinds: list[Any] = [targets, targets, targets.astype(np.int32)]
    if targets.ndim:
        kinds.append(targets.tolist())
    b.emit("cross_entropy", x, b.constant(b.some(kinds)), **options)


def self_attention(b: Builder) -> None:
    """Two heads or one, of the least width; with biases, without, or with some."""
    x = b.pick(lambda y: len(b.shape(y)) > 1 and 0 not in b.shape(y))
    width, n_head = b.shape(x)[-1], int(b.some([1, 2]))
    shapes = [(width, n_head)] * 3 + [(n_head, b.some([1, width]))]
    weights = [b.wanted(shape) for shape in shapes]
    biases = [b.wanted(shape[-1:]) if b.chance(0.4) else None for shape in shapes]
    b.emit("causal_self_attention", x, n_head, *weights, *biases)


def attention(b: Builder) -> None:
    """Queries, keys and values with leading axes of their own, which broadcast."""
    if b.chance(0.25):
        return self_attention(b)
    q = b.pick(lambda y: len(b.shape(y)) > 1 and 0 not in b.shape(y))
    *batch, queries, width = b.shape(q)
    keys = queries + b.some([0, 0, 1])
    leading = [(), tuple(batch), tuple(1 for _ in batch), (2,) if not batch else tuple(batch)]
    if b.chance(0.25) and keys == queries:
        operands = [q, q, q]
    else:
        operands = [q, b.wanted((*b.some(leading), keys, width)),
                    b.wanted((*b.some(leading), keys, b.some([width, 1, 2])))]
    options: dict[str, Any] = {"scale": 0.5} if b.chance(0.3) else {}
    if b.chance(0.5):
        b.emit("causal_attention", *operands, **options)
        return
    if b.chance(0.5):
        mask = b.rng.random((queries, b.some([1, keys]))) < 0.6
        mask[:, 0] = True                               # the reference divides by the sum of a row
        options["mask"] = b.constant(mask)
    b.emit("attention", *operands, **options, causal=b.chance(0.5), block_size=b.some([None, 1, 2]))


def look_up(b: Builder) -> None:
    table = b.pick(lambda y: len(b.shape(y)) == 2 and b.shape(y)[0] > 0 and y in b.tensors)
    ids = b.rng.integers(0, b.shape(table)[0], b.some([(2,), (3,), (2, 2), (), (0,)]))
    b.emit("embedding", table, b.constant(np.asarray(ids), tensor=False))


TABLE: dict[Callable, float] = {
    reduction: 9, along_axis: 2.5, product: 5, by_itself: 1, dot: 0.7, layer_norm: 1.5,
    rms_norm: 1, swiglu: 1, rotation: 0.7, recurrent: 1,
    cross_entropy: 1.2, attention: 1.5, look_up: 1.2}

__all__ = ["TABLE", "Name"]
