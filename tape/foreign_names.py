"""Names of PyTorch, autograd and JAX that are others here, with what to write; the errors that say so.

A name that NumPy has with PyTorch's meaning belongs among the operators, not here. What is written must
be what a reader can type: a test looks up every name in it.
"""

from __future__ import annotations

import functools
import importlib.abc
import inspect
import sys
import types
from typing import Any, Callable, Iterable, Mapping

import numpy as np

from tape.errors import did_you_mean
from tape.numpy_hints import HINTS, METHODS

_NOTHING = "nothing: arrays are in main memory and on no device"
_GENERATOR = " with rng = np.random.default_rng(0)"

_COMPARED = {"eq": "t == u", "ne": "t != u", "lt": "t < u", "le": "t <= u", "gt": "t > u",
             "ge": "t >= u"}

# Attributes of a Tensor t. u is another, rng a generator.
TENSOR: dict[str, str] = {
    # shapes
    "view": "t.reshape(2, -1)", "view_as": "t.reshape(u.shape)", "reshape_as": "t.reshape(u.shape)",
    "permute": "t.transpose(0, 2, 1)", "t": "t.T", "contiguous": "t itself: any layout will do",
    "is_contiguous": "nothing: any layout will do", "unsqueeze": "t.expand_dims(1)",
    "numel": "t.size", "nelement": "t.size", "dim": "t.ndim", "ndimension": "t.ndim",
    "unflatten": "t.reshape(*t.shape[:-1], 2, -1)", "expand": "t.broadcast_to((2, 3))",
    "expand_as": "t.broadcast_to(u.shape)", "cat": "tape.concatenate([t, u], axis=1)",
    "chunk": "t.split(3, axis=-1), where 3 is how many pieces", "unbind": "tuple(t)",
    "movedim": "tape.moveaxis(t, 0, -1)", "moveaxis": "tape.moveaxis(t, 0, -1)",
    "narrow": "t[:, 2:5]", "select": "t[:, 2]", "repeat_interleave": "np.repeat(t, 2, axis=0)",
    "flip": "np.flip(t, 0)", "roll": "np.roll(t, 1, axis=0)",
    "tril": "np.tril(t)", "triu": "np.triu(t)",
    # picking elements
    "masked_fill": "tape.where(mask, value, t)", "masked_select": "t[mask]",
    "gather": "np.take_along_axis(t, ids, axis=1)", "index_select": "t[:, ids]",
    "scatter": "tape.where(mask, value, t)",
    "topk": "np.take_along_axis(t, np.argsort(-t.data)[..., :k], -1) for the k largest values, the "
    "largest first; np.argsort(-t.data)[..., :k] for their places",
    "multinomial": "np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1, keepdims=True), which "
    "draws one from softmax(logits): from the logits, not from their softmax," + _GENERATOR,
    # arithmetic
    "add": "t + u", "sub": "t - u", "mul": "t * u", "multiply": "t * u", "div": "t / u",
    "divide": "t / u", "true_divide": "t / u", "pow": "t ** 2", "neg": "-t", "negative": "-t",
    **_COMPARED,
    "mm": "t @ u", "bmm": "t @ u", "mv": "t @ u", "addmm": "bias + t @ u", "baddbmm": "bias + t @ u",
    "sin": "tape.sin(t)", "cos": "tape.cos(t)", "sign": "tape.sign(t)", "log1p": "tape.log1p(t)",
    "expm1": "tape.expm1(t)", "erf": "tape.erf(t)", "square": "tape.square(t)", "rsqrt": "1 / t.sqrt()",
    "reciprocal": "1 / t", "lerp": "t + weight * (u - t)", "maximum": "tape.maximum(t, u)",
    "minimum": "tape.minimum(t, u)", "where": "tape.where(mask, t, u)", "clamp": "t.clip(0, 1)",
    "median": "np.median(t), the mean of the middle two where there is no middle one",
    "clamp_min": "t.clip(min=0)", "clamp_max": "t.clip(max=1)", "amax": "t.max(axis=-1)",
    "amin": "t.min(axis=-1)", "isnan": "np.isnan(t.data)", "isfinite": "np.isfinite(t.data)",
    "isinf": "np.isinf(t.data)", "equal": "np.array_equal(t, u)", "allclose": "np.allclose(t, u)",
    # dtypes and devices
    "cpu": _NOTHING, "cuda": _NOTHING, "to": _NOTHING + "; t.astype(np.float64) changes the dtype",
    "device": _NOTHING, "is_cuda": _NOTHING, "layout": _NOTHING, "pin_memory": _NOTHING,
    "float": "t.astype(np.float32)", "double": "t.astype(np.float64)", "half": "t.astype(np.float16)",
    "bfloat16": "t.astype(np.float32), as NumPy has no bfloat16",
    "type_as": "t.astype(u.dtype)",
    "type": "t.astype(np.float32), or t.dtype", "long": "t.data.astype(np.int64): ids are plain arrays",
    "int": "t.data.astype(np.int32): ids are plain arrays",
    "bool": "t.data.astype(bool), a plain array",
    "is_floating_point": "t.dtype.kind == 'f'", "element_size": "t.data.itemsize",
    "stride": "t.data.strides", "data_ptr": "t.data.ctypes",
    # the tape
    "clone": "t * 1, which is recorded; t.detach() is a copy that is not",
    "requires_grad_": "t.requires_grad = True", "detach_": "t = t.detach()",
    "grad_fn": "tape.show(t), which prints the tape",
    "register_hook": "t.retain_grad() before backward(), and read t.grad after it",
    "new_zeros": "np.zeros(shape, t.dtype)", "new_ones": "np.ones(shape, t.dtype)",
    "new_full": "np.full(shape, 2, t.dtype)", "new_tensor": "tape.Tensor(data, dtype=t.dtype)",
    # in place
    "add_": "t.data += u", "sub_": "t.data -= u", "mul_": "t.data *= u", "div_": "t.data /= u",
    "pow_": "t.data **= 2", "neg_": "t.data *= -1", "addcmul_": "t.data += value * u * v",
    "addcdiv_": "t.data += value * u / v", "lerp_": "t.data += weight * (u - t.data)",
    "zero_": "t.data[...] = 0; of a gradient, which is an array, t.grad = None",
    "fill_": "t.data[...] = value", "copy_": "t.data = array",
    "masked_fill_": "tape.where(mask, value, t)",
    "normal_": "t.data = rng.normal(0.0, 0.02, t.shape)" + _GENERATOR,
    "uniform_": "t.data = rng.uniform(-0.1, 0.1, t.shape)" + _GENERATOR,
    "bernoulli_": "t.data = rng.random(t.shape) < p" + _GENERATOR,
    "clamp_": "t.data = np.clip(t.data, 0, 1)", "exp_": "t.data = np.exp(t.data)",
    "log_": "t.data = np.log(t.data)", "sqrt_": "t.data = np.sqrt(t.data)",
    "sin_": "t.data = np.sin(t.data)", "cos_": "t.data = np.cos(t.data)",
    "abs_": "t.data = np.abs(t.data)", "tanh_": "t.data = np.tanh(t.data)",
    "relu_": "t.data = np.maximum(t.data, 0)", "sigmoid_": "t.data = tape.sigmoid(t.data)",
    "unsqueeze_": "t = t.expand_dims(1)", "squeeze_": "t = t.squeeze()", "t_": "t = t.T",
    "transpose_": "t = t.swapaxes(0, 1)", "scatter_": "np.put_along_axis(t.data, ids, value, axis=1)",
    "index_add_": "np.add.at(t.data, ids, u)", "index_copy_": "t.data[ids] = u",
}

