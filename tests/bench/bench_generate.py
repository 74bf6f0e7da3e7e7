"""Tokens per second of `nn.generate`, with what a model keeps and computing all anew.

    python -m tests.bench.bench_generate

The default text models, untrained, from one token up to the block of 64.
"""

import nn
from nn.jobs.text import SIZES
from tests.bench.timing import in_turn, report

TOKENS = 63


class Anew(nn.Module):
    """The model without its cache."""

    def __init__(self, model: nn.Module):
        self.model, self.config = model, model.config

    def forward(self, idx):
        return self.model(idx)


def main():
    for arch, sizes in SIZES.items():
        model = (nn.GPT(nn.GPTConfig(65, 64, bias=False, **sizes), rng=0) if arch == "gpt" else
                 nn.RecurrentLM(nn.RecurrentConfig(65, 64, arch, **sizes), rng=0))
        seconds = in_turn({name: lambda m=m: list(nn.generate(m, [0], TOKENS, rng=0))
                           for name, m in {"kept": model, "anew": Anew(model)}.items()}, 9)
        report(f"{arch}: {TOKENS} tokens", seconds, 1e3, "ms")
        print("".join(f"  {name}: {TOKENS / sorted(times)[len(times) // 2]:,.0f} tokens/s"
                      for name, times in seconds.items()), "\n")


if __name__ == "__main__":
    main()
