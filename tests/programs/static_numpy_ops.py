"""A student's Transformer on NumPy arrays, with operators whose gradients keep the batch."""

import numpy as np

import tape.lazy as ad


class BatchMatMulOp(ad.Op):
    def __call__(self, node_A, node_B):
        return ad.Node(inputs=[node_A, node_B], op=self, name=f"({node_A.name}@{node_B.name})")

    def compute(self, node, input_values):
        assert len(input_values) == 2
        return np.matmul(input_values[0], input_values[1])

    def gradient(self, node, output_grad):
        A, B = node.inputs
        return [bmm(output_grad, ad.transpose(B, -1, -2)), bmm(ad.transpose(A, -1, -2), output_grad)]


class SoftmaxOp(ad.Op):
    def __call__(self, node_A, dim=-1):
        return ad.Node([node_A], self, attrs={"dim": dim}, name=f"Softmax({node_A.name})")

    def compute(self, node, input_values):
        x = input_values[0]
        e = np.exp(x - np.max(x, axis=node.dim, keepdims=True))
        return e / np.sum(e, axis=node.dim, keepdims=True)

    def gradient(self, node, output_grad):
        s = softmax(node.inputs[0], node.attrs["dim"])
        inner = ad.sum_op(ad.mul(output_grad, s), dim=(node.attrs["dim"],), keepdim=True)
        return [ad.mul(s, ad.sub(output_grad, inner))]


bmm, softmax = BatchMatMulOp(), SoftmaxOp()


class Attention:
    def __init__(self, d):
        self.W = {c: ad.Variable("W_" + c) for c in "qkvo"}
        self.scale = d ** -0.5

    def __call__(self, x):
        q, k, v = (bmm(x, self.W[c]) for c in "qkv")
        a = softmax(bmm(q, ad.transpose(k, 1, 2)) * self.scale)
        return x + bmm(bmm(a, v), self.W["o"])


def train(images, labels, num_classes, steps=500, lr=0.4, B=40, d=16):
    rng = np.random.RandomState(0)
    n, T, d_in = images.shape
    x, t = ad.Variable("x"), ad.Variable("t")
    W_in, W_out = ad.Variable("W_in"), ad.Variable("W_out")
    attention = Attention(d)
    h = attention(bmm(x, W_in))
    logits = bmm(ad.mean(h, dim=(1,)), W_out)
    loss = ad.sum_op(t * ad.log(softmax(logits)), dim=(0, 1)) * (-1.0 / B)
    params = [W_in, *attention.W.values(), W_out]
    run = ad.Evaluator([loss, *ad.gradients(loss, params)]).run
    values = {p: rng.uniform(-0.25, 0.25, (d, d)) for p in params}
    values[W_in] = rng.uniform(-0.25, 0.25, (d_in, d))
    values[W_out] = rng.uniform(-0.25, 0.25, (d, num_classes))
    history = []
    for _ in range(steps):
        pick = rng.randint(0, n, B)
        loss_val, *grads = run({x: images[pick], t: np.eye(num_classes)[labels[pick]], **values})
        history.append(float(loss_val))
        for p, g in zip(params, grads):
            if p is not W_out:
                g = g.sum(axis=0)
            values[p] -= lr * g
    (z,) = ad.Evaluator([logits]).run({x: images, **values})
    return history, np.mean(np.argmax(z, axis=1) == labels)
