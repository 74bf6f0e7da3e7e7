"""A training step of the default text model with one matrix product for q, k and v instead of three.

    python -m tests.bench.bench_projection

Two forms: the three weights concatenated at each call, and stored as one. The first keeps the names
of the parameters, the second shows what is the most that there is to gain.
"""

import numpy as np

import nn
import tape
from tests.bench.timing import in_turn, report

CONFIG = nn.GPTConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, bias=False)
PARTS = ("query", "key", "value")


class Joint(nn.Module):
    """Causal self-attention with as many heads of keys as of queries, without biases."""

    def __init__(self, attention: nn.MultiHeadAttention, stored: bool):
        weights = [getattr(attention, part).weight for part in PARTS]
        self.n_head, self.output = attention.n_head, attention.output
        self.parts = None if stored else weights
        self.joint = nn.Parameter(np.concatenate([w.data for w in weights], 1)) if stored else None

    def forward(self, x, **ignored):
        B, T, C = x.shape
        weight = self.joint if self.parts is None else tape.concatenate(self.parts, axis=1)
        heads = (x @ weight).reshape(B, T, -1, C // self.n_head).swapaxes(1, 2)     # (B, 3 H, T, D)
        H = self.n_head
        out = tape.causal_attention(heads[:, :H], heads[:, H:2 * H], heads[:, 2 * H:])
        return self.output(out.swapaxes(1, 2).reshape(B, T, C))


def stepping(stored=None):
    """A training step; the losses are collected in its attribute `losses`."""
    model = nn.GPT(CONFIG, rng=0)
    for block in model.blocks if stored is not None else ():
        block.attention = Joint(block.attention, stored)
    optimizer = nn.AdamW(nn.decay_groups(model, 0.1), lr=1e-3, betas=(0.9, 0.99))
    idx, targets = np.random.default_rng(0).integers(0, 65, (2, 12, 64))

    def step():
        _, loss = model(idx, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.clip_grad_norm(model.named_parameters(), 1.0)
        optimizer.step()
        step.losses.append(loss.item())

    step.losses = []
    return step


def main():
    steps = {"three products": stepping(), "one, concatenated": stepping(False),
             "one, stored": stepping(True)}
    report("GPT training step", in_turn(steps, 60), 1e3, "ms")
    for name, step in steps.items():
        apart = max(abs(a - b) for a, b in zip(step.losses, steps["three products"].losses))
        print(f"{name}: losses differ by at most {apart:.1e} in {len(step.losses)} steps")


if __name__ == "__main__":
    main()
