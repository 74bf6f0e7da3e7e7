"""Every operator against the one of the same purpose in PyTorch, and in autograd: the value, the first
and the second derivative, in float64.

`pip install -e ".[peers]"` installs both; without them these tests are skipped. Linear algebra is
compared in test_peers_linalg.py, the models and the training in test_peers_nn.py, NumPy's other
functions in test_numpy_functions.py, random programs in test_random_programs.py and, by
``python -m tests.differential``, with PyTorch.
"""

import numpy as np
import pytest

from tape import grad, ops
from tests.checks import leaf, peer

torch = peer("torch")
autograd = peer("autograd")
anp = peer("autograd.numpy")
F = torch.nn.functional

MASK = np.array([[True, False, True], [False, True, True]])
IDS = np.array([[0, 2, 2], [3, 0, 2]])
ANGLES = np.arange(6.0).reshape(3, 2)
ROWS, COLUMNS = np.array([1, 1, 0]), np.array([2, 2, 1])


def tensors(x):
    return torch.as_tensor(x)


def attention(q, k, v):
    # With more keys than queries PyTorch's is_causal puts the queries first; here they are the last.
    seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril(k.shape[-2] - q.shape[-2])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def rotated(x):
    turns = torch.polar(torch.ones(3, 2, dtype=torch.float64), tensors(ANGLES))
    pairs = torch.view_as_complex(x.unflatten(-1, (2, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


def self_attention(x, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o):
    q, k, v = ((x @ w + b).view(*x.shape[:2], 2, -1).transpose(1, 2)
               for w, b in ((w_q, b_q), (w_k, b_k), (w_v, b_v)))
    return attention(q, k, v).transpose(1, 2).flatten(2) @ w_o + b_o


# PyTorch's recurrent layers multiply the inputs with W, which the identity is here.
ONE_LAYER = 1, 0.0, False, False, False         # one layer, without dropout, forwards, time first


def rnn(projected, weight, h):
    weights = torch.eye(4, dtype=torch.float64), weight.T
    return torch.rnn_tanh(projected, h[None], weights, False, *ONE_LAYER)[0]


def gru(projected, weight, bias, h):
    nothing = torch.zeros(6, dtype=torch.float64)
    weights = (torch.eye(6, dtype=torch.float64), weight.T, nothing, torch.cat([nothing[:4], bias]))
    return torch.gru(projected, h[None], weights, True, *ONE_LAYER)[0]


def lstm(projected, weight, h, c):
    weights = torch.eye(8, dtype=torch.float64), weight.T
    out, _, last = torch.lstm(projected, (h[None], c[None]), weights, False, *ONE_LAYER)
    return torch.cat([out, last])


def states_of_lstm(*arrays):
    """h of each step, and the last c, which are what PyTorch gives."""
    h, c = ops.lstm(*arrays)
    return ops.concatenate([h, c[-1:]])


# name: (tape's, PyTorch's, the shapes of the operands), at numbers from 0.5 to 2
POSITIVE = {
    "sqrt": (ops.sqrt, torch.sqrt, (2, 3)), "log": (ops.log, torch.log, (2, 3)),
    "log1p": (ops.log1p, torch.log1p, (2, 3)), "div": (ops.div, torch.div, (2, 3), (3,)),
    "power": (ops.power, torch.pow, (2, 3), (3,)),
    "power/2.5": (lambda x: ops.power(x, 2.5), lambda x: torch.pow(x, 2.5), (2, 3)),
    "power/-2": (lambda x: ops.power(x, -2), lambda x: torch.pow(x, -2), (2, 3)),
}

# the same, at numbers of both signs
SIGNED = {
    "add": (ops.add, torch.add, (2, 3), (3,)), "sub": (ops.sub, torch.sub, (2, 1), (2, 3)),
    "mul": (ops.mul, torch.mul, (2, 3), (2, 1)), "neg": (ops.neg, torch.neg, (2, 3)),
    "abs": (ops.abs, torch.abs, (2, 3)), "square": (ops.square, torch.square, (2, 3)),
    "power/3": (lambda x: ops.power(x, 3), lambda x: torch.pow(x, 3), (2, 3)),
    "power/base": (lambda x: ops.power(2.0, x), lambda x: torch.pow(2.0, x), (2, 3)),
    "exp": (ops.exp, torch.exp, (2, 3)), "expm1": (ops.expm1, torch.expm1, (2, 3)),
    "sin": (ops.sin, torch.sin, (2, 3)), "cos": (ops.cos, torch.cos, (2, 3)),
    "tanh": (ops.tanh, torch.tanh, (2, 3)), "sigmoid": (ops.sigmoid, torch.sigmoid, (2, 3)),
    "relu": (ops.relu, torch.relu, (2, 3)),
    "gelu": (ops.gelu, lambda x: F.gelu(x, approximate="tanh"), (2, 3)),
    "gelu_exact": (ops.gelu_exact, F.gelu, (2, 3)), "erf": (ops.erf, torch.erf, (2, 3)),
    "sign": (lambda x: ops.sign(x) * x, lambda x: torch.sign(x) * x, (2, 3)),
    "zeros_like": (lambda x: ops.zeros_like(x) * x, lambda x: torch.zeros_like(x) * x, (2, 3)),
    "ones_like": (lambda x: ops.ones_like(x) * x, lambda x: torch.ones_like(x) * x, (2, 3)),
    "maximum": (ops.maximum, torch.maximum, (2, 3), (3,)),
    "minimum": (ops.minimum, torch.minimum, (2, 3), (3,)),
    "clip": (lambda x: ops.clip(x, -0.5, 0.7), lambda x: torch.clamp(x, -0.5, 0.7), (2, 3)),
    "where": (lambda x, y: ops.where(MASK, x, y), lambda x, y: torch.where(tensors(MASK), x, y),
              (2, 3), (3,)),
    "astype": (lambda x: ops.astype(x, np.float64), lambda x: x.to(torch.float64), (2, 3)),
    # reductions
    "sum": (lambda x: ops.sum(x, 1), lambda x: torch.sum(x, 1), (2, 3)),
    "sum/all": (ops.sum, torch.sum, (2, 3)),
    "mean": (lambda x: ops.mean(x, (0, 2)), lambda x: torch.mean(x, (0, 2)), (2, 3, 2)),
    "var": (lambda x: ops.var(x, 1, ddof=1), lambda x: torch.var(x, 1, correction=1), (2, 4)),
    "std": (lambda x: ops.std(x, 0), lambda x: torch.std(x, 0, correction=0), (4, 2)),
    "max": (lambda x: ops.max(x, 1), lambda x: torch.amax(x, 1), (2, 3)),
    "min": (lambda x: ops.min(x, 0, keepdims=True), lambda x: torch.amin(x, 0, keepdim=True), (2, 3)),
    "norm": (lambda x: ops.norm(x, 1), lambda x: torch.linalg.vector_norm(x, dim=1), (2, 4)),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), lambda x: torch.logsumexp(x, 1), (2, 4)),
    "softmax": (ops.softmax, lambda x: torch.softmax(x, -1), (2, 4)),
    "softmax/axis": (lambda x: ops.softmax(x, 0), lambda x: torch.softmax(x, 0), (3, 2)),
    "log_softmax": (ops.log_softmax, lambda x: torch.log_softmax(x, -1), (2, 4)),
    # products
    "matmul": (ops.matmul, torch.matmul, (2, 3), (3, 2)),
    "matmul/batch": (ops.matmul, torch.matmul, (2, 1, 2, 3), (2, 3, 2)),
    "matmul/1d": (ops.matmul, torch.matmul, (3,), (2, 3, 2)),
    "dot": (ops.dot, torch.matmul, (2, 3), (3, 2)),
    # shapes
    "transpose": (lambda x: ops.transpose(x, (2, 0, 1)), lambda x: x.permute(2, 0, 1), (2, 3, 2)),
    "swapaxes": (lambda x: ops.swapaxes(x, 0, -1), lambda x: torch.swapaxes(x, 0, -1), (2, 3, 2)),
    "split_heads": (lambda x: ops.split_heads(x, 2),
                    lambda x: x.unflatten(-1, (2, 2)).transpose(-2, -3), (2, 3, 4)),
    "merge_heads": (lambda x: ops.merge_heads(x, 2), lambda x: x.transpose(-2, -3).flatten(-2),
                    (2, 2, 3, 2)),
    "moveaxis": (lambda x: ops.moveaxis(x, (0, 1), (2, 0)), lambda x: torch.moveaxis(x, (0, 1), (2, 0)),
                 (2, 3, 4)),
    "reshape": (lambda x: ops.reshape(x, (3, -1)), lambda x: torch.reshape(x, (3, -1)), (2, 3)),
    "broadcast_to": (lambda x: ops.broadcast_to(x, (2, 3, 2)),
                     lambda x: torch.broadcast_to(x, (2, 3, 2)), (3, 1)),
    "expand_dims": (lambda x: ops.expand_dims(x, 1), lambda x: torch.unsqueeze(x, 1), (2, 3)),
    "squeeze": (lambda x: ops.squeeze(x, 1), lambda x: torch.squeeze(x, 1), (2, 1, 3)),
    "concatenate": (lambda x, y: ops.concatenate([x, y], axis=1), lambda x, y: torch.cat([x, y], 1),
                    (2, 3), (2, 1)),
    "stack": (lambda x, y: ops.stack([x, y], axis=1), lambda x, y: torch.stack([x, y], 1),
              (2, 3), (2, 3)),
    "split": (lambda x: ops.split(x, [1, 3], axis=1)[1], lambda x: torch.tensor_split(x, [1, 3], 1)[1],
              (2, 5)),
    "pad": (lambda x: ops.pad(x, ((1, 0), (2, 1)), constant_values=3.0),
            lambda x: F.pad(x, (2, 1, 1, 0), value=3.0), (2, 3)),
    "getitem": (lambda x: ops.getitem(x, (slice(1, None), slice(None, None, 2))), lambda x: x[1:, ::2],
                (3, 4)),
    "getitem/mask": (lambda x: x[MASK], lambda x: x[tensors(MASK)], (2, 3)),
    "getitem/repeats": (lambda x: x[ROWS, COLUMNS], lambda x: x[tensors(ROWS), tensors(COLUMNS)],
                        (2, 3)),
    # the operators of a Transformer
    "embedding": (lambda x: ops.embedding(x, IDS), lambda x: F.embedding(tensors(IDS), x), (4, 2)),
    "layer_norm": (ops.layer_norm, lambda x, w, b: F.layer_norm(x, (4,), w, b), (2, 4), (4,), (4,)),
    "layer_norm/plain": (ops.layer_norm, lambda x: F.layer_norm(x, (4,)), (2, 3, 4)),
    "rms_norm": (ops.rms_norm, lambda x, w: F.rms_norm(x, (4,), w, 1e-5), (2, 4), (4,)),
    "rms_norm/plain": (ops.rms_norm, lambda x: F.rms_norm(x, (4,), eps=1e-5), (2, 3, 4)),
    "swiglu": (ops.swiglu, lambda gate, x: F.silu(gate) * x, (2, 3), (2, 3)),
    "rotate_pairs": (lambda x: ops.rotate_pairs(x, np.cos(ANGLES), np.sin(ANGLES)), rotated, (2, 3, 4)),
    "rnn": (ops.rnn, rnn, (3, 2, 4), (4, 4), (2, 4)),
    "lstm": (states_of_lstm, lstm, (3, 2, 8), (2, 8), (2, 2), (2, 2)),
    "gru": (ops.gru, gru, (3, 2, 6), (2, 6), (2,), (2, 2)),
    "cross_entropy": (lambda x: ops.cross_entropy(x, IDS),
                      lambda x: F.cross_entropy(x.reshape(-1, 4), tensors(IDS).reshape(-1)), (2, 3, 4)),
    "cross_entropy/ignored": (
        lambda x: ops.cross_entropy(x, IDS, ignore_index=2),
        lambda x: F.cross_entropy(x.swapaxes(1, 2), tensors(IDS), ignore_index=2), (2, 3, 4)),
    "cross_entropy/sum": (
        lambda x: ops.cross_entropy(x, IDS, reduction="sum"),
        lambda x: F.cross_entropy(x.swapaxes(1, 2), tensors(IDS), reduction="sum"), (2, 3, 4)),
    "causal_attention": (ops.causal_attention, attention, (2, 3, 2), (2, 3, 2), (2, 3, 2)),
    "causal_attention/prefix": (ops.causal_attention, attention, (2, 3), (4, 3), (4, 2)),
    "causal_self_attention": (lambda x, *w: ops.causal_self_attention(x, 2, *w), self_attention,
                              (2, 3, 2), (2, 4), (2, 4), (2, 4), (4, 3), (4,), (4,), (4,), (3,)),
    "attention": (lambda q, k, v: ops.attention(q, k, v, block_size=2), F.scaled_dot_product_attention,
                  (2, 3, 2), (2, 5, 2), (2, 5, 3)),
    "attention/causal": (lambda q, k, v: ops.attention(q, k, v, causal=True, block_size=2), attention,
                         (2, 3, 2), (5, 2), (5, 3)),
    "attention/booleans": (
        lambda q, k, v: ops.attention(q, k, v, MASK[:, None], block_size=2),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, tensors(MASK[:, None])),
        (2, 4, 2), (2, 3, 2), (2, 3, 2)),
    "attention/added": (
        lambda q, k, v, bias: ops.attention(q, k, v, bias, scale=0.3, block_size=2),
        lambda q, k, v, bias: F.scaled_dot_product_attention(q, k, v, bias, scale=0.3),
        (2, 4, 2), (2, 3, 2), (2, 3, 2), (4, 3)),
    "dropout": (lambda x: ops.dropout(x, 0.5, rng=0),
                lambda x: x * tensors(ops.dropout(np.ones((4, 3)), 0.5, rng=0)), (4, 3)),
}
OPERATORS = {**POSITIVE, **SIGNED}


