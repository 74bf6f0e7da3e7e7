"""The two ways to update weights with a batch: on the tape, and by a static graph."""

from __future__ import annotations

import math
from typing import Any, Protocol, Sequence

import numpy as np

from nn.layers.module import Module
from nn.models.static.sgd import RunModel, sgd_step
from nn.training.clip import clip_grad_norm
from nn.training.optim import Optimizer

Batch = tuple[Any, Any]         # inputs and targets, one row an example


class Diverged(ArithmeticError):
    """A number that must be finite is not; says which, and in which step."""


def check_finite(name: str, value: float, when: int, unit: str = "step") -> None:
    """Raise `Diverged` if `value` is NaN or infinite."""
    if not math.isfinite(value):
        raise Diverged(f"the {name} is {value} at {unit} {when}, of which nothing was saved")


class Engine(Protocol):
    """What `nn.training.loop.train` asks for."""

    def update(self, step: int, batch: Batch, lr: float) -> float:
        """Change the weights by one step with a batch.

        Parameters
        ----------
        step : int
            From 1, for errors.
        batch : (inputs, targets)
        lr : float

        Returns
        -------
        float
            The mean loss of the batch, before the update.

        Raises
        ------
        Diverged
            The loss, a gradient or the new weights are not finite; the weights are as before.
        """


class TapeEngine:
    """The operations of a model are recorded as they run; an optimiser reads the gradients.

    Parameters
    ----------
    model : Module
        ``model(inputs, targets) -> (outputs, loss)``.
    optimizer : Optimizer
    grad_clip : float
        The longest joint gradient; see `clip_grad_norm`.
    """

    def __init__(self, model: Module, optimizer: Optimizer, grad_clip: float = math.inf):
        self.model, self.optimizer, self.grad_clip = model, optimizer, grad_clip

    def update(self, step: int, batch: Batch, lr: float) -> float:
        _, loss = self.model(*batch)
        check_finite("loss", loss.item(), step)
        self.optimizer.zero_grad()
        loss.backward()
        try:
            clip_grad_norm(self.model.named_parameters(), self.grad_clip)
        except ValueError as error:
            raise Diverged(f"step {step}, of which nothing was saved: {error}") from error
        self.optimizer.lr = lr
        self.optimizer.step()
        return loss.item()


class StaticEngine:
    """Plain gradient descent by a graph that is built once and run for each batch.

    Parameters
    ----------
    f_run_model : callable
        As of `nn.models.static.sgd.sgd_step`.
    weights : sequence of array
        The initial values; left as they are.

    Attributes
    ----------
    weights : list of array
        After the latest update.
    """

    def __init__(self, f_run_model: RunModel, weights: Sequence[np.ndarray]):
        self.f_run_model, self.weights = f_run_model, list(weights)

    def update(self, step: int, batch: Batch, lr: float) -> float:
        weights, loss = sgd_step(self.f_run_model, *batch, self.weights, lr)
        check_finite("loss", loss, step)
        check_finite("sum of the new weights", sum(float(w.sum()) for w in weights), step)
        self.weights = weights
        return loss
