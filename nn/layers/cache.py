"""What attention keeps of the positions it has seen, so that a sequence is continued at little cost.

A causal query sees the keys up to its own position only, so what an attention layer gives at earlier
positions does not depend on later ones. Their keys and values can be kept; then the next position
needs one row of each projection, and T scores in place of T^2.
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np


def without_gradient(name: str, *kept: Any) -> None:
    """Refuse to keep what a gradient should flow through: a later call takes it as constants."""
    for part in kept:
        if type(part) is not np.ndarray and part.requires_grad:
            raise RuntimeError(f"{name}: what a cache keeps is constant, and no gradient flows through "
                               f"it, got values that require one. Call the model with tape.no_grad(), "
                               f"or without a cache.")


class KeyValueCache:
    """The keys and values of an attention layer: (B, n_kv_head, length, D) each, in a buffer.

    Given to a `MultiHeadAttention` as ``cache``, it is added to by each call. The keys are kept as
    they meet the queries, rotated where the layer rotates them.

    Parameters
    ----------
    longest : int
        Positions that fit. The memory for all of them is taken when the first are added, which have
        the batch size, the heads and the dtype.

    Attributes
    ----------
    length : positions that it holds.
    """

    def __init__(self, longest: int):
        if not isinstance(longest, (int, np.integer)) or longest < 1:
            raise ValueError(f"KeyValueCache: longest must be a positive integer, got {longest!r}")
        self.longest, self.length = int(longest), 0
        self._buffers: tuple[np.ndarray, np.ndarray] | None = None

    def extend(self, keys: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
        """Add those of the next T positions, (B, n_kv_head, T, D) each, and return those of all.

        They are Tensors or arrays.

        Raises
        ------
        ValueError
            They do not fit: too many positions, or another batch, heads or width than before.
        RuntimeError
            They require a gradient.
        """
        without_gradient("KeyValueCache", keys, values)
        B, H, T, D = keys.shape
        if self.length + T > self.longest:
            raise ValueError(f"KeyValueCache: at most longest = {self.longest} positions, got "
                             f"{self.length} in the cache and {T} new. Begin a new cache with the last "
                             f"positions, or make it longer.")
        if self._buffers is None:
            self._buffers = (np.empty((B, H, self.longest, D), keys.dtype),
                             np.empty((B, H, self.longest, D), values.dtype))
        held = self._buffers[0].shape
        if (B, H, D) != (held[0], held[1], held[3]):
            raise ValueError(f"KeyValueCache: keys must have shape (B, n_kv_head, T, D) = ({held[0]}, "
                             f"{held[1]}, T, {held[3]}), as those in the cache, got {keys.shape}. "
                             f"Begin a new cache for another batch.")
        for buffer, new in zip(self._buffers, (keys, values)):
            buffer[:, :, self.length:self.length + T] = new
        self.length += T
        return self.held()

    def select(self, rows: np.ndarray) -> None:
        """Go on with these rows of the batch, in this order; one may be named more than once."""
        if self._buffers is not None:
            keys, values = self._buffers
            self._buffers = keys[rows], values[rows]

    def held(self) -> tuple[np.ndarray, np.ndarray]:
        """The keys and values that were added so far, (B, n_kv_head, length, D) each."""
        if self._buffers is None:
            raise ValueError("KeyValueCache: nothing was added yet")
        keys, values = self._buffers
        return keys[:, :, :self.length], values[:, :, :self.length]


class DecoderCache:
    """A `KeyValueCache` for the self-attention of each block of a decoder.

    Parameters
    ----------
    n_layer : int
        Blocks.
    longest : int
        Positions that fit.
    """

    def __init__(self, n_layer: int, longest: int):
        self.longest = longest
        self.blocks = [KeyValueCache(longest) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """Positions that were read, by every block."""
        lengths = [block.length for block in self.blocks]
        if lengths.count(lengths[0]) < len(lengths):
            raise ValueError(f"DecoderCache: all blocks must have read the same positions, got "
                             f"{lengths}: a call was broken off. Begin a new cache.")
        return lengths[0]

    def select(self, rows: np.ndarray) -> None:
        """Go on with these rows of the batch, as of `KeyValueCache`."""
        for block in self.blocks:
            block.select(rows)


def past_and_caches(cache: DecoderCache | None,
                    n_layer: int) -> tuple[int, Sequence[KeyValueCache | None]]:
    """How many positions a model has read, and what each block keeps; 0 and None without a cache."""
    return (0, [None] * n_layer) if cache is None else (cache.length, cache.blocks)


def check_length(name: str, longest: int, past: int, new: int) -> None:
    """Refuse more positions than a model has, those in its cache among them."""
    if past + new > longest:
        got, remedy = (f"{past} in the cache and {new} new", "Begin a new_cache() with the last tokens"
                       ) if past else (new, "Cut the sequence")
        raise ValueError(f"{name}: at most block_size = {longest} positions, got {got}. {remedy}, or "
                         f"build the model with a larger block_size.")
