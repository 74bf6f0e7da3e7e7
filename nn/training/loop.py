"""The training loop: one for all jobs and both engines.

Its unit is the round: a step, or an epoch of several steps. A line of progress counts rounds.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Iterable, Iterator

from nn.training.engines import Batch, Diverged, Engine, check_finite
from nn.training.history import History, Row
from nn.training.progress import Progress
from nn.training.signals import noted


@dataclass(frozen=True)
class Position:
    """Where a training is between two steps: its state but for that of the engine.

    Attributes
    ----------
    step : how many are done.
    loss : the mean of the examples of the present round so far; of all, at its end.
    seen : the number of these examples.
    best : the lowest loss of an evaluation so far; infinite where none had one.
    total, rounds : the sum of the losses of the rounds since the last line, and how many these are.
    stale : evaluations since that with the lowest loss.
    seconds : that the training took so far, with its evaluations; of no part in comparisons.
    """

    step: int = 0
    loss: float = 0.0
    seen: int = 0
    best: float = math.inf
    total: float = 0.0
    rounds: int = 0
    stale: int = 0
    seconds: float = field(default=0.0, compare=False)


class Stopped(KeyboardInterrupt):
    """A signal ended the training between two steps, after it was saved."""

    def __init__(self, position: Position, signal: int, text: str = "stopped"):
        super().__init__(text)
        self.position, self.signal = position, signal


@dataclass(frozen=True)
class Limits:
    """What ends a training before its last step; None is no limit.

    Attributes
    ----------
    target_loss : an evaluation had this loss or a lower one.
    patience : so many evaluations after each other had no lower loss than the best before them.
    seconds : the training took so long, with its evaluations and in all parts of its run.
    """

    target_loss: float | None = None
    patience: int | None = None
    seconds: float | None = None

    def reached(self, position: Position) -> str:
        """Which of them is reached, in words; empty where none is."""
        if self.target_loss is not None and position.best <= self.target_loss:
            return f"the validation loss {position.best:.4f} is at most {self.target_loss:g}"
        if self.patience is not None and position.stale >= self.patience:
            return (f"no validation loss below {position.best:.4f} in {position.stale} "
                    f"evaluation{'s' * (position.stale > 1)}")
        if self.seconds is not None and position.seconds >= self.seconds:
            return f"{self.seconds:g} seconds of training are over"
        return ""


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
    save_interval : steps between savings of the last weights.
    limits : what ends it earlier.
    """

    rounds: int
    examples: float
    unit: str = "tokens"
    name: str = "step"
    steps_per_round: int = 1
    log_interval: int = 1
    eval_interval: int = 1
    save_interval: int = 1
    limits: Limits = Limits()

    @property
    def steps(self) -> int:
        """Of all rounds."""
        return self.rounds * self.steps_per_round

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
    evaluation : of the weights at the end.
    best : the lowest loss of an evaluation; infinite where none had one.
    step : how many were done.
    limit : which of `Limits` ended it before its last step, in words; empty where none did.
    """

    loss: float
    evaluation: Evaluation | None
    best: float
    step: int = 0
    limit: str = ""


def train(engine: Engine, batches: Iterable[Batch], lr: Callable[[int], float], plan: Plan,
          evaluate: Callable[[], Evaluation] | None = None,
          save: Callable[[str, dict, Position], None] | None = None,
          start: Position = Position(), stop: Callable[[int], int | None] = lambda step: None,
          history: History | None = None) -> Outcome:
    """Train, print lines of progress, and save the last and the best weights.

    The loss in a line is the mean of the rounds since the line before.

    Parameters
    ----------
    engine : Engine
        Updates the weights.
    batches : iterable of (inputs, targets)
        One for each step from `start` on, in order; more are not asked for.
    lr : callable
        The learning rate of step i, from 0.
    plan : Plan
    evaluate : callable, optional
        Measures the present weights.
    save : callable, optional
        ``save("last", info, position)``, and before it ``save("best", info, position)`` when an
        evaluation had the lowest loss so far. `info` has the number of complete rounds under
        ``plan.name``, "loss" and "validation_loss".
    start : Position
        Of a training that goes on.
    stop : callable
        Given the number of steps done, a number of a signal to end with, or None.
    history : History, optional
        Gets a row for each line.

    Returns
    -------
    Outcome

    Raises
    ------
    Diverged
        The loss, a gradient, the weights or the loss of an evaluation are not finite. Nothing is
        saved of that step. Where an update failed, the error has its batch and the position before it.
    Stopped
        A signal arrived (see `noted`), or `stop` gave one. The training was saved after the step.
    """
    remaining, position, began = iter(batches), start, time.perf_counter()
    with noted() as signals, Progress(plan.rounds, plan.examples, plan.unit, plan.name,
                                      start.step / plan.steps_per_round) as progress:
        found, limit = None, plan.limits.reached(position)
        ends = position.step == plan.steps or bool(limit)
        while not ends:
            rate = lr(position.step)
            position = _step(engine, remaining, rate, plan, position)
            rounds, left = divmod(position.step, plan.steps_per_round)
            now = 0 if left else rounds                # of a round that ends here
            evaluations = plan.left(plan.eval_interval, rounds) if evaluate else 0
            progress.pulse(position.step / plan.steps_per_round, position.loss, evaluations)
            found = None
            if evaluate and now and plan.due(plan.eval_interval, now):
                with progress.evaluating():
                    found = evaluate()
            info = _info(plan, rounds, position.loss, found)
            position = replace(position, seconds=start.seconds + time.perf_counter() - began)
            if now and (found or plan.due(plan.log_interval, now)):
                progress.print(progress.line(now, position.total / position.rounds,
                                             found.text if found else "", evaluations),
                               found.remark if found else "")
                if history:
                    history.add(_row(plan, position, found, rate, engine.grad_norm))
                position = replace(position, total=0.0, rounds=0)
            if found and found.loss is not None:
                better = found.loss < position.best
                position = (replace(position, best=found.loss, stale=0) if better else
                            replace(position, stale=position.stale + 1))
                if save and better:
                    save("best", info, position)
            signals.note(stop(position.step))
            limit = plan.limits.reached(position)
            ends = signals.signal is not None or position.step == plan.steps or bool(limit)
            if save and (ends or position.step % plan.save_interval == 0):
                save("last", info, position)
    if signals.signal is not None:
        raise Stopped(position, signals.signal)
    # What follows is no part of the training: it may go on from what was saved.
    if found is None and evaluate:
        found = evaluate()
    return Outcome(position.loss, found, position.best, position.step,
                   limit if position.step < plan.steps else "")


def _step(engine: Engine, batches: Iterator[Batch], rate: float, plan: Plan,
          before: Position) -> Position:
    """Update once with the next batch."""
    done, per_round = before.step, plan.steps_per_round
    batch = next(batches, None)
    if batch is None:
        raise ValueError(f"train: batches must be one for each of the {plan.rounds} * {per_round} "
                         f"steps, got {done}")
    try:
        loss = engine.update(done + 1, batch, rate)
    except Diverged as error:
        error.batch, error.position = batch, before
        raise
    mean, seen = (before.loss, before.seen) if done % per_round else (0.0, 0)
    seen += len(batch[0])
    mean += (loss - mean) * (len(batch[0]) / seen)
    after = replace(before, step=done + 1, loss=mean, seen=seen)
    ends = after.step % per_round == 0
    return replace(after, total=before.total + mean, rounds=before.rounds + 1) if ends else after


def _info(plan: Plan, rounds: int, loss: float, found: Evaluation | None) -> dict:
    """What is saved with the weights."""
    info = {plan.name: rounds, "loss": loss}
    if found and found.loss is not None:
        check_finite("validation loss", found.loss, rounds, plan.name)
        info["validation_loss"] = found.loss
    return info


def _row(plan: Plan, position: Position, found: Evaluation | None, lr: float, norm: float) -> Row:
    """What the history says of a line."""
    validation = math.nan if found is None or found.loss is None else found.loss
    examples = round(plan.examples * position.step / plan.steps_per_round)
    return Row(position.step, position.total / position.rounds, validation, lr, norm, examples,
               position.seconds)
