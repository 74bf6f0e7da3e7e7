"""Each kernel of both sets alone, on arrays, forward and backward: what a call costs.

    python -m tests.bench.bench_kernels
"""

import timeit

import numpy as np

from tape import kernels
from tape.kernels import numba as compiled

SHAPES = (160, 32), (768, 65), (768, 128), (768, 512), (2048, 768)
ROUNDS, SECONDS = 5, 0.02


def calls(rows, width):
    """name -> a call by NumPy's kernel, and one by the compiled."""
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, rows, width), np.float32)
    weight, bias = rng.standard_normal((2, width), np.float32)
    picks, one = rng.integers(0, width, rows), np.float32(1)
    of_loss, of_norm = (picks, -1, "mean"), (weight, bias)
    s = kernels.gelu(x)[1]
    found = {
        "gelu": [lambda k=k: k.gelu(x) for k in (kernels, compiled)],
        "gelu_backward": [lambda: kernels.gelu_backward(g, x, **s),
                          lambda: compiled.gelu_backward(g, x)],
        "gelu_exact": [lambda k=k: k.gelu_exact(x) for k in (kernels, compiled)],
        "softmax": [lambda k=k: k.softmax(x) for k in (kernels, compiled)],
    }
    for name, arguments, cotangent in (("layer_norm", of_norm, g), ("cross_entropy", of_loss, one)):
        extra = (1e-5,) if name == "layer_norm" else ()
        found[name] = [lambda f=getattr(k, name), a=arguments + extra: f(x, *a)
                       for k in (kernels, compiled)]
        found[name + "_backward"] = [
            lambda f=getattr(k, name + "_backward"), h=cotangent, a=arguments,
            kept=getattr(k, name)(x, *arguments, *extra)[1]: f(h, x, *a, **kept)
            for k in (kernels, compiled)]
    return found


def best(pair):
    """The best time of each of two calls, in us, in turn."""
    times = [[], []]
    for call in pair:
        call()
    once = max(timeit.timeit(pair[0], number=1), 1e-6)
    number = max(1, int(SECONDS / once))
    for _ in range(ROUNDS):
        for i, call in enumerate(pair):
            times[i].append(timeit.timeit(call, number=number) / number * 1e6)
    return [min(found) for found in times]


if __name__ == "__main__":
    print("| kernel | rows x width | NumPy, us | Numba, us | ratio |\n|---|---|---|---|---|")
    for shape in SHAPES:
        for name, pair in calls(*shape).items():
            numpys, numbas = best(pair)
            print(f"| `{name}` | {shape[0]} x {shape[1]} | {numpys:.1f} | {numbas:.1f} | "
                  f"{numbas / numpys:.2f} |", flush=True)
