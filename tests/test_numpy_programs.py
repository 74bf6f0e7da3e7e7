"""Programs in the style of engines that differentiate functions written with NumPy."""

import numpy as np

from tape import grad, value_and_grad
from tests.programs import numpy_hidden_markov as markov, numpy_variational as variational


def differences(f, x, step=1e-6):
    """Central differences of f at an array."""
    slopes = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = step
        slopes[i] = (f(x + e) - f(x - e)) / (2 * step)
    return slopes


def test_black_box_variational_inference():
    (mean, log_std), _, (features, labels) = variational.fit()

    # An independent route: Newton's method to the posterior's mode, and the Laplace approximation.
    mode = np.zeros(3)
    for _ in range(20):
        p = 1 / (1 + np.exp(-features @ mode))
        hessian = (features * (p * (1 - p))[:, None]).T @ features + np.eye(3) / 9
        mode = mode + np.linalg.solve(hessian, features.T @ (labels - p) - mode / 9)
    np.testing.assert_allclose(mean, mode, atol=0.15)
    np.testing.assert_allclose(np.exp(log_std), 1 / np.sqrt(np.diag(hessian)), rtol=0.25)


def test_the_gradient_of_the_lower_bound():
    rng = np.random.default_rng(1)
    features, labels, _ = variational.make_data(rng, 20)
    x, noise = rng.normal(size=6), rng.normal(size=(4, 3))
    value, slope = value_and_grad(variational.lower_bound)(x, noise, features, labels)
    assert value == variational.lower_bound(x, noise, features, labels)
    np.testing.assert_allclose(
        slope, differences(lambda x: variational.lower_bound(x, noise, features, labels), x), rtol=1e-6)


def forward_backward(parameters, observations):
    """p(state_t = k | y), (T, K), without logarithms, scaled at every step."""
    emission = np.exp(markov.emission_scores(parameters, observations))
    chain, start = (np.exp(markov.log_normalised(parameters[n])) for n in ("transition", "start"))
    alpha, beta = np.zeros_like(emission), np.ones_like(emission)
    alpha[0] = start * emission[0]
    for t in range(1, len(observations)):
        alpha[t] = (alpha[t - 1] / alpha[t - 1].sum()) @ chain * emission[t]
    for t in range(len(observations) - 2, -1, -1):
        beta[t] = chain @ (emission[t + 1] * beta[t + 1])
        beta[t] /= beta[t].sum()
    together = alpha * beta
    return together / together.sum(axis=1, keepdims=True)


def test_a_hidden_markov_model_has_the_gradient_that_fishers_identity_gives():
    observations, _ = markov.make_data(np.random.default_rng(2), 40)
    parameters = markov.start_parameters()
    slopes = grad(markov.log_likelihood)(parameters, observations)
    weights = forward_backward(parameters, observations)
    z = observations[:, None] - parameters["emission"]["mean"]         # standard deviations are 1
    np.testing.assert_allclose(slopes["emission"]["mean"], (weights * z).sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(
        slopes["emission"]["log_std"], (weights * (z ** 2 - 1)).sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(slopes["start"], weights[0] - 1 / 3, rtol=1e-9)


def test_a_hidden_markov_model_is_fitted():
    found, history, means = markov.fit()
    assert all(b > a for a, b in zip(history, history[1:]))
    np.testing.assert_allclose(found["emission"]["mean"], means, atol=0.4)
