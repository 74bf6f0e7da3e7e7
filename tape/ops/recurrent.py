"""A recurrent layer over a whole sequence as one operator.

Defined twice, as the operators of ``fused.py``: composed of primitives, step by step, and as kernels.
"""

from __future__ import annotations

import numpy as np

from tape.fusion import fused
from tape.ops.activations import sigmoid, tanh
from tape.ops.joining import split, stack


@fused("lstm", name="lstm")
def _lstm(projected, weight, h, c, /, steps):
    states = []
    for t in range(steps):
        i, f, g, o = split(projected[t] + h @ weight, 4, axis=1)             # (B, H) each
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        states.append(stack([h, c]))                                         # (2, B, H)
    return stack(states, axis=1)                                             # (2, T, B, H)


def lstm(projected, weight, h, c, steps=None):
    """Long short-term memory over T steps.

        i, f, g, o = the four parts of  a = projected[t] + h @ weight
        c' = sigmoid(f) c + sigmoid(i) tanh(g)
        h' = sigmoid(o) tanh(c')

    Hochreiter and Schmidhuber 1997, Neural Computation 9, with the forget gate of Gers, Schmidhuber and
    Cummins 2000, Neural Computation 12. `nn.LSTM` says what the gates are for.

    Parameters
    ----------
    projected : Tensor (T, B, 4 H)
        The part of the inputs, W x + b, for each of at least one step. The columns are those of i, f, g
        and o.
    weight : Tensor (H, 4 H)
    h, c : Tensor (B, H)
        Before the first step.
    steps : int, optional
        T. Of nodes, which have no shape before they are computed, it must be given.

    Returns
    -------
    Tensor (2, T, B, H)
        h and c after each step.

    Raises
    ------
    ValueError
        The shapes do not fit.
    TypeError
        Nodes are given, and no `steps`.

    Notes
    -----
    The backward goes through the steps from the last to the first: backpropagation through time (Werbos
    1990, Proceedings of the IEEE 78). Write i, f, o for the sigmoids, g for the tanh, and y = tanh(c').
    Let dh and dc be the gradients of h' and c': of what this step gave to the outside, plus what the
    next step passed to it as its h and c.

    1. h' = o y reaches c' too, through y, with dy/dc' = 1 - y^2: dc += dh o (1 - y^2), and do = dh y.
    2. c' = f c + i g: di = dc g, df = dc c, dg = dc i, and what goes to the step before is dc f.
    3. Past the sigmoids, s' = s (1 - s), and the tanh, 1 - g^2, these are the four parts of
           da = (di i (1 - i),  df f (1 - f),  dg (1 - g^2),  do o (1 - o)).
    4. a = projected[t] + h @ weight: da is the gradient of projected[t], and da @ weight^T goes to the
       step before, as that of its h.
    5. The weight is used at every step, so its gradient is sum_t h_t^T da_t, with h_t before step t.
       Side by side, the rows of all h_t and da_t are two matrices of T B rows, and the sum is one
       product.
    """
    projected = np.asarray(projected) if isinstance(projected, (list, tuple)) else projected
    if steps is None:
        if not hasattr(projected, "shape"):
            raise TypeError("lstm: how many steps a node has is not known before it is computed; give "
                            "steps=T")
        steps = len(projected)
    return _lstm(projected, weight, h, c, steps)
