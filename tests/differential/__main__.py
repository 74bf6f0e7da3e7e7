"""``python -m tests.differential --seconds 600 --seed 0``"""

from __future__ import annotations

import argparse
import sys

from tests.differential.runner import run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=None, help="how long to run")
    parser.add_argument("--programs", type=int, default=None, help="or how many programs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    seconds = 60.0 if options.seconds is None and options.programs is None else options.seconds
    report = run(options.seed, options.programs, seconds, progress=sys.stderr)
    print(f"seed {options.seed}: {report.text()}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
