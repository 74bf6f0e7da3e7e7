"""What the LLaMA models have in the places of GPT-2's parts: RMSNorm, SwiGLU and rotary positions.

Touvron et al. 2023, arXiv:2302.13971, section 2.2. The first two are defined twice, as the operators of
``fused.py``: composed of primitives, and as kernels.
"""

from __future__ import annotations

import numpy as np

from tape import kernels
from tape.fusion import fused
from tape.ops.activations import sigmoid
from tape.ops.reductions import mean
from tape.primitive import derivative


@fused("rms_norm", name="rms_norm")
def _rms_norm(x, weight, /, eps):
    out = x / np.sqrt(mean(x * x, -1, True) + eps)
    return out if weight is None else out * weight


def rms_norm(x, weight=None, eps=1e-5):
    """Divide each row by its root mean square, then scale it.

        out = x / sqrt(mean(x^2) + eps) * weight

    over the last axis. Unlike `layer_norm` it takes no mean away and adds no shift. Zhang and Sennrich
    2019, arXiv:1910.07467, eq. 4.

    Parameters
    ----------
    x : Tensor (..., D)
    weight : Tensor (D,), optional
    eps : float
        Keeps a row of zeros from dividing by zero.

    Notes
    -----
    The backward for one row. Write r = (s + eps)^(-1/2) with s = (1/D) sum_j x_j^2, n_i = x_i r (the
    normalised row) and out_i = w_i n_i.

    1. Past the scale: dL/dw_i = g_i n_i, summed over the rows, and h_i = dL/dn_i = g_i w_i.
    2. x_k enters n_i as itself (if i = k) and through r. With ds/dx_k = 2 x_k / D,
           dr/dx_k = -(1/2) (s + eps)^(-3/2) 2 x_k / D = -r^3 x_k / D
           dn_i/dx_k = [i = k] r - x_i r^3 x_k / D = r ([i = k] - n_i n_k / D)
    3. The chain rule sums over i: dL/dx_k = r (h_k - n_k (1/D) sum_i h_i n_i).

       dL/dx = r * (h - n * mean(h * n)).
    """
    return _rms_norm(x, weight, eps)


@fused("swiglu")
def swiglu(gate, x, /):
    """gate sigmoid(gate) x, elementwise: the activated gate says how much of x passes.

    The gate and x have one shape: two linear layers of the same input. Shazeer 2020, arXiv:2002.05202,
    eq. 6.

    Write s = sigmoid(gate), of which s' = s (1 - s), and a = gate s, the activated gate. With out = a x

        dL/dx = g a
        dL/dgate = g x (s + gate s (1 - s)) = g x (s + a (1 - s)).
    """
    return gate * sigmoid(gate) * x


@derivative(lambda g, cos, sin: rotate_pairs(g, cos, -sin),
            lambda g, x: g[..., ::2] * x[..., ::2] + g[..., 1::2] * x[..., 1::2],
            lambda g, x: g[..., 1::2] * x[..., ::2] - g[..., ::2] * x[..., 1::2])
def rotate_pairs(x, cos, sin, /):
    """Turn each pair of neighbours along the last axis of x by an angle.

    x has shape (..., T, D); the cosines and sines of the angles have shape (T, D/2).

    As complex numbers: with z_i = x_2i + j x_2i+1, out is z_i (cos + j sin), whose parts are

        out_2i = x_2i cos - x_2i+1 sin,    out_2i+1 = x_2i sin + x_2i+1 cos.

    The matrix of a rotation is orthogonal: its transpose, which takes gradients back, turns by the
    angle with the other sign. Su et al. 2021, arXiv:2104.09864, eq. 34.
    """
    return kernels.rotate_pairs(x, cos, sin)
