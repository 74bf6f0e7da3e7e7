"""Recurrent layers over a whole sequence, each as one operator.

Defined twice, as the operators of ``fused.py``: composed of primitives, step by step, and as kernels.
What goes back through the steps from the last to the first is backpropagation through time (Werbos
1990, Proceedings of the IEEE 78).

Each step takes a = projected[t], the part of the inputs W x + b, and the product U h of the state with
a matrix, h @ weight in the code. U is used at every step, so its gradient is a sum over the steps: with
h_t before step t, and d_t the gradient of the product there, sum_t h_t^T d_t. The rows of all h_t, and
those of all d_t, side by side are two matrices of T B rows, and the sum is one product of these.
"""

from __future__ import annotations

import numpy as np

from tape.fusion import fused
from tape.ops.activations import sigmoid, tanh
from tape.ops.joining import split, stack


def _steps_of(projected, steps, name):
    """(projected, T), of which the second is given for nodes."""
    if not hasattr(projected, "__tape_apply__"):
        projected = np.asarray(projected)
    if steps is None:
        if not hasattr(projected, "shape"):
            raise TypeError(f"{name}: how many steps a node has is not known before it is computed; "
                            f"give steps=T")
        steps = projected.shape[0] if projected.ndim else 0
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise TypeError(f"{name}: steps must be an integer, got {steps!r}")
    return projected, int(steps)


@fused("rnn", name="rnn")
def _rnn(projected, weight, h, /, steps):
    states = []
    for t in range(steps):
        h = tanh(projected[t] + h @ weight)                                  # (B, H)
        states.append(h)
    return stack(states)                                                     # (T, B, H)


def rnn(projected, weight, h, steps=None):
    """The simple recurrent net over T steps: h' = tanh(projected[t] + h @ weight).

    Elman 1990, Cognitive Science 14.

    Parameters
    ----------
    projected : Tensor (T, B, H)
        The part of the inputs, W x + b, for each of at least one step.
    weight : Tensor (H, H)
    h : Tensor (B, H)
        Before the first step.
    steps : int, optional
        T. Of nodes, which have no shape before they are computed, it must be given.

    Returns
    -------
    Tensor (T, B, H)
        h after each step.

    Raises
    ------
    ValueError
        The shapes do not fit.
    TypeError
        Nodes are given, and no `steps`.

    Notes
    -----
    Let dh be the gradient of h': of what this step gave to the outside, plus what the next step passed
    to it as its h. Since tanh' = 1 - tanh^2, da = dh (1 - h'^2) is the gradient of projected[t], and
    da @ weight^T goes to the step before, as that of its h.
    """
    projected, steps = _steps_of(projected, steps, "rnn")
    return _rnn(projected, weight, h, steps)


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
    Write i, f, o for the sigmoids, g for the tanh, and y = tanh(c'). Let dh and dc be the gradients of
    h' and c': of what this step gave to the outside, plus what the next step passed to it as its h and
    c.

    1. h' = o y reaches c' too, through y, with dy/dc' = 1 - y^2: dc += dh o (1 - y^2), and do = dh y.
    2. c' = f c + i g: di = dc g, df = dc c, dg = dc i, and what goes to the step before is dc f.
    3. Past the sigmoids, s' = s (1 - s), and the tanh, 1 - g^2, these are the four parts of
           da = (di i (1 - i),  df f (1 - f),  dg (1 - g^2),  do o (1 - o)).
    4. a = projected[t] + h @ weight: da is the gradient of projected[t], and da @ weight^T goes to the
       step before, as that of its h.
    """
    projected, steps = _steps_of(projected, steps, "lstm")
    return _lstm(projected, weight, h, c, steps)


@fused("gru", name="gru")
def _gru(projected, weight, bias, h, /, steps):
    states = []
    for t in range(steps):
        a_r, a_z, a_n = split(projected[t], 3, axis=1)                       # (B, H) each
        u_r, u_z, u_n = split(h @ weight, 3, axis=1)
        r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
        n = tanh(a_n + r * (u_n + bias))
        h = (1 - z) * n + z * h
        states.append(h)
    return stack(states)                                                     # (T, B, H)


def gru(projected, weight, bias, h, steps=None):
    """The gated recurrent unit over T steps, in the variant that resets after the product.

        a_r, a_z, a_n = the three parts of projected[t],  and u_r, u_z, u_n of  u = h @ weight
        r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
        n = tanh(a_n + r (u_n + bias))
        h' = (1 - z) n + z h

    Cho et al. 2014, arXiv:1406.1078v1. `nn.GRU` says what the gates are for.

    Parameters
    ----------
    projected : Tensor (T, B, 3 H)
        The part of the inputs, W x + b, for each of at least one step. The columns are those of r, z
        and n.
    weight : Tensor (H, 3 H)
    bias : Tensor (H,)
    h : Tensor (B, H)
        Before the first step.
    steps : int, optional
        T. Of nodes, which have no shape before they are computed, it must be given.

    Returns
    -------
    Tensor (T, B, H)
        h after each step.

    Raises
    ------
    ValueError
        The shapes do not fit.
    TypeError
        Nodes are given, and no `steps`.

    Notes
    -----
    Let dh be the gradient of h': of what this step gave to the outside, plus what the next step passed
    to it as its h. Write m = u_n + bias.

    1. h' = (1 - z) n + z h: dz = dh (h - n), dn = dh (1 - z), and dh z goes to the step before.
    2. Past the tanh, da_n = dn (1 - n^2). Its argument is a_n + r m: dr = da_n m and dm = da_n r, which
       is the gradient of u_n, and, summed over steps and rows, that of the bias.
    3. Past the sigmoids, s' = s (1 - s): da_r = dr r (1 - r) and da_z = dz z (1 - z), which are those
       of u_r and u_z too.
    4. So the gradient of projected[t] is (da_r, da_z, da_n), and that of u is du = (da_r, da_z, dm).
       u = h @ weight: du @ weight^T goes to the step before, as a part of that of its h.
    """
    projected, steps = _steps_of(projected, steps, "gru")
    return _gru(projected, weight, bias, h, steps)
