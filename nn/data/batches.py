"""Batches as pure functions of a seed, and the split into training and validation data."""

from __future__ import annotations

import itertools
from typing import Iterator, Sequence

import numpy as np


def check_block_size(training: np.ndarray, validation: np.ndarray, block_size: int) -> None:
    """Raise a ValueError where a part has no block and the token behind it; says what would work."""
    shorter = min(len(training), len(validation))
    if shorter < block_size + 1:
        parts = (f"{len(training) + len(validation):,} tokens, {len(training):,} to train on and "
                 f"{len(validation):,} to validate on, are too few for a block size of {block_size}")
        raise ValueError(f"{parts}: the largest that works is {shorter - 1}" if shorter > 1 else
                         f"{parts}, and for any other: use a longer text")


def random_batch(ids: np.ndarray, batch_size: int, block_size: int, seed: int,
                 step: int) -> tuple[np.ndarray, np.ndarray]:
    """Random blocks and the tokens that follow: inputs (B, T), targets (B, T) one place later, int64.

    A pure function of (seed, step), so a run that is resumed or evaluated more often sees the
    same batches.
    """
    rng = np.random.default_rng((seed, step))
    starts = rng.integers(0, len(ids) - block_size, batch_size)
    rows = ids[starts[:, None] + np.arange(block_size + 1)].astype(np.int64, copy=False)     # (B, T+1)
    return rows[:, :-1], rows[:, 1:]


def consecutive_blocks(ids: np.ndarray, batch_size: int, block_size: int,
                       batches: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """The whole sequence once, in batches of (inputs, targets): for a validation loss.

    Every token but the first is a target exactly once; the last block is as long as what is left. Where
    that makes more than `batches`, so many of them are given, spread evenly: always the same, so that
    their losses compare. The arrays are views.
    """
    count = (len(ids) - 1) // block_size
    end = count * block_size
    inputs = ids[:end].reshape(count, block_size)
    targets = ids[1:end + 1].reshape(count, block_size)
    found = [(inputs[i:i + batch_size], targets[i:i + batch_size]) for i in range(0, count, batch_size)]
    if end < len(ids) - 1:
        found.append((ids[None, end:-1], ids[None, end + 1:]))
    if batches is None or batches >= len(found):
        return found
    return [found[i * len(found) // batches] for i in range(batches)]


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
