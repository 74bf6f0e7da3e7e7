"""What a line of the catalogue is: a call of an operator, and how its inputs are drawn."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A function of differentiable inputs, and how to draw them."""

    name: str
    function: Callable
    shapes: tuple
    draw: Callable

    @property
    def operator(self) -> str:
        """The operator that the case is a line of."""
        return self.name.split("/")[0]

    def inputs(self, dtype: Any = np.float64) -> list[np.ndarray]:
        """The same inputs at every call."""
        rng = np.random.default_rng(len(self.name))
        return [self.draw(rng, shape).astype(dtype) for shape in self.shapes]


def spread(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    """Of both signs, and away from 0, where some operators have a kink."""
    x = rng.standard_normal(shape)
    return x + 0.2 * np.sign(x)


def positive(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    """Between 0.5 and 2."""
    return rng.uniform(0.5, 2.0, shape)


def case(name: str, function: Callable, *input_shapes: tuple, draw: Callable = spread) -> Case:
    """A `Case`, with its shapes as arguments."""
    return Case(name, function, input_shapes, draw)
