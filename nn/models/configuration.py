"""What the configurations of models share: their checks, and the shapes of common parts.

The shapes are known without making the model, so that a file can be checked before memory is
taken for it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Iterator

import numpy as np

Shapes = Iterator[tuple[str, tuple[int, ...]]]      # (name, shape) of parameters
TokenId = Annotated[int, "token id"]                # the type of a field that may be 0, unlike a size


def check_sizes(config: Any, *names: str) -> None:
    """Refuse sizes that are not positive, and heads that do not fill the width."""
    kind = type(config).__name__
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{kind}: {name} must be a positive integer, got {value!r}")
    if "n_head" in names and config.n_embd % config.n_head:
        raise ValueError(f"{kind}: n_head must divide n_embd, got {config.n_head} and {config.n_embd}; "
                         f"{_nearest(config.n_head, config.n_embd)}")


def _nearest(n_head: int, n_embd: int) -> str:
    """The settings that would work and are nearest, with the same width and with the same heads."""
    start = min(n_head, n_embd)
    found = (h for i in range(min(start, 1000)) for h in (start - i, start + i) if n_embd % h == 0)
    heads = next(found, 1)
    width = max(round(n_embd / n_head), 1) * n_head
    return f"the nearest that works is n_head {heads}, or n_embd {width}"


def parameter_count(config: Any) -> int:
    """The parameters of the model of a configuration, tied ones counted once.

    From the shapes, without making the model. All layers after the first are alike, so that two
    numbers of layers tell those of any.
    """
    def count(**changes: int) -> int:
        return sum(math.prod(shape) for _, shape in replace(config, **changes).parameter_shapes())

    one, two = count(n_layer=1), count(n_layer=2)
    return one + (config.n_layer - 1) * (two - one)


def check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a setting that is none of the choices."""
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{type(config).__name__}: {name} must be one of {list(choices)}, got "
                         f"{value!r}")


class DerivedInt(int):
    """A setting that nobody gave: it follows from the others."""


class DerivedText(str):
    """A setting that nobody gave: it follows from the others."""


def set_default(config: Any, name: str, value: int | str) -> None:
    """Give a setting that is 0 or "" the value that follows from the others.

    Files hold the value, because a later version may choose another. Its type says that it was not
    given, so that in ``dataclasses.replace(config, n_embd=64)``, which hands over the values of all
    fields, it follows the new ones. What was read from a file stays as it is there.
    """
    given = getattr(config, name)
    if not given or isinstance(given, (DerivedInt, DerivedText)):
        derived = DerivedText(value) if isinstance(value, str) else DerivedInt(value)
        object.__setattr__(config, name, derived)


def linear_shapes(name: str, n_in: int, n_out: int, bias: bool = True) -> Shapes:
    """Of a `Linear`."""
    yield f"{name}.weight", (n_in, n_out)
    if bias:
        yield f"{name}.bias", (n_out,)


def norm_shapes(name: str, d: int, bias: bool = True, kind: str = "layer") -> Shapes:
    """Of a `LayerNorm` or an `RMSNorm`."""
    yield f"{name}.weight", (d,)
    if bias and kind == "layer":
        yield f"{name}.bias", (d,)


def attention_shapes(name: str, d: int, bias: bool = True, d_kv: int | None = None) -> Shapes:
    """Of a `MultiHeadAttention`; `d_kv` is the width of the keys, by default d."""
    for part, width in (("query", d), ("key", d_kv or d), ("value", d_kv or d), ("output", d)):
        yield from linear_shapes(f"{name}.{part}", d, width, bias)


def block_shapes(n_layer: int, d: int, bias: bool = True, *, d_ff: int | None = None,
                 d_kv: int | None = None, gated: bool = False, norm_kind: str = "layer",
                 stack: str = "blocks", cross: bool = False) -> Shapes:
    """Of a list `stack` of `TransformerBlock`, or with `cross` of `TransformerDecoderBlock`."""
    d_ff = d_ff or 4 * d
    for i in range(n_layer):
        name = f"{stack}.{i}"
        yield from norm_shapes(f"{name}.norm1", d, bias, norm_kind)
        yield from attention_shapes(f"{name}.attention", d, bias, d_kv)
        yield from norm_shapes(f"{name}.norm2", d, bias, norm_kind)
        if gated:
            yield from linear_shapes(f"{name}.feed_forward.gate", d, d_ff, bias)
        yield from linear_shapes(f"{name}.feed_forward.hidden", d, d_ff, bias)
        yield from linear_shapes(f"{name}.feed_forward.output", d_ff, d, bias)
        if cross:
            yield from norm_shapes(f"{name}.cross_norm", d, bias, norm_kind)
            yield from attention_shapes(f"{name}.cross_attention", d, bias, d_kv)
