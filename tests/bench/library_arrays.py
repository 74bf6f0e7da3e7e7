"""The libraries that differentiate programs on arrays: JAX, autograd, MyGrad.

The model is written once, on the functions of NumPy's that each has under the same names; its softmax
and its loss are those of the library, where it has them. Constants are float32: a Python number would
make MyGrad compute in float64.
"""

from __future__ import annotations

import functools

import numpy as np

from tests.bench import sizes as at


class Arrays:
    """A library; `np` is its namespace. `differentiating` and `value_and_grad` are its own."""

    np = np

    def tanh(self, x):
        return self.np.tanh(x)

    def relu(self, x):
        return self.np.maximum(x, np.float32(0))

    def maximum(self, x, y):
        return self.np.maximum(x, y)

    def where(self, condition, x, y):
        return self.np.where(condition, x, y)

    def look_up(self, table, ids):
        return table[ids]

    def softmax(self, x):
        raise NotImplementedError

    def cross_entropy(self, logits, targets):
        raise NotImplementedError

    def training_step(self, sizes):
        state = [at.weights(sizes), *({name: np.zeros_like(w) for name, w in at.weights(sizes).items()}
                                      for _ in range(2))]
        idx, targets = at.batch(sizes)
        loss_and_slopes = self.value_and_grad(lambda w: self.loss(w, sizes, idx, targets))
        count = 0

        def step():
            nonlocal count, state
            count += 1
            loss, slopes = loss_and_slopes(state[0])
            state = adamw(np, *state, slopes, count)
            return float(loss)

        return step

    def loss(self, w, sizes, idx, targets):
        T = idx.shape[1]
        x = w["tokens.weight"][idx] + w["positions.weight"][:T]                 # (B, T, C)
        for i in range(sizes.layers):
            block = {name: w[f"blocks.{i}.{name}.weight"] for name in (
                "norm1", "norm2", "attention.query", "attention.key", "attention.value",
                "attention.output", "feed_forward.hidden", "feed_forward.output")}
            x = x + self.attention(block, self.norm(x, block["norm1"]), sizes.heads)
            hidden = self.np.matmul(self.norm(x, block["norm2"]), block["feed_forward.hidden"])
            x = x + self.np.matmul(self.gelu(hidden), block["feed_forward.output"])
        logits = self.np.matmul(self.norm(x, w["norm.weight"]),
                                self.np.transpose(w["tokens.weight"]))          # (B, T, V)
        return self.cross_entropy(self.np.reshape(logits, (-1, sizes.vocabulary)), targets.reshape(-1))

    def norm(self, x, weight):
        centred = x - self.np.mean(x, axis=-1, keepdims=True)
        variance = self.np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / self.np.sqrt(variance + np.float32(1e-5)) * weight

    def gelu(self, x):
        inner = (x + x * x * x * np.float32(0.044715)) * np.float32((2 / np.pi) ** 0.5)
        return x * (self.np.tanh(inner) + np.float32(1)) * np.float32(0.5)

    def attention(self, block, x, heads):
        B, T, C = x.shape
        q, k, v = (self.np.swapaxes(self.np.reshape(
            self.np.matmul(x, block[f"attention.{part}"]), (B, T, heads, C // heads)), 1, 2)
            for part in ("query", "key", "value"))                              # (B, H, T, D)
        mask = np.triu(np.full((T, T), -1e9, np.float32), 1)
        scores = self.np.matmul(q, self.np.swapaxes(k, 2, 3)) * np.float32((C // heads) ** -0.5)
        out = self.np.matmul(self.softmax(scores + mask), v)
        out = self.np.reshape(self.np.swapaxes(out, 1, 2), (B, T, C))
        return self.np.matmul(out, block["attention.output"])


def adamw(xp, w, m, v, slopes, count):
    """New weights and moments: clipping, then AdamW, which decays the matrices alone."""
    b1, b2 = at.BETAS
    norm = xp.sqrt(sum(xp.sum(g * g) for g in slopes.values()))
    scale = xp.minimum(1.0, at.CLIP / (norm + 1e-6))
    slopes = {name: g * scale for name, g in slopes.items()}
    m = {name: b1 * m[name] + (1 - b1) * g for name, g in slopes.items()}
    v = {name: b2 * v[name] + (1 - b2) * g * g for name, g in slopes.items()}
    new = {}
    for name, value in w.items():
        change = m[name] / (1 - b1 ** count) / (xp.sqrt(v[name] / (1 - b2 ** count)) + at.EPS)
        new[name] = value * (1 - at.LR * at.DECAY * (value.ndim == 2)) - at.LR * change
    return [new, m, v]


class Autograd(Arrays):
    def __init__(self):
        import autograd
        from autograd.tracer import getval
        self.np, self.library, self.value = autograd.numpy, autograd, getval

    def value_and_grad(self, f):
        return self.library.value_and_grad(f)

    def differentiating(self, f, arrays, *gradient):
        every = tuple(range(len(arrays)))
        if not gradient:
            slope = self.library.grad(f, every)
            return lambda: slope(*arrays)

        def differentiate():
            pull, _ = self.library.make_vjp(f, every)(*arrays)
            return pull(*gradient)

        return differentiate

    def softmax(self, x):
        e = self.np.exp(x - np.max(self.value(x), axis=-1, keepdims=True))
        return e / self.np.sum(e, axis=-1, keepdims=True)

    def cross_entropy(self, logits, targets):
        shifted = logits - np.max(self.value(logits), axis=-1, keepdims=True)
        own = shifted[np.arange(len(targets)), targets]
        return self.np.mean(self.np.log(self.np.sum(self.np.exp(shifted), axis=-1)) - own)


class MyGrad(Arrays):
    def __init__(self):
        import mygrad
        from mygrad.nnet.activations import softmax
        from mygrad.nnet.losses import softmax_crossentropy
        self.np, self.softmax, self.cross_entropy = mygrad, softmax, softmax_crossentropy

    def value_and_grad(self, f):
        def run(w):
            leaves = {name: self.np.tensor(value) for name, value in w.items()}
            loss = f(leaves)
            loss.backward()
            return loss.item(), {name: leaf.grad for name, leaf in leaves.items()}

        return run

    def differentiating(self, f, arrays, *gradient):
        leaves = [self.np.tensor(array) for array in arrays]

        def differentiate():
            for leaf in leaves:
                leaf.null_grad()
            f(*leaves).backward(*gradient)
            return [leaf.grad for leaf in leaves]

        return differentiate


class Jax(Arrays):
    """The step is compiled whole, by the first call, which is not timed; operators are not."""

    def __init__(self):
        import jax
        self.jax, self.np = jax, jax.numpy
        self.softmax = functools.partial(jax.nn.softmax, axis=-1)

    def cross_entropy(self, logits, targets):
        return -self.jax.nn.log_softmax(logits)[np.arange(len(targets)), targets].mean()

    def training_step(self, sizes):
        idx, targets = at.batch(sizes)

        @functools.partial(self.jax.jit, donate_argnums=(0, 1, 2))
        def update(w, m, v, count):
            loss, slopes = self.jax.value_and_grad(lambda w: self.loss(w, sizes, idx, targets))(w)
            return loss, adamw(self.np, w, m, v, slopes, count)

        w = {name: self.np.array(value) for name, value in at.weights(sizes).items()}
        state = [w, *({name: self.np.zeros_like(value) for name, value in w.items()} for _ in range(2))]
        count = 0

        def step():
            nonlocal count, state
            count += 1
            loss, state = update(*state, count)
            self.jax.block_until_ready(state)
            return float(loss)

        return step

    def differentiating(self, f, arrays, *gradient):
        arrays = [self.np.array(array) for array in arrays]
        if not gradient:
            slope = self.jax.grad(f, tuple(range(len(arrays))))
            return lambda: self.jax.block_until_ready(slope(*arrays))
        return lambda: self.jax.block_until_ready(self.jax.vjp(f, *arrays)[1](*gradient))
