"""The image classifier as a static graph: one Transformer layer over the rows of an image.

It has one head, no residual connections and no positions; `nn.VisionTransformer` is the full model.
Names and order of the parameters (`X`, `nodes`, `f_run_model`, ...) are those of the course programs
that use this API, so that such a program can call these functions; for the same reason biases are
broadcast to a shape that is written out.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

import tape.lazy as ad
from nn.models.static.sgd import RunModel, TrainingGraph, sgd_step

WEIGHTS = ("W_in", "b_in", "W_q", "W_k", "W_v", "W_o", "W_1", "b_1", "W_2", "b_2", "W_out", "b_out")


def initial_weights(rng: np.random.Generator, row_length: int, model_dim: int,
                    num_classes: int) -> list[np.ndarray]:
    """A float32 array for each of `WEIGHTS`: matrices uniform in +-1/sqrt(n_in), biases zero."""
    d = model_dim
    shapes = {"W_in": (row_length, d), "W_out": (d, num_classes), "b_out": (num_classes,),
              "b_in": (d,), "b_1": (d,), "b_2": (d,)}
    weights = []
    for name in WEIGHTS:
        shape = shapes.get(name, (d, d))
        bound = shape[0] ** -0.5 if name.startswith("W") else 0.0
        weights.append(rng.uniform(-bound, bound, shape).astype(np.float32))
    return weights


def transformer(X: ad.Node, nodes: Sequence[ad.Node], model_dim: int, seq_length: int, eps: float,
                batch_size: int, num_classes: int) -> ad.Node:
    """Logits (batch_size, num_classes) of images given as sequences of rows.

    Parameters
    ----------
    X : Node (batch_size, seq_length, row length)
    nodes : sequence of Node
        The weights, in the order of `WEIGHTS`.
    model_dim : int
        Width of the layer.
    seq_length : int
        Rows in an image.
    eps : float
        Of the layer norms.
    batch_size, num_classes : int
    """
    if len(nodes) != len(WEIGHTS):
        raise ValueError(f"transformer: nodes must be the {len(WEIGHTS)} weights "
                         f"{', '.join(WEIGHTS)}; got {len(nodes)}")
    W_in, b_in, W_q, W_k, W_v, W_o, W_1, b_1, W_2, b_2, W_out, b_out = nodes

    def linear(x: ad.Node, weight: ad.Node, bias: ad.Node) -> ad.Node:
        return ad.matmul(x, weight) + ad.broadcast(
            bias, input_shape=[model_dim], target_shape=[batch_size, seq_length, model_dim])

    x = linear(X, W_in, b_in)                                                        # (B, S, D)
    q, k, v = ad.matmul(x, W_q), ad.matmul(x, W_k), ad.matmul(x, W_v)                # (B, S, D)
    scores = ad.matmul(q, k, trans_B=True) / math.sqrt(model_dim)                    # (B, S, S)
    x = ad.matmul(ad.matmul(ad.softmax(scores, dim=-1), v), W_o)                     # (B, S, D)
    x = ad.layernorm(x, normalized_shape=[model_dim], eps=eps)
    x = linear(ad.relu(linear(x, W_1, b_1)), W_2, b_2)
    x = ad.layernorm(x, normalized_shape=[model_dim], eps=eps)
    pooled = ad.mean(x, dim=1)                                                       # (B, D)
    return ad.matmul(pooled, W_out) + ad.broadcast(
        b_out, input_shape=[num_classes], target_shape=[batch_size, num_classes])


def softmax_loss(Z: ad.Node, y_one_hot: ad.Node, batch_size: int) -> ad.Node:
    """Mean cross-entropy -sum(y * log softmax(Z)) / B of logits Z, (B, C) or (B, 1, C).

    Each row of y (B, C) has one 1. Both are flattened before they are multiplied, so that labels
    that are not one-hot are refused instead of being broadcast.
    """
    log_p = ad.log_softmax(ad.reshape(Z, (batch_size, -1)), dim=-1)                  # (B, C)
    chosen = ad.mul(ad.reshape(y_one_hot, (-1,)), ad.reshape(log_p, (-1,)))          # (B C,)
    return ad.sum_op(chosen, dim=0) / -batch_size


def sgd_epoch(f_run_model: RunModel, X: np.ndarray, y: np.ndarray,
              model_weights: Sequence[np.ndarray], batch_size: int,
              lr: float) -> tuple[list[np.ndarray], float]:
    """Go through the data once, in the order given, with a step of gradient descent for each batch.

    Parameters
    ----------
    f_run_model : callable
        ``f_run_model(X_batch, y_batch, model_weights) -> [logits, loss, *gradients]``, with a
        gradient for each weight.
    X, y : array
        One row an example; what does not fill a batch at the end is left out.
    model_weights : sequence of array
        Left as they are.
    batch_size : int
    lr : float

    Returns
    -------
    list of array, float
        The weights after the epoch, and the mean loss of its batches.
    """
    if len(X) != len(y):
        raise ValueError(f"sgd_epoch: X and y must have as many rows, got {len(X)} and {len(y)}")
    if not 1 <= batch_size <= len(X):
        raise ValueError(f"sgd_epoch: batch_size must be between 1 and the {len(X)} examples, got "
                         f"{batch_size}")
    weights, losses = list(model_weights), []
    for start in range(0, len(X) - batch_size + 1, batch_size):
        batch = slice(start, start + batch_size)
        weights, loss = sgd_step(f_run_model, X[batch], y[batch], weights, lr)
        losses.append(loss)
    return weights, float(np.mean(losses))


class Classifier:
    """The graph of `transformer` with its loss and gradients, ready to run.

    Parameters
    ----------
    seq_length, row_length : int
        Height and width of an image.
    model_dim, num_classes, batch_size : int
    eps : float
    """

    def __init__(self, seq_length: int, row_length: int, model_dim: int, num_classes: int,
                 batch_size: int, eps: float = 1e-5):
        self.batch_size, self.num_classes = batch_size, num_classes
        self.X, self.y = ad.Variable("X"), ad.Variable("y")
        self.nodes = [ad.Variable(name) for name in WEIGHTS]
        self.logits = transformer(self.X, self.nodes, model_dim, seq_length, eps, batch_size,
                                  num_classes)
        self.loss = softmax_loss(self.logits, self.y, batch_size)
        self._training = TrainingGraph(self.X, self.y, self.nodes, self.logits, self.loss)
        self._predict = ad.Evaluator([self.logits])

    def run(self, X: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[logits, loss, *gradients] of a batch, with labels y (B,); `sgd_epoch` calls this."""
        y = np.asarray(y)
        if len(X) != self.batch_size or y.shape != (self.batch_size,):
            raise ValueError(f"Classifier: the graph is for batches of {self.batch_size} images and as "
                             f"many labels, got shapes {X.shape} and {y.shape}")
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= self.num_classes:
            raise ValueError(f"Classifier: labels must be integers in [0, {self.num_classes}), got "
                             f"{y.dtype} from {y.min()} to {y.max()}")
        one_hot = np.eye(self.num_classes, dtype=np.float32)[y]                      # (B, C)
        return self._training.run(X, one_hot, weights)

    def predict(self, X: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
        """The likeliest label of each image, (N,) integers, for any number of them."""
        labels = [np.zeros(0, np.int64)]
        for start in range(0, len(X), self.batch_size):
            batch = X[start:start + self.batch_size]
            full = np.zeros((self.batch_size, *X.shape[1:]), X.dtype)    # the graph has one batch size
            full[:len(batch)] = batch
            (logits,) = self._predict.run({self.X: full, **self._training.fed(weights)})
            labels.append(np.argmax(logits[:len(batch)], axis=1))
        return np.concatenate(labels)