def operands(name, shapes):
    rng = np.random.default_rng(len(name))
    if name in POSITIVE:
        return [rng.uniform(0.5, 2.0, shape) for shape in shapes]
    return [x + 0.2 * np.sign(x) for x in map(rng.standard_normal, shapes)]


def weighted(gradients):
    """A number that depends on each of the gradients' elements in its own way."""
    terms = [(g * g * 0.5 + g * np.pi).sum() for g in gradients]
    return sum(terms[1:], terms[0])


def by_tape(function, arrays, u):
    """Value, gradients of the value's product with u, and gradients of those gradients."""
    leaves = [leaf(a) for a in arrays]
    out = function(*leaves)
    first = grad(out, leaves, u, create_graph=True)
    # A linear function's gradient is a constant; this sum plays a part and has slope zero.
    still = sum((x * 0.0).sum() for x in leaves)
    second = grad(weighted(first) + still, leaves)
    return [t.data for t in (out, *first, *second)]


def by_torch(function, arrays, u):
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    out = function(*leaves)
    first = torch.autograd.grad(out, leaves, torch.tensor(u), create_graph=True)
    still = sum((x * 0.0).sum() for x in leaves)
    second = torch.autograd.grad(weighted(first) + still, leaves)
    return [t.numpy(force=True) for t in (out, *first, *second)]


