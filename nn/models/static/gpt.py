"""The decoder-only language model as a static graph: every step is written out, nothing runs yet.

It is the model that `nn.GPT` is with ``norm="post", activation="relu", position="sinusoidal",
tie_weights=False``, with the same weights under the same names, and gives the same losses. There
the operations run as the code is read; here `language_model` describes them, `gradients` extends
the description, and an `Evaluator` runs it, as often as there are batches.
"""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple

import numpy as np

import tape.lazy as ad
from nn.layers.position import sinusoids
from nn.models.gpt import GPTConfig

MASKED = -1e9       # added to a score; exp of the sum is 0. -inf would do too, and is what nn.GPT uses


class LanguageModel(NamedTuple):
    """The graph: what is fed, and what can be asked for."""

    shape: tuple[int, int]               # B, T: what the graph was built for
    ids: ad.Variable                     # (B, T) integers
    targets: ad.Variable                 # (B, T) integers, -1 where they do not count
    weights: dict[str, ad.Node]          # by the names of `nn.GPT`'s parameters
    logits: ad.Node                      # (B, T, V)
    loss: ad.Node                        # (), the mean cross-entropy in nats


class _Weights(dict):
    """Makes a Variable for each weight when it is first asked for."""

    def __missing__(self, name: str) -> ad.Variable:
        self[name] = ad.Variable(name)
        return self[name]


def language_model(config: GPTConfig, batch_size: int, length: int) -> LanguageModel:
    """The graph for batches of `batch_size` sequences of `length` tokens.

    Raises
    ------
    ValueError
        The configuration is not of the kind described above.
    """
    wanted = {"norm": "post", "activation": "relu", "position": "sinusoidal", "tie_weights": False,
              "bias": True, "dropout": 0.0}
    wrong = [f"{name}={value!r}" for name, value in wanted.items() if getattr(config, name) != value]
    if wrong:
        raise ValueError(f"language_model: the static graph needs {', '.join(wrong)}, got {config}")
    if length > config.block_size:
        raise ValueError(f"language_model: length must be at most the block_size {config.block_size}, "
                         f"got {length}")
    w: dict[str, ad.Node] = _Weights()
    ids, targets = ad.Variable("ids"), ad.Variable("targets")
    x = ad.embedding(w["tokens.weight"], ids) + sinusoids(length, config.n_embd)     # (B, T, C)
    for i in range(config.n_layer):
        x = block(x, w, f"blocks.{i}", config, batch_size, length)
    logits = ad.matmul(x, w["head.weight"])                                          # (B, T, V)
    loss = ad.cross_entropy(logits, targets)                                         # ()
    return LanguageModel((batch_size, length), ids, targets, dict(w), logits, loss)


def block(x: ad.Node, w: dict[str, ad.Node], name: str, config: GPTConfig, batch_size: int,
          length: int) -> ad.Node:
    """Attention, then a feed-forward layer, each added to what came in, and normalised."""
    attended = attention(x, w, f"{name}.attention", config, batch_size, length)
    x = normalised(x + attended, w, f"{name}.norm1", config)                         # (B, T, C)
    hidden = ad.relu(linear(x, w, f"{name}.feed_forward.hidden"))                    # (B, T, 4C)
    return normalised(x + linear(hidden, w, f"{name}.feed_forward.output"), w, f"{name}.norm2", config)


def attention(x: ad.Node, w: dict[str, ad.Node], name: str, config: GPTConfig, batch_size: int,
              length: int) -> ad.Node:
    """softmax(Q K^T / sqrt(D) + mask) V in each head, and W_o on the heads side by side."""
    B, T, C, H = batch_size, length, config.n_embd, config.n_head
    D = C // H

    def heads(part: str) -> ad.Node:
        return ad.transpose(ad.reshape(linear(x, w, f"{name}.{part}"), (B, T, H, D)), 1, 2)
    q, k, v = heads("query"), heads("key"), heads("value")                           # (B, H, T, D)
    future = np.triu(np.full((T, T), MASKED, np.float32), 1)
    scores = ad.matmul(q, k, trans_B=True) / math.sqrt(D) + future                   # (B, H, T, T)
    mixed = ad.matmul(ad.softmax(scores, dim=-1), v)                                 # (B, H, T, D)
    return linear(ad.reshape(ad.transpose(mixed, 1, 2), (B, T, C)), w, f"{name}.output")


def linear(x: ad.Node, w: dict[str, ad.Node], name: str) -> ad.Node:
    """x @ weight + bias: (B, T, n_in) -> (B, T, n_out)."""
    return ad.matmul(x, w[f"{name}.weight"]) + w[f"{name}.bias"]


def normalised(x: ad.Node, w: dict[str, ad.Node], name: str, config: GPTConfig) -> ad.Node:
    """Each row with mean 0 and variance 1, then scaled and shifted."""
    return ad.layernorm(x, [config.n_embd]) * w[f"{name}.weight"] + w[f"{name}.bias"]


def sgd(model: LanguageModel, weights: dict[str, np.ndarray], ids: np.ndarray, targets: np.ndarray,
        lr: float) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Gradient descent on one batch, without end: the loss before each step, the weights after it.

    Parameters
    ----------
    model : LanguageModel
    weights : dict of arrays
        The initial values, by name; left as they are.
    ids, targets : integer arrays (B, T)
    lr : float
    """
    names = list(model.weights)
    missing = [name for name in names if name not in weights]
    if missing:
        raise ValueError(f"sgd: weights must have an array for each weight of the model; missing: "
                         f"{', '.join(missing)}")
    if not np.shape(ids) == np.shape(targets) == model.shape:
        raise ValueError(f"sgd: ids and targets must have the shape {model.shape} that the graph was "
                         f"built for, got {np.shape(ids)} and {np.shape(targets)}")
    slopes = ad.gradients(model.loss, [model.weights[name] for name in names])
    evaluator = ad.Evaluator([model.loss, *slopes])
    while True:
        feed = {model.weights[name]: weights[name] for name in names}
        loss, *found = evaluator.run({model.ids: ids, model.targets: targets, **feed})
        weights = {name: weights[name] - np.float32(lr) * g for name, g in zip(names, found)}
        yield loss.item(), weights
