"""The training loop: one for all jobs and both engines.

Its unit is the round: a step, or an epoch of several steps. A line of progress counts rounds.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable

from nn.training.engines import Batch, Engine, check_finite
from nn.training.progress import Progress


class Stopped(KeyboardInterrupt):
    """The training was interrupted after `rounds` complete rounds."""

    def __init__(self, rounds: int):
        super().__init__()
        self.rounds = rounds


@dataclass(frozen=True)
class Plan:
    """How long a training is, and how often what is done. What has an interval is done last as well.

    Attributes
    ----------
    rounds : how many.
    examples, unit : in a round, for the speed in the lines.
    name : what a round is: "step" or "epoch".
    steps_per_round : updates.
    log_interval : rounds between lines.
    eval_interval : rounds between evaluations.
    save_interval : rounds between savings of the last weights.
    """

    rounds: int
    examples: float
    unit: str = "tokens"
    name: str = "step"
    steps_per_round: int = 1
    log_interval: int = 1
    eval_interval: int = 1
    save_interval: int = 1

    def due(self, interval: int, done: int) -> bool:
        """Whether what has this interval is done after `done` rounds."""
        return done % interval == 0 or done == self.rounds

    def left(self, interval: int, done: int) -> int:
        """How often what has this interval will still be done."""
        return -(-self.rounds // interval) - done // interval if done < self.rounds else 0


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes
    ----------
    text : printed in the line, after the loss.
    loss : by which the best weights are known; None where only the last are kept.
    detail : anything that the caller of `train` wants back.
    remark : printed in a line of its own, unless it is empty.
    """

    text: str
    loss: float | None = None
    detail: Any = None
    remark: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes
    ----------
    loss : the mean of the last round.
    evaluation : the last one.
    best : the lowest loss of an evaluation; infinite where none had one.
    """

    loss: float
    evaluation: Evaluation | None
    best: float


def train(engine: Engine, batches: Iterable[Batch], lr: Callable[[int], float], plan: Plan,
          evaluate: Callable[[], Evaluation] | None = None,
          save: Callable[[str, dict], None] | None = None) -> Outcome:
    """Train, print lines of progress, and save the last and the best weights.

    The loss in a line is the mean of the rounds since the line before.

    Parameters
    ----------
    engine : Engine
        Updates the weights.
    batches : iterable of (inputs, targets)
        One for each step, in order; more are not asked for.
    lr : callable
        The learning rate of step i, from 0.
    plan : Plan
    evaluate : callable, optional
        Measures the present weights.
    save : callable, optional
        ``save("last", info)``, and ``save("best", info)`` when an evaluation had the lowest loss so
        far. `info` has the number of the round under ``plan.name``, "loss" and "validation_loss".

    Returns
    -------
    Outcome

    Raises
    ------
    Diverged
        The loss, a gradient, the weights or the loss of an evaluation are not finite. Nothing is
        saved of that round.
    Stopped
        In place of a KeyboardInterrupt.
    """
    progress = Progress(plan.rounds, plan.examples, plan.unit, plan.name)
    remaining, best, done = iter(batches), math.inf, 0
    mean, found, since = math.nan, None, list[float]()
    try:
        while done < plan.rounds:
            mean = _round(engine, remaining, lr, plan, done, progress)
            now = done + 1
            since.append(mean)
            found = None
            if evaluate and plan.due(plan.eval_interval, now):
                with progress.evaluating():
                    found = evaluate()
            info = _info(plan, now, mean, found)
            if save and plan.due(plan.save_interval, now):
                save("last", info)
            if found and found.loss is not None and found.loss < best:
                best = found.loss
                if save:
                    save("best", info)
            if found or plan.due(plan.log_interval, now):
                evaluations = plan.left(plan.eval_interval, now) if evaluate else 0
                print(progress.line(now, sum(since) / len(since), found.text if found else "",
                                    evaluations), flush=True)
                since.clear()
                if found and found.remark:
                    print(found.remark, flush=True)
            done = now
    except KeyboardInterrupt as interrupt:
        raise Stopped(done) from interrupt
    return Outcome(mean, found, best)


def _round(engine: Engine, batches: Iterable[Batch], lr: Callable[[int], float], plan: Plan,
           done: int, progress: Progress) -> float:
    """Update once for each batch of a round; the mean loss of its examples."""
    mean, seen, first = 0.0, 0, done * plan.steps_per_round
    i = first - 1
    for i, batch in enumerate(itertools.islice(batches, plan.steps_per_round), first):
        if plan.steps_per_round > 1:
            progress.pulse(i / plan.steps_per_round)
        loss = engine.update(i + 1, batch, lr(i))
        seen += len(batch[0])
        mean += (loss - mean) * (len(batch[0]) / seen)
    if i + 1 < first + plan.steps_per_round:
        raise ValueError(f"train: batches must be one for each of the {plan.rounds} * "
                         f"{plan.steps_per_round} steps, got {i + 1}")
    return mean


def _info(plan: Plan, now: int, loss: float, found: Evaluation | None) -> dict:
    """What is saved with the weights."""
    info = {plan.name: now, "loss": loss}
    if found and found.loss is not None:
        check_finite("validation loss", found.loss, now, plan.name)
        info["validation_loss"] = found.loss
    return info
