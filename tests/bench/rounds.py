"""The cases of the benchmark, each by each library in a new process, in turn, round by round."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import time

from tests.bench.worker import CASES, LIBRARIES, Timing

# What must be installed for a library, where it is not its own name.
NEEDS = {**dict.fromkeys(("tape", "parallel", "processes", "composed", "numpy-kernels"), "numpy"),
         "numba-kernels": "numba", "compile": "torch"}
# figure -> library -> median and best of each round.
Figures = dict[str, dict[str, list[Timing]]]


def installed() -> list[str]:
    return [name for name in LIBRARIES if importlib.util.find_spec(NEEDS.get(name, name))]


def chosen(only: list[str]) -> list[str]:
    """The cases whose name is one of `only` or starts with one; all where none is given."""
    for name in only:
        if not any(case.startswith(name) for case in CASES):
            raise ValueError(f"--only names cases, got {name!r}; they are {', '.join(CASES)}")
    return [case for case in CASES if not only or case.startswith(tuple(only))]


def run(case: str, library: str, seconds: float) -> dict[str, Timing]:
    """The figures of one case by one library, in a new process with the environment of this one."""
    done = subprocess.run([sys.executable, "-m", "tests.bench.worker", library, case, str(seconds)],
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


class Progress:
    """Says after each turn how long it took and about how long all the others will."""

    def __init__(self, turns: list[tuple[str, str]], rounds: int):
        self.turns, self.rounds = turns, rounds
        self.took: dict[tuple[str, str], float] = {}

    def done(self, number: int, turn: tuple[str, str], seconds: float) -> None:
        self.took[turn] = seconds
        usual = sum(self.took.values()) / len(self.took)
        place = self.turns.index(turn)
        left = sum(self.took.get(other, usual) * (self.rounds - number - (i <= place))
                   for i, other in enumerate(self.turns))
        print(f"round {number + 1} of {self.rounds}, {', '.join(turn)}: {seconds:.1f} s; "
              f"about {left / 60:.1f} min left", file=sys.stderr, flush=True)


def measure(cases: list[str], libraries: list[str], rounds: int, seconds: float) -> Figures:
    """All rounds, or those before Ctrl-C. In each, the libraries take turns case by case.

    A peer that fails is left out; where ours fails, the error is raised.
    """
    found: Figures = {}
    turns = [(case, name) for case in cases for name in libraries if name in CASES[case][2]]
    progress, failed = Progress(turns, rounds), set()
    try:
        for number, turn in itertools.product(range(rounds), turns):
            start = time.perf_counter()
            try:
                figures = {} if turn in failed else run(*turn, seconds)
            except RuntimeError as error:
                if turn[1] == "tape":
                    raise
                figures = {}
                failed.add(turn)
                print(f"{turn[0]}: {turn[1]} left out: {error}", file=sys.stderr, flush=True)
            for figure, value in figures.items():
                found.setdefault(figure, {}).setdefault(turn[1], []).append(value)
            progress.done(number, turn, time.perf_counter() - start)
    except KeyboardInterrupt:
        print("interrupted: the table is of what was measured before", file=sys.stderr)
    return found
