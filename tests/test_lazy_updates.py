"""Gradients with batch axes, and programs that sum an axis of theirs once too often."""

import warnings

import numpy as np
import pytest

import tape.lazy as ad

RNG = np.random.default_rng(5)
B, T, D, M = 6, 4, 3, 5
DATA = RNG.standard_normal((B, T, D)).astype(np.float32)
TARGET = RNG.standard_normal((B, T, M)).astype(np.float32)


@pytest.fixture
def batched_program():
    ad.batched_gradients(True)
    yield
    ad.batched_gradients(None)


class Model:
    """Least squares: (x @ W + b - y)^2, W (D, M) and b (M,)."""

    def __init__(self, **settings):
        self.x, self.y, self.W, self.b = (ad.Variable(name) for name in "xyWb")
        error = ad.matmul(self.x, self.W) + self.b - self.y
        self.loss = ad.mean(error * error, dim=(0, 1, 2))
        self.gradients = ad.gradients(self.loss, [self.W, self.b], **settings)
        self.evaluator = ad.Evaluator([self.loss, *self.gradients])
        self.weights = [RNG.standard_normal((D, M)).astype(np.float32), np.zeros(M, np.float32)]

    def run(self):
        feed = {self.x: DATA, self.y: TARGET, self.W: self.weights[0], self.b: self.weights[1]}
        return self.evaluator.run(feed)

    def train(self, update, steps=5):
        for step in range(1, steps + 1):
            _, *slopes = self.run()
            self.weights = [update(w, g, step) for w, g in zip(self.weights, slopes)]
        return self.run()[0]


def sgd(w, g, step):
    return w - np.float32(0.3) * g


# --- batch axes ---


