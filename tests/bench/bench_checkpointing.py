"""Memory and time of a training step with gradient checkpointing, micro-batches and workers.

    python -m tests.bench.bench_checkpointing

A GPT of 8 blocks, 4 heads, 128 wide; 16 rows of 128 tokens; forward, backward and AdamW. The memory is
the most that arrays take during a step beyond what they take between steps.
"""

import tracemalloc

import numpy as np

import nn
from nn.training.engines import TapeEngine
from tests.bench.timing import in_turn, report

ROWS, BLOCK = 16, 128
CASES = {"all kept": {}, "checkpointing": {"checkpointing": True}, "4 rows at a time": {"micro": 4},
         "both": {"checkpointing": True, "micro": 4}, "2 workers": {"workers": 2},
         "2 workers, both": {"checkpointing": True, "micro": 4, "workers": 2}}


def step(checkpointing=False, micro=None, workers=1):
    """A call that takes a training step."""
    model = nn.GPT(nn.GPTConfig(65, BLOCK, n_layer=8, n_head=4, n_embd=128, bias=False), rng=0)
    nn.checkpoint_blocks(model, checkpointing)
    engine = TapeEngine(model, nn.AdamW(model.parameters(), lr=1e-3), 1.0, micro, workers=workers)
    batch = tuple(np.random.default_rng(0).integers(0, 65, (2, ROWS, BLOCK)))
    return lambda: engine.update(1, batch, 1e-3)


def peak(call):
    """The most bytes that a call takes at a time."""
    call()
    tracemalloc.start()
    call()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def main():
    calls = {name: step(**how) for name, how in CASES.items()}
    memory = {name: peak(call) for name, call in calls.items()}
    report("a training step", in_turn(calls, 5), 1e3, "ms")
    for name, most in memory.items():
        print(f"{name:18} {most / 2 ** 20:7.1f} MiB")


if __name__ == "__main__":
    main()
