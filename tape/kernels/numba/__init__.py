"""The kernels compiled with Numba. A kernel that is missing here is NumPy's.

    compiled.py      how a loop is compiled: for which types, with which flags, cached where
    bits.py          the bits of a float, and the largest of a row by them
    exponential.py   e^x, and tanh of float32, so that a loop over them becomes vector instructions
    elementwise.py   gelu, relu and sigmoid, and sums of two arrays
    normal.py        the exact gelu
    atomics.py       what threads need to share numbers and tasks
    threads.py       parts of a kernel in threads
    products.py      products of matrices in parts, by tiles or by NumPy's BLAS
    tiles.py         products of float32 by tiles in the registers of AVX-512
    attention.py     causal attention, a head at a time
    rows.py          layer_norm and cross_entropy, row by row
    softmax_rows.py  softmax and log_softmax, the same way
    llama.py         rms_norm, row by row, and swiglu
    recurrent.py     a step of an LSTM and of a GRU
    lookup.py        the gradient of a look-up
    update.py        the update of Adam

A kernel here is a Python function of the same parameters, results and errors as NumPy's. It prepares
the arrays and calls a loop, or NumPy's kernel where the loop does not serve: for float16, integers,
mixed dtypes, scalars and empty arrays. Numba is imported with this package, at the first use of an
operator that has kernels, and not with `tape`.
"""

from tape.kernels.numba.attention import causal_attention, causal_attention_backward
from tape.kernels.numba.elementwise import (
    add, gelu, gelu_backward, relu, relu_backward, sigmoid, sigmoid_backward)
from tape.kernels.numba.llama import rms_norm, rms_norm_backward, swiglu, swiglu_backward
from tape.kernels.numba.lookup import add_rows
from tape.kernels.numba.normal import gelu_exact, gelu_exact_backward
from tape.kernels.numba.products import product
from tape.kernels.numba.recurrent import (
    gru_step, gru_step_backward, lstm_step, lstm_step_backward)
from tape.kernels.numba.rows import (
    cross_entropy, cross_entropy_backward, layer_norm, layer_norm_backward)
from tape.kernels.numba.softmax_rows import (
    log_softmax, log_softmax_backward, softmax, softmax_backward)
from tape.kernels.numba.update import adam_update

__all__ = [
    "adam_update", "add", "add_rows", "causal_attention", "causal_attention_backward",
    "cross_entropy", "cross_entropy_backward", "gelu", "gelu_backward", "gelu_exact",
    "gelu_exact_backward", "gru_step", "gru_step_backward", "layer_norm", "layer_norm_backward",
    "log_softmax", "log_softmax_backward", "lstm_step", "lstm_step_backward", "product", "relu",
    "relu_backward", "rms_norm", "rms_norm_backward", "sigmoid", "sigmoid_backward", "softmax",
    "softmax_backward", "swiglu", "swiglu_backward",
]
