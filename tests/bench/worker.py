"""One case of the benchmark, by one library, in this process alone; prints its figures as JSON.

    python -m tests.bench.worker LIBRARY CASE SECONDS

A case is a function of the library and of the seconds to spend; it returns for each figure the median
of the calls and the best, which are far apart where other programs took the processors.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import numpy as np

from tests.bench.sizes import MODELS

# name -> (module, what of it, None for all); "tape" is this project.
LIBRARIES = {
    "tape": ("library_tape", None),
    "parallel": ("library_tape", "Parallel"),
    "processes": ("library_tape", "Processes"),
    "composed": ("library_tape", "Composed"),
    "numpy-kernels": ("library_tape", "NumpyKernels"),
    "numba-kernels": ("library_tape", "NumbaKernels"),
    "torch": ("library_torch", None),
    "compile": ("library_torch", "Compiled"),
    "jax": ("library_arrays", "Jax"),
    "autograd": ("library_arrays", "Autograd"),
    "mygrad": ("library_arrays", "MyGrad"),
}
LENGTH, DEEP, USES = 1_000, 20_000, 1_000

Timing = tuple[float, float]


def library(name: str) -> Any:
    """The library behind a name: a module, or an object that has the same functions."""
    module, part = LIBRARIES[name]
    found = importlib.import_module(f"tests.bench.{module}")
    return getattr(found, part)() if part else found


def timed(call: Callable[[], Any], seconds: float, scale: float) -> Timing:
    """Median and best of the calls that fit into so many seconds, at least three, times `scale`.

    The first calls, a tenth of the time, are not counted: libraries compile and start threads in them.
    """
    began, found = time.perf_counter(), list[float]()
    call()
    while time.perf_counter() - began < seconds / 10:
        call()
    while len(found) < 3 or sum(found) < seconds:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found) * scale, min(found) * scale


def train(lib: Any, seconds: float, model: str) -> dict[str, Timing]:
    return {f"step {model}, ms": timed(lib.training_step(MODELS[model]), seconds, 1e3)}


def write(lib: Any, seconds: float, model: str, tokens: int, block: int) -> dict[str, Timing]:
    """So many tokens behind one, by the model of that name with a block of that size."""
    call = lib.writing(replace(MODELS[model], block=block), tokens)
    middle, best = timed(call, seconds, 1 / tokens)
    name = model if block == MODELS[model].block else f"{model}, {tokens} at block {block}"
    return {f"generate {name}, tokens/s (more is better)": (1 / middle, 1 / best)}


def resident(key: str) -> float:
    """MiB that this process has in memory (VmRSS), or has had at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def memory(lib: Any, seconds: float, model: str) -> dict[str, Timing]:
    """The most that a process which does three steps has in memory; and what of it the steps added.

    The first is what a user of the library needs, with Python, the library and the model. For the
    second, two steps of the smallest model come first: they load what is loaded when it is needed.
    """
    first = lib.training_step(MODELS["smallest"])
    first(), first()
    step = lib.training_step(MODELS[model])
    loaded, before = resident("VmHWM"), resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")           # forget the peak so far: proc(5)
    for _ in range(3):
        step()
    peak = resident("VmHWM")
    return {f"peak memory, {model}, MiB": (max(loaded, peak),) * 2,
            f"peak memory that the steps add, {model}, MiB": (peak - before,) * 2}


def operators(lib: Any, seconds: float) -> dict[str, Timing]:
    """Chains of an operator, forward and backward; and operators alone."""
    rng, found, each = np.random.default_rng(0), {}, seconds / 19
    rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0].astype(np.float32)
    near_one = rng.uniform(0.999, 1.001, (16, 16)).astype(np.float32)
    chains = {"y * x": lambda y, x: y * x, "y + x": lambda y, x: y + x,
              "tanh": lambda y, x: lib.tanh(y), "y @ x": lambda y, x: y @ x}
    inputs = {"scalar": np.float32(1.0), "16 x 16": near_one}
    for name, f in chains.items():
        for shape, x in {"16 x 16": rotation}.items() if "@" in name else inputs.items():
            call = lib.differentiating(chain(f, LENGTH), [x])
            found[f"{shape} {name}, us"] = timed(call, each, 1e6 / LENGTH)
    for shape, x in inputs.items():
        call = lib.differentiating(lambda x, y: (x * y).sum() if x.ndim else x * y, [x, x])
        name = "x * y and its sum" if np.ndim(x) else "x * y alone"
        found[f"{shape} {name}, us"] = timed(call, each, 1e6)
    return found | alone(lib, each, 16)


