"""Gradient descent on the weights of a static graph."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

import tape.lazy as ad

# (X, y, weights) -> [logits, loss, *gradients], with a gradient for each weight
RunModel = Callable[[Any, Any, Sequence[np.ndarray]], Sequence[Any]]


class TrainingGraph:
    """Logits, loss and the gradients of the weights, planned once and run on many batches.

    Parameters
    ----------
    X, y : Variable
        The inputs and the targets.
    nodes : sequence of Variable
        The weights.
    logits, loss : Node
    """

    def __init__(self, X: ad.Node, y: ad.Node, nodes: Sequence[ad.Node], logits: ad.Node,
                 loss: ad.Node):
        self.X, self.y, self.nodes = X, y, list(nodes)
        self._evaluator = ad.Evaluator([logits, loss, *ad.gradients(loss, self.nodes)])

    def run(self, X: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[logits, loss, *gradients] of a batch."""
        return self._evaluator.run({self.X: X, self.y: y, **self.fed(weights)})

    def fed(self, weights: Sequence[np.ndarray]) -> dict[ad.Node, np.ndarray]:
        """The arrays by the nodes that they are fed to."""
        if len(weights) != len(self.nodes):
            raise ValueError(f"the graph needs an array for each of "
                             f"{', '.join(node.name for node in self.nodes)}; got {len(weights)}")
        return dict(zip(self.nodes, weights))


def sgd_step(f_run_model: RunModel, X: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray],
             lr: float) -> tuple[list[np.ndarray], float]:
    """One step of gradient descent on one batch: weight -= lr * gradient, each in its own dtype.

    Parameters
    ----------
    f_run_model : callable
        ``f_run_model(X, y, weights) -> [logits, loss, *gradients]``.
    X, y : array
    weights : sequence of array
        Left as they are.
    lr : float

    Returns
    -------
    list of array, float
        The new weights, and the loss before the step.

    Raises
    ------
    ValueError
        A gradient is missing or has another shape than its weight.
    """
    _, loss, *slopes = f_run_model(X, y, weights)
    if [np.shape(w) for w in weights] != [np.shape(slope) for slope in slopes]:
        raise ValueError(f"sgd_step: f_run_model must return a gradient of the shape of each weight, "
                         f"{[np.shape(w) for w in weights]}; got {[np.shape(s) for s in slopes]}")
    return [w - (lr * slope).astype(w.dtype) for w, slope in zip(weights, slopes)], float(loss)
