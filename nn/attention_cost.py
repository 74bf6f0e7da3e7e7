"""python -m nn.attention_cost: what attention costs with the length, weights kept and block by block.

Time and peak memory of the forward and backward of causal self-attention on one sequence, for
`tape.causal_attention`, which keeps the (T, T) weights of each head, and for `tape.attention`, which
never has more than a block of them. The memory is what is allocated besides q, k and v, by Python's
tracemalloc, to which NumPy reports its arrays: the same number at every run.
"""

from __future__ import annotations

import math
import os
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Sequence

import numpy as np

import tape
from nn.cli.flags import Parser, file_path, flag, number
from nn.cli.picture import check_picture
from nn.cli.script import UsageError, run
from tape import Tensor

MIB = 2 ** 20
TOLERANCE = 1e-5                # in float32, for queries, keys, values and cotangents of variance 1
FORMS: dict[str, Callable[..., Tensor]] = {
    "plain": tape.causal_attention, "blockwise": lambda q, k, v: tape.attention(q, k, v, causal=True)}


@dataclass(frozen=True)
class Flags:
    lengths: Sequence[int] = flag("tokens", tuple(2 ** n for n in range(7, 14)),
                                  convert=number(int, 1), nargs="+", metavar="N")
    heads: int = flag("attention heads", 4, low=1)
    width: int = flag("of all heads together", 128, low=1)
    repeats: int = flag("runs, of which the shortest is shown", 3, low=1)
    memory_limit: float | None = flag("GiB that the plain form may take; by default what is free",
                                      above=0)
    save: Path | None = flag("picture to write (.png, .pdf, .svg); needs matplotlib", convert=file_path,
                             metavar="FILE")


@dataclass
class Costs:
    """What one of the forms took, by length: seconds, and bytes at the peak."""

    seconds: dict[int, float] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)

    def exponent(self) -> tuple[float, int] | None:
        """p where memory grows as length^p, by least squares on logarithms, and from which length on.

        Over the lengths from an eighth of the longest on, since blocks do not fill up below. None
        where that is one length.
        """
        lengths = [n for n in self.memory if n >= max(self.memory) / 8]
        if len(lengths) < 2:
            return None
        slope, _ = np.polyfit(np.log(lengths), np.log([self.memory[n] for n in lengths]), 1)
        return float(slope), min(lengths)


def measure(form: Callable[..., Tensor], shape: tuple, repeats: int) -> tuple[list, float, int]:
    """The result and the gradients of q, k, v; the shortest time; the peak of memory."""
    rng = np.random.default_rng(shape)                                   # q, k, v, g (H, T, D)
    *leaves, g = (Tensor(rng.standard_normal(shape, np.float32), requires_grad=True) for _ in range(4))

    def forward_and_backward() -> list[np.ndarray]:
        for leaf in leaves:
            leaf.grad = None
        out = form(*leaves)
        out.backward(g.data)
        return [out.numpy(), *(np.asarray(leaf.grad) for leaf in leaves)]

    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = forward_and_backward()
        times.append(time.perf_counter() - start)
    tracemalloc.start()
    forward_and_backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found, min(times), peak


def compare(o: Flags) -> int:
    """Measure both forms at each length, print a row for each, draw them; returns the exit status."""
    if o.width % o.heads:
        raise UsageError(f"--heads must divide --width, got {o.heads} and {o.width}")
    check_picture(o.save, "--save")
    print(f"{title(o)}\n\n"
          f"{'':8}{'plain':>26}{'blockwise':>26}{'largest':>13}\n"
          f"{'tokens':>8}{'time':>13}{'memory':>13}{'time':>13}{'memory':>13}{'difference':>13}")
    costs: dict[str, Costs] = {name: Costs() for name in FORMS}
    worst = 0.0
    for length in sorted(set(o.lengths)):
        worst = max(worst, row(o, length, costs))
    print()
    for name, cost in costs.items():
        fit = cost.exponent()
        if fit:
            print(f"{name}: memory grows as length^{fit[0]:.2f}, fitted from {fit[1]:,} tokens on")
    if o.save is not None:
        draw(o.save, o, costs)
        print(f"saved {o.save}")
    if not worst < TOLERANCE:
        print(f"the results or gradients of the two differ by {worst:.1e}: that is not rounding",
              file=sys.stderr)
        return 1
    return 0


def row(o: Flags, length: int, costs: dict[str, Costs]) -> float:
    """Print what one length costs, cell by cell; returns the largest difference between the forms."""
    needed, limit = plain_needs(o.heads, length), memory_limit(o)
    print(f"{length:8,}", end="", flush=True)
    results, note = [], ""
    for name, form in FORMS.items():
        if name == "plain" and needed > limit:
            note = f"  plain skipped: needs about {in_units(needed)}, may take {in_units(limit)}"
            print(f"{'-':>13}{'-':>13}", end="", flush=True)
            continue
        found, seconds, peak = measure(form, (o.heads, length, o.width // o.heads), o.repeats)
        results.append(found)
        costs[name].seconds[length], costs[name].memory[length] = seconds, peak
        print(f"{seconds * 1e3:10,.1f} ms{peak / MIB:9,.1f} MiB", end="", flush=True)
    if note:
        print(f"{'-':>13}{note}", flush=True)
        return 0.0
    difference = max(float(np.abs(a - b).max()) for a, b in zip(*results, strict=True))
    print(f"{difference:13.1e}", flush=True)
    return difference


def plain_needs(heads: int, length: int) -> float:
    """Bytes: the weights of each head."""
    return length ** 2 * heads * 4


def memory_limit(o: Flags) -> float:
    """Bytes that the plain form may take: what was asked for, or else what is free."""
    return free_memory() if o.memory_limit is None else o.memory_limit * 1024 * MIB


def free_memory() -> float:
    """Bytes that can be had without swapping, where the system says so; else half of all there are."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, ValueError, OSError):            # as on Windows
        return math.inf


def in_units(count: float) -> str:
    return f"{count / MIB:.1f} MiB" if count < 1024 * MIB else f"{count / MIB / 1024:,.1f} GiB"


def title(o: Flags) -> str:
    return f"Causal attention, {o.heads} heads of {o.width // o.heads}, float32, forward and backward"


def draw(path: Path, o: Flags, costs: dict[str, Costs]) -> None:
    """Time and memory against length, a line for each form, on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(title(o))
    left, right = figure.subplots(1, 2)
    lengths = sorted(set(o.lengths))
    for axes, label in ((left, "time (ms)"), (right, "peak memory (MiB)")):
        for (name, cost), marker, colour in zip(costs.items(), "os", ("C0", "C1")):
            if not cost.memory:              # skipped at every length
                continue
            values = [1e3 * t for t in cost.seconds.values()] if axes is left else [
                m / MIB for m in cost.memory.values()]
            fit = cost.exponent()
            power = f", grows as length$^{{{fit[0]:.2f}}}$" if axes is right and fit else ""
            axes.plot([*cost.memory], values, marker=marker, color=colour, label=name + power)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths], rotation=45)
        axes.minorticks_off()
        axes.set_xlabel("length of the sequence (tokens)")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def parser() -> Parser:
    return Parser("python -m nn.attention_cost", Flags,
                  "What causal attention costs with the length of the sequence: with the weights kept "
                  "(plain), and block by block.")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit status: 0, 1 where the forms differ, 2 for a mistake in the flags."""
    arguments = sys.argv[1:] if argv is None else argv
    return run("nn.attention_cost", lambda: compare(parser().parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
