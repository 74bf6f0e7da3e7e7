"""What a language model thinks of a text: the losses of its tokens, their ranks, its attention."""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple

import numpy as np

import tape
from nn.layers.arrays import on_arrays
from nn.layers.attention import MultiHeadAttention
from nn.models.gpt import GPT

WINDOWS = 16            # computed together, in `token_losses`


class Explanation(NamedTuple):
    """A token among those that could have stood in its place.

    Attributes
    ----------
    token, probability : and what the model gave it, by the softmax of its logits.
    rank : 1 is the likeliest; of equals the lower id is first.
    runners_up : the likeliest others, (token, probability) each.
    """

    token: int
    probability: float
    rank: int
    runners_up: list[tuple[int, float]]


def explain(logits: np.ndarray, token: int, count: int = 3) -> Explanation:
    """What logits (V,) say of a token, and of the `count` likeliest others."""
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max())
    p /= p.sum()
    order = np.argsort(-logits, kind="stable").tolist()
    others = [i for i in order[:count + 1] if i != token][:count]
    return Explanation(token, float(p[token]), order.index(token) + 1,
                       [(i, float(p[i])) for i in others])


def token_losses(model: Any, ids: Any) -> Iterator[np.ndarray]:
    """-log p of each token of a text but the first, in nats: arrays that joined have N - 1.

    A `RecurrentLM` reads the text from its beginning to its end. A `GPT` reads windows of block_size
    tokens, each half a block behind the one before, of which the second half counts: but for the
    first tokens each is predicted from at least half a block.

    Parameters
    ----------
    model : GPT or RecurrentLM
    ids : integer sequence (N,)
        At least two tokens.
    """
    ids = np.asarray(ids, np.int64)
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"token_losses: ids must be at least two tokens (N,), got shape {ids.shape}")
    twin, block = on_arrays(model), model.config.block_size
    return (_windows if isinstance(model, GPT) else _in_one_go)(twin, ids, block)


def _in_one_go(twin: Any, ids: np.ndarray, block: int) -> Iterator[np.ndarray]:
    cache = twin.new_cache()
    for start in range(0, len(ids) - 1, block):
        piece = ids[start:start + block + 1]
        yield _losses(twin(piece[None, :-1], cache=cache)[0], piece[None, 1:])[0]


def _windows(twin: Any, ids: np.ndarray, block: int) -> Iterator[np.ndarray]:
    step = max(1, block // 2)
    first = ids[:block + 1]
    yield _losses(twin(first[None, :-1])[0], first[None, 1:])[0]
    # Of window i the inputs are ids[i : i + block], and the last `step` of its targets count.
    starts = np.arange(step, len(ids) - block, step)
    for some in np.split(starts, range(WINDOWS, len(starts), WINDOWS)):
        if len(some):
            rows = ids[some[:, None] + np.arange(block + 1)]                 # (B, block + 1)
            yield _losses(twin(rows[:, :-1])[0], rows[:, 1:])[:, -step:].ravel()
    left = len(ids) - block - 1 - len(starts) * step                         # fewer than a step
    if left > 0:
        last = ids[-block - 1:]
        yield _losses(twin(last[None, :-1])[0], last[None, 1:])[0, -left:]


def _losses(logits: Any, targets: np.ndarray) -> np.ndarray:
    """(B, T), in float64."""
    log_p = tape.log_softmax(np.asarray(logits, np.float64))                 # (B, T, V)
    return -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]


def attention_weights(model: GPT, idx: Any) -> np.ndarray:
    """(L, H, T, T): in each block and head the weight of each key (last axis) for each query.

    Parameters
    ----------
    model : GPT
    idx : integer sequence (T,)
        At most block_size tokens.
    """
    if not isinstance(model, GPT):
        raise TypeError(f"attention_weights: the model must be a GPT, got a {type(model).__name__}, "
                        f"which has no attention")
    twin, found = on_arrays(model), []

    def watched(attention: MultiHeadAttention) -> Any:
        def forward(x: Any, mask: Any = None, *, cache: Any = None) -> Any:
            out, weights = MultiHeadAttention.forward(attention, x, mask=mask, return_weights=True)
            found.append(np.asarray(weights)[0])                             # (H, T, T)
            return out

        return forward

    for block in twin.blocks:           # of the twin alone: the model stays as it is
        block.attention.forward = watched(block.attention)
    with tape.no_grad():
        twin(np.asarray(idx)[None])
    return np.stack(found)