def test_a_gradient_with_batch_axes_sums_to_the_gradient():
    plain, batched = Model(), Model(batched=True)
    batched.weights = plain.weights
    (_, gW, gb), (_, each_W, each_b) = plain.run(), batched.run()
    assert each_W.shape == (B, D, M) and each_b.shape == (B, T, M)
    np.testing.assert_allclose(each_W.sum(axis=0), gW, rtol=1e-5)
    np.testing.assert_allclose(each_b.sum(axis=(0, 1)), gb, rtol=1e-5)
    g = 2 * (DATA @ plain.weights[0] - TARGET) / TARGET.size          # by hand: x^T g, an example each
    np.testing.assert_allclose(each_W, np.swapaxes(DATA, 1, 2) @ g, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(each_b, g, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("use", [
    lambda x, W: ad.matmul(x, W, trans_B=True), lambda x, W: x @ ad.Variable.__neg__(W) @ W,
    lambda x, W: ad.matmul_softmax(x, W), lambda x, W: ad.matmul_layernorm(x, W, (D,)),
    lambda x, W: ad.matmul(W, ad.transpose(x, 1, 2)), lambda x, W: ad.transpose(W, 0, 1) + x @ W,
    lambda x, W: ad.matmul(x, W) @ W])
def test_axes_are_kept_only_where_every_use_allows_it(use):
    x, W = ad.Variable("x"), ad.Variable("W")
    array = RNG.standard_normal((D, D))
    x_array = RNG.standard_normal((B, D, D))
    out = use(x, W)
    out = ad.mean(out * out * x, dim=(0, 1, 2))
    (plain,), (each,) = ad.gradients(out, [W]), ad.gradients(out, [W], batched=True)
    plain, each = ad.Evaluator([plain, each]).run({x: x_array, W: array})
    assert plain.shape == (D, D)
    one_use = all(W not in node.inputs or node.op.name.startswith("matmul")
                  for node in ad.topological_sort(out))
    assert each.shape == ((B, D, D) if one_use else (D, D))
    np.testing.assert_allclose(each.sum(axis=0) if one_use else each, plain, rtol=1e-10)


def test_uses_with_other_batch_axes_are_refused():
    x, W = ad.Variable("x"), ad.Variable("W")
    out = ad.sum_op(x @ W, dim=(0, 1, 2)) + ad.sum_op(W * W, dim=(0, 1))
    (slope,) = ad.gradients(out, [W], batched=True)
    with pytest.raises(ValueError, match="all uses of a node must have the same batch axes"):
        ad.Evaluator([slope]).run({x: DATA, W: np.ones((D, M), np.float32)})


def test_a_program_can_say_it_once(batched_program):
    assert [g.ndim for g in Model().run()[1:]] == [3, 3]
    assert [g.ndim for g in Model(batched=False).run()[1:]] == [2, 1]


# --- sums too many ---


def adam():
    state = {}

    def update(w, g, step):
        g = g.sum(axis=0)
        m, v = state.get(w.shape, (0, 0))
        state[w.shape] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return w - np.float32(0.01) * (m / (1 - 0.9 ** step)) / (
            np.sqrt(v / (1 - 0.999 ** step)) + np.float32(1e-8))
    return update


WRONG = {
    "sum": lambda w, g, step: w - np.float32(0.05) * g.sum(axis=0),
    "mean": lambda w, g, step: w - np.float32(0.05) * g.mean(axis=0),
    "sum of all": lambda w, g, step: w - np.float32(0.05) * g.sum(),
    "first": lambda w, g, step: w - np.float32(0.05) * g[0],
    "weight decay": lambda w, g, step: w - np.float32(0.05) * (g.sum(axis=0) + np.float32(1e-2) * w),
    "a copy": lambda w, g, step: w - np.float32(0.05) * np.add.reduce(np.array(g.tolist(), np.float32)),
    "adam": adam()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", WRONG)
def test_an_update_that_sums_too_much_is_told(name, dtype):
    model = Model()
    model.weights = [w.astype(dtype) for w in model.weights]
    with pytest.raises(ValueError, match=r"every row of W has moved .*\(3, 5\).* Take the sum"):
        model.train(WRONG[name])


def test_a_bias_alone_is_told_too():
    with pytest.raises(ValueError, match="every row of b has moved"):
        Model().train(lambda w, g, step: w - 0.05 * (g.sum(axis=0) if w.ndim == 1 else g))


def test_it_is_told_once_and_not_where_the_program_says_so():
    model = Model()
    with pytest.raises(ValueError, match="every row of W"):
        model.train(WRONG["sum"])
    model.run()
    assert Model(batched=False).train(WRONG["sum"]) > 0


def test_a_sum_in_the_graph_is_told():
    model = Model()
    summed = ad.Evaluator([ad.sum_op(model.gradients[0], dim=0), model.gradients[1]])
    W, b = model.weights
    with pytest.raises(ValueError, match="every row of W"):
        for _ in range(3):
            gW, gb = summed.run({model.x: DATA, model.y: TARGET, model.W: W, model.b: b})
            W = W - 0.05 * gW


def test_columns_that_sum_to_nothing_are_told():
    """Behind a layer norm the sum over the outputs of W^T is 0, and W would stay as it is."""
    x, y, W, U = (ad.Variable(name) for name in "xyWU")
    h = ad.layernorm(ad.matmul(x, W, trans_B=True), (M,))
    loss = ad.mean((h @ U - y) ** 2, dim=(0, 1, 2))
    evaluator = ad.Evaluator(ad.gradients(loss, [W, U]))
    w, u = RNG.standard_normal((M, D)), RNG.standard_normal((M, M))
    with pytest.raises(ValueError, match="every row of W has moved"):
        for _ in range(3):
            gw, gu = evaluator.run({x: DATA, y: TARGET, W: w, U: u})
            w, u = w - 0.05 * gw.sum(axis=0), u - 0.05 * gu


def test_batch_axes_that_are_not_summed_are_told(batched_program):
    with pytest.raises(ValueError, match=r"W was of shape \(3, 5\) and now is of shape \(6, 3, 5\)"):
        Model().train(sgd)
    model = Model()
    first = model.run()[0]
    last = model.train(lambda w, g, step: w - 0.3 * g.sum(axis=tuple(range(g.ndim - w.ndim))))
    assert last < first


# --- updates that are right ---


def momentum():
    state = {}

    def update(w, g, step):
        state[w.shape] = v = 0.9 * state.get(w.shape, 0) + g
        return w - 0.05 * v
    return update


def right_adam():
    wrong = adam()
    return lambda w, g, step: wrong(w, g[None], step)


RIGHT = {
    "sgd": sgd, "momentum": momentum(), "adam": right_adam(),
    "signs": lambda w, g, step: w - np.float32(0.01) * np.sign(g),
    "centred": lambda w, g, step: w - 0.1 * (g - g.mean(axis=0)),
    "decay": lambda w, g, step: w * np.float32(0.99) - np.float32(0.1) * g,
    "decay alone": lambda w, g, step: w * np.float32(0.9),
    "unmoved": lambda w, g, step: w, "warm-up": lambda w, g, step: w - np.float32(0.1) * (step > 3) * g,
    "one of two": lambda w, g, step: w - 0.1 * g if (w.ndim + step) % 2 else w,
    "in place": lambda w, g, step: np.subtract(w, np.float32(0.1) * g, out=w)}


@pytest.mark.parametrize("name", RIGHT)
def test_an_update_that_is_right_runs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(Model().train(RIGHT[name], steps=8))


def test_what_has_no_batch_is_not_watched():
    x, w = ad.Variable("x"), ad.Variable("w")
    evaluator = ad.Evaluator(ad.gradients(ad.sum_op(x * w * w, dim=0), [w]))
    for shift in range(5):
        evaluator.run({x: np.arange(3.0), w: np.arange(3.0) - shift})
