"""A student's Transformer on PyTorch's tensors: weights' gradients have a batch axis, summed in SGD."""

import math
from typing import Callable, List, Tuple

import torch

import tape.lazy as ad


def transformer(X: ad.Node, nodes: List[ad.Node], model_dim: int, seq_length: int, eps,
                batch_size, num_classes) -> ad.Node:
    W_Q, W_K, W_V, W_O, W_1, W_2, b_1, b_2 = nodes
    Q = ad.matmul(X, W_Q)
    K = ad.matmul(X, W_K)
    V = ad.matmul(X, W_V)
    scores = ad.matmul(Q, ad.transpose(K, -1, -2)) / math.sqrt(model_dim)
    attention = ad.matmul(ad.softmax(scores, dim=-1), V)
    out = ad.layernorm(ad.matmul(attention, W_O), normalized_shape=[model_dim], eps=eps)
    hidden = ad.relu(ad.matmul(out, W_1) + ad.broadcast(
        b_1, input_shape=[model_dim], target_shape=[batch_size, seq_length, model_dim]))
    logits = ad.matmul(hidden, W_2) + ad.broadcast(
        b_2, input_shape=[num_classes], target_shape=[batch_size, seq_length, num_classes])
    return ad.mean(logits, dim=1)


def softmax_loss(Z: ad.Node, y_one_hot: ad.Node, batch_size: int) -> ad.Node:
    log_likelihood = ad.sum_op(y_one_hot * ad.log(ad.softmax(Z, dim=-1)), dim=(0, 1))
    return ad.div_by_const(ad.mul_by_const(log_likelihood, -1), batch_size)


def sgd_epoch(f_run_model: Callable, X: torch.Tensor, y: torch.Tensor,
              model_weights: List[torch.Tensor], batch_size: int,
              lr: float) -> Tuple[List[torch.Tensor], float]:
    num_batches = X.shape[0] // batch_size
    total_loss = 0.0
    for i in range(num_batches):
        start = i * batch_size
        X_batch, y_batch = X[start:start + batch_size], y[start:start + batch_size]
        _, loss, *grads = f_run_model(X_batch, y_batch, model_weights)
        for k in range(6):
            model_weights[k] -= lr * grads[k].sum(dim=0)
        for k in range(6, 8):
            model_weights[k] -= lr * grads[k]
        total_loss += loss.item()
    return model_weights, total_loss / num_batches


def train_model(images, labels, num_classes, num_epochs=12, batch_size=50, lr=0.2):
    X_train = torch.tensor(images, dtype=torch.float32)
    y_train = torch.nn.functional.one_hot(torch.tensor(labels), num_classes).float()
    seq_length, input_dim, model_dim, eps = X_train.shape[1], X_train.shape[2], 16, 1e-5
    X, y_groundtruth = ad.Variable(name="X"), ad.Variable(name="y")
    names = ["W_Q", "W_K", "W_V", "W_O", "W_1", "W_2", "b_1", "b_2"]
    nodes = [ad.Variable(name) for name in names]
    y_predict = transformer(X, nodes, model_dim, seq_length, eps, batch_size, num_classes)
    loss = softmax_loss(y_predict, y_groundtruth, batch_size)
    grads = ad.gradients(loss, nodes)
    evaluator = ad.Evaluator([y_predict, loss, *grads])
    test_evaluator = ad.Evaluator([y_predict])

    torch.manual_seed(0)
    shapes = [(input_dim, model_dim)] * 3 + [(model_dim, model_dim)] * 2 + [(model_dim, num_classes)]
    bound = 1.0 / math.sqrt(model_dim)
    weights = [torch.empty(shape).uniform_(-bound, bound) for shape in shapes]
    weights += [torch.zeros(model_dim), torch.zeros(num_classes)]

    def f_run_model(X_batch, y_batch, model_weights):
        return evaluator.run(input_values={
            X: X_batch, y_groundtruth: y_batch, **dict(zip(nodes, model_weights))})

    losses = []
    for _ in range(num_epochs):
        weights, loss_val = sgd_epoch(f_run_model, X_train, y_train, weights, batch_size, lr)
        losses.append(loss_val)
    right = 0
    for start in range(0, len(X_train) - batch_size + 1, batch_size):
        logits = test_evaluator.run({X: X_train[start:start + batch_size],
                                     **dict(zip(nodes, weights))})[0]
        predictions = torch.argmax(logits, dim=1)
        right += (predictions.numpy() == labels[start:start + batch_size]).sum()
    return losses, right / (start + batch_size)
