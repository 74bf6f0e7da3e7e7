"""Derivatives against differences.

For L = sum(r * fn(x)) with a fixed random r, the derivative that the tape gives is compared with

    (L(x + h) - L(x - h)) / 2h,

element by element, in float64. Its error is about h^2 L'''/6 + 1e-16 L/h, smallest near h = 1e-5.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tape.grad_mode import enable_grad, no_grad
from tape.tensor import Tensor
from tape.transforms import grad

STEP = 1e-5


class Worst(NamedTuple):
    """The element at which derivative and difference disagree most."""

    error: float          # |analytic - numeric| / max(1, |analytic|, |numeric|)
    input: int
    place: tuple
    analytic: float
    numeric: float


def gradcheck(fn: Callable, inputs: Sequence, *, order: int = 1, tolerance: float = 1e-6,
              step: float = STEP, seed: int = 0) -> bool:
    """Check the derivatives of `fn` at `inputs` against central differences.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns a Tensor or a tuple of them. It must be deterministic: seed what it
        draws, for example ``dropout(x, 0.5, rng=0)``.
    inputs : sequence of array_like or Tensor
        Cast to float64, so that the differences mean something.
    order : 1 or 2
        2 checks the derivative of the derivative as well.
    tolerance : float
        On the error relative to max(1, |derivative|).
    step : float
        The h of the differences.
    seed : int
        Of the random weights of the outputs.

    Returns
    -------
    bool
        True.

    Raises
    ------
    ValueError
        With the worst element, and whether the function looks kinked there or the rule wrong.
    """
    arrays = [np.array(getattr(x, "_data", x), np.float64) for x in inputs]
    for n in range(1, order + 1):
        worst = worst_error(fn, arrays, n, step, seed)
        if not worst.error <= tolerance:
            raise ValueError(_explain(fn, arrays, n, step, seed, worst, tolerance))
    return True


def worst_error(fn: Callable, arrays: list[np.ndarray], order: int = 1, step: float = STEP,
                seed: int = 0) -> Worst:
    """The element where the derivative of this order and the difference disagree most."""
    scalar, arrays = _scalar(fn, arrays, order, seed)
    analytic = _gradients(scalar, arrays)
    worst = Worst(0.0, 0, (), 0.0, 0.0)
    for i, array in enumerate(arrays):
        for index in np.ndindex(array.shape):
            numeric = _difference(scalar, arrays, i, index, step)
            a = float(analytic[i][index])
            error = abs(a - numeric) / max(1.0, abs(a), abs(numeric))
            error = np.inf if np.isnan(error) else error         # inf or NaN on either side
            if error > worst.error:
                worst = Worst(error, i, index, a, numeric)
    return worst


def _scalar(fn: Callable, arrays: list[np.ndarray], order: int, seed: int) -> tuple[Callable, list]:
    """The scalar function whose first derivative is the derivative of this order of `fn`."""
    if order not in (1, 2):
        raise ValueError(f"gradcheck: order must be 1 or 2, got {order}")
    scalar, arrays = _weighted(fn, arrays, seed)
    return _slope_of(scalar, arrays, seed) if order == 2 else (scalar, arrays)


def _weighted(fn: Callable, arrays: list[np.ndarray], seed: int) -> tuple[Callable, list]:
    """L(x, r) = sum(r * fn(x)), with the weights r as inputs of their own."""
    with no_grad():
        outputs = _as_tuple(fn(*map(Tensor, arrays)))
    rng = np.random.default_rng(seed)
    weights = [rng.uniform(0.5, 1.5, out.shape) for out in outputs]

    def scalar(*tensors):
        outputs = _as_tuple(fn(*tensors[:len(arrays)]))
        return sum((r * out).sum() for r, out in zip(tensors[len(arrays):], outputs))

    return scalar, arrays + weights


def _slope_of(scalar: Callable, arrays: list[np.ndarray], seed: int) -> tuple[Callable, list]:
    """G(x) = sum_i u_i * dL/dx_i with fixed random u: what a second-order check differentiates."""
    rng = np.random.default_rng(seed + 1)
    directions = [rng.uniform(0.5, 1.5, a.shape) for a in arrays]

    def slope(*tensors):
        with enable_grad():
            leaves = [t if t.requires_grad else Tensor(t, requires_grad=True) for t in tensors]
            pulled = grad(scalar(*leaves), leaves, create_graph=True, allow_unused=True)
        return sum((g * u).sum() for g, u in zip(pulled, directions) if g is not None)

    return slope, arrays


def _gradients(scalar: Callable, arrays: list[np.ndarray]) -> list[np.ndarray]:
    with enable_grad():
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        total = scalar(*tensors)
    if not (isinstance(total, Tensor) and total.requires_grad):
        return [np.zeros_like(a) for a in arrays]
    pulled = grad(total, tensors, allow_unused=True)
    return [np.zeros_like(a) if g is None else g.numpy() for g, a in zip(pulled, arrays)]


def _difference(scalar: Callable, arrays: list, i: int, index: tuple, step: float) -> float:
    values = []
    for sign in (1, -1):
        moved = list(arrays)
        moved[i] = np.array(arrays[i])
        moved[i][index] += sign * step
        with no_grad():
            value = scalar(*map(Tensor, moved))
        values.append(float(getattr(value, "_data", value)))
    return (values[0] - values[1]) / (2 * step)


def _explain(fn, arrays, order, step, seed, worst: Worst, tolerance: float) -> str:
    scalar, arrays = _scalar(fn, arrays, order, seed)
    again = _difference(scalar, arrays, worst.input, worst.place, step / 10)
    spread = abs(again - worst.numeric) / max(1.0, abs(worst.numeric))
    verdict = ("the difference itself changes with the step, so the function has a kink or a jump "
               "near there: move the input away from it"
               if not spread < worst.error / 10
               else "the difference is the same for a smaller step, so the derivative is wrong")
    name = getattr(fn, "__name__", "function")
    return (f"gradcheck: {name}, order {order}: relative error {worst.error:.2e} exceeds "
            f"{tolerance:.0e} at input {worst.input}, index {worst.place}: analytic "
            f"{worst.analytic:.9g}, numeric {worst.numeric:.9g}; {verdict}.")


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
