"""PyTorch's names that are others in nn, each with what to write instead.

Those of Tensors and functions are in tape. What is written must be what a reader can type: a test looks
up every name in it.
"""

from __future__ import annotations

import difflib
from typing import Iterable, Mapping

_FLOAT = "m.weight = nn.Parameter(m.weight.data.astype(np.float64)): a parameter keeps its dtype"
_NOTHING = "nothing: arrays are in main memory and on no device"
_HOOK = "a subclass whose forward does it, and calls super().forward(x)"
_OPTIMISERS = "nn.SGD, nn.Adam or nn.AdamW, which are in nn itself"
_SCHEDULE = ("optimizer.lr = nn.warmup_cosine(step, peak=1e-3, warmup=100, total=2000) before each "
             "step: a schedule is a function of the step")

# Of the package.
NN: dict[str, str] = {
    "CrossEntropyLoss": "nn.cross_entropy(logits, targets)", "MSELoss": "nn.mse(predictions, targets)",
    "NLLLoss": "nn.cross_entropy(logits, targets), which takes the log-softmax itself",
    "BCEWithLogitsLoss": "nn.binary_cross_entropy_with_logits(logits, targets)",
    "BCELoss": "nn.binary_cross_entropy_with_logits(logits, targets), without a sigmoid before it",
    "L1Loss": "tape.mean(tape.abs(predictions - targets))",
    "functional": "tape.softmax, tape.relu, tape.dropout, nn.cross_entropy: functions are in tape or "
    "in nn itself",
    "softmax": "tape.softmax(x)", "relu": "tape.relu(x)", "gelu": "tape.gelu(x)",
    "log_softmax": "tape.log_softmax(x)", "dropout": "tape.dropout(x, p, rng)",
    "one_hot": "np.eye(n)[ids]", "mse_loss": "nn.mse(predictions, targets)",
    "scaled_dot_product_attention": "tape.causal_attention(q, k, v)",
    "Softmax": "tape.softmax(x)", "LogSoftmax": "tape.log_softmax(x)",
    "Tanh": "tape.tanh, which may stand in nn.Sequential",
    "Sigmoid": "tape.sigmoid, which may stand in nn.Sequential",
    "LeakyReLU": "tape.maximum(x, 0.01 * x)",
    "Identity": "lambda x: x, which may stand in nn.Sequential",
    "Flatten": "lambda x: x.reshape(len(x), -1), which may stand in nn.Sequential",
    "Unflatten": "lambda x: x.reshape(len(x), 3, -1), which may stand in nn.Sequential",
    "Conv2d": "nn.PatchEmbedding for images in patches; there is no convolution",
    "Conv1d": "nn.Linear over x.reshape(B, T, -1); there is no convolution",
    "MaxPool2d": "x.reshape(B, C, H, 2, W, 2).max(axis=(3, 5))",
    "BatchNorm1d": "nn.LayerNorm or nn.RMSNorm", "BatchNorm2d": "nn.LayerNorm or nn.RMSNorm",
    "GroupNorm": "nn.LayerNorm or nn.RMSNorm", "Dropout1d": "nn.Dropout", "Dropout2d": "nn.Dropout",
    "MultiheadAttention": "nn.MultiHeadAttention",
    "TransformerEncoderLayer": "nn.TransformerEncoderBlock",
    "TransformerDecoderLayer": "nn.TransformerDecoderBlock", "Transformer": "nn.Seq2SeqTransformer",
    "RNNCell": "nn.RNN", "LSTMCell": "nn.LSTM", "GRUCell": "nn.GRU", "GLU": "nn.SwiGLU",
    "ParameterList": "a plain list: self.weights = [nn.Parameter(a), nn.Parameter(b)]",
    "ParameterDict": "a plain dict: self.weights = {'a': nn.Parameter(a)}",
    "Buffer": "self.register_buffer('name', array)",
    "init": "m.weight.data = rng.normal(0.0, 0.02, m.weight.shape) with rng = "
    "np.random.default_rng(0); for zeros m.bias.data[...] = 0",
    "utils": "nn.clip_grad_norm(model.parameters(), 1.0)",
    "clip_grad_norm_": "nn.clip_grad_norm(model.parameters(), 1.0)",
    "DataParallel": "the model itself: there is one process", "optim": _OPTIMISERS,
    "Optimizer": _OPTIMISERS, "RMSprop": "nn.Adam", "Adagrad": "nn.Adam", "NAdam": "nn.Adam",
    "lr_scheduler": _SCHEDULE, "CosineAnnealingLR": _SCHEDULE, "LambdaLR": _SCHEDULE,
    "StepLR": _SCHEDULE,
    "Tensor": "tape.Tensor", "no_grad": "tape.no_grad()", "save": "nn.save_checkpoint(path, model)",
    "load": "nn.load_checkpoint(path).model",
}

# Of a Module m.
MODULE: dict[str, str] = {
    "to": _NOTHING, "cuda": _NOTHING, "cpu": _NOTHING, "device": _NOTHING, "float":
    "m itself: parameters are float32 as they are made", "double": _FLOAT, "half": _FLOAT,
    "type": _FLOAT, "bfloat16": _FLOAT,
    "register_parameter": "self.name = nn.Parameter(array)", "add_module": "setattr(m, name, child)",
    "register_module": "setattr(m, name, child)",
    "requires_grad_": "for p in m.parameters(): p.requires_grad = False",
    "get_parameter": "dict(m.named_parameters())[name]", "get_buffer": "dict(m.named_buffers())[name]",
    "get_submodule": "dict(m.named_modules())[name]", "register_forward_hook": _HOOK,
    "register_forward_pre_hook": _HOOK, "register_full_backward_hook": _HOOK,
    "register_backward_hook": _HOOK, "compile": "m itself", "share_memory": "m itself",
    "extra_repr": "__repr__", "num_parameters": "m.parameter_count()",
    "numel": "m.parameter_count()",
}

# Of an optimiser.
OPTIMIZER: dict[str, str] = {
    "param_groups": "optimizer.lr = lr, which changes the rates of all groups in proportion; "
    "optimizer.params for the parameters",
    "add_param_group": "a new optimizer with all groups, which starts anew",
    "state": "optimizer.state_dict()", "defaults": "optimizer.lr and so on: settings are attributes",
    "register_step_post_hook": "it after optimizer.step()",
    "register_step_pre_hook": "it before optimizer.step()",
}


def missing(owner: str, name: str, table: Mapping[str, str], known: Iterable[str] = ()) -> str:
    """The message of the AttributeError for a name that `owner` does not have."""
    if name in table:
        return f"{owner} has no {name!r}, which is PyTorch's name. Write {table[name]}"
    near = difflib.get_close_matches(name, list(known), 1)
    return f"{owner} has no attribute {name!r}" + (f". Did you mean {near[0]!r}?" if near else "")
