"""How calls of operators are drawn that work on each element: arithmetic, powers, choices, masks.

Each function takes a `Builder` and emits one instruction, or the few that make one sensible: a
logarithm, say, of something that is positive.
"""

from __future__ import annotations

import math
from typing import Any, Callable

import numpy as np

from tests.differential.builder import Builder, Name, Rejected

SMOOTH = ("neg", "exp", "sin", "cos", "tanh", "sigmoid", "gelu", "gelu_exact", "erf",
          "expm1", "square")
KINKED = ("relu", "relu", "abs", "sign", "zeros_like", "ones_like")


def smooth(b: Builder) -> None:
    b.emit(b.some(SMOOTH), b.pick())


def kinked(b: Builder) -> None:
    """Among the values are exact zeros, where the kink is."""
    b.emit(b.some(KINKED), b.pick())


def second(b: Builder, x: Name) -> Any:
    """An operand that stands beside x: a value, x itself, a number, an array or a list."""
    kind = b.rng.integers(10)
    if kind < 6:
        return b.pick(lambda y: fits(b.shape(x), b.shape(y)))
    if kind == 6:
        return b.some([2, -1, 0.5, 3.0, True, 0, np.float32(1.5), np.float64(-0.5), np.int64(2)])
    if kind == 7:
        return x
    shape = subshape(b, b.shape(x))
    if kind == 8:
        array = b.numbers(shape).astype(b.some(b.leaf_dtypes))
        choices = [array, array, np.asarray(b.rng.integers(-2, 3, shape)),
                   np.asarray(b.rng.random(shape) > 0.5)]
        return b.constant(b.some(choices), tensor=False)
    return b.constant((b.rng.integers(-4, 5, shape) / 2).tolist()) if shape and 0 not in shape \
        else b.constant(np.ones(shape, b.leaf_dtypes[0]), tensor=True)


def fits(x: tuple, y: tuple) -> bool:
    """Whether two shapes broadcast."""
    return all(n == m or 1 in (n, m) for n, m in zip(x[::-1], y[::-1]))


def subshape(b: Builder, shape: tuple) -> tuple:
    """A shape that broadcasts to this one."""
    shape = shape[b.rng.integers(len(shape) + 1):] if b.chance(0.5) else shape
    return tuple(1 if b.chance(0.25) else n for n in shape)


def binary(b: Builder) -> None:
    x = b.pick()
    operands: list = [x, second(b, x)]
    if b.chance(0.3):
        operands.reverse()
    b.emit(b.some(["add", "sub", "mul", "mul"]), *operands)


def extremes(b: Builder) -> None:
    x = b.pick()
    operands: list = [x, second(b, x)]
    if b.chance(0.3):
        operands.reverse()
    b.emit(b.some(["maximum", "minimum"]), *operands)


def of_lists(b: Builder) -> None:
    """Two lists and nothing else, which makes an array, and that beside a value."""
    x = b.pick(lambda y: y in b.tensors and len(b.shape(y)) > 0 and b.shape(y)[-1] in (2, 3))
    shape = b.shape(x)[-1:]
    lists = [b.constant(np.round(b.numbers(shape, "positive"), 2).tolist()) for _ in range(2)]
    array = b.emit(b.some(["add", "sub", "mul", "div", "maximum"]), *lists, show=False)
    b.emit("mul", x, array)


def away_from_zero(b: Builder, x: Name) -> Name:
    """x itself where it has no small elements, else x * x + 0.5."""
    if np.abs(b.array(x)).min(initial=np.inf) > 0.2:
        return x
    return b.emit("add", b.emit("square", x), 0.5)


def positive(b: Builder) -> Name:
    if b.chance(0.5):
        try:
            return b.pick(lambda x: b.array(x).min(initial=np.inf) > 0.1)
        except Rejected:
            pass
    x = b.pick()
    return b.emit("add", b.emit("square", x), 0.5)


def division(b: Builder) -> None:
    y = away_from_zero(b, b.pick())
    x = second(b, y) if b.chance(0.8) else y
    b.emit("div", x, y)


def of_positives(b: Builder) -> None:
    b.emit(b.some(["log", "sqrt", "log1p"]), positive(b))


def root_at_zero(b: Builder) -> None:
    """Where the derivative is infinite, and multiplied by a constant that is zero there."""
    x = b.emit("relu", b.pick()) if b.chance(0.5) else b.emit("square", b.pick())
    operator = ("sqrt", x) if b.chance(0.5) else ("power", x, 0.5)
    root = b.emit(*operator, show=False)
    mask = (b.array(root) > 0.1).astype(b.leaf_dtypes[0])
    b.emit("mul", root, b.constant(mask) if mask.ndim else float(mask))


def integer_power(b: Builder) -> None:
    exponent = b.some([2, 3, 4, 1, 0, 2.0, 3.0, np.int64(2), -1, -2, -1.0])
    x = b.pick()
    b.emit("power", x if exponent >= 0 else away_from_zero(b, x), exponent)


def fraction_power(b: Builder) -> None:
    b.emit("power", positive(b), b.some([0.5, 1.5, -0.5, 2.5, np.float32(0.5)]))


