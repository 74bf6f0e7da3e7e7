"""train.py --verify-resume: the training without a stop, and with one, end in the same numbers."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import numpy as np

from nn.cli.script import UsageError
from nn.jobs.run import stop_at, stops_after
from nn.training.checkpoint import Checkpoint, load_training
from nn.training.loop import Stopped
from nn.training.runs import LAST


def verify_resume(run: Callable[[Any], None], o: Any) -> int:
    """Train N steps, and k + (N - k), in folders of their own; print whether they are the same.

    Parameters
    ----------
    run : callable
        Does the job with flags.
    o : RunFlags

    Returns
    -------
    int
        The exit status: 0 if weights, state and losses are the same to the last bit, else 1.
    """
    others = ("out", "resume", "replay", "seconds", "log", "plot")
    if any(getattr(o, name) for name in others):
        raise UsageError("--verify-resume trains to the end, in folders of its own, which it removes: "
                         f"leave {', '.join(f'--{name}' for name in others)} out")
    if getattr(o, "data", None) == "-":
        raise UsageError("--verify-resume reads the data three times: give --data a file rather than -")
    try:
        return _verified(run, replace(o, verify_resume=False))
    except Stopped as stopped:          # of which nothing is kept, so that no run can go on
        raise Stopped(stopped.position, stopped.signal, "stopped; nothing is proved") from None


def _verified(run: Callable[[Any], None], o: Any) -> int:
    share = float(np.random.default_rng((o.seed, 0, 2)).uniform(0.2, 0.8))
    with tempfile.TemporaryDirectory() as name:
        whole, parts = Path(name) / "whole", Path(name) / "parts"
        print("training without a stop ...", flush=True)
        lines = _lines(run, replace(o, out=whole))
        steps = _step(load_training(whole / LAST))
        if steps < 2:
            raise UsageError("--verify-resume stops between two steps: train at least two")
        print("training with a stop ...", flush=True)
        before = _lines(run, replace(o, out=parts), share, stop_at(share, steps))
        stopped = _step(load_training(parts / LAST))
        print(f"going on after step {stopped} ...", flush=True)
        after = _lines(run, replace(o, resume=parts))
        found = [load_training(folder / LAST) for folder in (whole, parts)]
    differing = compared(*found) + (["the lines of progress"] if lines != before + after else [])
    if differing:
        print(f"not the same: {', '.join(differing)}")
        return 1
    print(f"the same to the last bit: {steps} steps, and {stopped} + {steps - stopped}; "
          f"{len(_arrays(found[0]))} arrays, and the losses of {len(lines)} lines")
    return 0


def _lines(run: Callable[[Any], None], o: Any, share: float | None = None, at: int = -1) -> list[str]:
    """The lines of progress of a run, without the speed, which may differ; it may stop at that step."""
    token = stops_after.set(share)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            run(o)
    except Stopped as stopped:
        if stopped.position.step != at:         # somebody else's signal
            raise
    finally:
        stops_after.reset(token)
    return progress_lines(printed.getvalue())


def progress_lines(printed: str) -> list[str]:
    """The lines of a training without speed and time: ``step 50/100   loss  2.5000``."""
    return [re.sub(r" {3} *\S+ \S+/s .*", "", line) for line in printed.splitlines()
            if re.match(r"(step|epoch) +\d+/\d", line)]


def compared(one: Checkpoint, other: Checkpoint) -> list[str]:
    """What differs between two checkpoints of trainings, but for their folders and versions."""
    arrays = [_arrays(found) for found in (one, other)]
    names = [name for name in sorted({*arrays[0], *arrays[1]})
             if not _same(arrays[0].get(name), arrays[1].get(name))]
    values = [found.training.values if found.training else {} for found in (one, other)]
    names += [name for name in ("position", "streams", "data")
              if _timeless(values[0].get(name)) != _timeless(values[1].get(name))]
    return names + (["info"] if one.info != other.info else [])


def _arrays(found: Checkpoint) -> dict[str, np.ndarray]:
    weights = found.model.state_dict() if found.model else {}
    arrays = {**weights, **(found.training.arrays if found.training else {})}
    return {name: array for name, array in arrays.items() if name != "history.seconds"}


def _timeless(value: Any) -> Any:
    """Without the seconds that a training took."""
    return {k: v for k, v in value.items() if k != "seconds"} if isinstance(value, dict) else value


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and (
        (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()))


def _step(found: Checkpoint) -> int:
    assert found.training
    return found.training.values["position"]["step"]