# Functions of the module that are attributes of a Tensor too.
_BOTH = (
    "addmm allclose baddbmm bmm cat cuda device eq equal gather index_select isfinite isnan lerp "
    "masked_fill masked_select mm movedim multinomial mv numel pow repeat_interleave t topk "
    "unbind").split()

# Functions and constants of the module.
TAPE: dict[str, str] = {
    **{name: TENSOR[name] for name in _BOTH}, **_COMPARED,
    "as_tensor": "tape.Tensor(array)",
    "from_numpy": "tape.Tensor(array); ids and targets stay arrays", "is_tensor":
    "isinstance(t, tape.Tensor)", "FloatTensor": "tape.Tensor(data)", "LongTensor": "np.array(ids)",
    "unsqueeze": "tape.expand_dims(t, 1)",
    "permute": "tape.transpose(t, (0, 2, 1))", "chunk": "tape.split(t, 3, axis=-1)",
    "flatten": "t.flatten()", "clone": "t * 1",
    "clamp": "tape.clip(t, 0, 1)", "rsqrt": "1 / tape.sqrt(t)",
    "amax": "tape.max(t, axis=-1)", "amin": "tape.min(t, axis=-1)",
    # arrays stand beside Tensors as they are
    "zeros": "np.zeros((2, 3), np.float32)", "ones": "np.ones((2, 3), np.float32)",
    "full": "np.full((2, 3), 0.5, np.float32)", "empty": "np.empty((2, 3), np.float32)",
    "eye": "np.eye(3, dtype=np.float32)", "arange": "np.arange(3)",
    "empty_like": "np.empty(t.shape, t.dtype)", "save": "np.savez(path, **arrays)",
    "load": "np.load(path)", "set_printoptions": "np.set_printoptions(precision=3)",
    # randomness
    "randn": "rng.standard_normal((2, 3), np.float32)" + _GENERATOR,
    "rand": "rng.random((2, 3), np.float32)" + _GENERATOR,
    "randint": "rng.integers(0, 65, (2, 3))" + _GENERATOR,
    "randperm": "rng.permutation(n)" + _GENERATOR,
    "normal": "rng.normal(mean, std, (2, 3))" + _GENERATOR,
    "bernoulli": "rng.random(p.shape) < p" + _GENERATOR,
    "randn_like": "rng.standard_normal(t.shape, t.dtype)" + _GENERATOR,
    "rand_like": "rng.random(t.shape, t.dtype)" + _GENERATOR,
    "manual_seed": "rng = np.random.default_rng(0), and give it to what draws: there is no global one",
    "seed": "rng = np.random.default_rng(), and give it to what draws: there is no global one",
    "Generator": "np.random.default_rng(0)",
    # of PyTorch's nn.functional
    "functional": "import tape as F; losses are nn.cross_entropy(logits, targets), nn.mse(x, y)",
    "mse_loss": "nn.mse(predictions, targets), the mean, with import nn",
    "l1_loss": "tape.mean(tape.abs(predictions - targets))",
    "nll_loss": "tape.cross_entropy(logits, targets), which takes the log-softmax itself",
    "binary_cross_entropy_with_logits": "nn.binary_cross_entropy_with_logits(logits, targets)",
    "binary_cross_entropy": "-(y * tape.log(p) + (1 - y) * tape.log(1 - p)).mean(), or .sum(); better "
    "nn.binary_cross_entropy_with_logits(logits, targets) without a sigmoid before it",
    "one_hot": "np.eye(n, dtype=np.float32)[ids]",
    "linear": "t @ weight + bias, with a weight (n_in, n_out)",
    "leaky_relu": "tape.maximum(t, 0.01 * t)", "silu": "t * tape.sigmoid(t)",
    "softplus": "tape.logaddexp(t, 0)",
    "elu": "tape.where(t > 0, t, tape.expm1(tape.minimum(t, 0)))",
    "logsigmoid": "-tape.logaddexp(-t, 0)", "softmin": "tape.softmax(-t)",
    "normalize": "t / tape.norm(t, axis=-1, keepdims=True)",
    "scaled_dot_product_attention": "tape.attention(q, k, v), with causal=True for is_causal=True",
    "kl_div": "tape.sum(p * (tape.log(p) - log_q), axis=-1).mean()",
    **{name: f"tape.linalg.{name}(t), or np.linalg.{name}(t)" for name in (
        "det", "slogdet", "inv", "svd", "qr", "eigh", "pinv", "cholesky")},
    "inverse": "tape.linalg.inv(t)", "logdet": "tape.linalg.slogdet(t)[1]",
    "solve": "tape.linalg.solve(t, u)", "lstsq": "tape.linalg.lstsq(t, u)[0]",
    "cdist": "tape.norm(t[:, None] - u, axis=-1)",
    "scatter_add": "onehot @ t, where onehot is np.eye(n)[ids].T",
    "cosine_similarity": "tape.sum(t * u, axis=-1) / tape.norm(t, axis=-1) / tape.norm(u, axis=-1)",
    "conv1d": "t.reshape(B, T, -1) @ weight; there is no convolution",
    "conv2d": "nn.PatchEmbedding for images in patches; there is no convolution",
    "detach": "t.detach()", "utils": "for rows in np.array_split(rng.permutation(n), n // 32): batch = "
    "x[rows]" + _GENERATOR, "randint_like": "rng.integers(0, 65, t.shape)" + _GENERATOR,
    "is_grad_enabled": "tape.no_grad() around what is not recorded",
    # modes
    "set_grad_enabled": "tape.no_grad() or tape.enable_grad()", "inference_mode": "tape.no_grad()",
    "autograd": "tape.grad(loss, inputs)",
    "compile": "ad.trace(function, inputs) with import tape.lazy as ad",
    "jit": "ad.trace(function, inputs) with import tape.lazy as ad",
    "backends": _NOTHING, "amp": _NOTHING, "autocast": _NOTHING,
    "nn": "import nn: a package beside this one", "optim": "import nn: the optimisers are in nn itself",
    "set_default_dtype": "tape.Tensor(data, dtype=np.float64) where float32 will not do",
    "set_num_threads": "OPENBLAS_NUM_THREADS=2 into the environment before the program starts",
    # dtypes are NumPy's
    "float": "np.float32", "double": "np.float64", "half": "np.float16", "long": "np.int64",
    "int": "np.int32", "short": "np.int16", "bool": "np.bool_", "float16": "np.float16",
    "float32": "np.float32", "float64": "np.float64", "int8": "np.int8", "int16": "np.int16",
    "int32": "np.int32", "int64": "np.int64", "uint8": "np.uint8", "dtype": "np.dtype",
    "bfloat16": "np.float32, as NumPy has no bfloat16", "finfo": "np.finfo", "iinfo": "np.iinfo",
    "inf": "np.inf", "nan": "np.nan", "pi": "np.pi", "Size": "tuple",
}

