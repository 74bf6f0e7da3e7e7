"""Tokens per second of `nn.generate`, with what a model keeps and computing all anew.

    python -m tests.bench.bench_generate

The default text models, untrained, from one token up to the block of 64, and with a block of 256.
"""

import nn
from nn.jobs.text import SIZES
from tests.bench.timing import in_turn, report

CASES = [*((arch, 64, 63) for arch in SIZES), ("gpt", 256, 256)]


def main():
    for arch, block, tokens in CASES:
        sizes = SIZES[arch]
        model = (nn.GPT(nn.GPTConfig(65, block, bias=False, **sizes), rng=0) if arch == "gpt" else
                 nn.RecurrentLM(nn.RecurrentConfig(65, block, arch, **sizes), rng=0))
        seconds = in_turn({name: lambda use=use: list(nn.generate(model, [0], tokens, rng=0,
                                                                  use_cache=use))
                           for name, use in {"kept": True, "anew": False}.items()}, 9)
        report(f"{arch}: {tokens} tokens, a block of {block}", seconds, 1e3, "ms")
        print("".join(f"  {name}: {tokens / sorted(times)[len(times) // 2]:,.0f} tokens/s"
                      for name, times in seconds.items()), "\n")


if __name__ == "__main__":
    main()
