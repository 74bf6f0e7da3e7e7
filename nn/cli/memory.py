"""Whether a model can be trained in the memory of this machine, asked before any of it is taken."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Callable

from nn.cli.script import UsageError
from nn.models.configuration import parameter_count

CGROUP = Path("/sys/fs/cgroup/memory.max")          # the limit of a container, on Linux


def machine_memory() -> int | None:
    """The bytes that a process can have here; None where the system does not tell."""
    known = []
    if hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(os.sysconf_names):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if CGROUP.exists() and (limit := CGROUP.read_text(encoding="ascii").strip()).isdigit():
        known.append(int(limit))
    return min(known, default=None)


def training_memory(config: Any, rows: int, length: int, copies: int, itemsize: int = 4,
                    checkpointing: bool = False) -> int:
    """The bytes that a training takes, at the least.

    ``copies`` of the parameters, which are the weights, the gradients and what the optimiser keeps of
    each, and what the tape keeps of each position of a batch: the logits, of a recurrent layer its
    input and its result, and of a block the queries, the inputs of its two norms and of its
    feed-forward layers, and the width of those; with `checkpointing` the inputs of all blocks, and
    this of one. `nn.summary` measures it for a model that exists.

    Parameters
    ----------
    config : of a model
    rows, length : of a batch
    copies : 4 with Adam, 2 with plain SGD
    itemsize : bytes of a number
    checkpointing : see `nn.checkpoint_blocks`
    """
    names = {field.name for field in fields(config)}
    wide = getattr(config, "d_ff", 4 * config.n_embd)
    kept = 2 * config.n_embd if "cell" in names else 4 * config.n_embd + wide
    logits = getattr(config, "vocab_size", 0) or getattr(config, "target_vocab_size", 0)
    blocks = config.n_embd * config.n_layer + kept if checkpointing else config.n_layer * kept
    tape = rows * length * (blocks + logits)
    return itemsize * (copies * parameter_count(config) + tape)


def check_memory(config: Any, rows: int, length: int, copies: int, itemsize: int = 4,
                 checkpointing: bool = False, rows_flag: str = "--batch-size") -> None:
    """Refuse what cannot fit in the memory of the machine, with the nearest setting that would.

    Parameters
    ----------
    config, rows, length, copies, itemsize, checkpointing : of `training_memory`
    rows_flag : which sets `rows`

    Raises
    ------
    UsageError
    """
    limit = machine_memory()
    needed = training_memory(config, rows, length, copies, itemsize, checkpointing)
    if limit is None or needed <= limit:
        return

    def fits(rows: int = rows, **changes: int) -> bool:
        return training_memory(replace(config, **changes), rows, length, copies, itemsize,
                               checkpointing) <= limit

    n_head = getattr(config, "n_head", 1)
    found = {"--n-layer": largest(lambda n: fits(n_layer=n), config.n_layer),
             "--n-embd": n_head * largest(lambda n: fits(n_embd=n * n_head), config.n_embd // n_head),
             rows_flag: largest(fits, rows)}
    works = " or ".join(f"{name} {value}" for name, value in found.items() if value)
    check_bytes(needed, f"At most {works} can fit, the other settings as they are" if works else
                "Make several sizes smaller")


def check_bytes(needed: int, remedy: str) -> None:
    """Refuse a training that takes more bytes than the machine has."""
    limit = machine_memory()
    if limit is not None and needed > limit:
        raise UsageError(f"not enough memory: this training takes at least {in_words(needed)}, and the "
                         f"machine has {in_words(limit)}. {remedy}")


def largest(fits: Callable[[int], bool], above: int) -> int:
    """The largest number from 1 to `above` that fits, where all below one that fits do; 0 if none."""
    low, high = 0, above + 1                        # low fits, or is 0; high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def in_words(count: int) -> str:
    """Bytes in a unit that a person can picture: ``512 MiB``, ``7.8 GiB``."""
    value, unit = count / 2**20, "MiB"
    for larger in ("GiB", "TiB"):
        if value >= 1024:
            value, unit = value / 1024, larger
    return f"{value:,.1f} {unit}" if value < 1e6 else f"{value:.0e} {unit}"
