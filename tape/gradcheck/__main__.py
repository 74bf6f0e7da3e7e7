"""Check the derivatives of every operator against central differences, and print a table."""

from __future__ import annotations

import argparse
import sys
from typing import Sequence

from tape.errors import did_you_mean
from tape.gradcheck import cases
from tape.gradcheck.checker import worst_error


def main(argv: Sequence[str] = ()) -> int:
    """Check every operator, or those named, and print the table. Returns 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m tape.gradcheck", description=__doc__)
    parser.add_argument("operators", nargs="*", help="names to check (default: all)")
    wanted = parser.parse_args(argv).operators
    known = {case.operator for case in cases.CASES}
    for name in wanted:
        if name not in known:
            parser.error(f"unknown operator {name!r}{did_you_mean(name, known)}")
    chosen = [case for case in cases.CASES if not wanted or case.operator in wanted]
    print("derivatives against central differences in float64; a pass is 1e-6 or less, relative\n")
    print(f"  {'operator':<28}{'1st order':>12}{'2nd order':>12}")
    failed = []
    for case in chosen:
        errors = [worst_error(case.function, case.inputs(), order).error for order in (1, 2)]
        passed = all(error <= 1e-6 for error in errors)
        failed += [] if passed else [case.name]
        star = "*" if case.name in cases.EIGHT else " "
        print(f"{star} {case.name:<28}{errors[0]:>12.1e}{errors[1]:>12.1e}   "
              f"{'pass' if passed else 'FAIL'}")
    print(f"\n{len(chosen) - len(failed)} passed, {len(failed)} failed"
          f"{': ' + ', '.join(failed) if failed else ''}    (* the eight of the README)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
