"""The operators by the names of `tape`, in PyTorch: a second reference, in reverse mode.

Where the conventions differ the operator is composed of others that leave NaN in the places in
question; those places are not compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.bench import library_torch
from tests.differential.answers import Answer, agree, directions
from tests.differential.program import Program

torch.set_num_threads(1)


class Operators:
    """What stands in the place of `tape` when a program is run."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


tape: Any = Operators()


def tensor(x: Any) -> torch.Tensor:
    return x if isinstance(x, torch.Tensor) else torch.tensor(np.asarray(x, np.float64))


def _tensors(name: str, function: Any = None) -> None:
    """An operator whose operands may also be numbers, arrays and lists."""
    function = function or getattr(torch, name)
    setattr(tape, name, lambda *args: function(*map(tensor, args)))


for _name in ("add", "sub", "mul", "div", "maximum", "minimum", "neg", "square", "sqrt", "exp",
              "log", "log1p", "expm1", "sin", "cos", "tanh", "abs", "sigmoid", "relu", "sign",
              "zeros_like", "ones_like"):
    _tensors(_name)


def operator(function: Any) -> Any:
    setattr(tape, function.__name__, function)
    return function


def axes(x: torch.Tensor, axis: Any) -> tuple:
    axis = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(axis)


@operator
def power(x, exponent):
    if isinstance(exponent, (int, float, np.generic)):
        return torch.pow(tensor(x), float(exponent))
    if not isinstance(exponent, torch.Tensor):
        return torch.pow(tensor(x), tensor(exponent))
    return torch.exp(exponent * torch.log(tensor(x)))    # PyTorch has no mixed derivative at y = 0


@operator
def gelu(x): return torch.nn.functional.gelu(tensor(x), approximate="tanh")


@operator
def gelu_exact(x): return torch.nn.functional.gelu(tensor(x))


@operator
def erf(x): return torch.erf(tensor(x))


@operator
def user_double(x): return 2 * tensor(x)


@operator
def user_same(x): return tensor(x)


@operator
def user_view(x): return tensor(x)


@operator
def user_kept(x, y): return tensor(x)


@operator
def clip(x, min=None, max=None):
    """With slope 1 on the bounds, where versions of torch.clamp differ."""
    low, high = (bound if bound is None else torch.full_like(x, bound) for bound in (min, max))
    out = x if low is None else torch.where(x < low, low, x)
    return out if high is None else torch.where(out > high, high, out)


@operator
def where(condition, x, y):
    condition = torch.as_tensor(condition)
    return torch.where(condition != 0, tensor(x), tensor(y))


@operator
def astype(x, dtype): return tensor(x).clone()


@operator
def dropout(x, p, rng):
    keep = np.random.default_rng(rng).random(tuple(x.shape), np.float32) >= p
    return x * tensor(keep / (1 - p))


@operator
def sum(x, axis=None, keepdims=False):
    x = tensor(x)
    return torch.sum(x, axes(x, axis), keepdim=keepdims) if x.ndim else x.clone()


@operator
def mean(x, axis=None, keepdims=False):
    return torch.mean(x, axes(x, axis), keepdim=keepdims) if x.ndim else x.clone()


def _extreme(x, axis, keepdims, function):
    return function(x, axes(x, axis), keepdim=keepdims) if x.ndim else x.clone()


@operator
def max(x, axis=None, keepdims=False): return _extreme(x, axis, keepdims, torch.amax)


@operator
def min(x, axis=None, keepdims=False): return _extreme(x, axis, keepdims, torch.amin)


@operator
def var(x, axis=None, ddof=0, keepdims=False):
    over = axes(x, axis)
    centred = x - mean(x, axis, True)
    count = np.prod([x.shape[a] for a in over])
    return sum(centred * centred, axis, keepdims) / (count - ddof)


@operator
def std(x, axis=None, ddof=0, keepdims=False): return torch.sqrt(var(x, axis, ddof, keepdims))


@operator
def norm(x, axis=None, keepdims=False): return torch.sqrt(sum(x * x, axis, keepdims))


@operator
def logsumexp(x, axis=None, keepdims=False):
    return torch.logsumexp(x, axes(x, axis), keepdim=keepdims) if x.ndim else x.clone()


@operator
def softmax(x, axis=-1): return torch.softmax(x, axis)


@operator
def log_softmax(x, axis=-1): return torch.log_softmax(x, axis)


@operator
def matmul(x, y): return torch.matmul(tensor(x), tensor(y))


@operator
def dot(x, y):
    x, y = tensor(x), tensor(y)
    return x * y if x.ndim == 0 or y.ndim == 0 else torch.matmul(x, y)


@operator
def einsum(subscripts, *operands): return torch.einsum(subscripts, *map(tensor, operands))


_tensors("inner")
_tensors("outer")
_tensors("kron")
_tensors("cross", lambda x, y: torch.linalg.cross(*torch.broadcast_tensors(x, y)))
_tensors("vdot", lambda x, y: torch.sum(x.reshape(-1) * y.reshape(-1)))
_tensors("vecdot", lambda x, y: torch.sum(x * y, -1))
_tensors("matvec", torch.matmul)
_tensors("vecmat", torch.matmul)


@operator
def tensordot(x, y, axes): return torch.tensordot(tensor(x), tensor(y), axes)


@operator
def trace(x, offset=0): return torch.sum(torch.diagonal(tensor(x), offset), -1)


@operator
def layer_norm(x, weight=None, bias=None, eps=1e-5):
    """Composed: PyTorch's own has a third derivative that differences do not confirm."""
    centred = x - mean(x, -1, True)
    out = centred / torch.sqrt(mean(centred * centred, -1, True) + eps)
    out = out if weight is None else out * tensor(weight)
    return out if bias is None else out + tensor(bias)


