"""Black-box variational inference, as it is written for engines that differentiate NumPy functions.

A normal distribution with a diagonal covariance is fitted to the posterior of a Bayesian logistic
regression by maximising the evidence lower bound, estimated by reparameterised samples (Kingma and
Welling 2014, arXiv:1312.6114), with Adam written by hand.
"""

import numpy as np

from tape import grad


def log_normal(x, mean, log_std):
    return -0.5 * np.log(2 * np.pi) - log_std - 0.5 * ((x - mean) / np.exp(log_std)) ** 2


def make_data(rng, n=200):
    weights = np.array([2.0, -1.0, 0.5])
    features = np.column_stack([rng.normal(size=(n, 2)), np.ones(n)])
    labels = (rng.uniform(size=n) < 1 / (1 + np.exp(-features @ weights))).astype(float)
    return features, labels, weights


def log_joint(samples, features, labels):
    """log p(labels, w) for each of S samples of the weights (S, D)."""
    logits = np.einsum("sd,nd->sn", samples, features)
    likelihood = np.sum(labels * logits - np.logaddexp(0.0, logits), axis=1)
    prior = np.sum(log_normal(samples, 0.0, np.log(3.0)), axis=1)
    return likelihood + prior


def unpack(parameters):
    mean, log_std = np.split(parameters, 2)
    return mean, log_std


def lower_bound(parameters, noise, features, labels):
    mean, log_std = unpack(parameters)
    samples = mean + np.exp(log_std) * noise
    entropy = 0.5 * len(mean) * (1 + np.log(2 * np.pi)) + np.sum(log_std)
    return np.mean(log_joint(samples, features, labels)) + entropy


def adam(gradient, x, steps, step_size=0.05, b1=0.9, b2=0.999, eps=1e-8):
    m, v = np.zeros(len(x)), np.zeros(len(x))
    for i in range(steps):
        g = gradient(x, i)
        m = (1 - b1) * g + b1 * m
        v = (1 - b2) * g ** 2 + b2 * v
        x = x - step_size * (m / (1 - b1 ** (i + 1))) / (np.sqrt(v / (1 - b2 ** (i + 1))) + eps)
    return x


def fit(seed=0, steps=400, n_samples=16):
    rng = np.random.default_rng(seed)
    features, labels, weights = make_data(rng)

    def objective(parameters, i):
        noise = np.random.default_rng((seed, i)).normal(size=(n_samples, 3))
        return -lower_bound(parameters, noise, features, labels)

    start = np.concatenate([np.zeros(3), np.full(3, -1.0)])
    found = adam(grad(objective), start, steps)
    return unpack(found), weights, (features, labels)


if __name__ == "__main__":
    (mean, log_std), weights, _ = fit()
    print("true weights     ", weights)
    print("posterior mean   ", np.round(mean, 3))
    print("posterior std    ", np.round(np.exp(log_std), 3))
