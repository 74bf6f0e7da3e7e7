"""What each fused operator gains over its composed definition, forward and backward.

    python -m tests.bench.bench_fused

Shapes are those of the default text model: 12 sequences of 64, width 128, 4 heads, 65 characters.
"""

import numpy as np

from tape import Tensor, kernels
from tape.ops import activations, fused
from tests.bench.timing import in_turn, report

rng = np.random.default_rng(0)


def draw(*shape):
    return Tensor(rng.standard_normal(shape, np.float32), requires_grad=True)


HEADS = [draw(12, 4, 64, 32) for _ in range(3)]
CASES = {
    "layer_norm": (fused._layer_norm, [draw(12, 64, 128), draw(128), draw(128)], {"eps": 1e-5}),
    "gelu": (activations.gelu, [draw(12, 64, 512)], {}),
    "cross_entropy": (fused._cross_entropy, [draw(12, 64, 65), rng.integers(0, 65, (12, 64))],
                      {"ignore_index": -1, "reduction": "mean"}),
    "causal_attention": (fused._causal_attention, HEADS, {"scale": 32 ** -0.5}),
}


def both_ways(function, inputs, attributes):
    out = function(*inputs, **attributes)
    out.backward(np.ones(out.shape, np.float32))
    for tensor in inputs:
        if isinstance(tensor, Tensor):
            tensor.grad = None


def plain_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def main():
    for name, (operator, inputs, attributes) in CASES.items():
        report(name, in_turn({
            "fused": lambda: both_ways(operator, inputs, attributes),
            "composed": lambda: both_ways(operator.composed, inputs, attributes)}), 1e3, "ms")
    x = rng.standard_normal((12, 4, 64, 64), np.float32)
    report("softmax forward", in_turn({
        "kernel": lambda: kernels.softmax(x),
        "composed": lambda: plain_softmax(x)}), 1e3, "ms")


if __name__ == "__main__":
    main()
