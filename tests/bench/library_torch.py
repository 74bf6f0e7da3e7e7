"""PyTorch on the CPU: its eager mode, and torch.compile."""

import torch
from torch.nn import functional as F

from tests.bench import sizes as at
from tests.bench.sizes import KERNEL_INPUTS

tanh, relu, maximum = torch.tanh, torch.relu, torch.maximum


def where(condition, x, y):
    return torch.where(torch.from_numpy(condition), x, y)


def softmax(x):
    return F.softmax(x, -1)


def norm(x, weight, bias=None):
    return F.layer_norm(x, x.shape[-1:], weight, bias)


def rotated(x):
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.complex(*map(torch.from_numpy, at.TURNS))).flatten(-2)


# What takes W x + b, as tape's operators do, step by step: PyTorch's own multiply with W too.


def rnn(projected, weight, h):
    states = [h]
    for a in projected:
        states.append((a + states[-1] @ weight).tanh())
    return torch.stack(states[1:])


def gru(projected, weight, bias, h):
    states = [h]
    for a in projected:
        (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, -1), (states[-1] @ weight).chunk(3, -1)
        n = (a_n + (a_r + u_r).sigmoid() * (u_n + bias)).tanh()
        states.append(torch.lerp(n, states[-1], (a_z + u_z).sigmoid()))
    return torch.stack(states[1:])


def lstm(projected, weight, h, c):
    states = []
    for a in projected:
        i, f, g, o = (a + h @ weight).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(torch.stack([h, c]))
    return torch.stack(states, 1)


def look_up(table, ids):
    return F.embedding(torch.from_numpy(ids), table)


class Block(torch.nn.Module):
    def __init__(self, sizes):
        super().__init__()
        C, self.heads = sizes.width, sizes.heads
        self.norm1, self.norm2 = (torch.nn.LayerNorm(C, bias=False) for _ in range(2))
        self.qkv = torch.nn.Linear(C, 3 * C, bias=False)
        self.output = torch.nn.Linear(C, C, bias=False)
        self.up = torch.nn.Linear(C, 4 * C, bias=False)
        self.down = torch.nn.Linear(4 * C, C, bias=False)

    def forward(self, x, kept=None):
        """`kept` holds keys and values of the earlier tokens; those of x are added to it."""
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2)
                   for part in self.qkv(self.norm1(x)).split(C, 2))             # (B, H, T, D)
        if kept is not None:
            k, v = kept[:] = [torch.cat([old, new], 2) for old, new in zip(kept, (k, v))] or [k, v]
        out = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
        x = x + self.output(out.transpose(1, 2).reshape(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Model(torch.nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.tokens = torch.nn.Embedding(sizes.vocabulary, sizes.width)
        self.positions = torch.nn.Embedding(sizes.block, sizes.width)
        self.blocks = torch.nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.norm = torch.nn.LayerNorm(sizes.width, bias=False)
        self.load_state_dict(state(at.weights(sizes), sizes.layers))

    def forward(self, idx, past=0, kept=None):
        T = idx.shape[1]
        x = self.tokens(idx) + self.positions.weight[past:past + T]             # (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, None if kept is None else kept[i])
        return self.norm(x) @ self.tokens.weight.T                              # (B, T, V)


def state(weights, layers):
    """The weights under the names above: matrices are (n_out, n_in), and q, k and v are one."""
    found = {name: weights[name] for name in ("tokens.weight", "positions.weight", "norm.weight")}
    for i in range(layers):
        block = {name: weights[f"blocks.{i}.{name}.weight"] for name in (
            "norm1", "norm2", "attention.query", "attention.key", "attention.value",
            "attention.output", "feed_forward.hidden", "feed_forward.output")}
        q, k, v = (torch.from_numpy(block[f"attention.{part}"].T) for part in ("query", "key", "value"))
        found |= {f"blocks.{i}.{name}.weight": value for name, value in {
            "norm1": block["norm1"], "norm2": block["norm2"], "qkv": torch.cat([q, k, v]),
            "output": block["attention.output"].T, "up": block["feed_forward.hidden"].T,
            "down": block["feed_forward.output"].T}.items()}
    return {name: torch.as_tensor(value) for name, value in found.items()}


def training_step(sizes, wrap=lambda model: model):
    model = Model(sizes)
    run, (idx, targets) = wrap(model), torch.from_numpy(at.batch(sizes))
    parameters = list(model.parameters())
    matrices, others = ([p for p in parameters if (p.ndim == 2) == matrix]
                        for matrix in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": at.DECAY},
                                   {"params": others, "weight_decay": 0.0}],
                                  lr=at.LR, betas=at.BETAS, eps=at.EPS)

    def step():
        loss = F.cross_entropy(run(idx).view(-1, sizes.vocabulary), targets.view(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, at.CLIP)
        optimizer.step()
        return loss.item()

    return step


def writing(sizes, tokens):
    """A call that writes so many tokens after one, each computed once."""
    model = Model(sizes).eval()

    @torch.inference_mode()
    def write():
        token, kept, text = torch.zeros(1, 1, dtype=torch.long), [[] for _ in model.blocks], []
        for past in range(tokens):
            probabilities = F.softmax(model(token, past, kept)[:, -1], -1)
            token = torch.multinomial(probabilities, 1)
            text.append(token.item())
        return text

    return write


def differentiating(f, arrays, *gradient):
    return at.differentiating(f, [torch.tensor(array, requires_grad=True) for array in arrays],
                              *map(torch.tensor, gradient))


FUNCTIONS = {
    "layer_norm": norm,
    "rms_norm": lambda x, weight: F.rms_norm(x, weight.shape, weight, 1e-5),
    "swiglu": lambda gate, x: F.silu(gate) * x,
    "rotate_pairs": rotated,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_exact": F.gelu,
    "softmax": softmax,
    "cross_entropy": lambda x, ids: F.cross_entropy(x.view(-1, x.shape[-1]), ids.view(-1)),
    "causal_attention": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "rnn": rnn,
    "gru": gru,
    "lstm": lstm,
}


def kernels():
    """name -> a call that runs the function of PyTorch's forward and backward."""
    def both_ways(function, inputs):
        tensors = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
        out = function(*tensors)
        out.backward(out.detach())
        return [t.grad for t in tensors if t.requires_grad]

    return {name: lambda f=f, name=name: both_ways(f, KERNEL_INPUTS[name])
            for name, f in FUNCTIONS.items()}


class Compiled:
    """torch.compile: the model is compiled by the first step, which is not timed."""

    @staticmethod
    def training_step(sizes):
        return training_step(sizes, torch.compile)
