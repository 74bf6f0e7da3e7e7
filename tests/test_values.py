"""The value of every operator, against numbers that were written out by hand or by `math` alone.

Each is given arrays, Tensors, lists and, where it makes sense, Python numbers.
"""

import math

import numpy as np
import pytest

from tape import Tensor, ops

X = [[0.5, 1.5, -0.75], [-1.25, 0.25, 2.0]]
P = [[0.5, 1.5, 0.75], [1.25, 0.25, 2.0]]
Y = [1.5, -2.0, 0.75]
PLACES = [(i, j) for i in range(2) for j in range(3)]

# What operands are given as.
FORMS = {"arrays": np.array, "Tensors": lambda x: Tensor(np.array(x)), "lists": lambda x: x}


def assert_value(found, expected, form):
    """The numbers and the shape; a Tensor from Tensors, and nothing but NumPy's from the others."""
    kind = Tensor if form == "Tensors" else (np.ndarray, np.generic)
    assert isinstance(found, kind)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-14, atol=1e-15)


# --- elementwise operators: the operator, the same of Python's floats, what it is tried on ---

ONE = {
    "neg": (ops.neg, lambda a: -a, X), "abs": (ops.abs, lambda a: a if a > 0 else -a, X),
    "square": (ops.square, lambda a: a * a, X), "sqrt": (ops.sqrt, math.sqrt, P),
    "exp": (ops.exp, math.exp, X), "log": (ops.log, math.log, P),
    "log1p": (ops.log1p, math.log1p, P), "expm1": (ops.expm1, math.expm1, X),
    "sin": (ops.sin, math.sin, X), "cos": (ops.cos, math.cos, X), "tanh": (ops.tanh, math.tanh, X),
    "sign": (ops.sign, lambda a: 1.0 if a > 0 else -1.0, X),
    "relu": (ops.relu, lambda a: a if a > 0 else 0.0, X),
    "sigmoid": (ops.sigmoid, lambda a: 1 / (1 + math.exp(-a)), X),
    "gelu": (ops.gelu, lambda a: 0.5 * a * (1 + math.tanh(
        math.sqrt(2 / math.pi) * (a + 0.044715 * a ** 3))), X),
    "erf": (ops.erf, math.erf, X),
    "gelu_exact": (ops.gelu_exact, lambda a: 0.5 * a * math.erfc(-a / math.sqrt(2)), X),
    "power/0": (lambda x: ops.power(x, 0), lambda a: 1.0, X),
    "power/2": (lambda x: ops.power(x, 2), lambda a: a * a, X),
    "power/3": (lambda x: ops.power(x, 3), lambda a: a * a * a, X),
    "power/-1": (lambda x: ops.power(x, -1), lambda a: 1 / a, X),
    "power/0.5": (lambda x: ops.power(x, 0.5), math.sqrt, P),
    "power/base": (lambda x: ops.power(2.0, x), lambda a: math.exp(a * math.log(2)), X),
    "clip": (lambda x: ops.clip(x, -1, 1), lambda a: sorted([-1, a, 1])[1], X),
    "clip/above": (lambda x: ops.clip(x, max=1), lambda a: min(a, 1), X),
    "clip/below": (lambda x: ops.clip(x, min=0.5), lambda a: max(a, 0.5), X),
    "astype": (lambda x: ops.astype(x, np.float64), lambda a: a, X),
    "zeros_like": (ops.zeros_like, lambda a: 0.0, X), "ones_like": (ops.ones_like, lambda a: 1.0, X),
}

TWO = {
    "add": (ops.add, lambda a, b: a + b, X), "sub": (ops.sub, lambda a, b: a - b, X),
    "mul": (ops.mul, lambda a, b: a * b, X), "div": (ops.div, lambda a, b: a / b, X),
    "maximum": (ops.maximum, max, X), "minimum": (ops.minimum, min, X),
    "power": (ops.power, math.pow, P),
    "where/yes": (lambda x, y: ops.where(True, x, y), lambda a, b: a, X),
    "where/no": (lambda x, y: ops.where(False, x, y), lambda a, b: b, X),
}


