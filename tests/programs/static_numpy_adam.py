"""A student's Transformer with 15 weights, a bias by plain +, and Adam: means over the batch axis."""

import numpy as np

import tape.lazy as ad

NAMES = ["W_e", "b_e", "W_q1", "W_k1", "W_v1", "W_o1", "W_f1", "W_q2", "W_k2", "W_v2", "W_o2",
         "W_f2", "W_h", "W_c", "b_c"]
BATCH_AXES = {"b_e": (0, 1), "b_c": 0, "W_h": None, "W_c": None}


def block(h, q, k, v, o, f, d):
    n = ad.layernorm(h, [d])
    s = ad.matmul(ad.matmul(n, q), ad.matmul(n, k), trans_B=True) / np.sqrt(d)
    h = h + ad.matmul(ad.matmul(ad.softmax(s), ad.matmul(n, v)), o)
    return h + ad.relu_op(ad.matmul(ad.layernorm(h, [d]), f))


def train(images, labels, num_classes, steps=300, lr=0.01, B=40, d=12):
    rng = np.random.default_rng(0)
    X, Y = ad.Variable("X"), ad.Variable("Y")
    node = {name: ad.Variable(name) for name in NAMES}
    h = ad.matmul(X, node["W_e"]) + node["b_e"]
    for i in "12":
        h = block(h, *(node[f"W_{c}{i}"] for c in "qkvof"), d)
    pooled = ad.tanh(ad.matmul(ad.max_op(h, dim=1), node["W_h"]))
    logits = ad.matmul(pooled, node["W_c"]) + node["b_c"]
    log_p = ad.log(ad.softmax(logits, dim=1))
    loss = ad.mean(ad.sum(Y * log_p, dim=1), dim=0) * -1
    evaluator = ad.Evaluator([loss] + ad.gradients(loss, list(node.values())))

    shape = {name: (d,) if name[0] == "b" else (d, d) for name in NAMES}
    shape.update(W_e=(images.shape[2], d), W_c=(d, num_classes), b_c=(num_classes,))
    theta = {name: (rng.normal(0, 0.25, s) * (name[0] == "W")).astype("float32")
             for name, s in shape.items()}
    m, v = {name: 0.0 for name in NAMES}, {name: 0.0 for name in NAMES}
    curve = []
    for step in range(1, steps + 1):
        pick = rng.integers(0, len(images), B)
        feed = {node[name]: theta[name] for name in NAMES}
        feed[X] = images[pick].astype("float32")
        feed[Y] = np.eye(num_classes, dtype="float32")[labels[pick]]
        value, *gradients = evaluator.run(feed)
        curve.append(float(value))
        for name, g in zip(NAMES, gradients):
            axes = BATCH_AXES.get(name, 0)
            if axes is not None:
                g = np.mean(g, axis=axes)
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.99 * v[name] + 0.01 * g * g
            theta[name] = theta[name] - lr * (m[name] / (1 - 0.9 ** step)) / (
                np.sqrt(v[name] / (1 - 0.99 ** step)) + 1e-8)
    feed = {node[name]: theta[name] for name in NAMES}
    (z,) = ad.Evaluator([logits]).run({X: images.astype("float32"), **feed})
    return curve, np.mean(z.argmax(axis=1) == labels)
