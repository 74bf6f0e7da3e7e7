"""How the time of an operation grows with its size: the time per element must stay flat.

    python -m tests.bench.bench_growth

Each case prepares its data for a size n, which is not timed, and returns what is timed.
"""

from __future__ import annotations

import time
from typing import Callable

import numpy as np

import nn

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


CASES: dict[str, Callable[[int], Callable[[], None]]] = {
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
    print(f"{'microseconds per element, n =':<36}{''.join(f'{n:>10,}' for n in SIZES)}")
    for title, prepare in CASES.items():
        each = [best_seconds(prepare(n)) / n * 1e6 for n in SIZES]
        print(f"{title:<36}{''.join(f'{value:>10.2f}' for value in each)}", flush=True)


if __name__ == "__main__":
    main()