def each(function, *operands):
    """A function of floats at each of the 2 x 3 places; an operand of one row serves for both."""
    return [[function(*(x[i][j] if isinstance(x[0], list) else x[j] for x in operands))
             for j in range(3)] for i in range(2)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ONE)
def test_of_one_operand(name, form):
    operator, function, x = ONE[name]
    assert_value(operator(FORMS[form](x)), each(function, x), form)


@pytest.mark.parametrize("i, j", PLACES)
@pytest.mark.parametrize("name", ONE)
def test_of_one_number(name, i, j):
    operator, function, x = ONE[name]
    assert_value(operator(x[i][j]), function(x[i][j]), "numbers")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TWO)
def test_of_two_operands(name, form):
    operator, function, x = TWO[name]
    make = FORMS[form]
    assert_value(operator(make(x), make(Y)), each(function, x, Y), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TWO)
def test_of_an_operand_and_a_number(name, form):
    operator, function, x = TWO[name]
    make = FORMS[form]
    assert_value(operator(make(x), 1.5), each(lambda a: function(a, 1.5), x), form)
    assert_value(operator(1.5, make(x)), each(lambda a: function(1.5, a), x), form)


@pytest.mark.parametrize("i, j", PLACES)
@pytest.mark.parametrize("name", TWO)
def test_of_two_numbers(name, i, j):
    operator, function, x = TWO[name]
    assert_value(operator(x[i][j], Y[j]), function(x[i][j], Y[j]), "numbers")


# --- the others: the operator, its operands, its value ---

def logistic(x):
    return 1 / (1 + math.exp(-x))


def softmax_of(*row):
    total = math.fsum(math.exp(a) for a in row)
    return [math.exp(a) / total for a in row]


def logsumexp_of(*row):
    return math.log(math.fsum(math.exp(a) for a in row))


def normalised(*row):
    mean = math.fsum(row) / len(row)
    variance = math.fsum((a - mean) ** 2 for a in row) / len(row)
    return [(a - mean) / math.sqrt(variance + 1e-5) for a in row]


COLUMNS = [[0.5, -1.25], [1.5, 0.25], [-0.75, 2.0]]

