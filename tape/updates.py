"""Updates of arrays in place, for optimisers, by the kernels in use."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from tape import kernels
from tape.tensor import Tensor


def adam_update(arrays: Sequence[np.ndarray | Tensor], gradients: Sequence[np.ndarray],
                m: np.ndarray, v: np.ndarray, t: int, lr: float, betas: tuple[float, float], eps: float,
                weight_decay: float = 0.0, decoupled: bool = False) -> None:
    """Update number t (from 1) of some arrays p, given their gradients g; the algorithm of Adam.

        m += (1 - beta1) (g - m),    v = beta2 v + (1 - beta2) g^2
        p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1. Of the decay w, w p is added to g; `decoupled`,
    lr w p is subtracted from p besides, with the p of before (Loshchilov and Hutter 2019,
    arXiv:1711.05101, algorithm 2).

    Parameters
    ----------
    arrays : sequence of arrays, or of leaves, whose arrays are meant
        Changed. A tape that still needs the old values notices, as of ``t.data -= step``. Of float16
        the update is computed in float32 and rounded once.
    gradients : sequence of arrays
        One of the same shape for each.
    m, v : arrays (N,)
        The running means of all arrays, one after the other; changed, in float32 at least.
    t : int
    lr, eps, weight_decay : float
    betas : (float, float)
    decoupled : bool

    Raises
    ------
    ValueError
        The shapes do not fit.
    """
    arrays = [a.data if isinstance(a, Tensor) else a for a in arrays]
    shapes, wanted = [np.shape(g) for g in gradients], [a.shape for a in arrays]
    total = sum(a.size for a in arrays)
    if shapes != wanted or not np.shape(m) == np.shape(v) == (total,):
        raise ValueError(f"adam_update: there must be a gradient for each array, of shapes {wanted}, "
                         f"and m and v of shape ({total},); got {shapes}, {np.shape(m)} and "
                         f"{np.shape(v)}")
    kernels.find("adam_update")(arrays, gradients, m, v, t, lr, betas, eps, weight_decay, decoupled)
