"""Two or more pieces of code timed in turn, so that a machine whose speed drifts drifts for all."""

from __future__ import annotations

import importlib.util
import statistics
import time
from typing import Callable


def installed(*peers: str) -> list[str]:
    """Those of the libraries that are installed; says which are not."""
    missing = [name for name in peers if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not installed, and so not compared with: {', '.join(missing)}\n")
    return [name for name in peers if name not in missing]


def in_turn(candidates: dict[str, Callable], rounds: int = 15) -> dict[str, list[float]]:
    """Seconds of each call of each candidate: A B C, A B C, ..., after one call to warm up."""
    for candidate in candidates.values():
        candidate()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]], scale: float, unit: str) -> None:
    """Median and best of each, and the median of its ratio to the first, round by round."""
    (reference, first), *_ = seconds.items()
    print(f"{title}, {unit}\n  {'':<24}{'median':>10}{'best':>10}   over {reference}")
    for name, values in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(first, values))
        print(f"  {name:<24}{statistics.median(values) * scale:>10.2f}{min(values) * scale:>10.2f}"
              f"{ratio:>{8 + len(reference)}.2f}")
    print()
