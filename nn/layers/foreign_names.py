"""PyTorch's names that are others in nn, each with what to write instead.

Those of Tensors and functions are in tape. What is written must be what a reader can type: a test looks
up every name in it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import Any, Callable, Iterable, Mapping

import numpy as np

_FLOAT = "m.weight = nn.Parameter(m.weight.data.astype(np.float64)): a parameter keeps its dtype"
_MADE = "with nn.parameters_of('float64'): around what makes it; parameters are float32 otherwise"
_NOTHING = "nothing: arrays are in main memory and on no device"
_HOOK = "a subclass whose forward does it, and calls super().forward(x)"
_OPTIMISERS = "nn.SGD, nn.Adam or nn.AdamW, which are in nn itself"
_SCHEDULE = ("optimizer.lr = nn.warmup_cosine(step, peak=1e-3, warmup=100, total=2000) before each "
             "step: a schedule is a function of the step")

_BATCHES = ("for rows in np.array_split(rng.permutation(n), n // 32): x[rows], y[rows] with rng = "
            "np.random.default_rng(0)")

_KL = "tape.sum(p * (tape.log(p) - log_q), axis=-1).mean(), with log_q = tape.log_softmax(logits)"
_HUBER = "tape.mean(tape.where(abs(d) < 1, d ** 2 / 2, abs(d) - 0.5))"
_COSINE = ("tape.sum(x * y, axis=-1) / (tape.norm(x, axis=-1) * tape.norm(y, axis=-1)), where no row "
           "is zero")
_MASK = "mask=, where True is what may be seen: mask=~attn_mask for one of booleans"

# Of the package.
NN: dict[str, str] = {
    "CrossEntropyLoss": "nn.cross_entropy(logits, targets)", "MSELoss": "nn.mse(predictions, targets)",
    "NLLLoss": "nn.cross_entropy(logits, targets), which takes the log-softmax itself",
    "BCEWithLogitsLoss": "nn.binary_cross_entropy_with_logits(logits, targets)",
    "BCELoss": "nn.binary_cross_entropy_with_logits(logits, targets), without a sigmoid before it",
    "L1Loss": "tape.mean(tape.abs(predictions - targets))",
    "functional": "import tape as F, for tape.softmax, tape.relu, tape.dropout; losses are in nn: "
    "nn.cross_entropy, nn.mse",
    "softmax": "tape.softmax(x)", "relu": "tape.relu(x)", "gelu": "tape.gelu(x)",
    "log_softmax": "tape.log_softmax(x)", "dropout": "tape.dropout(x, p, rng)",
    "one_hot": "np.eye(n)[ids]", "mse_loss": "nn.mse(predictions, targets)",
    "scaled_dot_product_attention": "tape.attention(q, k, v), with causal=True for is_causal=True",
    "KLDivLoss": _KL, "kl_div": _KL,
    "HuberLoss": _HUBER, "huber_loss": _HUBER, "smooth_l1_loss": _HUBER,
    "TripletMarginLoss": "tape.relu(near - far + 1).mean(), of distances tape.norm(x - y, axis=-1)",
    "CosineSimilarity": _COSINE, "cosine_similarity": _COSINE,
    "elu": "tape.where(x > 0, x, tape.expm1(tape.minimum(x, 0)))",
    "logsigmoid": "-tape.logaddexp(-x, 0)",
    "LBFGS": "scipy.optimize.minimize(lambda x: [a.tolist() for a in f(x)], x0, jac=True) with f = "
    "tape.value_and_grad(loss)",
    "Softmax": "tape.softmax(x)", "LogSoftmax": "tape.log_softmax(x)",
    "Tanh": "tape.tanh, which may stand in nn.Sequential",
    "Sigmoid": "tape.sigmoid, which may stand in nn.Sequential",
    "LeakyReLU": "lambda x: tape.maximum(x, 0.01 * x), which may stand in nn.Sequential",
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
    "np.random.default_rng(0); for zeros m.bias.data[...] = 0; Xavier's is rng.uniform(-1, 1, shape) * "
    "(6 / sum(shape)) ** 0.5, and He's rng.normal(0, (2 / shape[0]) ** 0.5, shape), as shape is "
    "(n_in, n_out)",
    "utils": "nn.clip_grad_norm(model.parameters(), 1.0)", "DataLoader": _BATCHES,
    "TensorDataset": _BATCHES, "Dataset": _BATCHES,
    "binary_cross_entropy": "nn.binary_cross_entropy_with_logits(logits, targets), the mean, without a "
    "sigmoid before it",
    "nll_loss": "nn.cross_entropy(logits, targets), which takes the log-softmax itself",
    "l1_loss": "tape.mean(tape.abs(predictions - targets))", "silu": "x * tape.sigmoid(x)",
    "sigmoid": "tape.sigmoid(x)", "tanh": "tape.tanh(x)", "linear": "x @ weight + bias",
    "leaky_relu": "tape.maximum(x, 0.01 * x)", "softplus": "tape.logaddexp(x, 0)",
    "layer_norm": "tape.layer_norm(x, weight, bias)", "pad": "tape.pad(x, ((0, 0), (1, 1)))",
    "normalize": "x / tape.norm(x, axis=-1, keepdims=True)", "embedding": "tape.embedding(weight, ids)",
    "Softplus": "lambda x: tape.logaddexp(x, 0), which may stand in nn.Sequential",
    "ELU": "lambda x: tape.where(x > 0, x, tape.expm1(tape.minimum(x, 0)))",
    "AvgPool2d": "x.reshape(B, C, H, 2, W, 2).mean(axis=(3, 5))",
    "AdaptiveAvgPool2d": "x.mean(axis=(2, 3))", "TransformerDecoder": "nn.TransformerDecoderBlock",
    "SmoothL1Loss": _HUBER,
    "parameter": "nn.Parameter(array)",
    "clip_grad_norm_": "nn.clip_grad_norm(model.parameters(), 1.0)",
    "optim": _OPTIMISERS,
    "Optimizer": _OPTIMISERS, "RMSprop": "nn.Adam", "Adagrad": "nn.Adam", "NAdam": "nn.Adam",
    "lr_scheduler": _SCHEDULE, "CosineAnnealingLR": _SCHEDULE, "LambdaLR": _SCHEDULE,
    "StepLR": _SCHEDULE, "ReduceLROnPlateau": _SCHEDULE, "OneCycleLR": _SCHEDULE,
    "ExponentialLR": _SCHEDULE,
    "Tensor": "tape.Tensor", "no_grad": "tape.no_grad()", "save": "nn.save_checkpoint(path, model)",
    "load": "nn.load_checkpoint(path).model",
}

# Of a Module m.
MODULE: dict[str, str] = {
    "to": _NOTHING, "cuda": _NOTHING, "cpu": _NOTHING, "device": _NOTHING, "float":
    "m itself: parameters are float32 as they are made", "double": _MADE, "half": _FLOAT,
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

# Arguments of layers and optimisers: what ours are called, or how to write what they ask for.
ARGUMENTS: dict[str, str] = {
    "in_features": "n_in=", "out_features": "n_out=", "input_size": "n_in=", "hidden_size": "n_hidden=",
    "num_layers": "n_layer=", "num_embeddings": "n=", "embedding_dim": "d=", "normalized_shape": "d=",
    "embed_dim": "d_model=", "num_heads": "n_head=", "nhead": "n_head=",
    "dim_feedforward": "d_hidden=",
    "batch_first": "nothing: the batch is always the first axis",
    "bidirectional": "a second one over x[:, ::-1], and tape.concatenate of both",
    "padding_idx": "nothing: its vector is learned as every other, unless no loss asks for it",
    "inplace": "nothing: no result is changed in place", "device": _NOTHING,
    "dtype": _MADE,
    "elementwise_affine": "tape.layer_norm(x) for False",
    "fused": "nothing: there is one way to compute it",
    "foreach": "nothing: there is one way to compute it",
    "reduction": "nothing: it is the mean; times predictions.size it is the sum, and of each element "
    "it is (predictions - targets) ** 2",
    "attn_mask": _MASK, "src_mask": _MASK, "tgt_mask": _MASK,
    "key_padding_mask": "mask=nn.padding_mask(valid), where valid is ~key_padding_mask",
    "src_key_padding_mask": "mask=nn.padding_mask(valid), where valid is ~src_key_padding_mask",
    "is_causal": "causal=True where the layer is made", "need_weights": "return_weights=",
    "average_attn_weights": "weights.mean(1): the weights of each head are returned",
    "norm_first": "norm='pre' for True, norm='post' for False",
    "weight": "the weights yourself: multiply the loss of each row, -tape.log_softmax(logits)[rows, "
    "targets] with rows = np.arange(len(targets)), by weight[targets]",
    "pos_weight": "the weights yourself: (pos_weight * y * tape.logaddexp(-x, 0) + (1 - y) * "
    "tape.logaddexp(x, 0)).mean()",
    "amsgrad": "nothing: it is without", "maximize": "the loss with a minus",
    "set_to_none": "nothing: gradients are set to None",
}


def missing(owner: str, name: str, table: Mapping[str, str],
            known: Iterable[str] = ()) -> AttributeError:
    """The error for a name that `owner` does not have."""
    if name in table:
        text = f"{owner} has no {name!r}, which is PyTorch's name. Write {table[name]}"
    else:
        near = difflib.get_close_matches(name, list(known), 1)
        text = f"{owner} has no attribute {name!r}" + (f". Did you mean {near[0]!r}?" if near else "")
    # Python would add the attribute that is spelled most alike, had it the object.
    return AttributeError(text, name=name, obj=None)


def refuse_arguments(function: Callable, kwargs: Mapping[str, Any], owner: str) -> None:
    """Raise for arguments of PyTorch's that a function does not have, with ours."""
    if not ARGUMENTS.keys() & kwargs:
        return
    known = {} if function is object.__init__ else inspect.signature(function).parameters
    foreign = [name for name in kwargs if name in ARGUMENTS and name not in known]
    if foreign and all(p.kind is not p.VAR_KEYWORD for p in known.values()):
        takes = ", ".join(name for name in known if name != "self") or "no arguments"
        words = ". ".join(f"{name}= is PyTorch's; write {ARGUMENTS[name]}" for name in foreign)
        raise TypeError(f"{owner}: takes {takes}. {words}")