@operator
def rms_norm(x, weight=None, eps=1e-5):
    out = x / torch.sqrt(mean(x * x, -1, True) + eps)
    return out if weight is None else out * tensor(weight)


@operator
def swiglu(gate, x): return torch.nn.functional.silu(tensor(gate)) * tensor(x)


@operator
def rnn(*arrays, steps=None): return library_torch.rnn(*map(tensor, arrays))


@operator
def gru(*arrays, steps=None): return library_torch.gru(*map(tensor, arrays))


@operator
def lstm(*arrays, steps=None): return library_torch.lstm(*map(tensor, arrays))


@operator
def rotate_pairs(x, cos, sin):
    even, odd, cos, sin = x[..., 0::2], x[..., 1::2], tensor(cos), tensor(sin)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


@operator
def cross_entropy(x, targets, ignore_index=-1, reduction="mean"):
    targets = torch.as_tensor(np.asarray(targets, np.int64)).reshape(-1)
    rows = x.reshape(-1, x.shape[-1])
    total = torch.nn.functional.cross_entropy(rows, targets, ignore_index=ignore_index,
                                              reduction="sum")
    count = int((targets != ignore_index).sum()) or 1
    return total / count if reduction == "mean" else total


@operator
def causal_attention(q, k, v, scale=None):
    return attention(q, k, v, causal=True, scale=scale)


@operator
def attention(q, k, v, mask=True, causal=False, scale=None, block_size=None):
    q, k, v = tensor(q), tensor(k), tensor(v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = scale * q @ torch.swapaxes(k, -1, -2)
    queries, keys = scores.shape[-2:]
    seen = torch.ones(queries, keys, dtype=torch.bool) & torch.as_tensor(mask)
    seen = seen.tril(keys - queries) if causal else seen
    return torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v


@operator
def causal_self_attention(x, n, w_q, w_k, w_v, w_o, b_q=None, b_k=None, b_v=None, b_o=None):
    def projected(x, weight, bias):
        out = tensor(x) @ tensor(weight)
        return out if bias is None else out + tensor(bias)

    q, k, v = (projected(x, weight, bias).unflatten(-1, (n, -1)).transpose(-2, -3)
               for weight, bias in ((w_q, b_q), (w_k, b_k), (w_v, b_v)))
    heads = attention(q, k, v, causal=True).transpose(-2, -3).flatten(-2)
    return projected(heads, w_o, b_o)


# --- moving elements: positions, which NumPy moves, tell where each element goes ---


def _moved(function: Any) -> Any:
    def apply(x, *args, **kwargs):
        x = tensor(x)
        places = function(np.arange(x.numel()).reshape(tuple(x.shape)), *args, **kwargs)
        return x.reshape(-1)[torch.as_tensor(np.array(places))]
    return apply


for _name in ("reshape", "transpose", "swapaxes", "moveaxis", "squeeze", "expand_dims",
              "broadcast_to", "diagonal"):
    setattr(tape, _name, _moved(getattr(np, _name)))
tape.getitem = _moved(lambda a, index: a[index])
tape.split_heads = _moved(lambda a, n: np.stack(np.split(a, n, -1), -3))
tape.merge_heads = _moved(lambda a, n: np.concatenate(np.moveaxis(a, -3, 0), -1))
tape.matrix_transpose = _moved(lambda a: np.swapaxes(a, -1, -2))
_tensors("diag", lambda x, k=0: torch.diag(x, int(k)))
_tensors("diagflat", lambda x, k=0: torch.diagflat(x, int(k)))
tape.embedding = _moved(lambda a, ids: a[np.asarray(ids)])


@operator
def split(x, sections, axis=0):
    pieces = len(np.split(np.zeros(tuple(x.shape)), sections, axis))
    return [_moved(lambda a, i=i: np.split(a, sections, axis)[i])(x) for i in range(pieces)]


@operator
def concatenate(arrays, axis=0): return torch.cat([tensor(x) for x in arrays], axis)


@operator
def stack(arrays, axis=0): return torch.stack([tensor(x) for x in arrays], axis)


@operator
def pad(x, pad_width, constant_values=0):
    inside = np.pad(np.ones(tuple(x.shape), bool), pad_width)
    places = np.pad(np.arange(x.numel()).reshape(tuple(x.shape)), pad_width)
    padding = torch.full(places.shape, float(constant_values), dtype=torch.float64)
    if not x.numel():
        return padding
    return torch.where(torch.as_tensor(inside), x.reshape(-1)[torch.as_tensor(places)], padding)


def check(program: Program, wanted: Answer, orders: int) -> None:
    """The reference itself against PyTorch, which the engine is thereby held against too."""
    leaves = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in program.arrays()]
    function = program.function(tape, make=lambda a: tensor(a) if a.dtype.kind == "f" else a)
    out: Any = function(*leaves)
    agree("PyTorch", [out.numpy(force=True)], wanted, 0, loosely=True)
    for order in range(1, orders + 1):
        found: Any = [None] * len(leaves)
        if getattr(out, "requires_grad", False):
            found = torch.autograd.grad(out, leaves, create_graph=True, allow_unused=True)
        # Some zeros of PyTorch's have no memory until they are used, and numpy() of those crashes.
        arrays = [np.zeros(tuple(x.shape)) if g is None else (g + 0.0).numpy(force=True)
                  for g, x in zip(found, leaves)]
        agree("PyTorch", arrays, wanted, order, loosely=True)
        if order < orders:
            terms = [(g * tensor(d)).sum() for g, d in zip(found, directions(program)[order - 1])
                     if g is not None]
            out = torch.stack(terms).sum() if terms else None
