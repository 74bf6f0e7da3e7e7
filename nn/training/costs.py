"""What a step of a training costs, known before it begins: operations and memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nn.layers.parameter import dtype_of, parameters_of, without_memory
from nn.layers.summary import summary
from nn.models.registry import name_of
from nn.training.engines import Batch, Engine, StaticEngine, TapeEngine


class Costs(NamedTuple):
    """Of a step with one batch; None is what is not known.

    Attributes
    ----------
    examples : how many are learned from.
    kind : what one is: a "token" to predict, or an "image" with a label.
    flops : floating-point operations of the forward and backward pass.
    weights, gradients, optimizer, activations : bytes; the last of what the tape keeps between
        forward and backward.

    Notes
    -----
    The operations are those of "Model FLOPs" in Chowdhery et al. 2022, "PaLM" (arXiv:2204.02311),
    appendix B: products of matrices alone, of a decoder 6 N + 12 L H Q T per token, with N parameters
    in matrices, L layers, H heads of size Q and T tokens. (A product and a sum are two, once in the
    forward and twice in the backward pass; the scores and the mean of the values are 2 Q T each for a
    head.) Here the products are counted as the model makes them (`nn.summary`). That gives this number
    for a `GPT`, and one that holds for recurrent nets, images, and encoders with decoders too.
    """

    examples: int
    kind: str
    flops: int | None
    weights: int
    gradients: int
    optimizer: int
    activations: int | None

    def table(self) -> str:
        """Lines, aligned with those of `nn.data.yardsticks.Yardsticks.table`."""
        lines = []
        if self.flops is not None:
            lines += ["floating-point operations, forward and backward, in products of matrices",
                      _line(f"for each {self.kind}", self.flops / self.examples, ""),
                      _line("for a step", self.flops, "")]
        parts = {"weights": self.weights, "gradients": self.gradients, "optimiser": self.optimizer,
                 "activations": self.activations}
        known = {name: size for name, size in parts.items() if size is not None}
        lines += [f"memory of a step{'' if len(known) == 4 else ', without its results'}",
                  *(_line(name, size, "B") for name, size in known.items()),
                  _line("together", sum(known.values()), "B")]
        return "\n".join(lines)


def costs(engine: Engine, batch: Batch) -> Costs | None:
    """What an update with this batch costs; nothing is computed, and no random number drawn.

    None of an engine that is none of `nn.training.engines`. Of a model that no checkpoint can hold, as
    one of single numbers, and of a static graph the operations and activations are unknown.
    """
    targets = np.asarray(batch[-1])
    if targets.ndim > 1:
        examples, kind = int((targets >= 0).sum()), "token"          # padding is negative
    else:
        examples, kind = len(targets), "image"
    if isinstance(engine, StaticEngine):
        size = sum(weight.nbytes for weight in engine.weights)
        return Costs(examples, kind, None, size, size, 0, None)
    if not isinstance(engine, TapeEngine):
        return None
    parameters = engine.model.parameters()
    weights = sum(p.size * p.dtype.itemsize for p in parameters)
    gradients = sum(p.size * p.dtype.itemsize for p in parameters if p.requires_grad)
    remembered = sum(array.nbytes for array in engine.optimizer.state_dict().values())
    flops, activations = _measured(engine, batch)
    return Costs(examples, kind, flops, weights, gradients, remembered, activations)


def _measured(engine: TapeEngine, batch: Batch) -> tuple[int | None, int | None]:
    """The operations of a batch, and the bytes that are kept of as many rows as run at a time."""
    model: Any = engine.model
    if name_of(model) is None:
        return None, None
    with without_memory(), parameters_of(dtype_of(model.parameters())):
        twin = type(model)(model.config)
    rows = slice(engine.micro_batch_size)
    whole = summary(twin, *batch)
    part = summary(twin, *(array[rows] for array in batch)) if engine.micro_batch_size else whole
    return whole.training_flops, part.activation_bytes


def _line(name: str, number: float, unit: str) -> str:
    """A name, and the number with three decimals and a prefix."""
    for prefix in ("", "k", "M", "G", "T"):
        if number < 1000:
            break
        number /= 1000
    return f"  {name:<45}{number:7.3f} {prefix}{unit}".rstrip()
