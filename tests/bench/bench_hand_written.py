"""What autodiff costs over a backward pass written by hand: a training step by each, in turn.

    python -m tests.bench.bench_hand_written

The decoder of `tests.hand_written.gelu_decoder` and the `nn.GPT` that it is: 4 layers, 4 heads, width
128, context 64, batch 12, vocabulary 65, float32. Both are updated by `nn.AdamW`, by hand 16 stacked
arrays, on the tape the parameters of each block. The first table is of forward and backward alone.
"""

from __future__ import annotations

import statistics
import sys

import numpy as np

import nn
from tests.bench.timing import in_turn, report
from tests.hand_written import gelu_decoder

CONFIG = nn.GPTConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128)
BATCH, ROUNDS, LR = 12, 200, 1e-3


class Step:
    """A training step, or with `update` False its forward and backward; returns the loss."""

    def __init__(self, parameters, update):
        self.optimizer, self.update = nn.AdamW(parameters, lr=LR), update

    def __call__(self):
        loss = self.gradients()
        if self.update:
            self.optimizer.step()
        return loss


class ByHand(Step):
    def __init__(self, config, ids, targets, update=True):
        state = nn.GPT(config, rng=0).state_dict()
        # Parameters of the optimiser, which changes their arrays in place: `w` has the same arrays.
        self.parameters = {name: nn.Parameter(array) for name, array in gelu_decoder.stacked(
            state, config.n_layer).items()}
        self.w = {name: p.data for name, p in self.parameters.items()}
        self.batch = ids, targets, config.n_head
        super().__init__(self.parameters.values(), update)

    def gradients(self):
        loss, cache = gelu_decoder.forward(self.w, *self.batch)
        for name, gradient in gelu_decoder.backward(self.w, cache).items():
            self.parameters[name].grad = gradient
        return float(loss)

    def weights(self):
        return gelu_decoder.unstacked(self.w)


class OnTape(Step):
    def __init__(self, config, ids, targets, update=True):
        self.model, self.batch = nn.GPT(config, rng=0), (ids, targets)
        super().__init__(self.model.parameters(), update)

    def gradients(self):
        _, loss = self.model(*self.batch)
        self.optimizer.zero_grad()
        loss.backward()
        return loss.item()

    def weights(self):
        return self.model.state_dict()


def main(rounds: int = ROUNDS, config: nn.GPTConfig = CONFIG) -> None:
    shape = 2, BATCH, config.block_size
    ids, targets = np.random.default_rng(0).integers(0, config.vocab_size, shape)
    for title, update in (("forward and backward", False), ("training step", True)):
        seconds = in_turn({"by hand": ByHand(config, ids, targets, update),
                           "tape": OnTape(config, ids, targets, update)}, rounds)
        report(title, seconds, 1e3, "ms")
        ratios = [tape / hand for hand, tape in zip(seconds["by hand"], seconds["tape"])]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"  tape over by hand, of {rounds} pairs: median {middle:.2f}, half of them within "
              f"{low:.2f} to {high:.2f}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