@functools.lru_cache(maxsize=256)
def _flags(function: Callable) -> list[tuple[int, str, bool]]:
    """Of the parameters that are flags, or generators: place, name, and whether it is a flag."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [(i, p.name, p.annotation == "bool") for i, p in enumerate(parameters)
            if p.annotation in ("bool", "Rng")]


def _check_flags(made: type, args: tuple, kwargs: Mapping[str, Any]) -> None:
    """Refuse what is no flag in the place of one, as PyTorch's arguments by position may be."""
    for i, name, is_flag in _flags(made.__init__):              # type: ignore[misc]
        value = args[i] if i < len(args) else kwargs.get(name)
        if value is not None and is_flag is not isinstance(value, (bool, np.bool_)):
            must = "True or False" if is_flag else "a generator or a seed"
            raise TypeError(f"{made.__name__}: {name} must be {must}, got {value!r}. Its arguments are "
                            f"{', '.join(list(inspect.signature(made).parameters))}")


def refuse_arguments_of(made: type, args: tuple, kwargs: Mapping[str, Any]) -> None:
    """The same before an object is made; and what Python refuses only where there is no `__new__`."""
    refuse_arguments(made.__init__, kwargs, made.__name__)      # type: ignore[misc]
    if made.__module__.startswith(("nn.layers.", "nn.models.")):
        _check_flags(made, args, kwargs)
    if made.__init__ is object.__init__ and (args or kwargs):   # type: ignore[misc]
        raise TypeError(f"{made.__name__}() takes no arguments")


def in_our_words(function: Callable) -> Callable:
    """A function that answers arguments of PyTorch's with ours."""
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError:
            refuse_arguments(function, kwargs, function.__name__)
            raise
    return call
