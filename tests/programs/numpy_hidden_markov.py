"""A hidden Markov model with normal emissions, fitted by the gradient of its log likelihood.

The forward algorithm in the logarithm (Rabiner 1989, equation 19), over a nested dict of parameters.
At a maximum, the gradient is zero; by Fisher's identity it is at every point the expected gradient of
the complete log likelihood, which the forward-backward algorithm gives without differentiation.
"""

import numpy as np

from tape import value_and_grad


def logsumexp(x, axis=0, keepdims=False):
    peak = np.max(x, axis=axis, keepdims=True)
    total = peak + np.log(np.sum(np.exp(x - peak), axis=axis, keepdims=True))
    return total if keepdims else np.squeeze(total, axis=axis)


def log_normalised(x):
    return x - logsumexp(x, axis=-1, keepdims=True)


def emission_scores(parameters, observations):
    """log p(y_t | state k), (T, K)."""
    z = (observations[:, None] - parameters["emission"]["mean"]) / np.exp(
        parameters["emission"]["log_std"])
    return -0.5 * z ** 2 - parameters["emission"]["log_std"] - 0.5 * np.log(2 * np.pi)


def log_likelihood(parameters, observations):
    scores = emission_scores(parameters, observations)
    transition = log_normalised(parameters["transition"])
    alpha = log_normalised(parameters["start"]) + scores[0]
    for t in range(1, len(observations)):
        alpha = scores[t] + logsumexp(alpha[:, np.newaxis] + transition)     # (from, to) -> (to,)
    return logsumexp(alpha)


def make_data(rng, length=120):
    states, means = [0], np.array([-2.0, 0.5, 3.0])
    chain = np.array([[0.9, 0.08, 0.02], [0.1, 0.8, 0.1], [0.02, 0.08, 0.9]])
    for _ in range(length - 1):
        states.append(rng.choice(3, p=chain[states[-1]]))
    return means[states] + 0.5 * rng.normal(size=length), means


def start_parameters():
    return {"start": np.zeros(3), "transition": np.eye(3) * 1.0,
            "emission": {"mean": np.array([-1.0, 0.0, 1.0]), "log_std": np.zeros(3)}}


def updated(parameters, slopes, rate):
    return {name: updated(value, slopes[name], rate) if isinstance(value, dict)
            else value + rate * slopes[name] for name, value in parameters.items()}


def fit(seed=0, steps=80, rate=0.003):
    observations, means = make_data(np.random.default_rng(seed))
    parameters, history = start_parameters(), []
    climb = value_and_grad(log_likelihood)
    for _ in range(steps):
        value, slopes = climb(parameters, observations)
        history.append(value)
        parameters = updated(parameters, slopes, rate)
    return parameters, history, means


if __name__ == "__main__":
    found, history, means = fit()
    print(f"log likelihood {history[0]:.1f} -> {history[-1]:.1f}")
    print("means", np.round(found["emission"]["mean"], 2), "true", means)
