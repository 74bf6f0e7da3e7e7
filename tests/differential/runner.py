"""Many programs by every route: what is counted, and a listing for each mismatch."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Callable

import numpy as np

from tests.differential import eager, mutation, static
from tests.differential.answers import Answer, Mismatch, by_reference, precision, trusted_orders
from tests.differential.draw import draw_program
from tests.differential.program import Program
from tests.differential.shrink import shrink

Route = Callable[[Program, Answer, int], None]


def all_routes() -> dict[str, Route]:
    """By name; PyTorch's among them where it is installed."""
    routes: dict[str, Route] = {**eager.ROUTES, **static.ROUTES, **mutation.ROUTES}
    try:
        from tests.differential import pytorch
    except ImportError:
        return routes
    return {**routes, "PyTorch": pytorch.check}


@dataclass
class Failure:
    """What one route said of one program."""

    route: str
    error: Exception
    program: Program
    others: tuple[str, ...] = ()         # routes that failed too

    @property
    def kind(self) -> str:
        """What a shorter program must have in common with this one."""
        if isinstance(self.error, Mismatch):
            what = re.split("got|, leaf|[^,:]*\\b[xctv][0-9]+", str(self.error))[0]
            return f"{self.route}: {what}"
        return f"{self.route}: {type(self.error).__name__}: {str(self.error).split(' ')[0]}"

    @property
    def signature(self) -> tuple:
        """Equal for failures that look alike."""
        return (self.kind, *sorted({step.operator for step in self.program.instructions
                                    if "mutation" not in self.kind}))

    def report(self) -> str:
        error = self.error if isinstance(self.error, Mismatch) else repr(self.error)
        routes = ", ".join([self.route, *self.others])
        return (f"--- program {self.program.seed}: {routes}\n{self.program.listing()}\n"
                f"# {str(error)}".replace("\n", "\n    "))


@dataclass
class Report:
    """Counts of a run."""

    programs: int = 0
    instructions: int = 0
    compared: Counter = field(default_factory=Counter)       # by route
    orders: Counter = field(default_factory=Counter)         # how far programs were compared
    failures: list[Failure] = field(default_factory=list)

    def text(self) -> str:
        lines = [f"{self.programs} programs, {self.instructions} instructions"]
        lines += [f"  compared to order {order}: {count}" if order >= 0 else
                  f"  skipped, too large or decided by rounding: {count}"
                  for order, count in sorted(self.orders.items())]
        lines += [f"  {route}: {count} programs" for route, count in self.compared.items()]
        return "\n".join([*lines, f"{len(self.failures)} mismatches"])


def orders_wanted(program: Program) -> int:
    """Three in float64; less precise numbers are good for the first alone."""
    return 3 if precision(program) == "float64" else 1


def check(program: Program, routes: dict[str, Route],
          report: Report | None = None) -> list[Failure]:
    """Run a program by all routes."""
    report = report or Report()
    failures = []
    with np.errstate(all="ignore"):
        try:
            answer = by_reference(program, orders_wanted(program))
            orders = trusted_orders(answer)
        except ArithmeticError:          # rounding would decide which way a choice goes
            orders = -1
        report.orders[orders] += 1
        for name, route in routes.items() if orders >= 1 else ():
            try:
                route(program, answer, orders)
            except Exception as error:           # whatever a route raises is a finding
                failures.append(Failure(name, error, program))
            report.compared[name] += 1
    return failures


def shortened(failure: Failure, routes: dict[str, Route]) -> Failure:
    """The same failure of a shorter program."""
    only = {failure.route: routes[failure.route]}

    def same(program: Program) -> list[Failure]:
        return [f for f in check(program, only) if f.kind == failure.kind]
    program = shrink(failure.program, lambda p: bool(same(p)))
    return (same(program) or [failure])[0]


def run(seed: int, programs: int | None = None, seconds: float | None = None,
        routes: dict[str, Route] | None = None, most_reports: int = 30,
        enough: Callable[[Failure], bool] = lambda failure: False, progress: Any = None) -> Report:
    """That many programs, or as many as this time allows.

    Of a program that fails by several routes the first is reported. Failures are reported once for
    each set of operators that the shortened program has. Stops after a failure that is `enough`.
    """
    routes = all_routes() if routes is None else routes
    report, clock, seen = Report(), _Clock(seconds, progress), set()
    while (programs is None or report.programs < programs) and clock.goes_on(report):
        program = draw_program(seed, report.programs)
        report.programs += 1
        report.instructions += len(program.instructions)
        found = check(program, routes, report)
        if not found:
            continue
        failure = replace(found[0], others=tuple(f.route for f in found[1:]))
        if len(seen) < most_reports:
            failure = replace(shortened(failure, routes), others=failure.others)
            if failure.signature not in seen and progress:
                print(failure.report(), file=progress, flush=True)
            seen.add(failure.signature)
        report.failures.append(failure)
        if enough(failure):
            break
    return report


class _Clock:
    """Says when the time is up, and every ten seconds how far the run has come."""

    def __init__(self, seconds: float | None, progress: Any):
        self.seconds, self.progress = seconds, progress
        self.start = self.last_report = time.monotonic()

    def goes_on(self, report: Report) -> bool:
        now = time.monotonic()
        if self.progress and now - self.last_report > 10:
            self.last_report = now
            print(f"{now - self.start:.0f} s: {report.programs} programs, "
                  f"{len(report.failures)} mismatches", file=self.progress, flush=True)
        return self.seconds is None or now - self.start < self.seconds
