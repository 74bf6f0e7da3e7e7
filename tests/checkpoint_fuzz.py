"""Damage checkpoints in many ways; each must load as it was, or be refused with CheckpointError.

    python -m tests.checkpoint_fuzz [--seconds N] [--seed S]

Prints how each kind of damage ended, and the most memory that a load took. Exit status 1 if a load
gave other numbers, raised anything else, or took more than ten times the file and `ALLOWANCE`.
"""

import argparse
import os
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np

import nn
from tests.checkpoint_crafted import crafted
from tests.checkpoint_files import pack, regions, same, small_parts

ALLOWANCE = 2 ** 22         # bytes that any load may take
LONGEST_MESSAGE = 500


class Judge:
    """Loads files and counts how it ends in ``counts[damage, outcome]``; `failures` say more."""

    def __init__(self, folder, version, save=False):
        self.path = Path(folder) / "x.npz"
        header, weights = small_parts(version)
        self.whole = pack(header, weights)
        self.path.write_bytes(self.whole)
        self.original = nn.load_checkpoint(self.path)
        if save:            # the file as save_checkpoint writes it, not as the tests do
            nn.save_checkpoint(self.path, self.original.model, self.original.tokenizer,
                               self.original.info, self.original.training)
            self.whole = self.path.read_bytes()
        self.counts, self.failures, self.peak, self.peak_ratio = Counter(), [], 0, 0.0

    def look(self, damage, data, note=""):
        """Load `data`; returns "right", "refused" or "FAILED"."""
        self.path.write_bytes(data)
        tracemalloc.start()
        try:
            problem = self._load()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.peak = max(self.peak, peak)
        self.peak_ratio = max(self.peak_ratio, (peak - ALLOWANCE) / max(len(data), 1))
        if problem in ("right", "refused") and peak > 10 * len(data) + ALLOWANCE:
            problem = f"took {peak:,} bytes for a file of {len(data):,}"
        outcome = problem if problem in ("right", "refused") else "FAILED"
        if outcome == "FAILED":
            self.failures.append(f"{damage}: {note}: {problem}")
        self.counts[damage, outcome] += 1
        return outcome

    def _load(self):
        try:
            found = nn.load_checkpoint(self.path)
        except nn.CheckpointError as error:
            text = str(error).replace(str(self.path), "x.npz")
            if len(text) > LONGEST_MESSAGE or not text.isprintable():
                return f"message {text[:80]!r} of {len(text)} characters"
            outcome = "refused"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:80]}"
        else:
            outcome = "right" if same(found, self.original) else "other numbers"
        try:
            nn.newest_checkpoint(self.path.parent)
        except FileNotFoundError:       # a header that says another kind of model
            pass
        except Exception as error:
            return f"newest_checkpoint: {type(error).__name__}: {str(error)[:80]}"
        return outcome


def flips(data, kinds=None):
    """(kind of place, position, bit) of every single bit of a file."""
    for kind, places in regions(data).items():
        if kinds is None or kind in kinds:
            for start, end in places:
                for position in range(start, end):
                    for bit in range(8):
                        yield kind, position, bit


def flipped(data, position, bit):
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def damages(judge, rng, deadline=float("inf"), share=1.0, bomb=2 ** 26):
    """(damage, bytes, note), from every kind; with a `share` below 1 that part of the flips."""
    data = judge.whole
    places = regions(data)
    for kind, position, bit in flips(data, set(places) - {"numbers"}):
        if rng.random() < share:
            yield f"bit in {kind}", flipped(data, position, bit), f"{position}.{bit}"
    inside = np.concatenate([np.arange(*place) for place in places["numbers"]])
    for position in rng.choice(inside, int(2000 * share)):
        bit = int(rng.integers(8))
        yield "bit in numbers", flipped(data, position, bit), f"{position}.{bit}"
    yield from _overwrites(data, rng, share)
    step = max(1, round(1 / share))
    for length in range(int(rng.integers(step)), len(data), step):
        yield "cut off", data[:length], str(length)
    version = next(i for i in (1, 2, 3) if b"tape checkpoint %d" % i in data)
    for note, changed in crafted(version, bomb):
        yield "crafted", changed, note
    while time.monotonic() < deadline < float("inf"):
        yield "bytes anywhere", _scribbled(data, rng), "random"


def _overwrites(data, rng, share):
    for old, new in ((b"<f4", b"<f2"), (b"<f4", b"<f8"), (b"<f4", b">f4"), (b"<f4", b"<i4"),
                     (b"<f4", b"|O4"), (b"False", b" True"), (b"(2,)", b"(1,)"),
                     (b"(2, 2)", b"(4, 1)"), (b"'shape'", b"'shade'"), (b"weight:", b"weighs:"),
                     (b"NUMPY\x01", b"NUMPY\x02")):
        at = data.find(old)
        while at >= 0:
            yield "text overwritten", data[:at] + new + data[at + len(old):], f"{old!r} {at}"
            at = data.find(old, at + 1)
    for _ in range(int(2000 * share)):
        yield "bytes anywhere", _scribbled(data, rng), "random"


def _scribbled(data, rng):
    """Some bytes overwritten, a stretch left out, or one moved."""
    changed = bytearray(data)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 9))
    kind = rng.integers(4)
    if kind == 0:
        changed[at:at + length] = rng.bytes(length)[:len(data) - at]
    elif kind == 1:
        del changed[at:at + length]
    elif kind == 2:
        changed[at:at] = rng.bytes(length)
    else:
        for place in rng.integers(0, len(data), length):
            changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=0,
                        help="go on with random damage until then")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the single flips to try")
    parser.add_argument("--bomb", type=int, default=2 ** 31,
                        help="bytes that a deflate bomb promises")
    o = parser.parse_args(argv)
    start, failed = time.monotonic(), False
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None      # no disk need turn for this
    for version in (1, 2, 3):
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            judge = Judge(folder, version, save=version >= 2)
            deadline = start + o.seconds * version / 3
            rng = np.random.default_rng(o.seed)
            for damage, data, note in damages(judge, rng, deadline, o.share, o.bomb):
                judge.look(damage, data, note)
        print_table(version, judge)
        failed |= bool(judge.failures)
    print(f"{time.monotonic() - start:.0f} seconds")
    return int(failed)


def print_table(version, judge):
    print(f"\nformat {version}: a file of {len(judge.whole):,} bytes")
    print(f"{'damage':<26}{'files':>9}{'right':>9}{'refused':>9}{'FAILED':>9}")
    for damage in dict.fromkeys(damage for damage, _ in judge.counts):
        counts = [judge.counts[damage, outcome] for outcome in ("right", "refused", "FAILED")]
        print(f"{damage:<26}{sum(counts):>9,}" + "".join(f"{count:>9,}" for count in counts))
    print(f"most memory of a load {judge.peak:,} bytes; beyond {ALLOWANCE:,}, "
          f"{max(judge.peak_ratio, 0):.1f} times the file")
    for text, count in Counter(text.split(": ", 2)[2] for text in judge.failures).most_common(12):
        example = next(failure for failure in judge.failures if failure.endswith(text))
        print(f"  {count:>6,} x {text}   e.g. {example.rsplit(': ' + text, 1)[0]}"[:180])


if __name__ == "__main__":
    sys.exit(main())
