"""The two ways to update weights with a batch: on the tape, and by a static graph."""

from __future__ import annotations

import math
from typing import Any, Iterator, Mapping, Protocol, Sequence

import numpy as np

from nn.layers.dropout import Dropout
from nn.layers.module import Module
from nn.layers.state_dict import load_arrays
from nn.models.static.sgd import RunModel, sgd_step
from nn.training.audit import audit
from nn.training.clip_grad import clip_grad_norm
from nn.training.optim import Optimizer
from nn.training.parallel import on_processors
from nn.training.parts import shares
from nn.training.resume import packed, unpacked
from tape import Tensor

Batch = tuple[Any, ...]         # inputs, of some models several, and targets; one row an example


class Diverged(ArithmeticError):
    """A number that must be finite is not; says which, and in which step.

    Attributes
    ----------
    batch, position : of the update that failed, see `nn.training.loop.train`; or None.
    """

    batch: Batch | None = None
    position: Any = None


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
        batch : (inputs, targets), or with several arrays of inputs
        lr : float

        Returns
        -------
        float
            The mean loss of the batch, before the update.

        Raises
        ------
        Diverged
            The loss, a gradient or the new weights are not finite; the engine is as before.
        """

    def state_dict(self) -> dict[str, np.ndarray]:
        """What the next updates depend on besides the batches and the weights of the model that is
        saved, by name."""

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state_dict` gave; ValueError where it does not fit."""

    @property
    def streams(self) -> Mapping[str, np.random.Generator]:
        """The generators that updates draw from, by name."""

    @property
    def grad_norm(self) -> float:
        """The joint length of all gradients of the latest update, before clipping; NaN if unknown."""


class TapeEngine:
    """The operations of a model are recorded as they run; an optimiser reads the gradients.

    Parameters
    ----------
    model : Module
        ``model(*inputs, targets) -> (outputs, loss)``.
    optimizer : Optimizer
    grad_clip : float
        The longest joint gradient; see `clip_grad_norm`.
    micro_batch_size : int, optional
        At most so many rows of a batch are run at a time, and their gradients are added up, so that the
        tape holds no more than these rows. By default the batch is run at once.
    workers : int
        On how many processors these rows are computed; see `nn.training.parallel.on_processors`.

    Attributes
    ----------
    run : what is called in the place of the model: the model, or its `DataParallel`.

    Notes
    -----
    The loss of a micro-batch is weighted by its share in the targets that count; see
    `nn.training.parts.shares`. A single update is then that of the whole batch, to rounding; with
    dropout other elements are dropped.

    At the first update a warning names the parameters that will not learn, unless `audits` is False;
    see `audit`.
    """

    def __init__(self, model: Module, optimizer: Optimizer, grad_clip: float = math.inf,
                 micro_batch_size: int | None = None, audits: bool = True, workers: int = 1):
        if micro_batch_size is not None and not (
                isinstance(micro_batch_size, (int, np.integer)) and micro_batch_size >= 1):
            raise ValueError(f"TapeEngine: micro_batch_size must be a positive integer or None, got "
                             f"{micro_batch_size!r}")
        self.model, self.optimizer, self.grad_clip = model, optimizer, grad_clip
        self.micro_batch_size, self.workers = micro_batch_size, workers
        self.grad_norm = math.nan
        self._audits = audits
        # Found once: those that the optimiser changes are settled too, and a search takes as long as
        # the clipping of a small model.
        self._named = dict(model.named_parameters())
        self.run = on_processors(model, workers)
        self.streams = {name: module.rng for name, module in model.named_modules()
                        if isinstance(module, Dropout) and module.p}

    def update(self, step: int, batch: Batch, lr: float) -> float:
        before = {name: rng.bit_generator.state for name, rng in self.streams.items()}
        try:
            loss = self._gradients(step, batch)
        except Diverged:
            for name, rng in self.streams.items():
                rng.bit_generator.state = before[name]
            raise
        self.optimizer.lr = lr
        self.optimizer.step()
        return loss

    def state_dict(self) -> dict[str, np.ndarray]:
        return packed(self.optimizer.state_dict())

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        self.optimizer.load_state_dict(unpacked(state, self.optimizer.state_dict()))

    def _gradients(self, step: int, batch: Batch) -> float:
        """Leave the gradients of a batch with the parameters, clipped; the mean loss."""
        self.optimizer.zero_grad()
        mean = 0.0
        for part, share in self._shares(batch):
            _, loss = self.run(*part)
            check_finite("loss", loss.item(), step)
            loss.backward(np.asarray(share, loss.dtype))
            mean += share * loss.item()
        if self._audits:
            self._audits = False
            audit(self.model, self.optimizer)
        try:
            self.grad_norm = float(clip_grad_norm(self._named, self.grad_clip))
        except ValueError as error:
            raise Diverged(f"step {step}, of which nothing was saved: {error}") from error
        return mean

    def _shares(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """The micro-batches, each with its share in the targets of the batch."""
        targets, size = batch[-1], self.micro_batch_size
        if size is None or size >= len(targets):
            yield batch, 1.0
            return
        rows = [slice(start, start + size) for start in range(0, len(targets), size)]
        found = shares(targets, rows)
        for part, share in zip(rows, found):
            if share or not any(found):          # rows of padding alone add nothing to the others
                yield tuple(array[part] for array in batch), share


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

    streams: Mapping[str, np.random.Generator] = {}
    grad_norm = math.nan            # its gradients are not kept

    def __init__(self, f_run_model: RunModel, weights: Sequence[np.ndarray]):
        self.f_run_model, self.weights = f_run_model, list(weights)

    def update(self, step: int, batch: Batch, lr: float) -> float:
        inputs, targets = batch
        weights, loss = sgd_step(self.f_run_model, inputs, targets, self.weights, lr)
        check_finite("loss", loss, step)
        check_finite("sum of the new weights", sum(float(w.sum()) for w in weights), step)
        self.weights = weights
        return loss

    def state_dict(self) -> dict[str, np.ndarray]:
        return {f"weights.{i}": weight for i, weight in enumerate(self.weights)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        own = {name: Tensor(array) for name, array in self.state_dict().items()}
        load_arrays(own, state, True, "StaticEngine")
        self.weights = [np.array(weight.data) for weight in own.values()]
