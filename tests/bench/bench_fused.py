"""What each fused operator gains over its composed definition, forward and backward.

    python -m tests.bench.bench_fused           (the same as python -m tests.bench --only kernels)
"""

import numpy as np

import tape
from tape import Tensor
from tape.ops import fused, llama, recurrent
from tests.bench.sizes import KERNEL_INPUTS, TURNS


def composed_softmax(x):
    e = tape.exp(x - np.max(x.data, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def composed_rotation(x):
    (cos, sin), even, odd = TURNS, x[..., 0::2], x[..., 1::2]
    return tape.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


# Of each the operator, its definition by others, and their attributes.
KERNELS = {
    "layer_norm": (fused._layer_norm, fused._layer_norm.composed, {"eps": 1e-5}),
    "rms_norm": (llama._rms_norm, llama._rms_norm.composed, {"eps": 1e-5}),
    "swiglu": (tape.swiglu, tape.swiglu.composed, {}),
    "rotate_pairs": (lambda x: tape.rotate_pairs(x, *TURNS), composed_rotation, {}),
    "gelu": (tape.gelu, tape.gelu.composed, {}),
    "gelu_exact": (tape.gelu_exact, tape.gelu_exact.composed, {}),
    "softmax": (tape.softmax, composed_softmax, {}),
    "cross_entropy": (fused._cross_entropy, fused._cross_entropy.composed,
                      {"ignore_index": -1, "reduction": "mean"}),
    "causal_attention": (fused._causal_attention, fused._causal_attention.composed,
                         {"scale": 32 ** -0.5}),
    "rnn": (recurrent._rnn, recurrent._rnn.composed, {"steps": 64}),
    "gru": (recurrent._gru, recurrent._gru.composed, {"steps": 64}),
    "lstm": (recurrent._lstm, recurrent._lstm.composed, {"steps": 64}),
}


def both_ways(name, composed=False):
    """Forward and backward of one of KERNELS, or of its definition; the gradients of sum(out^2) / 2."""
    operator, definition, attributes = KERNELS[name]
    tensors = [Tensor(x, requires_grad=True) if x.dtype.kind == "f" else x
               for x in KERNEL_INPUTS[name]]
    out = (definition if composed else operator)(*tensors, **attributes)
    out.backward(out.data)
    return [t.grad for t in tensors if isinstance(t, Tensor)]


if __name__ == "__main__":
    from tests.bench.__main__ import main
    main(["--only", "kernels"])