# Functions of libraries that differentiate functions. f is one, x its argument, v and g a tangent and
# a cotangent.
_VJP = "value, pull = tape.vjp(f, x); (gradient,) = pull(g)"
AUTOGRAD: dict[str, str] = {
    "make_vjp": _VJP, "vector_jacobian_product": _VJP, "tensor_jacobian_product": _VJP,
    "make_jvp": "value, slope = tape.jvp(f, x, v)",
    "make_hvp": "tape.hvp(f, x, v)", "hessian_vector_product": "tape.hvp(f, x, v)",
    "hessian_tensor_product": "tape.hvp(f, x, v)",
    "make_ggnvp": "tape.vjp(f, x)[1](tape.jvp(f, x, v)[1])[0]",
    "deriv": "tape.elementwise_grad(f)", "multigrad": "tape.grad(f, (0, 1))",
    "multigrad_dict": "tape.grad(f), where an argument of f is the dict",
    "holomorphic_grad": "tape.grad(f), for real numbers",
    "check_grads": "tape.gradcheck(f, [x])", "defvjp": "tape.primitive(forward, rule)",
    "numpy": "import numpy as np: its own functions are recorded",
    "array": "tape.stack([[t, u], [v, w]]) where some are tensors, else np.array(data)",
    "adam": "nn.Adam([t]), with import nn", "sgd": "nn.SGD([t], lr=0.1), with import nn",
    "rmsprop": "nn.Adam([t]), with import nn",
}
JAX: dict[str, str] = {
    "jacfwd": "tape.jacobian(f)", "jacrev": "tape.jacobian(f)",
    "linearize": "tape.jvp(f, x, v)", "linear_transpose": _VJP,
    "vmap": "tape.stack([f(row) for row in t]), or f itself for arrays with one more axis",
    "custom_vjp": "tape.primitive(forward, rule)", "custom_jvp": "tape.primitive(forward, rule)",
    "lax": "Python's own if, for and while", "random": "np.random.default_rng(0)",
    "tree_util": "lists, tuples and dicts as they are: an argument of f may be one",
}
OTHERS: dict[str, dict[str, str]] = {"autograd": AUTOGRAD, "JAX": JAX}       # libraries but PyTorch

