"""Which kernels are in use: python -m tape.kernels"""

from __future__ import annotations

from tape.blas import blas_library
from tape.kernels import choice


def report() -> str:
    """The set in use and why, and the BLAS; of each kernel its set, and whether it is compiled."""
    kernels = {name: choice.find(name) for name in choice.KERNELS}
    lines, folders = [], set()
    for name, kernel in kernels.items():
        compiled = kernel.__module__.startswith("tape.kernels.numba.")
        lines.append(f"{name:27}{'numba' if compiled else 'numpy'}")
        if compiled:
            from tape.kernels.numba.compiled import LOOPS
            folder, cached = LOOPS["_" + name].cached()
            folders.add(f"in {folder}" if folder else
                        "for this run alone: no folder for it is writable (NUMBA_CACHE_DIR in the "
                        "environment can name one)")
            lines[-1] += "    compiled" if cached else "    is compiled at its first use"
    lines += [f"compiled code is kept {place}" for place in sorted(folders)]
    name, reason = choice.in_use()
    threads = choice.kernel_threads()
    with_threads = f", with {threads} threads where they are large" if threads > 1 else ""
    return "\n".join([f"in use: {name} ({reason}){with_threads}",
                      f"NumPy's matrix products: {blas_library()}", "", *lines])


if __name__ == "__main__":
    print(report())
