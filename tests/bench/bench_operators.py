"""What NumPy's calls alone take of an operator on 16 x 16, forward and backward: the floor of ours.

    python -m tests.bench.bench_operators
"""

import numpy as np

from tests.bench import library_tape
from tests.bench.timing import in_turn, report
from tests.bench.worker import LENGTH, chain

add = np.add


def product(y, x, g, total):
    y * x
    add(total, g * y, total)
    return g * x


def sum_(y, x, g, total):
    y + x
    add(total, g, total)
    return g


def tanh(y, x, g, total):
    out = np.tanh(y)
    return g * (1 - out * out)


def matrix_product(y, x, g, total):
    y.dot(x)
    add(total, y.T.dot(g), total)
    return g.dot(x.T)


# name -> (the operator, what is left of its chain without a tape).
OPERATORS = {"y * x": (lambda y, x: y * x, product), "y + x": (lambda y, x: y + x, sum_),
             "tanh": (lambda y, x: library_tape.tanh(y), tanh),
             "y @ x": (lambda y, x: y @ x, matrix_product)}


def bare(step, x):
    """A call that makes a chain's calls of NumPy as often, on arrays that do not change."""
    def run():
        g, total = np.ones_like(x), np.zeros_like(x)
        for _ in range(LENGTH):
            step(x, x, g, total)

    return run


def main():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0].astype(np.float32)
    near_one = rng.uniform(0.999, 1.001, (16, 16)).astype(np.float32)       # no product becomes tiny
    for name, (f, step) in OPERATORS.items():
        x = rotation if "@" in name else near_one
        ways = {"NumPy": bare(step, x), "tape": library_tape.differentiating(chain(f, LENGTH), [x])}
        try:
            from tests.bench import library_torch
        except ImportError:
            pass
        else:
            g = (lambda y, x: library_torch.tanh(y)) if name == "tanh" else f
            ways["torch"] = library_torch.differentiating(chain(g, LENGTH), [x])
        report(f"16 x 16 {name}", in_turn(ways), 1e6 / LENGTH, "us")


if __name__ == "__main__":
    main()
