"""What a computation costs: its floating-point operations, and the memory that its tape keeps."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import numpy as np

from tape import kernels
from tape.engine import Record
from tape.grad_mode import mode
from tape.hollow import hollow, is_hollow
from tape.ops.activations import log_softmax, softmax
from tape.ops.contraction import contracted
from tape.ops.fused import (
    _attention, _causal_attention, _causal_self_attention, _cross_entropy, _layer_norm, gelu)
from tape.ops.linalg import inner_with_matrix, matmul, matmul_gradient_x, matmul_gradient_y
from tape.ops.llama import _rms_norm, rotate_pairs, swiglu
from tape.ops.normal import gelu_exact
from tape.ops.recurrent import _gru, _lstm, _rnn
from tape.primitive import Primitive
from tape.show import bytes_kept


class Measurement:
    """The sums over all operations of a ``with tape.measure()`` block.

    Attributes
    ----------
    flops : 2 n m k for each product of an (n, k) with a (k, m) matrix: k products and k sums for each
        of n m elements. Of a batch of matrices as often. Nothing else is counted, since the rest of
        a network grows more slowly than its products do.
    backward_flops : what one walk back over these operations will take: for each product as much
        again for each of its two operands that wants a gradient.
    bytes_kept : of the arrays that the records keep for their rules, each counted once: the sum of
        the last column of `tape.show`, while all results are alive.
    """

    def __init__(self) -> None:
        self.flops = self.backward_flops = self.bytes_kept = 0
        self._latest = 0
        self._counted: dict[int, Any] = {}

    def run(self, operator: Primitive, *arrays: Any, **attributes: Any) -> Any:
        """What the forward of an operator returns; hollow where an operand is."""
        count = PRODUCTS.get(operator)
        self._latest = count(*arrays, **attributes) if count else 0
        self.flops += self._latest
        if not any(map(is_hollow, arrays)):
            return operator.on_numpy(*arrays, **attributes)
        with np.errstate(all="ignore"):        # of zeros that stand for other numbers
            return described(operator, arrays, attributes)

    @contextmanager
    def run_again(self) -> Iterator[None]:
        """Count a block of which the tape keeps nothing, and which the walk back runs once more."""
        flops, kept, counted = self.flops, self.bytes_kept, dict(self._counted)
        yield
        self.backward_flops += self.flops - flops
        self.bytes_kept, self._counted = kept, counted

    def add(self, record: Record) -> None:
        """Count what the operation that ran last left on the tape."""
        operands = 2 if record.vjp.joint else sum(parent is not None for parent in record.parents)
        self.backward_flops += self._latest * operands
        self.bytes_kept += bytes_kept(record, self._counted)


@contextmanager
def measure() -> Iterator[Measurement]:
    """Count what the operations on Tensors in a ``with`` block cost.

    It holds in the current thread, as `no_grad` does, and keeps what it counted until it is deleted.
    Operations on `hollow` arrays are not run and cost the same.

    Examples
    --------
    >>> import tape
    >>> weight = tape.Tensor(tape.hollow((1024, 4096)), requires_grad=True)
    >>> with tape.measure() as cost:
    ...     out = tape.Tensor(tape.hollow((8, 1024))) @ weight
    >>> out.shape, cost.flops, cost.backward_flops, cost.bytes_kept
    ((8, 4096), 67108864, 67108864, 32768)
    """
    found = Measurement()
    with mode("measurement", found, None):
        yield found


# --- how many floating-point operations an operator takes ---


def _product(x: Any, y: Any) -> int:
    """Of x @ y."""
    rows, columns = x.shape[-2:-1], y.shape[-1:] if y.ndim > 1 else ()
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return 2 * math.prod((*batch, *rows, *columns, x.shape[-1]))


def _contraction(x: Any, y: Any, of_x: str, of_y: str, of_out: str) -> int:
    """Of an einsum of two operands: each combination of places is one product and one sum."""
    return 2 * math.prod(_lengths(x, y, of_x, of_y).values())


def _lengths(x: Any, y: Any, of_x: str, of_y: str) -> dict[str, int]:
    """The length of each axis of x and y by its letter; one of 1 gives way to that of the other."""
    lengths: dict[str, int] = {}
    for letter, n in (*zip(of_x, x.shape), *zip(of_y, y.shape)):
        if lengths.get(letter, 1) == 1:
            lengths[letter] = n
    return lengths


def _two_products(q: Any, k: Any, v: Any, *mask: Any, **attributes: Any) -> int:
    """Of scores = q k^T and of scores v. The future is masked after the product, not left out."""
    keys = np.swapaxes(k, -1, -2)                                # (..., D, S)
    batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    scores = hollow((*batch, q.shape[-2], k.shape[-2]))          # (..., T, S)
    return _product(q, keys) + _product(scores, v)


def _six_products(x: Any, _: Any, x_q: Any, w_q: Any, w_k: Any, w_v: Any, w_o: Any, *biases: Any,
                  n_head: int) -> int:
    """Of the four linear layers, and of the attention of each head between them."""
    rows = [hollow((*x.shape[:-1], w.shape[-1])) for w in (w_q, w_k, w_v)]
    heads = [kernels.split_heads(part, n_head) for part in rows]
    return (sum(_product(x, w) for w in (w_q, w_k, w_v)) + _two_products(*heads)
            + _product(rows[-1], w_o))


def _product_each_step(projected: Any, weight: Any, *others: Any, steps: int) -> int:
    """Of the state (B, H) of a recurrent layer, at each step, with a matrix."""
    return steps * _product(hollow((projected.shape[1], len(weight))), weight)


PRODUCTS: dict[Primitive, Callable] = {
    matmul: _product,
    inner_with_matrix: lambda x, y: _product(x, y.T),
    matmul_gradient_x: lambda g, like, y: _product(like, y),
    matmul_gradient_y: lambda g, x, like: _product(x, like),
    contracted: _contraction,
    _causal_attention: _two_products,
    _attention: _two_products,
    _causal_self_attention: _six_products,
    **dict.fromkeys((_rnn, _lstm, _gru), _product_each_step),
}


# --- what an operator would return ---

# Of operators that treat what stands on their leading axes alike: at how many last axes they look. Of
# an elementwise operator that is none.
CORE: dict[Primitive, int] = {
    softmax: 0, log_softmax: 0, gelu: 0, gelu_exact: 0, swiglu: 0, _layer_norm: 1, _rms_norm: 1,
    rotate_pairs: 1, _causal_attention: 2, _attention: 2}


# Of recurrent layers: how many vectors of the length of h a step computes.
SEQUENCES: dict[Primitive, int] = {_rnn: 1, _lstm: 4, _gru: 3}


def described(operator: Primitive, arrays: tuple, attributes: dict) -> Any:
    """What a forward would return for operands of which some are hollow, with results hollow.

    An operator of which nothing is known is run, so that its result takes memory for a moment; one that
    returns integers, which say where something is, keeps them.
    """
    if operator is matmul:
        return _product_of(*arrays)
    if operator is inner_with_matrix:
        return _product_of(arrays[0], arrays[1].T)
    if operator is contracted:
        return _contraction_of(*arrays, **attributes)
    if operator is _cross_entropy:
        return _loss_of(*arrays, **attributes)
    if operator is _causal_self_attention:
        return _self_attention_of(*arrays, **attributes)
    if operator in SEQUENCES:
        return _sequence_of(operator, arrays, **attributes)
    core = 0 if operator.elementwise else CORE.get(operator)
    if core is not None:
        return _on_one(operator, core, arrays, attributes)
    out = operator.on_numpy(*arrays, **attributes)
    keeps = is_hollow(out) or not np.ndim(out) or out.dtype.kind in "iu"
    return out if keeps else hollow(out.shape, out.dtype)


def _on_one(operator: Primitive, core: int, arrays: tuple, attributes: dict) -> Any:
    """Run an operator with its leading axes cut to one, for all but their lengths."""
    leading = np.broadcast_shapes(*(np.shape(a)[:max(np.ndim(a) - core, 0)]
                                    for name, a in zip(operator.inputs, arrays) if name != "like"))

    def grown(part: Any) -> np.ndarray:
        return hollow((*leading, *np.shape(part)[np.ndim(part) - core:]), part.dtype)

    cut = [a[(slice(0, 1),) * (np.ndim(a) - core)] if np.ndim(a) > core else a for a in arrays]
    out = operator.on_numpy(*cut, **attributes)
    if not operator.residuals:
        return grown(out)
    out, residuals = out                     # of a single row NumPy's kernels keep numbers
    return grown(out), {name: grown(part if np.ndim(part) >= core else np.reshape(part, (1,) * core))
                        for name, part in residuals.items()}


def _product_of(x: Any, y: Any) -> np.ndarray:
    """x @ y, of which one row and one column are computed."""
    rows, columns = x.shape[-2:-1], y.shape[-1:] if y.ndim > 1 else ()
    one = matmul.on_numpy(x[..., :1, :] if x.ndim > 1 else x, y[..., :1] if y.ndim > 1 else y)
    return hollow((*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), *rows, *columns), one.dtype)


def _self_attention_of(x: Any, _: Any, x_q: Any, w_q: Any, w_k: Any, w_v: Any, w_o: Any, b_q: Any,
                       b_k: Any, b_v: Any, b_o: Any, n_head: int) -> tuple[np.ndarray, dict]:
    """The result, and what its kernel keeps: hollow, but for one head that is computed."""
    kernels.check_self_attention(x, w_q, w_k, w_v, w_o, n_head)

    def linear(x: Any, weight: Any, bias: Any) -> np.ndarray:
        out = _product_of(x, weight)
        return hollow(out.shape, np.result_type(out, out if bias is None else bias))
    q, k, v = [kernels.split_heads(linear(x, weight, bias), n_head)
               for weight, bias in ((w_q, b_q), (w_k, b_k), (w_v, b_v))]
    out, kept = _on_one(_causal_attention, 2, (q, k, v), {"scale": None})
    heads = kernels.merge_heads(out)                             # (..., T, H E)
    return linear(heads, w_o, b_o), {"q": q, "k": k, "v": v, "heads": heads, **kept}


def _sequence_of(operator: Primitive, arrays: tuple, steps: int) -> tuple[np.ndarray, dict]:
    """The state after each step of a recurrent layer, and what its kernel keeps."""
    given = dict(zip(operator.inputs, arrays))
    dtype = kernels.check_sequence(operator.name, SEQUENCES[operator], steps=steps, **given)
    states = (steps, *given["h"].shape)
    shapes = {"states": (2, *states) if "c" in given else states, "gates": given["projected"].shape,
              "products": states}
    residuals = {name: hollow(shapes[name], kernels.sum_dtype(dtype)) for name in operator.residuals}
    out = residuals["states"]
    return out if out.dtype == dtype else hollow(out.shape, dtype), residuals


def _contraction_of(x: Any, y: Any, of_x: str, of_y: str, of_out: str) -> np.ndarray:
    """An einsum of two operands, computed with their axes cut to one."""
    lengths = _lengths(x, y, of_x, of_y)
    one = contracted.on_numpy(*(a[(slice(0, 1),) * a.ndim] for a in (x, y)), of_x, of_y, of_out)
    return hollow(tuple(lengths[letter] for letter in of_out), one.dtype)


def _loss_of(logits: Any, targets: Any, ignore_index: int, reduction: str) -> Any:
    """A loss without axes, and what its kernel keeps of each row of logits (..., V)."""
    kernels.check_targets(logits, np.asarray(targets), ignore_index, reduction)
    rows = math.prod(logits.shape[:-1])
    dtype = np.result_type(logits, kernels.SINGLE)
    return logits.dtype.type(0), {name: hollow((rows, 1), dtype) for name in ("peak", "log_sum")}
