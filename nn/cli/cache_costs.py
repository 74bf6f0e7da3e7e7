"""What a token costs behind T others, with the keys and values kept and without: measured, drawn.

With them a token has T scores in each head, so that T tokens cost O(T^2); without, the whole text is
computed anew, with T^2 scores, and T tokens cost O(T^3).
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Sequence

import numpy as np

from nn.generation.reader import Reader
from nn.models.gpt import GPT, GPTConfig

LENGTHS = (1024, 2048, 4096, 8192, 16384)
STEPS = 15              # tokens timed behind each length, with the cache; the median counts
# One block, narrow: the scores soon cost more than what does not depend on the length.
MODEL = GPTConfig(65, 1, n_layer=1, n_head=4, n_embd=64, bias=False, position="none")
FORMS = ("with the cache", "without")


@dataclass(frozen=True)
class Costs:
    """What the next token took behind each of `lengths` tokens, 1 the first of them, in seconds."""

    lengths: list[int]
    seconds: list[float]

    def whole(self) -> list[float]:
        """For each length, what so many tokens take together: the sum, by the trapezoid rule."""
        lengths, seconds = np.array(self.lengths), np.array(self.seconds)
        pieces = np.diff(lengths) * (seconds[1:] + seconds[:-1]) / 2
        return (np.concatenate([[0], np.cumsum(pieces)]) + seconds[0]).tolist()

    def exponent(self) -> float | None:
        """p, where the cost of a token is fixed + c length^p, by least squares on logarithms.

        Fixed is the cost of the first token. Over the lengths from an eighth of the longest on where a
        token costs twice as much: of less, what is beyond the fixed cost is mostly noise. None where
        these are fewer than two.
        """
        fixed = self.seconds[0]
        grown = [(n, t - fixed) for n, t in zip(self.lengths, self.seconds, strict=True)
                 if n >= max(self.lengths) / 8 and t >= 2 * fixed]
        if len(grown) < 2:
            return None
        lengths, seconds = np.log(np.array(grown)).T
        return float(np.polyfit(lengths, seconds, 1)[0])


def compare_cache(lengths: Sequence[int], picture: Path | None) -> None:
    """Measure both forms at each length, print a row for each, fit, and draw."""
    lengths = sorted({1, *lengths})
    print(f"{title()}\n\n{'':>8}" + "".join(f"{name:^26}" for name in FORMS) + f"{'times':>10}\n"
          f"{'tokens':>8}" + f"{'a token':>13}{'all so far':>13}" * 2 + f"{'faster':>10}", flush=True)
    measured: tuple[list[float], list[float]] = ([], [])
    for length in lengths:
        if sys.stderr.isatty():
            print(f"measuring {length:,} tokens", end="\r", file=sys.stderr, flush=True)
        for seconds, found in zip(measured, step_seconds(length), strict=True):
            seconds.append(found)
        both = [Costs(lengths[:len(seconds)], seconds) for seconds in measured]
        cells = [f"{shown(costs.seconds[-1]):>13}{shown(costs.whole()[-1]):>13}" for costs in both]
        ratio = both[1].whole()[-1] / both[0].whole()[-1]
        print(f"{length:>8,}" + "".join(cells) + f"{ratio:>10.1f}", flush=True)
    print()
    for name, costs in zip(FORMS, both, strict=True):
        power = costs.exponent()
        print(f"{name + ':':16}" + (
            "the lengths are too short to see the cost of a token grow" if power is None else
            f"a token {shown(costs.seconds[0])} and what grows as T^{power:.2f}; T tokens as "
            f"T^{power + 1:.2f}"))
    print("\nExpected: T and T^2 with the cache, T^2 and T^3 without. All so far is the sum\n"
          "over the tokens, by the trapezoid rule between the rows.")
    if picture is not None:
        draw(picture, both)
        print(f"saved {picture}", file=sys.stderr)


def step_seconds(length: int) -> tuple[float, float]:
    """Seconds for the token behind so many, with the cache and without."""
    model = GPT(replace(MODEL, block_size=length + STEPS + 1), rng=0)
    text = [(np.arange(length + STEPS + 1) % 65).tolist()]
    kept, plain = Reader(model), Reader(model, use_cache=False)
    kept.read(text, length)
    with_cache, without = list[float](), list[float]()
    for i in range(1, STEPS + 1):
        start = time.perf_counter()
        kept.read(text, length + i)
        with_cache.append(time.perf_counter() - start)
    while len(without) < 3 and sum(without) < 0.5:
        start = time.perf_counter()
        plain.read(text, length + 1)
        without.append(time.perf_counter() - start)
    return statistics.median(with_cache), min(without)


def shown(seconds: float) -> str:
    """With a unit: 0.21 ms, 3.5 s, 1.2 h."""
    for unit, size, digits in (("h", 3600, 1), ("s", 1, 2)):
        if seconds >= size:
            return f"{seconds / size:,.{digits}f} {unit}"
    return f"{seconds * 1e3:.2f} ms"


def title() -> str:
    return (f"Writing with an untrained GPT of {MODEL.n_layer} block, {MODEL.n_head} heads, "
            f"{MODEL.n_embd} wide")


def draw(path: Path, both: Sequence[Costs]) -> None:
    """The time of a token and of all so far against the length, on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(title())
    for axes, label in zip(figure.subplots(1, 2), ("a token", "all tokens so far")):
        for name, costs, marker in zip(FORMS, both, "os"):
            power = costs.exponent()
            values = costs.seconds if label == "a token" else costs.whole()
            grows = "" if power is None else f", grows as T$^{{{power + (label != 'a token'):.2f}}}$"
            axes.plot(costs.lengths[1:], values[1:], marker=marker, label=name + grows)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(both[0].lengths[1:], [f"{n:,}" for n in both[0].lengths[1:]])
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.minorticks_off()
        axes.set_xlabel("length of the text, T (tokens)")
        axes.set_ylabel(f"time of {label} (s)")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)
