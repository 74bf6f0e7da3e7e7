"""The course of a training as a picture: losses against steps and time, and the learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Mapping, Sequence

from nn.training.history import History


def draw_curves(path: Path, history: History, compared: Mapping[str, float]) -> None:
    """Draw three plots of a history.

    Parameters
    ----------
    path : Path
        Its ending is the format.
    history : History
        With at least one row.
    compared : mapping
        Losses that are drawn as lines, by their names.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 9), layout="constrained")             # inches
    by_step, by_time, rates = figure.subplots(3, height_ratios=(3, 3, 2))
    rows = history.rows
    steps, scale, unit = [row.step for row in rows], *_time_unit(rows[-1].seconds)
    times = [row.seconds / scale for row in rows]
    for axes, x in ((by_step, steps), (by_time, times)):
        _losses(axes, x, history, compared)
    figure.legend(*by_step.get_legend_handles_labels(), loc="outside upper center", ncols=3,
                  fontsize="small")
    by_step.set_xlabel("step")
    by_time.set_xlabel(f"time of training and evaluations in {unit}")
    rates.plot(steps, [row.learning_rate for row in rows], color="C2", **_mark(len(rows)))
    rates.set_xlabel("step")
    rates.set_ylabel("learning rate")
    rates.set_ylim(0, 1.1 * max(row.learning_rate for row in rows) or None)
    for axes in (by_step, by_time, rates):
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _losses(axes: Any, x: Sequence[float], history: History, compared: Mapping[str, float]) -> None:
    rows = history.rows
    axes.plot(x, [row.loss for row in rows], color="C0", label="training, mean since the point before",
              **_mark(len(rows)))
    measured = [(at, row.validation_loss) for at, row in zip(x, rows)
                if not math.isnan(row.validation_loss)]
    if measured:
        axes.plot(*zip(*measured), color="C1", marker="o", markersize=4, label="validation")
    for i, (name, loss) in enumerate(compared.items()):
        axes.axhline(loss, color="0.4", linewidth=1, linestyle=("--", ":", "-.")[i % 3],
                     label=f"{name}: {loss:.3f}")
    axes.set_ylabel(f"loss in nats{' per token' if history.unit == 'tokens' else ''}")


def _mark(points: int) -> dict[str, Any]:
    """A line of few points shows where they are."""
    return {"marker": "."} if points <= 50 else {}


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 4 * 3600 else (3600.0, "hours")
