"""The weights averaged over the steps of a training."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Mapping

import numpy as np

from nn.layers.module import Module
from nn.layers.state_dict import load_arrays
from nn.training.param_groups import is_number, widened
from tape import Tensor


class ExponentialMovingAverage:
    """Exponential moving averages of the parameters of a model.

        a = decay * a + (1 - decay) * p         at each `update`; at the beginning a = p

    They follow the parameters without the noise of single steps, and are often the better model to
    evaluate and to save: ``with average.applied(): ...``. Averaging of the iterates is from Polyak and
    Juditsky 1992; the exponential form from Tarvainen and Valpola 2017, arXiv:1703.01780, eq. 4.

    Parameters
    ----------
    model : Module
    decay : float
        In [0, 1). An average is over about the last 1 / (1 - decay) updates.

    Notes
    -----
    The averages of float16 parameters are float32.

    Raises
    ------
    ValueError
        The decay is not in [0, 1).
    """

    def __init__(self, model: Module, decay: float = 0.999):
        if not (is_number(decay) and 0 <= decay < 1):
            raise ValueError(f"ExponentialMovingAverage: decay must be in [0, 1), got {decay!r}")
        if not isinstance(model, Module):
            raise TypeError(f"ExponentialMovingAverage: must be given a module, whose parameters have "
                            f"names, got a {type(model).__name__}")
        self.model, self.decay = model, decay
        self.averages = {name: Tensor(widened(p.data)) for name, p in model.named_parameters()}

    def update(self) -> None:
        """Take the present parameters into the averages; call it after each step of the optimiser."""
        for name, parameter in self.model.named_parameters():
            average = self.averages[name]
            average.data += (1 - self.decay) * (widened(parameter.data) - average.data)

    @contextmanager
    def applied(self) -> Iterator[Module]:
        """Within the block the model has the averages as its parameters; afterwards its own again.

        Buffers, of which there are no averages, stay what they are.
        """
        parameters = dict(self.model.named_parameters())
        own = {name: p.data.copy() for name, p in parameters.items()}
        caller = "ExponentialMovingAverage"
        load_arrays(parameters, self.state_dict(), True, caller)
        try:
            yield self.model
        finally:
            load_arrays(parameters, own, True, caller)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of the averages, by the names of the parameters."""
        return {name: average.data.copy() for name, average in self.averages.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over averages, all of them or, with a ValueError that names what differs, none."""
        load_arrays(self.averages, state, True, "load_state_dict: ExponentialMovingAverage")
