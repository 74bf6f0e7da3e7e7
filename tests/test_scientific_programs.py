"""Programs of science written with NumPy alone: the models below know nothing of tape.

Each function named ``model_...`` is what such a program is where no derivatives are wanted. Given
Tensors, the same text has gradients.
"""

import numpy as np
import pytest

from tape import Tensor, grad
from tests.checks import differences, leaf

# --- a Gaussian process ---


def model_kernel(log_scale, log_length, a, b):
    """The squared-exponential kernel of points a (n,) and b (m,): (n, m)."""
    distance = (a[:, None] - b[None, :]) / np.exp(log_length)
    return np.exp(2 * log_scale) * np.exp(-0.5 * distance ** 2)


def model_covariance(hyperparameters, x):
    log_scale, log_length, log_noise = hyperparameters
    return model_kernel(log_scale, log_length, x, x) + np.exp(2 * log_noise) * np.eye(len(x))


def model_log_likelihood(hyperparameters, x, y):
    """log N(y; 0, K) by the Cholesky factor of K."""
    factor = np.linalg.cholesky(model_covariance(hyperparameters, x))
    whitened = np.linalg.solve(factor, y)
    return (-0.5 * np.dot(whitened, whitened) - np.sum(np.log(np.diag(factor)))
            - 0.5 * len(x) * np.log(2 * np.pi))


def model_prediction(hyperparameters, x, y, new):
    log_scale, log_length, _ = hyperparameters
    weights = np.linalg.solve(model_covariance(hyperparameters, x), y)
    return model_kernel(log_scale, log_length, new, x) @ weights


@pytest.fixture
def observed():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 6, 30))
    return x, np.sin(x) + 0.1 * rng.standard_normal(30)


def by_hand(hyperparameters, x, y):
    """The gradient in closed form: 1/2 tr((alpha alpha^T - K^-1) dK/dtheta), alpha = K^-1 y."""
    log_scale, log_length, log_noise = hyperparameters
    kernel = model_kernel(log_scale, log_length, x, x)
    squares = (x[:, None] - x) ** 2 / np.exp(2 * log_length)
    inverse = np.linalg.inv(model_covariance(hyperparameters, x))
    alpha = inverse @ y
    return np.array([0.5 * np.trace((np.outer(alpha, alpha) - inverse) @ slope) for slope in (
        2 * kernel, kernel * squares, 2 * np.exp(2 * log_noise) * np.eye(len(x)))])


def test_the_gradient_of_a_gaussian_process_is_that_in_closed_form(observed):
    for start in ([0.0, 0.0, -1.0], [0.5, -0.7, -2.0]):
        theta = leaf(start)
        model_log_likelihood(theta, *observed).backward()
        np.testing.assert_allclose(theta.grad, by_hand(start, *observed), rtol=1e-9)


def test_a_gaussian_process_is_fitted_by_gradient_ascent(observed):
    theta = np.array([0.0, -1.0, -0.5])
    values = []
    for _ in range(300):
        parameters = Tensor(theta, requires_grad=True)
        value = model_log_likelihood(parameters, *observed)
        values.append(value.item())
        theta = theta + 0.005 * grad(value, parameters).numpy()
    assert values[-1] > values[0] + 20
    assert np.exp(theta[2]) == pytest.approx(0.1, rel=0.3)              # the noise of the data
    assert 0.8 < np.exp(theta[1]) < 4                                   # a length of sin
    new = np.linspace(0.5, 5.5, 20)
    np.testing.assert_allclose(model_prediction(theta, *observed, new), np.sin(new), atol=0.15)


def test_newtons_step_with_the_hessian_of_a_gaussian_process(observed):
    theta = leaf([0.0, 0.5, -2.0])
    slope = grad(model_log_likelihood(theta, *observed), theta, create_graph=True)
    hessian = [grad(slope[i], theta, retain_graph=True).data for i in range(3)]
    step = 1e-5 * np.eye(3)
    expected = [(by_hand(theta.data + h, *observed) - by_hand(theta.data - h, *observed)) / 2e-5
                for h in step]
    np.testing.assert_allclose(hessian, expected, rtol=1e-6)


# --- a Kalman filter ---


def model_filter_log_likelihood(transition, log_process, log_noise, measurements):
    """log p(y_1 ... y_T) of a hidden state z_t = F z_(t-1) + noise that is seen as y_t = H z_t + noise.

    transition: F (2, 2); measurements (T, 1). H picks the first element of the state.
    """
    observation = np.array([[1.0, 0.0]])
    process = np.diag(np.exp(2 * log_process))
    noise = np.exp(2 * log_noise) * np.eye(1)
    mean, covariance = np.zeros(2), np.eye(2)
    total = 0.0
    for y in measurements:
        mean = transition @ mean
        covariance = np.linalg.multi_dot([transition, covariance, transition.T]) + process
        error = y - observation @ mean
        spread = observation @ covariance @ observation.T + noise                  # (1, 1)
        gain = np.linalg.solve(spread, observation @ covariance).T                 # (2, 1)
        _, logdet = np.linalg.slogdet(2 * np.pi * spread)
        total = total - 0.5 * (np.inner(error, np.linalg.solve(spread, error)) + logdet)
        mean = mean + gain @ error
        covariance = covariance - np.einsum("ik,kl,jl->ij", gain, spread, gain)
    return total


@pytest.fixture
def measured():
    rng = np.random.default_rng(1)
    transition = np.array([[0.9, 0.4], [-0.4, 0.9]])
    state, seen = np.array([1.0, 0.0]), []
    for _ in range(25):
        state = transition @ state + 0.1 * rng.standard_normal(2)
        seen.append(state[:1] + 0.2 * rng.standard_normal(1))
    return transition, np.log([0.1, 0.1]), np.log(0.2), np.array(seen)


def joint_log_likelihood(transition, log_process, log_noise, measurements):
    """The same from the covariance of all measurements at once, with no filter."""
    T = len(measurements)
    state, states = np.eye(2), []
    for _ in range(T):
        state = transition @ state @ transition.T + np.diag(np.exp(2 * log_process))
        states.append(state)
    covariance = np.exp(2 * log_noise) * np.eye(T)
    for s in range(T):
        for t in range(T):
            power = np.linalg.matrix_power(transition, abs(s - t))
            covariance[s, t] += (power @ states[min(s, t)])[0, 0]
    y = measurements[:, 0]
    return -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_the_log_likelihood_of_a_kalman_filter_and_its_gradient(measured):
    *parameters, seen = measured
    leaves = [leaf(p) for p in parameters]
    total = model_filter_log_likelihood(*leaves, seen)
    assert total.item() == pytest.approx(joint_log_likelihood(*measured), rel=1e-10)
    total.backward()
    for i, x in enumerate(leaves):
        expected = differences(lambda *ps: joint_log_likelihood(*ps, seen),
                               [np.array(p) for p in parameters], i)
        np.testing.assert_allclose(x.grad, expected, rtol=1e-5, atol=1e-6)


def test_the_parameters_of_a_kalman_filter_are_learned(measured):
    transition, log_process, log_noise, seen = measured
    parameters = [0.3 * np.eye(2), log_process + 2.0, log_noise + 1.0]
    values = []
    for _ in range(60):
        leaves = [leaf(p) for p in parameters]
        value = model_filter_log_likelihood(*leaves, seen)
        values.append(value.item())
        parameters = [p + 0.003 * g.numpy() for p, g in zip(parameters, grad(value, leaves))]
    assert values[-1] > values[0] + 5 and np.all(np.diff(values) > 0)
