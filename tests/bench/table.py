"""The figures of the benchmark as a table, and what moved between two of them."""

from __future__ import annotations

from statistics import median

from tests.bench.rounds import Figures
from tests.bench.worker import Timing

LEAST = 0.05            # a smaller change of a median is not reported
DISTURBED = 1.5         # a median so many times the best is marked
NOTE = f"""A cell is a median, then tape / peer (lowest-highest of the rounds), where parallel is tape
with nn.DataParallel, processes the same with processes=True, and the best of the three is compared with
the others. With * the calls within a process were uneven, the median over {DISTURBED} times the best:
other programs had the processors."""
OURS = "parallel", "processes"


def short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def medians(timings: list[Timing]) -> list[float]:
    return [middle for middle, _ in timings]


def ratios(values: dict[str, list[Timing]], peer: str) -> list[float]:
    """tape / peer, round by round; of plain and DataParallel the best, beside a library not ours."""
    ours = medians(values["tape"])
    if peer not in OURS:
        ours = [min(several) for several in zip(ours, *(
            medians(values[name]) for name in OURS if name in values))]
    return [own / theirs for own, theirs in zip(ours, medians(values[peer]))]


def figure_of(timings: list[Timing]) -> str:
    """The median of the rounds, marked where one was disturbed."""
    uneven = any(max(middle / best, best / middle) > DISTURBED for middle, best in timings if best)
    return short(median(medians(timings))) + "*" * uneven


def cell(values: dict[str, list[Timing]], peer: str) -> str:
    if peer not in values:
        return ""
    found = ratios(values, peer)
    return f"{figure_of(values[peer])}: {median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def table(figures: Figures) -> str:
    """One row a figure: ours, then each peer's median with the ratio of ours to it."""
    peers = list(dict.fromkeys(name for values in figures.values() for name in values
                               if name != "tape"))
    rows = [["figure", "tape", *peers], ["---"] * (len(peers) + 2)]
    for figure, values in figures.items():
        ours = medians(values["tape"])
        rows.append([figure,
                     f"{figure_of(values['tape'])} ({short(min(ours))}-{short(max(ours))})",
                     *(cell(values, peer) for peer in peers)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def moved(old: list[float], new: list[float]) -> bool:
    """Whether the medians differ by more than LEAST and no two rounds of old and new overlap."""
    apart = max(old) < min(new) or max(new) < min(old)
    return apart and abs(median(new) / median(old) - 1) > LEAST


def comparison(old: Figures, new: Figures) -> str:
    """The figures of ours, and their ratios to the peers, that moved from one run to another.

    Where the machine was slower all times have moved, and the ratios have not.
    """
    lines = []
    for figure in (name for name in new if name in old):
        series = {"tape": (medians(old[figure]["tape"]), medians(new[figure]["tape"]))}
        series |= {f"tape / {peer}": (ratios(old[figure], peer), ratios(new[figure], peer))
                   for peer in new[figure] if peer != "tape" and peer in old[figure]}
        lines += [f"{figure}: {title} {short(median(a))} -> {short(median(b))} "
                  f"({median(b) / median(a) - 1:+.0%})"
                  for title, (a, b) in series.items() if moved(a, b)]
    both = sum(name in old for name in new)
    return "\n".join([f"moved, of {both} figures that both have:", *(lines or ["nothing"])])