# Functions, so that nothing is computed before the test runs.
OTHERS = {
    "where": (lambda x, y: ops.where([[True, False, True], [False, False, True]], x, y), [X, Y],
              lambda: [[0.5, -2.0, -0.75], [1.5, -2.0, 2.0]]),
    "sum": (ops.sum, [X], lambda: 2.25), "sum/axes": (lambda x: ops.sum(x, (0, 1)), [X], lambda: 2.25),
    "sum/axis": (lambda x: ops.sum(x, 0), [X], lambda: [-0.75, 1.75, 1.25]),
    "mean": (lambda x: ops.mean(x, -1), [X], lambda: [1.25 / 3, 1 / 3]),
    "mean/all": (ops.mean, [X], lambda: 0.375),
    "var": (lambda x: ops.var(x, 0, ddof=1), [X], lambda: [1.53125, 0.78125, 3.78125]),
    "var/all": (ops.var, [X], lambda: 8.6875 / 6 - 0.375 ** 2),
    "std": (lambda x: ops.std(x, 1), [X], lambda: [math.sqrt(61 / 72), math.sqrt(127 / 72)]),
    "max": (lambda x: ops.max(x, 0), [X], lambda: [0.5, 1.5, 2.0]),
    "min": (lambda x: ops.min(x, 1, True), [X], lambda: [[-0.75], [-1.25]]),
    "norm": (lambda x: ops.norm(x, 1), [X], lambda: [1.75, math.sqrt(5.625)]),
    "norm/all": (ops.norm, [X], lambda: math.sqrt(8.6875)),
    "logsumexp": (lambda x: ops.logsumexp(x, 0), [X], lambda: [logsumexp_of(*c) for c in COLUMNS]),
    "softmax": (ops.softmax, [X], lambda: [softmax_of(*row) for row in X]),
    "softmax/axis": (lambda x: ops.softmax(x, 0), [X],
                     lambda: [list(row) for row in zip(*(softmax_of(*c) for c in COLUMNS))]),
    "log_softmax": (lambda x: ops.log_softmax(x, 0), [X],
                    lambda: each(lambda a, total: a - total, X, [logsumexp_of(*c) for c in COLUMNS])),
    "layer_norm": (ops.layer_norm, [X, [1.0, 2.0, -1.0], [0.0, 1.0, 0.5]],
                   lambda: [[a, 2 * b + 1, 0.5 - c] for a, b, c in (normalised(*row) for row in X)]),
    "rms_norm": (ops.rms_norm, [X, [1.0, 2.0, -1.0]], lambda: [
        [a / r, 2 * b / r, -c / r] for a, b, c in X
        for r in [math.sqrt((a * a + b * b + c * c) / 3 + 1e-5)]]),
    "swiglu": (ops.swiglu, [X, [Y, Y]],
               lambda: each(lambda a, b: a * b / (1 + math.exp(-a)), X, [Y, Y])),
    "rotate_pairs": (lambda x: ops.rotate_pairs(x, [[0.0], [-1.0], [0.6]], [[1.0], [0.0], [0.8]]),
                     [COLUMNS], lambda: [[1.25, 0.5], [-1.5, -0.25], [-2.05, 0.6]]),
    "rnn": (ops.rnn, [[[[0.5]], [[-1.0]]], [[2.0]], [[0.25]]],
            lambda: [[[math.tanh(1)]], [[math.tanh(2 * math.tanh(1) - 1)]]]),
    "lstm": (ops.lstm, [[[[0.0, 1.0, -0.5, 0.5]]], [[2.0, -4.0, 3.0, 1.0]], [[0.5]], [[2.0]]],
             lambda: [[[[logistic(1) * math.tanh(c)]]] if i == 0 else [[[c]]] for i in (0, 1)
                      for c in [2 * logistic(-1) + logistic(1) * math.tanh(1)]]),
    "gru": (ops.gru, [[[[0.0, 1.0, -0.5]]], [[2.0, -4.0, 3.0]], [0.25], [[0.5]]],
            lambda: [[[(1 - logistic(-1)) * math.tanh(1.75 * logistic(1) - 0.5) + logistic(-1) / 2]]]),
    "cross_entropy": (lambda x: ops.cross_entropy(x, [2, 0]), [X],
                      lambda: (logsumexp_of(*X[0]) + 0.75 + logsumexp_of(*X[1]) + 1.25) / 2),
    "causal_attention": (ops.causal_attention, [[[0.0], [2.0]], [[1.0], [0.5]], [[3.0], [-1.0]]],
                         lambda: [[3.0], [3 * softmax_of(2, 1)[0] - softmax_of(2, 1)[1]]]),
    "causal_self_attention": (
        lambda x, v, w_o: ops.causal_self_attention(x, 1, [[1.0]], [[1.0]], v, w_o),
        [[[0.0], [2.0]], [[3.0]], [[-1.0]]], lambda: [[0.0], [-6 * softmax_of(0, 4)[1]]]),
    "attention": (ops.attention, [[[1.0]], [[1.0], [0.5]], [[3.0], [-1.0]]],
                  lambda: [[3 * softmax_of(1, 0.5)[0] - softmax_of(1, 0.5)[1]]]),
    "dot": (ops.dot, [X, Y], lambda: [-2.8125, -0.875]),
    "dot/number": (lambda x: ops.dot(x, 2.0), [X], lambda: [[1.0, 3.0, -1.5], [-2.5, 0.5, 4.0]]),
    "matmul": (ops.matmul, [X, [[1.0, 2.0], [0.0, -1.0], [4.0, 0.5]]],
               lambda: [[-2.5, -0.875], [6.75, -1.75]]),
    "matmul/rows": (ops.matmul, [Y, COLUMNS], lambda: [-2.8125, -0.875]),
    "transpose": (lambda x: ops.transpose(x, (2, 0, 1)), [[X]], lambda: [[c] for c in COLUMNS]),
    "transpose/reverse": (ops.transpose, [X], lambda: COLUMNS),
    "swapaxes": (lambda x: ops.swapaxes(x, 0, 1), [X], lambda: COLUMNS),
    "split_heads": (lambda x: ops.split_heads(x, 3), [X], lambda: [[[a], [b]] for a, b in zip(*X)]),
    "merge_heads": (lambda x: ops.merge_heads(x, 2), [[X, [Y, Y]]], lambda: [[*row, *Y] for row in X]),
    "moveaxis": (lambda x: ops.moveaxis(x, -1, 0), [[X]], lambda: [[c] for c in COLUMNS]),
    "reshape": (lambda x: ops.reshape(x, (3, 2)), [X],
                lambda: [[0.5, 1.5], [-0.75, -1.25], [0.25, 2.0]]),
    "broadcast_to": (lambda x: ops.broadcast_to(x, (2, 3)), [Y], lambda: [Y, Y]),
    "expand_dims": (lambda x: ops.expand_dims(x, 1), [Y], lambda: [[1.5], [-2.0], [0.75]]),
    "squeeze": (lambda x: ops.squeeze(x, 0), [[X]], lambda: X),
    "pad": (lambda x: ops.pad(x, ((1, 2), (0, 1)), constant_values=3), [X],
            lambda: [[3] * 4, [0.5, 1.5, -0.75, 3], [-1.25, 0.25, 2.0, 3], [3] * 4, [3] * 4]),
    "concatenate": (lambda x, y: ops.concatenate([x, y]), [X, [Y]], lambda: [*X, Y]),
    "concatenate/axis": (lambda x, y: ops.concatenate([x, y], axis=1), [X, [[7.0], [8.0]]],
                         lambda: [[*X[0], 7.0], [*X[1], 8.0]]),
    "stack": (lambda x, y: ops.stack([x, y], axis=-1), [Y, [7.0, 8.0, 9.0]],
              lambda: [[1.5, 7.0], [-2.0, 8.0], [0.75, 9.0]]),
    "split": (lambda x: ops.split(x, [1], axis=1)[1], [X], lambda: [[1.5, -0.75], [0.25, 2.0]]),
    "getitem": (lambda x: ops.getitem(x, (slice(None), [2, 0, 2])), [X],
                lambda: [[-0.75, 0.5, -0.75], [2.0, -1.25, 2.0]]),
    "embedding": (lambda x: ops.embedding(x, [[1, 0], [1, 1]]), [X],
                  lambda: [[X[1], X[0]], [X[1], X[1]]]),
}

