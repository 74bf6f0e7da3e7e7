"""An eager, define-by-run reverse-mode autodiff engine on NumPy.

    Tensor                              an array that remembers how it was made
    div, power, mean, matmul, ...       the operators, also as methods and as NumPy's functions
    grad, jacobian, jvp, ...            derivatives of results, and of functions
    no_grad, enable_grad                recording off and on
    checkpoint                          less memory: run again rather than keep
    parallel_map                        calls of a function in threads, walked back in threads
    WorkerProcesses                     the same in processes, which do not wait for each other
    linalg                              solve, inv, cholesky, eigh, svd, ... as in np.linalg
    primitive                           a new operator from a forward and its derivative
    implements                          what to call when a NumPy function meets a Tensor
    gradcheck                           derivatives against differences
    strict                              check all that the tape keeps for changes
    show, record_lines                  the tape as a table
    adam_update                         the update of an optimiser, on arrays
    use_kernels, kernels_in_use         NumPy's kernels, or those compiled with Numba
    kernel_threads                      with how many threads these compute
    limit_blas_threads                  how many threads the matrix products use
    measure, hollow                     what a computation costs, also of one that is not run
    tape.lazy                           the static graph over the same operators
"""

import sys as _sys

from tape import foreign_names as _foreign_names
from tape import gradcheck, linalg, ops
from tape.blas import limit_blas_threads
from tape.dispatch import apply as _apply    # noqa: F401: which Tensor is given as it is imported
from tape.grad_mode import enable_grad, no_grad, record_lines, strict
from tape.hollow import hollow
from tape.kernels.choice import (
    choose as _choose_kernels, kernel_threads, kernels_in_use, use_kernels)
from tape.measure import measure
from tape.memory import keep_freed_memory as _keep_freed_memory    # noqa: F401: as it is imported
from tape.ops import *    # noqa: F401,F403: the operators, listed in tape/ops/__init__.py
from tape.primitive import implements, primitive
from tape.processes import WorkerProcesses
from tape.show import show
from tape.tensor import Tensor
from tape.transforms import (
    GradientTape, checkpoint, elementwise_grad, grad, hessian, hvp, jacobian, jvp, parallel_map,
    value_and_grad, vjp)
from tape.updates import adam_update

__all__ = [
    "GradientTape", "Tensor", "WorkerProcesses", "adam_update", "checkpoint", "elementwise_grad",
    "enable_grad", "grad",
    "gradcheck", "hessian", "hollow", "hvp", "implements", "jacobian", "jvp", "kernel_threads",
    "kernels_in_use",
    "limit_blas_threads", "linalg", "measure", "no_grad", "parallel_map", "primitive", "record_lines",
    "show", "strict", "use_kernels", "value_and_grad", "vjp",
]
__all__ += ops.__all__

_FOREIGN_NAMES = {**_foreign_names.JAX, **_foreign_names.AUTOGRAD, **_foreign_names.TAPE}
_sys.modules["tape.tensor"].__class__ = _foreign_names.CallableModule
_choose_kernels()


def __getattr__(name: str):
    """A name of another library's is answered with ours, another unknown one with the nearest."""
    raise _foreign_names.missing("tape", name, _FOREIGN_NAMES, __all__)