def tensor_power(b: Builder) -> None:
    """Of a tensor or number to a tensor or array."""
    if b.chance(0.25):
        exponent = b.pick(lambda y: np.abs(b.array(y)).max(initial=0) < 4)
        b.emit("power", b.some([2.0, 0.5, 3]), exponent)
        return
    x = positive(b)
    if b.chance(0.3):
        whole = b.rng.integers(-1, 4, subshape(b, b.shape(x)))
        exponent = b.constant(np.asarray(whole).astype(b.leaf_dtypes[0]))
        b.emit("power", b.pick(lambda y: np.abs(b.array(y)).min(initial=1) > 0
                               and fits(b.shape(y), b.shape(x))), exponent)
        return
    b.emit("power", x, b.pick(lambda y: fits(b.shape(x), b.shape(y))
                              and np.abs(b.array(y)).max(initial=0) < 4))


def clip(b: Builder) -> None:
    low, high = b.some([(-0.5, 0.7), (-1.0, 1.0), (0, None), (None, 0.5), (-2, 2)])
    b.emit("clip", b.pick(), low, high)


def where(b: Builder) -> None:
    """With a mask, a comparison of a value, or a value itself as the condition."""
    x = b.pick()
    y = second(b, x)
    shape = b.shape(x)
    if b.chance(0.6):
        condition: Any = b.constant(np.asarray(b.rng.random(subshape(b, shape)) > 0.5))
    else:
        value = b.pick(lambda z: z in b.tensors and fits(b.shape(z), shape)
                       and (not isinstance(y, Name) or y not in b.values
                            or fits(b.shape(z), b.shape(y))))
        condition = value
        b.compares = True
        if b.chance(0.6):
            condition = Name(f"{value} > {b.some([0.1, -0.3, 0.55])}")
    operands = [x, y] if b.chance(0.7) else [y, x]
    b.emit("where", condition, *operands)


HIDDEN: tuple[tuple[str, Callable], ...] = (
    ("sqrt", lambda a: a > 0.1), ("log", lambda a: a > 0.1), ("log1p", lambda a: a > -0.9),
    ("power", lambda a: a > 0.1), ("reciprocal", lambda a: np.abs(a) > 0.1))


def masked(b: Builder) -> None:
    """What is infinite or NaN in places, of which only the other places are used."""
    name, defined = b.some(HIDDEN)
    x = b.pick(lambda y: y in b.tensors)
    mask = np.asarray(defined(b.array(x)))
    if name == "power":
        hidden = b.emit("power", x, b.some([0.5, -0.5, 1.5, -1]), show=False)
    elif name == "reciprocal":
        hidden = b.emit("div", 1.0, x, show=False)
    else:
        hidden = b.emit(name, x, show=False)
    if mask.ndim and mask.any() and b.chance(0.3):
        b.emit("getitem", hidden, b.constant(mask))
    elif b.chance(0.5):
        b.emit("where", b.constant(mask), hidden, b.some([0, 0.0, x]))
    else:
        b.emit("where", b.constant(np.asarray(~mask)), x, hidden)


def cast(b: Builder) -> None:
    dtypes = {np.dtype(dtype).name for dtype in b.leaf_dtypes}
    b.emit("astype", b.pick(lambda x: x in b.tensors), b.some(sorted(dtypes)))


def dropout(b: Builder) -> None:
    x = b.pick(lambda y: y in b.tensors)
    p, seed = b.some([0.5, 0.25, 0.0]), int(b.rng.integers(100))
    keep = np.random.default_rng(seed).random(b.shape(x), np.float32) >= p
    dtype = b.dtypes[x]
    scale = b.constant((keep / (1 - p)).astype(dtype))
    b.emit("dropout", x, p, seed, for_nodes=("mul", x, scale))


def cosh(b: Builder) -> None:
    """The same value on both sides of several operators, so that gradients meet."""
    x = b.pick(lambda y: np.abs(b.array(y)).max(initial=0) < math.log(100))
    up, down = b.emit("exp", x), b.emit("exp", b.emit("neg", x))
    b.emit("div", up, b.emit("add", up, down))


def of_a_user(b: Builder) -> None:
    """Made with `primitive`: they write to the cotangent, or return what they were given."""
    x = b.pick(lambda y: y in b.tensors)
    name = b.some(["user_double", "user_double", "user_same", "user_view", "user_kept"])
    others = (b.pick(lambda y: b.shape(y) == b.shape(x)),) if name == "user_kept" else ()
    result = b.emit(name, x, *others)
    if b.chance(0.7):          # beside a value that is handed the same cotangent
        other = b.pick(lambda y: b.shape(y) == b.shape(x))
        b.emit(b.some(["add", "sub"]), *((result, other) if b.chance(0.5) else (other, result)))


TABLE: dict[Callable, float] = {
    smooth: 8, kinked: 3, binary: 10, extremes: 4, of_lists: 0.5, division: 3, of_positives: 3,
    root_at_zero: 1, integer_power: 3, fraction_power: 1, tensor_power: 2, clip: 1.5, where: 3,
    masked: 1.5, cast: 0.7, dropout: 1, cosh: 0.7,
    of_a_user: 2}