# Of one number, a number; or of one number or several, an array.
OF_NUMBERS = {
    "sum": (lambda: ops.sum(2.5), 2.5), "mean": (lambda: ops.mean(2.5), 2.5),
    "var": (lambda: ops.var(2.5), 0), "std": (lambda: ops.std(2.5), 0),
    "max": (lambda: ops.max(2.5), 2.5), "min": (lambda: ops.min(2.5), 2.5),
    "norm": (lambda: ops.norm(-2.5), 2.5), "logsumexp": (lambda: ops.logsumexp(2.5), 2.5),
    "dot": (lambda: ops.dot(2.5, -2), -5), "transpose": (lambda: ops.transpose(2.5), 2.5),
    "reshape": (lambda: ops.reshape(2.5, (1, 1)), [[2.5]]),
    "broadcast_to": (lambda: ops.broadcast_to(2.5, (2, 1)), [[2.5], [2.5]]),
    "expand_dims": (lambda: ops.expand_dims(2.5, 0), [2.5]),
    "squeeze": (lambda: ops.squeeze(2.5), 2.5), "stack": (lambda: ops.stack([2.5, 1]), [2.5, 1]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OTHERS)
def test_of_rows(name, form):
    operator, operands, value = OTHERS[name]
    assert_value(operator(*map(FORMS[form], operands)), value(), form)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_of_numbers(name):
    call, value = OF_NUMBERS[name]
    assert_value(call(), value, "numbers")


def test_every_operator_has_a_value():
    # What dropout gives is drawn; see test_operators.py. Linear algebra is in test_peers_linalg.py,
    # NumPy's others are in test_numpy_functions.py.
    names = {name.split("/")[0] for table in (ONE, TWO, OTHERS) for name in table}
    assert names == set(ops.__all__) - {"dropout"} - set(ops.LINEAR) - set(ops.NUMPYS)
