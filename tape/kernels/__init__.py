"""Raw array code for the operators that gain from it: arrays in, arrays out, no differentiation.

    sums.py     sums and means, and the undoing of broadcasting
    products.py products of matrices
    pieces.py   large arrays in pieces that stay in the cache
    numpy.py    the fused operators, and what else is worth ordering for speed
    loss.py     cross entropy
    causal.py   causal attention, the weights kept
    heads.py    the same with the linear layers around it
    attention.py  attention block by block
    llama.py    RMSNorm, SwiGLU and rotary positions
    normal.py   the error function and the exact GELU
    recurrent.py  recurrent layers over a sequence
    ordering.py  stable sorting
    selection.py  np.where by the bits of the elements
    lookup.py   the gradient of a look-up in a table
    update.py   updates in place, for optimisers
    numba/      kernels compiled with Numba, under the same names
    choice.py   which of the two sets is in use

`find` gives the kernel of a name in the set in use; what is imported below is NumPy's.
"""

from tape.kernels.attention import attention, attention_backward
from tape.kernels.causal import (
    attention_scale, causal_attention, causal_attention_backward, future_mask)
from tape.kernels.choice import find, kernels_in_use, use_kernels
from tape.kernels.heads import check_self_attention, merge_heads, self_attention, split_heads
from tape.kernels.llama import (
    rms_norm, rms_norm_backward, rotate_pairs, swiglu, swiglu_backward)
from tape.kernels.lookup import add_elements, add_rows, scatter_rows
from tape.kernels.loss import check_targets, cross_entropy, cross_entropy_backward, one_hot
from tape.kernels.numpy import (
    GELU_CUBIC, SQRT_2_OVER_PI, broadcasts_to, deviation, gelu, gelu_backward, has_nan, layer_norm,
    layer_norm_backward, log_softmax, log_softmax_backward, logaddexp, logsumexp, norm, power, relu,
    relu_backward, sigmoid, sigmoid_backward, softmax, softmax_backward, zero_where_undefined)
from tape.kernels.normal import erf, gelu_exact, gelu_exact_backward, normal_cdf
from tape.kernels.ordering import stable_order
from tape.kernels.products import matmul, matmul_gradient_x, matmul_gradient_y, product
from tape.kernels.recurrent import (
    check_sequence, gru, gru_backward, gru_step, gru_step_backward, lstm, lstm_backward, lstm_step,
    lstm_step_backward, rnn, rnn_backward)
from tape.kernels.selection import where
from tape.kernels.sums import (
    HALF, SINGLE, add, broadcast, centred, fit_to, in_float32, length, reduce_mean, reduce_sum,
    sum_dtype, unbroadcast, variance)
from tape.kernels.update import adam_update

__all__ = [
    "HALF", "SINGLE", "add", "broadcast", "centred", "fit_to", "in_float32", "length", "reduce_mean",
    "reduce_sum", "sum_dtype", "unbroadcast", "variance", "where", "rms_norm", "rms_norm_backward",
    "rotate_pairs", "swiglu", "swiglu_backward",
    "adam_update", "attention", "attention_backward", "find", "kernels_in_use", "use_kernels",
    "GELU_CUBIC", "SQRT_2_OVER_PI", "add_elements", "add_rows", "attention_scale", "broadcasts_to",
    "causal_attention", "causal_attention_backward", "check_targets", "cross_entropy",
    "cross_entropy_backward", "deviation", "erf", "future_mask", "gelu", "gelu_backward", "gelu_exact",
    "gelu_exact_backward", "has_nan",
    "layer_norm", "layer_norm_backward", "log_softmax", "log_softmax_backward", "logaddexp",
    "logsumexp", "matmul", "matmul_gradient_x", "matmul_gradient_y", "norm", "one_hot", "power",
    "normal_cdf",
    "product", "relu", "relu_backward", "scatter_rows", "sigmoid", "sigmoid_backward", "softmax",
    "softmax_backward", "stable_order", "zero_where_undefined",
    "check_sequence", "gru", "gru_backward", "gru_step", "gru_step_backward", "lstm", "lstm_backward",
    "lstm_step", "lstm_step_backward", "rnn", "rnn_backward",
    "check_self_attention", "merge_heads", "self_attention", "split_heads",
]
