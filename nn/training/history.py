"""The course of a training: a row for each of its lines, kept in checkpoints and written to files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, TextIO

import numpy as np


class Row(NamedTuple):
    """A line of a training as numbers; NaN is what was not measured.

    Attributes
    ----------
    step : updates done.
    loss : the mean of the rounds since the row before.
    validation_loss : of an evaluation after this step.
    learning_rate : of this step.
    gradient_norm : of this step, before it was clipped.
    examples : that were learned from so far: tokens, dates or images.
    seconds : of training and evaluations so far, without the time between two parts of a run.
    """

    step: int
    loss: float
    validation_loss: float
    learning_rate: float
    gradient_norm: float
    examples: int
    seconds: float


WHOLE = [Row._fields.index(name) for name in ("step", "examples")]
NAMES = ("history", "history.seconds")      # in a checkpoint: the latter depends on the machine
FORMS = (".csv", ".jsonl")


class History:
    """All rows of a run, of its earlier parts as well.

    Parameters
    ----------
    unit : str
        What an example is, for the heading of the column.
    tell : callable, optional
        Given each row that is added.
    """

    def __init__(self, unit: str = "examples", tell: Callable[[Row], None] = lambda row: None):
        self.unit, self.tell = unit, tell
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Add a row behind the others."""
        self.rows.append(row)
        self.tell(row)

    def columns(self) -> list[str]:
        """Their names."""
        return [self.unit if name == "examples" else name for name in Row._fields]

    def arrays(self) -> dict[str, np.ndarray]:
        """The rows for a checkpoint: (N, 6), and the seconds (N,)."""
        table = np.array(self.rows, np.float64).reshape(-1, len(Row._fields))
        return dict(zip(NAMES, (table[:, :-1], table[:, -1])))

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what `arrays` gave, without telling of it; a run that has none begins here.

        Raises
        ------
        ValueError
            The arrays do not fit together.
        """
        if not all(name in arrays for name in NAMES):
            return
        table, seconds = (arrays[name] for name in NAMES)
        if table.shape != (seconds.size, len(Row._fields) - 1) or seconds.ndim != 1 or not np.isfinite(
                table[:, WHOLE]).all():
            raise ValueError(f"its history must be numbers (N, {len(Row._fields) - 1}) and seconds "
                             f"(N,), got {table.shape} and {seconds.shape}")
        self.rows = [_row(line) for line in np.column_stack((table, seconds)).tolist()]


def _row(numbers: list[float]) -> Row:
    return Row(*(int(x) if i in WHOLE else x for i, x in enumerate(numbers)))  # type: ignore[arg-type]


class LogFile:
    """A file with a line for each row: CSV with a heading, or a JSON object in each line.

    It is written anew with the rows so far, and then grows by a line at a time. What is not a number
    is empty in CSV and null in JSON.

    Parameters
    ----------
    path : Path
        Ends in one of `FORMS`.
    history : History
    """

    def __init__(self, path: Path, history: History):
        self.columns, self.as_csv = history.columns(), path.suffix == ".csv"
        self.file: TextIO = open(path, "w", encoding="utf-8", newline="")
        if self.as_csv:
            csv.writer(self.file, lineterminator="\n").writerow(self.columns)
        for row in history.rows:
            self._write(row)
        self.file.flush()

    def add(self, row: Row) -> None:
        """Append a row, which is in the file at once."""
        self._write(row)
        self.file.flush()

    def close(self) -> None:
        """Nothing is added any more."""
        self.file.close()

    def _write(self, row: Row) -> None:
        values = [None if math.isnan(x) else x for x in row[:-1]] + [round(row.seconds, 3)]
        if self.as_csv:                                  # None is written as nothing
            csv.writer(self.file, lineterminator="\n").writerow(values)
        else:
            self.file.write(json.dumps(dict(zip(self.columns, values))) + "\n")
