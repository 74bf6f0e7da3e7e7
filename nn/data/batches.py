"""Batches as pure functions of a seed, and the split into training and validation data."""

from __future__ import annotations

import itertools
from typing import Any, Iterator, Sequence

import numpy as np


def train_validation_split(ids: np.ndarray, block_size: int,
                           fraction: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """The first `fraction` of a sequence to train on, the rest to validate on.

    Raises
    ------
    ValueError
        A part is too short for one block; says the largest block size that works.
    """
    cut = int(fraction * len(ids))
    shorter = min(cut, len(ids) - cut)
    if shorter < block_size + 1:
        parts = (f"{len(ids):,} tokens, {cut:,} to train on and {len(ids) - cut:,} to validate on, are "
                 f"too few for a block size of {block_size}")
        raise ValueError(f"{parts}: the largest that works is {shorter - 1}" if shorter > 1 else
                         f"{parts}, and for any other: use a longer text")
    return ids[:cut], ids[cut:]


def random_batch(ids: np.ndarray, batch_size: int, block_size: int, seed: int,
                 step: int) -> tuple[np.ndarray, np.ndarray]:
    """Random blocks and the tokens that follow: inputs (B, T), targets (B, T) one place later.

    A pure function of (seed, step), so a run that is resumed or evaluated more often sees the
    same batches.
    """
    rng = np.random.default_rng((seed, step))
    starts = rng.integers(0, len(ids) - block_size, batch_size)
    rows = ids[starts[:, None] + np.arange(block_size + 1)]      # (B, T+1)
    return rows[:, :-1], rows[:, 1:]


def consecutive_blocks(ids: np.ndarray, batch_size: int, block_size: int) -> Any:
    """The whole sequence once, in batches of (inputs, targets): for a validation loss.

    Every token but the first is a target exactly once; the last block is as long as what is left.
    """
    count = (len(ids) - 1) // block_size
    end = count * block_size
    inputs = ids[:end].reshape(count, block_size)
    targets = ids[1:end + 1].reshape(count, block_size)
    for i in range(0, count, batch_size):
        yield inputs[i:i + batch_size], targets[i:i + batch_size]
    if end < len(ids) - 1:
        yield ids[None, end:-1], ids[None, end + 1:]


def padded_sentences(sentences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One row a sentence: inputs (B, T), and targets one place later with -1 after the end.

    Inputs after the end are 0. They do not change the loss: their targets are ignored, and earlier
    positions do not attend to them.
    """
    return (padded_rows([ids[:-1] for ids in sentences], 0),
            padded_rows([ids[1:] for ids in sentences], -1))


def padded_rows(rows: Sequence[np.ndarray], fill: int) -> np.ndarray:
    """Integer arrays (n_i,) as the rows of one (B, max n_i), filled up with `fill` at their ends."""
    table = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for place, ids in zip(table, rows):
        place[:len(ids)] = ids
    return table


def shuffled_batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The indices 0 .. count - 1 in random order, in batches; a pure function of (seed, epoch).

    The last batch is what is left over.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return iter(np.split(order, range(batch_size, count, batch_size)))


def shuffled_steps(count: int, batch_size: int, seed: int, done: int = 0,
                   whole: bool = False) -> Iterator[np.ndarray]:
    """The batches of `shuffled_batches`, epoch after epoch without an end, from step `done` on.

    With `whole` the last batch of an epoch is left out where it is smaller.
    """
    per_epoch = count // batch_size if whole else -(-count // batch_size)
    first, skipped = divmod(done, per_epoch)
    for epoch in itertools.count(first + 1):
        yield from itertools.islice(shuffled_batches(count, batch_size, seed, epoch),
                                    skipped, per_epoch)
        skipped = 0
