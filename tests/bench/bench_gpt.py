"""A training step of the default text model, against the same model in PyTorch where installed.

    python -m tests.bench.bench_gpt

4 layers, 4 heads, width 128, context 64, batch 12, vocabulary 65; AdamW, clipping.
"""

import subprocess
import sys
import time

import numpy as np

import nn
from tests.bench.timing import installed, report

CONFIG = nn.GPTConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, bias=False)
STEPS = 10
idx, targets = np.random.default_rng(0).integers(0, 65, (2, 12, 64))


def tape_step():
    model = nn.GPT(CONFIG, rng=0)
    optimizer = nn.AdamW(nn.decay_groups(model, 0.1), lr=1e-3, betas=(0.9, 0.99))

    def step():
        _, loss = model(idx, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.clip_grad_norm(model.named_parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def torch_step():
    import torch
    from torch.nn import functional as F

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = (torch.nn.LayerNorm(128, bias=False) for _ in range(2))
            self.qkv = torch.nn.Linear(128, 384, bias=False)
            self.output = torch.nn.Linear(128, 128, bias=False)
            self.up = torch.nn.Linear(128, 512, bias=False)
            self.down = torch.nn.Linear(512, 128, bias=False)

        def forward(self, x):
            B, T, C = x.shape
            q, k, v = (part.view(B, T, 4, 32).transpose(1, 2)
                       for part in self.qkv(self.norm1(x)).split(128, 2))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.output(out.transpose(1, 2).reshape(B, T, C))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = torch.nn.Embedding(65, 128), torch.nn.Embedding(64, 128)
            self.blocks = torch.nn.Sequential(*(Block() for _ in range(4)))
            self.norm = torch.nn.LayerNorm(128, bias=False)

        def forward(self, idx):
            x = self.blocks(self.tokens(idx) + self.positions.weight)
            return self.norm(x) @ self.tokens.weight.T

    model = Model()
    for name, p in model.named_parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
    x, y = torch.from_numpy(idx), torch.from_numpy(targets)

    def step():
        loss = F.cross_entropy(model(x).view(-1, 65), y.view(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


class Worker:
    """A process that times steps when asked: two libraries in one would have their threads fight."""

    def __init__(self, name):
        self.process = subprocess.Popen([sys.executable, "-m", "tests.bench.bench_gpt", name],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def work(name):
    step = {"tape": tape_step, "torch": torch_step}[name]()
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        print(time.perf_counter() - start, flush=True)


def main():
    names = ["tape", *installed("torch")]
    workers = {name: Worker(name) for name in names}
    for worker in workers.values():
        worker()
    seconds = {name: [] for name in names}
    for _ in range(8):
        for name, worker in workers.items():
            seconds[name].append(worker() / STEPS)
    report("GPT training step", seconds, 1e3, "ms")
    for worker in workers.values():
        worker.process.stdin.close()
        worker.process.wait()


if __name__ == "__main__":
    work(sys.argv[1]) if len(sys.argv) > 1 else main()
