"""What the configurations of models share: their checks, and the shapes of common parts.

The shapes are known without making the model, so that a file can be checked before memory is
taken for it.
"""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

Shapes = Iterator[tuple[str, tuple[int, ...]]]      # (name, shape) of parameters


def check_sizes(config: Any, *names: str) -> None:
    """Refuse sizes in a configuration that are not positive, and heads that do not fill the width."""
    kind = type(config).__name__
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{kind}: {name} must be a positive integer, got {value!r}")
    if config.n_embd % config.n_head:
        raise ValueError(f"{kind}: n_head must divide n_embd, got {config.n_head} and {config.n_embd}")


def linear_shapes(name: str, n_in: int, n_out: int, bias: bool = True) -> Shapes:
    """Of a `Linear`."""
    yield f"{name}.weight", (n_in, n_out)
    if bias:
        yield f"{name}.bias", (n_out,)


def norm_shapes(name: str, d: int, bias: bool = True) -> Shapes:
    """Of a `LayerNorm`."""
    yield f"{name}.weight", (d,)
    if bias:
        yield f"{name}.bias", (d,)


def block_shapes(n_layer: int, d: int, bias: bool = True) -> Shapes:
    """Of a stack of `TransformerBlock`."""
    for i in range(n_layer):
        name = f"blocks.{i}"
        yield from norm_shapes(f"{name}.norm1", d, bias)
        for part in ("query", "key", "value", "output"):
            yield from linear_shapes(f"{name}.attention.{part}", d, d, bias)
        yield from norm_shapes(f"{name}.norm2", d, bias)
        yield from linear_shapes(f"{name}.feed_forward.hidden", d, 4 * d, bias)
        yield from linear_shapes(f"{name}.feed_forward.output", 4 * d, d, bias)
