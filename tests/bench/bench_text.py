"""Time ``train.py text`` as a whole against the same training in PyTorch.

    python -m tests.bench.bench_text [--data FILE] [--rounds N]

Both start cold, in turn. The peer does what nanoGPT's ``train.py`` does at the settings that its README
gives for a CPU (github.com/karpathy/nanoGPT), which are the defaults of ``train.py text``: 2,000 steps
on random blocks, AdamW with a warm-up and a cosine; at the start, every 250 steps and at the end the
mean loss of 20 batches of either part of the text, and a checkpoint where it was the best. Ours
validates on its own schedule, and saves.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS, BATCH, BLOCK, EVAL_INTERVAL, EVAL_BATCHES = 2000, 12, 64, 250, 20
PEAK, WARMUP = 1e-3, 100


def train_in_torch(data: str, folder: str) -> None:
    """The peer; it runs in a process of its own."""
    import torch
    from torch.nn import functional as F

    from tests.bench import sizes as at
    from tests.bench.library_torch import Model

    text = Path(data).read_text(encoding="utf-8")
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    tokens = np.array([ids[character] for character in text], np.int64)
    parts = np.split(tokens, [int(0.9 * len(tokens))])
    model = Model(at.Sizes(4, 4, 128, BLOCK, BATCH, len(ids)))
    groups = [{"params": [p for p in model.parameters() if (p.ndim == 2) == matrix],
               "weight_decay": at.DECAY * matrix} for matrix in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=at.BETAS)

    def loss_of(part: np.ndarray) -> torch.Tensor:
        starts = torch.randint(len(part) - BLOCK, (BATCH,)).tolist()
        inputs, targets = (torch.from_numpy(np.stack([part[i + k:i + k + BLOCK] for i in starts]))
                           for k in (0, 1))                                     # (B, T)
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def evaluate() -> list[float]:
        return [statistics.mean(loss_of(part).item() for _ in range(EVAL_BATCHES)) for part in parts]

    best = math.inf
    for step in range(STEPS + 1):
        if step % EVAL_INTERVAL == 0:
            training, validation = evaluate()
            print(f"step {step}: training {training:.4f}, validation {validation:.4f}", flush=True)
            if validation < best:
                best = validation
                torch.save([model.state_dict(), optimizer.state_dict()], Path(folder) / "best.pt")
        cosine = (1 + math.cos(math.pi * max(step - WARMUP, 0) / (STEPS - WARMUP))) / 2
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min((step + 1) / WARMUP, 0.1 + 0.9 * cosine)
        loss = loss_of(parts[0])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), at.CLIP)
        optimizer.step()


def seconds(command: list[str]) -> float:
    """How long a command takes; its last line goes to the terminal."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    took = time.perf_counter() - start
    lines = [line for line in done.stdout.splitlines() if "alidation" in line]
    print(f"{took:6.1f} s   {lines[-1].strip()}", flush=True)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_text")
    parser.add_argument("--data", help="default: the help texts that come with Python")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    root, ratios = Path(__file__).parents[2], []
    with tempfile.TemporaryDirectory() as folder:
        if given.data is None:
            from nn.data.text import python_help_text
            given.data = str(Path(folder) / "help.txt")
            Path(given.data).write_text(python_help_text(), encoding="utf-8")
        for _ in range(given.rounds):
            ours = seconds([str(root / "train.py"), "text", "--data", given.data, "--out", folder])
            theirs = seconds(["-m", "tests.bench.bench_text", "peer", given.data, folder])
            ratios.append(ours / theirs)
    print(f"train.py text / PyTorch: {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f}-{max(ratios):.2f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        train_in_torch(*sys.argv[2:])
    else:
        main()
