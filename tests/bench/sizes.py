"""The models whose training step is timed, and what every library starts from: weights and a batch.

All are GPTs with tied output weights, no biases and the GELU by its tanh. NumPy alone is imported
here, so that a process in which a peer is timed has nothing of ours in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# AdamW, and the largest norm of the gradients. The matrices alone decay.
LR, BETAS, EPS, DECAY, CLIP = 1e-3, (0.9, 0.99), 1e-8, 0.1, 1.0


@dataclass(frozen=True)
class Sizes:
    layers: int
    heads: int
    width: int
    block: int
    batch: int
    vocabulary: int


MODELS = {
    "smallest": Sizes(1, 4, 16, 16, 1, 27),
    "seed": Sizes(1, 1, 32, 16, 10, 64),
    "cpu": Sizes(4, 4, 128, 64, 12, 65),
    "mid": Sizes(6, 6, 192, 128, 16, 65),
    "baby": Sizes(6, 6, 384, 256, 8, 65),
}


def weights(sizes: Sizes) -> dict[str, np.ndarray]:
    """Initial values under the names of `nn.GPT`; a matrix is (n_in, n_out), a table (ids, width)."""
    rng, C = np.random.default_rng(0), sizes.width
    shapes: dict[str, tuple[int, ...]] = {"tokens.weight": (sizes.vocabulary, C),
                                          "positions.weight": (sizes.block, C)}
    for i in range(sizes.layers):
        of_block = {"norm1": (C,), **{f"attention.{part}": (C, C) for part in (
            "query", "key", "value", "output")},
            "norm2": (C,), "feed_forward.hidden": (C, 4 * C), "feed_forward.output": (4 * C, C)}
        shapes |= {f"blocks.{i}.{name}.weight": shape for name, shape in of_block.items()}
    shapes["norm.weight"] = (C,)
    return {name: (np.ones(shape, np.float32) if len(shape) == 1 else
                   rng.normal(0, 0.02, shape).astype(np.float32)) for name, shape in shapes.items()}


def batch(sizes: Sizes) -> np.ndarray:
    """Ids and targets, (2, B, T)."""
    return np.random.default_rng(1).integers(0, sizes.vocabulary, (2, sizes.batch, sizes.block))


def differentiating(f, leaves, *gradient):
    """A call that finds f and its gradients, of leaves with `grad` and results with `backward`.

    It begins with 1, or with the gradient of a result that is no number.
    """
    def differentiate():
        for leaf in leaves:
            leaf.grad = None
        f(*leaves).backward(*gradient)
        return [leaf.grad for leaf in leaves]

    return differentiate


def _draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


# Cosines and sines of the angles that a head is turned by.
TURNS = np.cos(_draw(64, 16)), np.sin(_draw(64, 16))
# The inputs of the operators with kernels, in the default text model ("cpu").
KERNEL_INPUTS: dict[str, list[np.ndarray]] = {
    "layer_norm": [_draw(12, 64, 128), _draw(128), _draw(128)],
    "rms_norm": [_draw(12, 64, 128), _draw(128)],
    "swiglu": [_draw(12, 64, 341), _draw(12, 64, 341)],
    "rotate_pairs": [_draw(12, 4, 64, 32)],
    "gelu": [_draw(12, 64, 512)],
    "gelu_exact": [_draw(12, 64, 512)],
    "softmax": [_draw(12, 4, 64, 64)],
    "cross_entropy": [_draw(12, 64, 65), np.random.default_rng(0).integers(0, 65, (12, 64))],
    "causal_attention": [_draw(12, 4, 64, 32) for _ in range(3)],
    "rnn": [_draw(64, 12, 388), _draw(388, 388) / 20, _draw(12, 388)],
    "gru": [_draw(64, 12, 756), _draw(252, 756) / 20, _draw(252), _draw(12, 252)],
    "lstm": [_draw(64, 12, 880), _draw(220, 880) / 20, _draw(12, 220), _draw(12, 220)],
}
