"""An MLP that tells the arms of a spiral apart, with its update written out."""

import math

import torch
import torch.nn as nn
from torch.nn import functional as F

torch.manual_seed(0)

n_arms = 3
n_points = 60
batch_size = 32


def spiral():
    """Points (n_arms n_points, 2) and the arm of each."""
    points, labels = [], []
    for arm in range(n_arms):
        for i in range(n_points):
            radius = (i + 1) / n_points
            angle = 4.0 * radius + 2.0 * math.pi * arm / n_arms
            points.append([radius * math.cos(angle), radius * math.sin(angle)])
            labels.append(arm)
    return torch.tensor(points), torch.tensor(labels)


X, Y = spiral()


def get_batch():
    ix = torch.randint(0, len(X), (batch_size,))
    return X[ix], Y[ix]


def make_model():
    return nn.Sequential(
        nn.Linear(2, 32),
        nn.Tanh(),
        nn.Linear(32, 32),
        nn.Tanh(),
        nn.Linear(32, n_arms),
    )


def accuracy(model):
    with torch.no_grad():
        return (model(X).argmax(dim=1) == Y).float().mean().item()


def train(model, max_iters=600):
    """The losses of all steps."""
    lr = 0.3
    history = []
    for it in range(max_iters):
        xb, yb = get_batch()
        logits = model(xb)
        loss = F.cross_entropy(logits, yb)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
        if it == 500:
            lr *= 0.1
        history.append(loss.item())
    return history


def main(max_iters=600):
    model = make_model()
    history = train(model, max_iters)
    print(f"last loss {history[-1]:.3f}, accuracy {accuracy(model):.2f}")
    return history


if __name__ == "__main__":
    main()
