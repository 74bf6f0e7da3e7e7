"""A second reverse mode engine, to compare with: as naive as possible, and nothing shared.

Recursive; every path through the graph is walked on its own (no topological order, so no way to
get it wrong); float64; derivatives are closures that were worked out separately.
"""

import numpy as np


def sum_to(g, shape):
    """Broadcasting undone the slow way."""
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g


class Value:
    """An array and, for each operand, the operand and how a gradient goes back to it."""

    def __init__(self, data, parents=()):
        self.data = np.asarray(data, np.float64)
        self.parents = parents
        self.grad = np.zeros(self.data.shape)

    def pull(self, g):
        """Add g to this value's gradient and send it on, one path at a time."""
        g = sum_to(np.asarray(g, np.float64), self.data.shape)
        self.grad = self.grad + g
        for parent, back in self.parents:
            parent.pull(back(g))


def one(forward, slope):
    """An elementwise function of one operand."""
    return lambda a: Value(forward(a.data), [(a, lambda g: g * slope(a.data))])


def two(forward, slope_a, slope_b):
    """An elementwise function of two operands."""
    return lambda a, b: Value(forward(a.data, b.data),
                              [(a, lambda g: g * slope_a(a.data, b.data)),
                               (b, lambda g: g * slope_b(a.data, b.data))])


def matmul(a, b):
    return Value(a.data.dot(b.data), [(a, lambda g: g.dot(b.data.T)),
                                      (b, lambda g: a.data.T.dot(g))])


TABLE = {
    "add": two(lambda a, b: a + b, lambda a, b: 1.0, lambda a, b: 1.0),
    "sub": two(lambda a, b: a - b, lambda a, b: 1.0, lambda a, b: -1.0),
    "mul": two(lambda a, b: a * b, lambda a, b: b, lambda a, b: a),
    "div": two(lambda a, b: a / (1 + b * b), lambda a, b: 1 / (1 + b * b),
               lambda a, b: -2 * a * b / (1 + b * b) ** 2),
    "maximum": two(np.maximum, lambda a, b: np.heaviside(a - b, 0.5),
                   lambda a, b: np.heaviside(b - a, 0.5)),
    "matmul": matmul,
    "neg": one(lambda a: -a, lambda a: -1.0),
    "tanh": one(np.tanh, lambda a: 1 / np.cosh(a) ** 2),
    "sin": one(np.sin, np.cos),
    "cube": one(lambda a: a ** 3, lambda a: 3 * a ** 2),
    "transpose": lambda a: Value(a.data.T, [(a, lambda g: g.T)]),
    "total": lambda a: Value(a.data.sum(), [(a, lambda g: g * np.ones(a.data.shape))]),
    "rows": lambda a: Value(a.data.sum(axis=0), [(a, lambda g: np.ones(a.data.shape) * g)]),
}