def by_autograd(function, arrays, u):
    def first(*xs):
        return autograd.grad(lambda *ys: anp.sum(function(*ys) * u), argnum=every)(*xs)
    every = tuple(range(len(arrays)))
    still = autograd.grad(lambda *xs: weighted(first(*xs)) + sum(anp.sum(x * 0.0) for x in xs),
                          argnum=every)
    return [function(*arrays), *first(*arrays), *still(*arrays)]


def assert_agree(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_pytorch_agrees(name):
    ours, theirs, *shapes = OPERATORS[name]
    arrays = operands(name, shapes)
    u = np.random.default_rng(9).uniform(0.5, 1.5, ours(*arrays).shape)
    assert_agree(by_tape(ours, arrays, u), by_torch(theirs, arrays, u))


# autograd's, which are NumPy's, on the operands above. (Its broadcast_to adds no axes, and its
# where undoes no broadcasting.)
OF_NUMPY = {
    "add": anp.add, "sub": anp.subtract, "mul": anp.multiply, "div": anp.divide, "neg": anp.negative,
    "abs": anp.abs, "square": anp.square, "power": anp.power, "power/2.5": lambda x: x ** 2.5,
    "power/-2": lambda x: x ** -2.0, "power/3": lambda x: x ** 3, "power/base": lambda x: 2.0 ** x,
    "sqrt": anp.sqrt, "exp": anp.exp, "expm1": anp.expm1, "log": anp.log, "log1p": anp.log1p,
    "sin": anp.sin, "cos": anp.cos, "tanh": anp.tanh, "maximum": anp.maximum, "minimum": anp.minimum,
    "relu": lambda x: anp.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + anp.exp(-x)),
    "clip": lambda x: anp.clip(x, -0.5, 0.7), "where": lambda x, y: anp.where(
        MASK, x, y * np.ones((2, 3))),
    "sum": lambda x: anp.sum(x, 1), "sum/all": anp.sum, "mean": lambda x: anp.mean(x, (0, 2)),
    "var": lambda x: anp.var(x, 1, ddof=1), "std": lambda x: anp.std(x, 0),
    "max": lambda x: anp.max(x, 1), "min": lambda x: anp.min(x, 0, keepdims=True),
    "norm": lambda x: anp.linalg.norm(x, axis=1),
    "logsumexp": lambda x: anp.log(anp.sum(anp.exp(x), 1)),
    "matmul": anp.matmul, "matmul/batch": anp.matmul, "dot": anp.dot,
    "transpose": lambda x: anp.transpose(x, (2, 0, 1)), "swapaxes": lambda x: anp.swapaxes(x, 0, -1),
    "moveaxis": lambda x: anp.moveaxis(x, (0, 1), (2, 0)), "reshape": lambda x: anp.reshape(x, (3, -1)),
    "expand_dims": lambda x: anp.expand_dims(x, 1), "squeeze": lambda x: anp.squeeze(x, 1),
    "concatenate": lambda x, y: anp.concatenate([x, y], axis=1),
    "stack": lambda x, y: anp.stack([x, y], axis=1),
    "split": lambda x: anp.array_split(x, [1, 3], axis=1)[1],
    "pad": lambda x: anp.pad(x, ((1, 0), (2, 1)), "constant", constant_values=3.0),
    "getitem": lambda x: x[1:, ::2], "getitem/mask": lambda x: x[MASK],
    "getitem/repeats": lambda x: x[ROWS, COLUMNS], "embedding": lambda x: x[IDS],
}


@pytest.mark.parametrize("name", OF_NUMPY)
def test_autograd_agrees(name):
    ours, _, *shapes = OPERATORS[name]
    arrays = operands(name, shapes)
    u = np.random.default_rng(9).uniform(0.5, 1.5, ours(*arrays).shape)
    assert_agree(by_tape(ours, arrays, u), by_autograd(OF_NUMPY[name], arrays, u))


def test_the_random_programs_are_run_by_pytorch_too():
    from tests.differential import pytorch, runner
    assert runner.all_routes()["PyTorch"] is pytorch.check
