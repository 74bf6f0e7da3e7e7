"""einsum, tensordot and inner beside the same product by matmul, forward and backward.

    python -m tests.bench.bench_einsum

Each line is one product of float32 arrays with axes of length 3, 64 or 256 (8 or 2 of a batch), on
Tensors of which both want a gradient. The ratio is the median over rounds in which the two take turns.
"""

import statistics

import numpy as np

import tape
from tests.bench.timing import in_turn


def mT(x):
    return x.swapaxes(-1, -2)


# name: (the axes of the operands; by its own operator; by matmul)
PRODUCTS = {
    "ij,jk->ik": ("nn", "nn", None, lambda x, y: x @ y),
    "nd,sd->sn": ("nn", "nn", None, lambda x, y: mT(x @ mT(y))),
    "bij,bjk->bik": ("bnn", "bnn", None, lambda x, y: x @ y),
    "bhqd,bhkd->bhqk": ("bbnn", "bbnn", None, lambda x, y: x @ mT(y)),
    "bqhd,bkhd->bhqk": ("bnbn", "bnbn", None,
                        lambda x, y: x.swapaxes(1, 2) @ mT(y.swapaxes(1, 2))),
    "ij,j->i": ("nn", "n", None, lambda x, y: x @ y),
    "i,i->": ("n", "n", None, lambda x, y: x @ y),
    "i,j->ij": ("n", "n", None, lambda x, y: x.reshape(-1, 1) @ y.reshape(1, -1)),
    "tensordot": ("nn", "nn", lambda x, y: tape.tensordot(x, y, 1), lambda x, y: x @ y),
    "inner": ("nn", "nn", tape.inner, lambda x, y: x @ mT(y)),
}
SIZES = (3, 64, 256)


def calls(name, size):
    """The product by its operator and by matmul, each with its backward pass."""
    rng = np.random.default_rng(0)
    *axes, function, by_matmul = PRODUCTS[name]
    b = 8 if len(axes[0]) == 3 else 2                 # of a batch
    arrays = [rng.standard_normal([size if a == "n" else b for a in own]) for own in axes]
    leaves = [tape.Tensor(array.astype(np.float32), requires_grad=True) for array in arrays]
    g = np.ones(by_matmul(*leaves).shape, np.float32)

    def step(product):
        def run():
            for x in leaves:
                x.grad = None
            product(*leaves).backward(g)
        return run
    return step(function or (lambda x, y: tape.einsum(name, x, y))), step(by_matmul)


def main():
    print("| product | " + " | ".join(f"{n}: us | over matmul" for n in SIZES) + " |")
    print("|---" * (1 + 2 * len(SIZES)) + "|")
    for name in PRODUCTS:
        cells = []
        for size in SIZES:
            own, by_matmul = calls(name, size)
            seconds = in_turn({"matmul": by_matmul, "own": own}, 200 if size < 256 else 30)
            ratio = statistics.median(b / a for a, b in zip(seconds["matmul"], seconds["own"]))
            cells.append(f"{statistics.median(seconds['own']) * 1e6:.0f} | {ratio:.1f}")
        print(f"| `{name}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