# Parameters of functions: what ours are called, or how to write what they ask for.
KEYWORDS: dict[str, str] = {
    "dim": "axis=", "dims": "axes=", "keepdim": "keepdims=", "dim0": "swapaxes with axis1=",
    "dim1": "swapaxes with axis2=",
    "training": "nothing, and call it while model.training",
    "normalized_shape": "nothing: a row is the last axis",
    "unbiased": "ddof=: 1 for unbiased=True, PyTorch's default, and 0 for False, which is ours",
    "correction": "ddof=, whose default is 0", "split_size_or_sections": "sections=",
    "chunks": "sections=", "p": "a norm of another order with abs, ** and sum",
}
# What calls mean that give a function too many arguments.
CALLS: dict[str, str] = {
    "transpose": ". The axes are one tuple; two are exchanged by tape.swapaxes(x, 1, 2)",
    "layer_norm": ". The length of a row is that of x: layer_norm(x, weight, bias)"}
# What else is not PyTorch's, where a function was given one of its arguments.
MEANINGS: dict[str, str] = {
    "split": ", and sections= is how many pieces, or the places of the cuts, where PyTorch's number is "
             "the length of a piece: t.split(3, axis=-1) for three",
    "max": ". It gives the values alone; their places are np.argmax(t, axis=1)",
    "min": ". It gives the values alone; their places are np.argmin(t, axis=1)",
    "sort": ". It gives the values alone; their places are np.argsort(t, axis=-1)",
    "std": ". It divides by n: ddof=1 for n - 1, PyTorch's default",
    "var": ". It divides by n: ddof=1 for n - 1, PyTorch's default",
    "repeat": ". It repeats each element, where PyTorch's t.repeat(2, 3) is tape.tile(t, (2, 3))",
}


