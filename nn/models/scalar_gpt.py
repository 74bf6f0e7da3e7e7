"""A GPT once more, on single numbers: every weight and every result is a Tensor without axes.

It has no arrays: every sum and product of the model is a record of its own on the tape. To be read, as
what `nn.models.gpt` computes; it is some hundred times slower.
"""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np

import tape
from nn.layers.module import Module
from nn.layers.parameter import Parameter
from nn.models.gpt import GPTConfig
from tape import Tensor

Vector = list[Tensor]
Past = list[tuple[list[Vector], list[Vector]]]      # of each block the keys and values so far

# What is written out here: pre-norm with RMSNorm, ReLU, learned positions, weights of its own for the
# logits, and a key for each query head.
WRITTEN: dict[str, Any] = {
    "dropout": 0.0, "bias": False, "norm": "pre", "activation": "relu", "position": "learned",
    "tie_weights": False, "norm_kind": "rms"}


class ScalarGPT(Module):
    """The `GPT` of the same configuration and weights, for one sequence.

    ``ScalarGPT(config, state)(idx, targets) -> (logits, loss)`` with `idx` and `targets` integer arrays
    (1, T); the logits are T lists of vocab_size Tensors.
    At each position, with the keys k_s and values v_s of this and of all earlier positions,

        x   = tokens[idx_t] + positions[t]
        x  += (concatenate_h sum_s softmax_s(q_h k_sh / sqrt(D)) v_sh) O     q, k, v = norm(x) Q, K, V
        x  += max(norm(x) W, 0) U
        logits = norm(x) H,   loss = mean_t (log sum_j exp logits_tj - logits_t,target)

    where norm(x) = x / sqrt(mean(x^2) + 1e-5) * weight. No mask is needed: later keys do not exist yet.

    Parameters
    ----------
    config : GPTConfig
        With the settings `WRITTEN`, and a key for each query head.
    state : mapping
        ``state_dict()`` of the `GPT`. The scalars have the dtype of its arrays.

    Attributes
    ----------
    weights : dict
        Of each array of the state the scalars: a list of them, or a list of rows.

    Raises
    ------
    ValueError
        A setting is another, or `idx` or `targets` are not one sequence of tokens.
    """

    def __init__(self, config: GPTConfig, state: Mapping[str, np.ndarray]):
        for name, value in {**WRITTEN, "n_kv_head": config.n_head}.items():
            if getattr(config, name) != value:
                raise ValueError(f"ScalarGPT: {name} must be {value!r}, got {getattr(config, name)!r}. "
                                 f"Only GPT has the other settings.")
        self.config = config
        self.weights: dict[str, Any] = {name: _scalars(state[name])
                                        for name, _ in config.parameter_shapes()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights as the ``state_dict()`` of a `GPT`."""
        return {name: _array(weight) for name, weight in self.weights.items()}

    def forward(self, idx: Any, targets: Any = None) -> tuple[list[Vector], Tensor | None]:
        tokens = self._tokens("idx", idx)
        past: Past = [([], []) for _ in range(self.config.n_layer)]
        logits = [self._logits(token, t, past) for t, token in enumerate(tokens)]
        if targets is None:
            return logits, None
        wanted = self._tokens("targets", targets)
        if len(wanted) != len(tokens):
            raise ValueError(f"ScalarGPT: targets must have the shape of idx, (1, {len(tokens)}), got "
                             f"(1, {len(wanted)})")
        losses = [_cross_entropy(row, target) for row, target in zip(logits, wanted)]
        return logits, _sum(losses) / len(losses)

    def _tokens(self, name: str, ids: Any) -> list[int]:
        """The tokens of one sequence (1, T)."""
        ids, c = np.asarray(ids), self.config
        if ids.ndim != 2 or len(ids) != 1 or not 1 <= ids.shape[1] <= c.block_size:
            raise ValueError(f"ScalarGPT: {name} must be one sequence, (1, T) with T from 1 to "
                             f"block_size = {c.block_size}, got shape {ids.shape}")
        if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= c.vocab_size:
            raise ValueError(f"ScalarGPT: {name} must be integers in [0, {c.vocab_size}), got {ids}")
        return ids[0].tolist()

    def _logits(self, token: int, t: int, past: Past) -> Vector:
        """The logits at position t; its keys and values join those of the past."""
        x = _add(self.weights["tokens.weight"][token], self.weights["positions.weight"][t])
        for i, (keys, values) in enumerate(past):
            block = f"blocks.{i}"
            x = _add(x, self._attention(f"{block}.attention", self._norm(f"{block}.norm1", x),
                                        keys, values))
            x = _add(x, self._feed_forward(f"{block}.feed_forward", self._norm(f"{block}.norm2", x)))
        return self._linear("head", self._norm("norm", x))

    def _attention(self, name: str, x: Vector, keys: list[Vector], values: list[Vector]) -> Vector:
        q = self._linear(f"{name}.query", x)
        keys.append(self._linear(f"{name}.key", x))
        values.append(self._linear(f"{name}.value", x))
        d, mixed = len(q) // self.config.n_head, []
        for start in range(0, len(q), d):
            own = slice(start, start + d)                        # the coordinates of a head
            weights = _softmax([_dot(q[own], k[own]) * d ** -0.5 for k in keys])
            mixed += [_dot(weights, column) for column in zip(*(v[own] for v in values))]
        return self._linear(f"{name}.output", mixed)

    def _feed_forward(self, name: str, x: Vector) -> Vector:
        hidden = [tape.relu(h) for h in self._linear(f"{name}.hidden", x)]
        return self._linear(f"{name}.output", hidden)

    def _norm(self, name: str, x: Vector) -> Vector:
        size = tape.sqrt(_dot(x, x) / len(x) + 1e-5)
        return [x_i / size * w_i for x_i, w_i in zip(x, self.weights[f"{name}.weight"])]

    def _linear(self, name: str, x: Vector) -> Vector:
        """x W: the product of x with each column."""
        return [_dot(x, column) for column in zip(*self.weights[f"{name}.weight"])]


def _scalars(array: Any) -> Any:
    return [_scalars(part) for part in array] if array.ndim else Parameter(array)


def _array(scalars: Any) -> np.ndarray:
    return np.stack([_array(part) for part in scalars]) if isinstance(scalars, list) else scalars.data


def _add(x: Vector, y: Vector) -> Vector:
    return [x_i + y_i for x_i, y_i in zip(x, y)]


def _sum(x: Vector) -> Tensor:
    total = x[0]
    for x_i in x[1:]:
        total = total + x_i
    return total


def _dot(x: Any, y: Any) -> Tensor:
    return _sum([x_i * y_i for x_i, y_i in zip(x, y)])


def _exponentials(x: Vector) -> tuple[Vector, float]:
    """exp(x_i - m), and m = max(x), a constant: so that none is too large for its dtype."""
    m = max(x_i.item() for x_i in x)
    return [tape.exp(x_i - m) for x_i in x], m


def _softmax(x: Vector) -> Vector:
    e, _ = _exponentials(x)
    total = _sum(e)
    return [e_i / total for e_i in e]


def _cross_entropy(logits: Vector, target: int) -> Tensor:
    e, m = _exponentials(logits)
    return tape.log(_sum(e)) + m - logits[target]
