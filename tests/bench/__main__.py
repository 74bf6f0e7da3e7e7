"""The benchmark: this project against each other library that is installed.

    python -m tests.bench [--only NAMES] [--rounds N] [--save FILE.json] [--compare OLD.json]

Each case runs in a process of its own, started cold and in turn with the others. Ours imports `nn`, as
a user's program does, and makes no settings. A figure is the median of the rounds, with the lowest
and highest; a ratio is that of ours to the other's, below 1 where ours takes less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from tape.blas import blas_library
from tests.bench import rounds as runner
from tests.bench.table import NOTE, comparison, table
from tests.bench.worker import CASES

# Variables that begin so change the threads, the memory or the machine code of some library.
SETTINGS = ("OPENBLAS_", "OMP_", "MKL_", "KMP_", "BLIS_", "VECLIB_", "NPY_", "NUMBA_", "MALLOC_",
            "ATEN_", "DNNL_", "ONEDNN_", "TORCH", "TAPE_")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME",
                        help=f"cases, or how they begin: {', '.join(CASES)}")
    parser.add_argument("--libraries", nargs="+", metavar="NAME",
                        help="compare with these alone, of those that are installed")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0,
                        help="to spend on timing in each process (default: %(default)s)")
    parser.add_argument("--save", type=Path, metavar="FILE.json")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="print what moved since")
    given = parser.parse_args(argv)
    if given.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {given.rounds}")
    try:
        runner.chosen(given.only)
    except ValueError as error:
        parser.error(str(error))
    missing = sorted(set(given.libraries or ()) - set(runner.installed()))
    if missing:
        parser.error(f"--libraries names libraries that are installed, got {', '.join(missing)}; "
                     f"installed are {', '.join(runner.installed())}")
    return given


def machine() -> dict[str, str]:
    """What the figures depend on, for the head of the table."""
    packages = {name: runner.NEEDS.get(name, name) for name in runner.installed()}
    return {
        "processors": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                          else os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {metadata.version(name)}"
                               for name in sorted(set(packages.values()))),
        "NumPy's products": blas_library(),
        "set in the environment": ", ".join(
            f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)
        ) or "nothing that a library reads",
    }


def main(argv: list[str] | None = None) -> None:
    given = arguments(argv)
    old = json.loads(given.compare.read_text())["figures"] if given.compare else None
    libraries = [name for name in runner.installed()
                 if not given.libraries or name in ("tape", *given.libraries)]
    about = {**machine(), "load before": f"{os.getloadavg()[0]:.1f}"}
    figures = runner.measure(runner.chosen(given.only), libraries, given.rounds, given.seconds)
    about["load after"] = f"{os.getloadavg()[0]:.1f}, of which this is about 1 to 2"
    if given.save:
        given.save.write_text(json.dumps({"machine": about, "rounds": given.rounds,
                                          "figures": figures}, indent=1) + "\n")
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    print(f"rounds: {given.rounds}\n\n{NOTE}\n")
    print(table(figures))
    if old is not None:
        print("\n" + comparison(old, figures))


if __name__ == "__main__":
    main(sys.argv[1:])
