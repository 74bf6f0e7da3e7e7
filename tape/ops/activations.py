"""What stands between the linear layers: ReLU and its relatives, softmax, dropout."""

from __future__ import annotations

import numpy as np

from tape import kernels
from tape.ops import reductions
from tape.ops.arithmetic import mul
from tape.primitive import derivative, primitive

_FEW = 2 ** 12          # elements; for fewer, no set of kernels has anything better than NumPy's calls

tanh = primitive(np.tanh, lambda g, out: g * (1 - out * out),
                 doc="Hyperbolic tangent; derivative 1 - tanh(x)^2.")


# What the rules below compute is an operator too, with rules of its own for derivatives of higher
# order, so that it can be a kernel of the set in use.


@derivative(lambda g, out: sigmoid_gradient(g, out), elementwise=True)
def sigmoid(x, /):
    """1 / (1 + exp(-x)), stable on both sides: derivative s (1 - s)."""
    return kernels.find("sigmoid")(x)


@derivative(lambda h, s: sigmoid_gradient(h, s),
            lambda h, g, s: h * g * (1 - 2 * s), elementwise=True)
def sigmoid_gradient(g, s, /):
    """g s (1 - s): linear in g, and d/ds s (1 - s) = 1 - 2s."""
    return kernels.find("sigmoid_backward")(g, s)


@derivative(lambda g, out: relu_gradient(g, out), elementwise=True)
def relu(x, /):
    """max(x, 0): the gradient passes where x > 0, and nothing passes elsewhere (0 at 0).

    out > 0 exactly where x > 0, so the rule asks for the result, which the next layer's product
    keeps anyway, rather than for x.
    """
    many = type(x) is np.ndarray and x.size >= _FEW
    return kernels.find("relu")(x) if many else kernels.relu(x)


@derivative(lambda h, out_x: relu_gradient(h, out_x), None, elementwise=True)
def relu_gradient(g, out_x, /):
    """g where out_x > 0, else 0: linear in g, and constant on both sides of the kink."""
    many = type(g) is np.ndarray and g.size >= _FEW
    return kernels.find("relu_backward")(g, out_x) if many else kernels.relu_backward(g, out_x)


@derivative(lambda g, out, axis: softmax_gradient(g, out, axis))
def softmax(x, /, axis=-1):
    """exp(x_i) / sum_j exp(x_j) along `axis`: positive numbers that sum to 1.

    The backward, step by step. Write s_i = e_i / S with e_i = exp(x_i) and S = sum_j e_j.

    1. How one input moves one output. x_k enters s_i through S always, and through e_i if i = k:
           ds_i/dx_k = [i = k] e_k / S - e_i / S^2 * dS/dx_k
                     = [i = k] s_k     - s_i s_k          (because dS/dx_k = e_k)
    2. The chain rule sums over all outputs that x_k moves, each with its g_i = dL/ds_i:
           dL/dx_k = sum_i g_i ([i = k] s_k - s_i s_k)
                   = s_k (g_k - sum_i g_i s_i)
    3. The sum is the same number for every k: the mean of g, weighted by s. So
           dL/dx = s * (g - sum(g * s)).

    The gradient sums to zero, as it must, since adding a constant to x leaves s alone; and adding a
    constant to g changes nothing, since the s_i sum to 1. A row that is -inf throughout (everything
    masked) gives zeros.
    """
    return kernels.find("softmax")(x, axis)


@derivative(lambda h, s, axis: softmax_gradient(h, s, axis),
            lambda h, g, s, axis: (h * (g - reductions.sum(g * s, axis, True))
                                   - g * reductions.sum(h * s, axis, True)))
def softmax_gradient(g, s, /, axis=-1):
    """r = s * (g - sum(g * s)), the gradient that `softmax` derives.

    With c = sum_j g_j s_j and h = dL/dr:

    1. dr_k/dg_j = s_k ([k = j] - s_j), which is the same with k and j exchanged; so dL/dg is what
       `softmax` does with h.
    2. dr_k/ds_j = [k = j] (g_k - c) - s_k g_j, so dL/ds_j = h_j (g_j - c) - g_j sum_k h_k s_k.
    """
    return kernels.find("softmax_backward")(g, s, axis)


@derivative(lambda g, out, axis: log_softmax_gradient(g, out, axis))
def log_softmax(x, /, axis=-1):
    """log softmax(x) = x - logsumexp(x), without overflow.

    d out_i / dx_k = [i = k] - softmax(x)_k, so dL/dx_k = g_k - softmax(x)_k * sum_i g_i.
    """
    return kernels.find("log_softmax")(x, axis)


@derivative(lambda h, y, axis: h - reductions.sum(h * np.exp(y), axis, True),
            lambda h, g, y, axis: -h * np.exp(y) * reductions.sum(g, axis, True))
def log_softmax_gradient(g, y, /, axis=-1):
    """r = g - e^y sum(g), the gradient that `log_softmax` derives.

    With h = dL/dr: dr_k/dg_j = [k = j] - e^(y_k), so dL/dg_j = h_j - sum_k h_k e^(y_k); and
    dr_k/dy_j = -[k = j] e^(y_k) sum(g).
    """
    return kernels.find("log_softmax_backward")(g, y, axis)


def dropout(x, p, rng):
    """Zero each element with probability `p`, and scale the others by 1 / (1 - p).

    The scale keeps the expected value, so nothing need change when dropout is switched off.
    Srivastava et al. 2014, with the scaling at training time ("inverted").

    Parameters
    ----------
    x : Tensor
    p : float
        In [0, 1).
    rng : numpy.random.Generator or int
        Where the mask comes from; a seed gives the same mask at every call.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1), got {p}. p = 1 would drop everything.")
    if isinstance(rng, bool):
        raise TypeError(f"dropout: rng must be a generator or a seed, got {rng}. There is no flag for "
                        f"training: call it while the model trains, or take nn.Dropout")
    x = np.asarray(x) if isinstance(x, (list, tuple)) else x
    if p == 0:
        return x
    keep = np.random.default_rng(rng).random(x.shape, np.float32) >= p
    return mul(x, np.divide(keep, 1 - p, dtype=np.result_type(x.dtype, np.float16)))
