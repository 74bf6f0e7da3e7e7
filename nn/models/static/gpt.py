"""The decoder-only language model as a static graph: every step is written out, nothing runs yet.

It is the model that `nn.GPT` is with ``norm="post", activation="relu", position="sinusoidal",
tie_weights=False``, with the same weights under the same names, and gives the same losses. There
the operations run as the code is read; here `language_model` describes them, and
`LanguageModel.run` runs the description with the gradients, as often as there are batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Mapping, Sequence

import numpy as np

import tape.lazy as ad
from nn.layers.position import sinusoids
from nn.models.gpt import GPTConfig
from nn.models.static.sgd import TrainingGraph

MASKED = -1e9       # added to a score; exp of the sum is 0. -inf would do too, and is what nn.GPT uses


@dataclass(frozen=True)
class LanguageModel:
    """The graph: what is fed, and what can be asked for."""

    shape: tuple[int, int]               # B, T: what the graph was built for
    ids: ad.Variable                     # (B, T) integers
    targets: ad.Variable                 # (B, T) integers, -1 where they do not count
    weights: dict[str, ad.Node]          # by the names of `nn.GPT`'s parameters
    logits: ad.Node                      # (B, T, V)
    loss: ad.Node                        # (), the mean cross-entropy in nats

    @cached_property
    def _training(self) -> TrainingGraph:
        nodes = list(self.weights.values())
        return TrainingGraph(self.ids, self.targets, nodes, self.logits, self.loss)

    def run(self, ids: np.ndarray, targets: np.ndarray,
            weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[logits, loss, *gradients] of a batch, the weights in the order of `arrays`."""
        if not np.shape(ids) == np.shape(targets) == self.shape:
            raise ValueError(f"LanguageModel: ids and targets must have the shape {self.shape} that "
                             f"the graph was built for, got {np.shape(ids)} and {np.shape(targets)}")
        return self._training.run(ids, targets, weights)

    def arrays(self, state: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The weights in the order that `run` takes them, from an `nn.GPT`'s ``state_dict()``."""
        missing = [name for name in self.weights if name not in state]
        if missing:
            raise ValueError(f"LanguageModel: state must have an array for each weight of the model; "
                             f"missing: {', '.join(missing)}")
        return [state[name] for name in self.weights]

    def state(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The reverse of `arrays`: for ``load_state_dict``."""
        return dict(zip(self.weights, arrays))


class _Weights(dict):
    """Makes a Variable for each weight when it is first asked for."""

    def __missing__(self, name: str) -> ad.Variable:
        self[name] = ad.Variable(name)
        return self[name]


def language_model(config: GPTConfig, batch_size: int, length: int,
                   dtype: str = "float32") -> LanguageModel:
    """The graph for batches of `batch_size` sequences of `length` tokens, and weights of this dtype.

    Raises
    ------
    ValueError
        The configuration is not of the kind described above.
    """
    wanted = {"norm": "post", "activation": "relu", "position": "sinusoidal", "tie_weights": False,
              "bias": True, "dropout": 0.0, "norm_kind": "layer", "n_kv_head": config.n_head}
    wrong = [f"{name}={value!r}" for name, value in wanted.items() if getattr(config, name) != value]
    if wrong:
        raise ValueError(f"language_model: the static graph needs {', '.join(wrong)}, got {config}")
    if length > config.block_size:
        raise ValueError(f"language_model: length must be at most the block_size {config.block_size}, "
                         f"got {length}")
    w: dict[str, ad.Node] = _Weights()
    ids, targets = ad.Variable("ids"), ad.Variable("targets")
    positions = sinusoids(length, config.n_embd).astype(dtype)                       # (T, C)
    x = ad.embedding(w["tokens.weight"], ids) + positions                            # (B, T, C)
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
