"""Ways to sum rows by id, which is the backward of a look-up.

    python -m tests.bench.bench_scatter
"""

import numpy as np

from tape import kernels
from tests.bench.timing import in_turn, report


def sorted_runs(g, ids, rows):
    out = np.zeros((rows, g.shape[-1]), g.dtype)
    kernels.add_rows(out, g, ids)
    return out


def add_at(g, ids, rows):
    out = np.zeros((rows, g.shape[-1]), g.dtype)
    np.add.at(out, ids, g)
    return out


def one_hot_product(g, ids, rows):
    return kernels.one_hot(ids, rows, g.dtype).T @ g


def main():
    rng = np.random.default_rng(0)
    g = rng.standard_normal((768, 128), np.float32)
    for rows in (65, 5_000, 50_257):
        ids = rng.integers(0, rows, len(g))
        ways = {"sorted, reduceat": sorted_runs, "np.add.at": add_at}
        if kernels.kernels_in_use() == "numba":
            ways["compiled"] = kernels.scatter_rows
        if rows < 10_000:
            ways["one-hot product"] = one_hot_product
        expected = add_at(g, ids, rows)
        for way in ways.values():
            np.testing.assert_allclose(way(g, ids, rows), expected, atol=1e-4)
        report(f"768 rows of 128 into {rows:,}", in_turn(
            {name: lambda way=way: way(g, ids, rows) for name, way in ways.items()}), 1e3, "ms")


if __name__ == "__main__":
    main()