def alone(lib: Any, each: float, size: int) -> dict[str, Timing]:
    """One operator on matrices of so many rows and columns, forward and backward from a gradient."""
    rng = np.random.default_rng(0)
    gradient = np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
    near_one = rng.uniform(0.999, 1.001, (size, size)).astype(np.float32)
    both, one, row = [near_one, gradient], [near_one], near_one[0]
    calls = {"x * y": (lambda x, y: x * y, both), "x / y": (lambda x, y: y / x, both),
             "x ** 3": (lambda x: x ** 3, one), "mean of rows": (lambda x: x.mean(-1), one, row),
             "x @ y": (lambda x, y: x @ y, both), "x.T": (lambda x: x.T, one),
             "relu": (lib.relu, one), "softmax": (lib.softmax, one),
             "layer norm": (lib.norm, [near_one, row]), "maximum": (lib.maximum, both),
             "where": (lambda x, y: lib.where(near_one > 1, x, y), both)}
    found = {}
    for name, (f, arrays, *given) in calls.items():
        call = lib.differentiating(f, arrays, *given or [gradient])
        found[f"{size:,} x {size:,} {name} alone, us"] = timed(call, each, 1e6)
    return found


def large(lib: Any, seconds: float) -> dict[str, Timing]:
    return alone(lib, seconds / 11, 1_024)


def chain(f: Callable, length: int) -> Callable:
    """x -> the sum of f(... f(f(x, x), x) ..., x)."""
    def run(x: Any) -> Any:
        y = x
        for _ in range(length):
            y = f(y, x)
        return y.sum() if y.ndim else y

    return run


def graphs(lib: Any, seconds: float) -> dict[str, Timing]:
    """A deep chain of scalars, one array used often, and the gradient of a table of rows."""
    rng = np.random.default_rng(0)
    deep = lib.differentiating(chain(lambda y, x: y * np.float32(0.9999), DEEP), [np.float32(1.0)])
    factors = list(rng.standard_normal(USES).astype(np.float32))
    uses = lib.differentiating(lambda x: sum((x * c for c in factors[1:]), x * factors[0]).sum(),
                               [rng.standard_normal((64, 64), np.float32)])
    ids = rng.integers(0, 10_000, 4_096)
    rows = lib.differentiating(lambda table: lib.look_up(table, ids).sum(),
                               [rng.standard_normal((10_000, 128), np.float32)])
    return {f"deep chain, {DEEP:,} operations, us each": timed(deep, seconds / 3, 1e6 / DEEP),
            f"fan-out, {USES:,} uses of 64 x 64, us each": timed(uses, seconds / 3, 1e6 / USES),
            "embedding, 4,096 of 10,000 x 128, ms": timed(rows, seconds / 3, 1e3)}


def kernels(lib: Any, seconds: float) -> dict[str, Timing]:
    calls = lib.kernels()
    return {f"kernel {name}, ms": timed(call, seconds / len(calls), 1e3)
            for name, call in calls.items()}


ALL = ("tape", "torch", "jax", "autograd", "mygrad")
# name -> (function, its arguments, the libraries that have it).
CASES: dict[str, tuple[Callable, tuple, tuple[str, ...]]] = {
    **{f"step-{model}": (train, (model,), (*ALL, "parallel", "processes", "compile"))
       for model in MODELS},
    "generate": (write, ("cpu", 63, 64), ("tape", "torch")),
    "generate-256": (write, ("cpu", 256, 256), ("tape", "torch")),
    **{f"memory-{model}": (memory, (model,), (*ALL, "parallel")) for model in ("cpu", "mid")
       if Path("/proc/self/clear_refs").exists()},          # Linux
    "operators": (operators, (), ALL),
    "large": (large, (), ALL),
    "graphs": (graphs, (), ALL),
    "kernels": (kernels, (), ("tape", "composed", "numpy-kernels", "numba-kernels", "torch")),
}

if __name__ == "__main__":
    name, case, budget = sys.argv[1:]
    function, arguments, _ = CASES[case]
    print(json.dumps(function(library(name), float(budget), *arguments)))
