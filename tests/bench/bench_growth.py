"""How the time of an operation grows with its size: the time per element must stay flat.

    python -m tests.bench.bench_growth

Each case prepares its data for a size n, which is not timed, and returns what is timed.
"""

from __future__ import annotations

import pickle
import time
from typing import Callable

import numpy as np

import nn
import tape
import tape.lazy as ad
from tape import Tensor, grad

SIZES = (4_000, 8_000, 16_000, 32_000, 64_000)


def _named(n: int, prefix: str) -> nn.Module:
    model = nn.Module()
    model.table = {f"{prefix}.{i}.weight": nn.Parameter(np.ones(1, np.float32)) for i in range(n)}
    return model


def load_state_dict_report(n: int) -> Callable[[], None]:
    """n names are missing and n others unexpected: the text of the error."""
    model, state = _named(n, "blocks"), _named(n, "block").state_dict()

    def refused() -> None:
        try:
            model.load_state_dict(state)
        except ValueError as error:
            assert len(str(error)) < 10_000

    return refused


def state_dict_round_trip(n: int) -> Callable[[], None]:
    """n parameters are saved and loaded again."""
    model = _named(n, "blocks")

    def round_trip() -> None:
        model.load_state_dict(model.state_dict())

    return round_trip


def leaves(n: int) -> list[Tensor]:
    return [Tensor(1.0, requires_grad=True) for _ in range(n)]


def gradient_of_leaves(n: int) -> Callable[[], None]:
    """grad(loss, n leaves)."""
    xs = leaves(n)

    def differentiate() -> None:
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        grad(total, xs)

    return differentiate


def stack_of_constants(n: int) -> Callable[[], None]:
    """n numbers, arrays and one leaf, stacked."""
    x, constants = Tensor(1.0, requires_grad=True), [np.ones(()) for _ in range(n)]
    return lambda: tape.stack([x, *constants]).sum().backward()


def row_sums(pieces: Callable[[Tensor], list], orders: int) -> Callable[[int], Callable[[], None]]:
    """n rows, taken one by one, squared and summed; its gradient, or that of its gradient."""
    def prepare(n: int) -> Callable[[], None]:
        x = Tensor(np.ones((n, 4), np.float32), requires_grad=True)

        def differentiate() -> None:
            total = tape.stack([piece * piece for piece in pieces(x)]).sum()
            if orders == 2:
                total = (grad(total, x, create_graph=True) ** 2).sum()
            x.grad = None
            total.backward()

        return differentiate
    return prepare


def concatenated(orders: int) -> Callable[[int], Callable[[], None]]:
    """n leaves, joined and squared; their gradients, or those of their gradients."""
    def prepare(n: int) -> Callable[[], None]:
        xs = [Tensor(np.ones(2, np.float32), requires_grad=True) for _ in range(n)]

        def differentiate() -> None:
            y = tape.concatenate(xs)
            total = (y * y * y).sum()
            if orders == 2:
                total = (tape.concatenate(list(grad(total, xs, create_graph=True))) ** 2).sum()
            total.backward()

        return differentiate
    return prepare


def deep_chain(n: int) -> Callable[[], None]:
    """n operations in a row."""
    def differentiate() -> None:
        y = Tensor(1.0, requires_grad=True)
        for _ in range(n):
            y = y * 1.0
        y.backward()

    return differentiate


def pickled_graph(n: int) -> Callable[[], None]:
    """A static graph of n nodes, pickled."""
    node: ad.Node = ad.Variable("x")
    for _ in range(n):
        node = node + 1
    return lambda: pickle.loads(pickle.dumps(node)) and None


CASES: dict[str, Callable[[int], Callable[[], None]]] = {
    "deep chain": deep_chain,
    "grad(loss, n leaves)": gradient_of_leaves,
    "stack of n constants": stack_of_constants,
    "concatenate of n": concatenated(1),
    "concatenate of n, second order": concatenated(2),
    "split into n": row_sums(lambda x: tape.split(x, len(x)), 1),
    "split into n, second order": row_sums(lambda x: tape.split(x, len(x)), 2),
    "iteration over n rows": row_sums(list, 1),
    "iteration over n rows, second order": row_sums(list, 2),
    "x[i] for n rows": row_sums(lambda x: [x[i] for i in range(len(x))], 1),
    "pickle of n nodes": pickled_graph,
    "load_state_dict, all names differ": load_state_dict_report,
    "state_dict and load_state_dict": state_dict_round_trip,
}


def best_seconds(call: Callable[[], None], rounds: int = 3) -> float:
    """The shortest of a few runs."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    print(f"{'microseconds per element, n =':<38}{''.join(f'{n:>10,}' for n in SIZES)}")
    for title, prepare in CASES.items():
        each = [best_seconds(prepare(n)) / n * 1e6 for n in SIZES]
        print(f"{title:<38}{''.join(f'{value:>10.2f}' for value in each)}", flush=True)


if __name__ == "__main__":
    main()