class Count(int):
    """A number of elements, as NumPy's ``size``; called, as PyTorch's, it says what to write."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("size: the number of elements, as in NumPy, and no method. Write t.shape for "
                        "t.size(), and t.shape[0] for t.size(0).")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # NumPy takes a subclass of int for an int64, which would widen a float32. +x is an int.
        return getattr(ufunc, method)(*[+x if type(x) is Count else x for x in inputs], **kwargs)


class Counts(dict):
    """The `Count` of each number: to make one takes longer than to look it up."""

    def __missing__(self, number: int) -> Count:
        if len(self) > 10_000:
            self.clear()
        count = self[number] = Count(number)
        return count


COUNTS = Counts()


def missing(owner: str, name: str, table: Mapping[str, str],
            known: Iterable[str] = ()) -> AttributeError:
    """The error for a name that `owner` does not have."""
    if name in table:
        library = next((other for other, names in OTHERS.items() if names.get(name) == table[name]),
                       "PyTorch")
        text = f"{owner} has no {name!r}, which is {library}'s name. Write {table[name]}"
    elif name in HINTS:
        text = f"{owner} has no {name!r}. {HINTS[name]}"
    elif is_numpys(name):
        text = f"{owner} has no {name!r}. Write np.{name}({'t, ...' if _takes_more(name) else 't'})"
    else:
        text = f"{owner} has no attribute {name!r}{did_you_mean(name, known)}"
    # Python would add the attribute that is spelled most alike, had it the object.
    return AttributeError(text, name=name, obj=None)


def is_numpys(name: str) -> bool:
    """Whether NumPy has a function of this name."""
    function = None if name.startswith("_") else getattr(np, name, None)
    return callable(function) and not isinstance(function, type)


def _takes_more(name: str) -> bool:
    """Whether NumPy's function of this name must be given more than one argument."""
    function = getattr(np, name)
    if isinstance(function, np.ufunc):
        return function.nin > 1
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:                                  # some that are written in C have none
        return True
    return any(p.kind is p.VAR_POSITIONAL for p in parameters) or sum(
        p.default is p.empty for p in parameters if p.kind is not p.VAR_KEYWORD) > 1


