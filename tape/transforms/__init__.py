"""Derivatives asked for as values: of results, of functions, in a ``with`` block; and `checkpoint`,
`parallel_map`.

    gradients.py        of recorded results: what ``grad(y, x)`` does
    functions.py        of functions: grad(f), jacobian, hessian, vjp, jvp, hvp
    gradient_tape.py    of what a ``with`` block computed
    recomputation.py    checkpoint: less memory for one more forward
    parallel.py         parallel_map: calls side by side, and so their walks back
"""

from tape.transforms.functions import (
    elementwise_grad, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp)
from tape.transforms.gradient_tape import GradientTape
from tape.transforms.parallel import parallel_map
from tape.transforms.recomputation import checkpoint

__all__ = ["GradientTape", "checkpoint", "elementwise_grad", "grad", "hessian", "hvp", "jacobian",
           "jvp", "parallel_map", "value_and_grad", "vjp"]
