"""Which parameters of a model will not learn, found at the first step rather than after a training."""

from __future__ import annotations

import warnings
from typing import NamedTuple, Sequence

from nn.layers.module import Module
from nn.training.optim import Optimizer

_SHOWN = 8          # names of one kind in the warning


class Audit(NamedTuple):
    """What `audit` found; all empty where every parameter learns.

    Attributes
    ----------
    unreached : names of parameters without a gradient: the loss does not depend on them.
    unheld : names of parameters that no optimiser holds.
    foreign : "AdamW number 3 (8, 4)" of what an optimiser holds, the model does not have, and never got
        a gradient.
    """

    unreached: list[str]
    unheld: list[str]
    foreign: list[str]

    def __str__(self) -> str:
        kinds = [
            (self.unreached, "have no gradient, so the loss does not depend on them",
             "Is their module called in forward, in training too, and its result used? Does detach(), "
             ".data or no_grad cut the tape behind it? On purpose: set requires_grad = False."),
            (self.unheld, "are held by no optimiser, so they stay as they are",
             "Give the optimiser model.parameters(), after all modules were made. On purpose: set "
             "requires_grad = False."),
            (self.foreign, "are held by an optimiser, not in the model, and have no gradient",
             "Was the optimiser made for another model, or a parameter replaced after it was made? "
             "Make the optimiser last.")]
        parts = [f"{len(names)} {what}: {_first(names)}. {remedy}"
                 for names, what, remedy in kinds if names]
        return "\n".join(parts) or "every parameter has a gradient and an optimiser"


def audit(model: Module, *optimizers: Optimizer, warn: bool = True) -> Audit:
    """Look for parameters that will not learn; to be called once, after the first ``backward()``.

    Frozen parameters (``requires_grad = False``) are passed over. The training loop calls it at its
    first step.

    Parameters
    ----------
    model : Module
        Its parameters have their gradients.
    *optimizers : Optimizer
        All that change the model.
    warn : bool
        Whether to issue a warning with the names, the probable causes and the remedies.

    Returns
    -------
    Audit

    Raises
    ------
    TypeError
        There is no optimiser.

    Examples
    --------
    >>> import nn, numpy as np
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> optimizer = nn.SGD(model.layers[1].parameters(), lr=0.1)
    >>> model(np.ones((4, 2), np.float32)).sum().backward()
    >>> nn.audit(model, optimizer, warn=False).unheld
    ['0.weight', '0.bias']
    """
    if not optimizers or not all(isinstance(optimizer, Optimizer) for optimizer in optimizers):
        raise TypeError(f"audit: a model and its optimisers must be given, audit(model, optimizer), "
                        f"got {[type(optimizer).__name__ for optimizer in optimizers]} after the model")
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    known = {id(p) for p in model.parameters()}
    held = {id(p) for optimizer in optimizers for p in optimizer.params}
    found = Audit(
        [name for name, p in named.items() if p.grad is None],
        [name for name, p in named.items() if id(p) not in held],
        [f"{type(optimizer).__name__} number {i} {p.shape}" for optimizer in optimizers
         for i, p in enumerate(optimizer.params)
         if id(p) not in known and p.requires_grad and p.grad is None])
    if warn and any(found):
        warnings.warn(f"audit: some parameters of {type(model).__name__} will not learn.\n{found}",
                      stacklevel=2)
        for optimizer in optimizers if found.unreached or found.foreign else ():
            optimizer.warned = True              # it need not say so again, without names
    return found


def _first(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
