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


class BehindNorm:
    """Least squares: (layernorm(x) @ W @ U - y)^2. Over the rows of W its gradient sums to 0."""

    def __init__(self, dtype=np.float64):
        self.nodes = self.x, self.y, self.W, self.U = [ad.Variable(name) for name in "xyWU"]
        error = ad.layernorm(self.x, (D,)) @ self.W @ self.U - self.y
        loss = ad.mean(error ** 2, dim=(0, 1, 2))
        self.evaluator = ad.Evaluator(ad.gradients(loss, [self.W, self.U]))
        shapes = (B, T, D), (B, T, M), (D, M), (M, M)
        self.arrays = [RNG.standard_normal(shape).astype(dtype) for shape in shapes]

    def train(self, update, steps=4):
        for _ in range(steps):
            found = self.evaluator.run(dict(zip(self.nodes, self.arrays)))
            self.arrays[2:] = update(*self.arrays[2:], *found)


def test_columns_that_sum_to_nothing_are_told():
    """W stays as it is; whether by a sum or on purpose cannot be told, so it is no error."""
    with pytest.warns(UserWarning, match="W has not moved .* sums to 0") as told:
        BehindNorm().train(lambda W, U, gW, gU: (W - 0.05 * gW.sum(axis=0), U - 0.05 * gU))
    assert [warning.filename for warning in told] == [__file__]          # once, of the line with run
    with pytest.raises(ValueError, match="every row of U has moved"):
        BehindNorm().train(lambda W, U, gW, gU: (W - 0.05 * gW.sum(axis=0), U - 0.05 * gU.sum(axis=0)))


def made_anew(update, steps=5, names=("W", "W")):
    """Trains two weights by a graph that is made for each step."""
    arrays = [RNG.standard_normal((D, M)), RNG.standard_normal((M, M))]
    for _ in range(steps):
        x, y, *weights = [ad.Variable(name) for name in ("x", "y", *names)]
        loss = ad.mean((ad.relu(x @ weights[0]) @ weights[1] - y) ** 2, dim=(0, 1, 2))
        evaluator = ad.Evaluator([loss, *ad.gradients(loss, weights)])
        loss, *slopes = evaluator.run({x: DATA, y: TARGET, **dict(zip(weights, arrays))})
        arrays = [update(w, g) for w, g in zip(arrays, slopes)]
    return loss


@pytest.mark.parametrize("names", [("W", "U"), ("W", "W")])
def test_a_graph_that_is_made_at_each_step_is_watched_too(names):
    with pytest.raises(ValueError, match="every row of W has moved"):
        made_anew(lambda w, g: w - 0.05 * g.sum(axis=0), names=names)
    assert made_anew(lambda w, g: w - 0.3 * g, 8) < made_anew(lambda w, g: w, 1)


def test_another_graph_with_the_same_names_is_another():
    models = [Model() for _ in range(3)]
    for i, model in enumerate(models):             # all live: none is the one before, made anew
        model.weights[0] = models[0].weights[0] + np.float32(i) * np.arange(M, dtype=np.float32)
        assert np.isfinite(model.run()[0])


def test_a_model_that_is_made_again_is_told_again():
    for _ in range(3):
        with pytest.raises(ValueError, match="every row of W has moved"):
            Model().train(WRONG["sum"])


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


def test_steps_too_small_to_be_seen_run():
    """W moves at the rate of U, but its gradient is 1,000 times smaller."""
    model, lr = BehindNorm(np.float32), np.float32(1e-3)
    model.arrays[3] *= np.float32(1e-3)
    before = list(model.arrays)
    model.train(lambda W, U, gW, gU: (W - lr * gW, U - lr * gU), steps=8)
    assert any(np.any(a != b) for a, b in zip(before, model.arrays))


@pytest.mark.parametrize("shape", [(D, D), (10,)])
def test_weights_that_all_go_to_one_number_run(shape):
    """The gradient of mean((W - 2)^2) is a multiple of W and a constant, as weight decay is."""
    x, w = ad.Variable("x"), ad.Variable("w")
    error = (ad.matmul(x, w) if len(shape) == 2 else x + w) - 2
    axes = tuple(range(len(shape) + 1))
    evaluator = ad.Evaluator(ad.gradients(ad.mean(error * error, dim=axes), [w]))
    array = start = RNG.standard_normal(shape)
    for _ in range(10):
        data = np.stack([np.eye(D)] * B) if len(shape) == 2 else np.zeros((B, 10))
        (slope,) = evaluator.run({x: data, w: array})
        array = array - slope
    assert np.abs(array - 2).max() < np.abs(start - 2).max()


@pytest.mark.parametrize("step", [np.sign, lambda g: np.clip(g, -1, 1)])
def test_steps_of_one_size_that_go_downhill_run(step):
    x, b = ad.Variable("x"), ad.Variable("b")
    error = x + b - 50
    evaluator = ad.Evaluator(ad.gradients(ad.sum_op(error * error, dim=(0, 1)), [b]))
    array = np.zeros(2)
    for i in range(8):
        (slope,) = evaluator.run({x: RNG.standard_normal((B, 2)), b: array})
        array = array - 0.1 / (1 + i) * step(slope)
    np.testing.assert_allclose(array, sum(0.1 / (1 + i) for i in range(8)))       # downhill: up to 50


def test_what_has_no_batch_is_not_watched():
    x, w = ad.Variable("x"), ad.Variable("w")
    evaluator = ad.Evaluator(ad.gradients(ad.sum_op(x * w * w, dim=0), [w]))
    for shift in range(5):
        w_now = np.arange(3.0) - shift
        (slope,) = evaluator.run({x: np.arange(3.0), w: w_now})
        np.testing.assert_allclose(slope, 2 * np.arange(3.0) * w_now)


def test_infinite_gradients_give_no_warning():
    x, W = ad.Variable("x"), ad.Variable("W")
    loss = ad.sum_op(ad.log(ad.matmul(x, W)), dim=(0, 1, 2))
    evaluator = ad.Evaluator(ad.gradients(loss, [W]))
    data = np.ones((B, T, 2)) * [1, -1]
    array = np.zeros((2, M))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            (slope,) = evaluator.run({x: data, W: array})
            array = array + np.arange(M)
    np.testing.assert_array_equal(slope > 0, [[True] * M, [False] * M])


def test_an_update_in_the_graph_runs():
    """Hidden units that start alike move the rows of U by the same."""
    x, y, W, U = (ad.Variable(name) for name in "xyWU")
    loss = ad.mean((ad.relu(x @ W) @ U - y) ** 2, dim=(0, 1, 2))
    evaluator = ad.Evaluator([w - slope * 0.1 for w, slope in zip([W, U], ad.gradients(loss, [W, U]))])
    w, u = np.ones((D, M)), RNG.standard_normal((M, M))
    for _ in range(4):
        w, u = evaluator.run({x: np.abs(DATA), y: TARGET, W: w, U: u})
    assert np.ptp(w, axis=1).max() > 0