class _Absent:
    """A name that a class does not have: to look it up raises the error that says what to write."""

    def __init__(self, error: Callable[[], AttributeError]):
        self.error = error

    def __get__(self, instance: Any, owner: type) -> Any:
        raise self.error()


class NamesOfOthers:
    """Base of Tensor: names of PyTorch's and NumPy's that are none of ours. None of them is there.

    ``__getattr__`` would need no list of them, but before Python 3.12 a class that has it takes four
    times as long to read each of its attributes, which is a tenth of the time of an operator.
    """

    __slots__ = ()


def _no_attribute(name: str) -> AttributeError:
    if name in METHODS:
        return AttributeError(f"a Tensor has no {name!r}: {METHODS[name]}")
    return missing("a Tensor", name, TENSOR)


for _name in {*METHODS, *TENSOR, *filter(is_numpys, vars(np))}:
    setattr(NamesOfOthers, _name, _Absent(functools.partial(_no_attribute, _name)))


def keyword_hint(name: str, known: Iterable[str], function: str = "") -> str:
    """What to write instead of an argument with this name."""
    if name in KEYWORDS:
        return f". {name}= is PyTorch's; write {KEYWORDS[name]}{MEANINGS.get(function, '')}"
    return did_you_mean(name, known)


def in_our_words(function: Callable) -> Callable:
    """A function with an axis or the like, which answers an argument it does not know with ours."""
    if not inspect.isfunction(function):
        return function
    own, signature = function.__name__, inspect.signature(function)
    known = signature.parameters
    if not {"axis", "axes", "axis1", "rng", "eps"} & set(known) or any(
            p.kind == p.VAR_KEYWORD for p in known.values()):
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:                    # which costs nothing until there is an error
            return function(*args, **kwargs)
        except TypeError:
            for name, value in kwargs.items():
                if name not in known:
                    raise TypeError(f"{own}: takes {own}{signature}; got {name}={value!r}"
                                    f"{keyword_hint(name, known, own)}") from None
            if own in CALLS and len(args) > len(known):
                raise TypeError(f"{own}: takes {own}{signature}; got {len(args)} "
                                f"arguments{CALLS[own]}") from None
            raise
    return call


class CallableModule(types.ModuleType):
    """The module ``tape.tensor``, which may be meant as PyTorch's function of that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("tape.tensor: a module, which holds the class Tensor. Write tape.Tensor(data), "
                        "tape.Tensor(data, requires_grad=True), or np.array(ids) for integers.")


class Imports(importlib.abc.MetaPathFinder):
    """Answers ``from tape import cat`` and ``import nn.functional`` as ``tape.cat`` is answered.

    Python asks it last, for a submodule that nobody has found. A package with such names keeps their
    table as `_FOREIGN_NAMES`.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        package, _, name = fullname.rpartition(".")
        table = getattr(sys.modules.get(package), "_FOREIGN_NAMES", {})
        if name in table:
            # Without a name of the module: that one Python would take for its own, and say less.
            raise ModuleNotFoundError(str(missing(package, name, table)))


sys.meta_path.append(Imports())
