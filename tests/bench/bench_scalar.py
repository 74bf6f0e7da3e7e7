"""A chain of scalar operations, forward and backward: what the tape itself costs.

    python -m tests.bench.bench_scalar

Peers are timed where they are installed.
"""

from tape import Tensor
from tests.bench.timing import in_turn, installed, report

LENGTH = 5000
CHAINS = {
    "y * 1.0001": lambda y, x: y * 1.0001,
    "y + x": lambda y, x: y + x,
    "y * x": lambda y, x: y * x,
    "y * 0.999 + 0.001": lambda y, x: y * 0.999 + 0.001,       # two operations
    "tanh": lambda y, x: y.tanh(),
}


def tape_chain(f):
    x = Tensor(1.0, requires_grad=True)
    y = x
    for _ in range(LENGTH):
        y = f(y, x)
    y.backward()


def torch_chain(f):
    import torch

    x = torch.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(LENGTH):
        y = f(y, x)
    y.backward()


def autograd_chain(f):
    import autograd

    def run(x):
        y = x
        for _ in range(LENGTH):
            y = f(y, x)
        return y

    autograd.grad(run)(1.0)


def main():
    peers = installed("torch", "autograd")
    for name, f in CHAINS.items():
        candidates = {"tape": lambda f=f: tape_chain(f)}
        if "torch" in peers:
            candidates["torch"] = lambda f=f: torch_chain(f)
        if "autograd" in peers and name != "tanh":
            candidates["autograd"] = lambda f=f: autograd_chain(f)
        operations = LENGTH * (2 if "+ 0.001" in name else 1)
        report(name, in_turn(candidates), 1e6 / operations, "us/op")


if __name__ == "__main__":
    main()
