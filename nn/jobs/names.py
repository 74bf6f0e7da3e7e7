"""python train.py names: a GPT as small as can be, which invents names.

The model is the smallest with all the parts of a GPT: one block with 4 heads, 16 wide, RMSNorm,
ReLU, no biases, and a matrix of its own for the logits. It is trained by Adam, whose rate falls
linearly, on one name a step. A line break stands for the beginning and the end of a name.

Small GPTs of this kind often have a norm in front of the first block, and norms without weights. Here,
as in every `GPT`, the norm outside the blocks is behind the last, and the weights start at 1.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Iterator, Mapping

import numpy as np

import nn
from nn.data.batches import shuffled_steps
from nn.data.text import python_words, read_lines
from nn.cli.memory import check_memory
from nn.cli.script import user_input
from nn.cli.flags import flag
from nn.jobs.job import (
    INIT, SHOWN, Job, dtype_flag, knows_nothing, print_generate, print_start, sample_flag)
from nn.jobs.run import Run, RunFlags
from nn.jobs.watching import sample_of
from nn.models.scalar_gpt import WRITTEN, ScalarGPT
from nn.training.engines import Batch, TapeEngine
from nn.training.loop import Evaluation, Plan

END = "\n"              # the token before and after each name
INVENTED = 20
SAMPLE = (INIT, 1)      # the invented names draw from (seed, 0, 1)


@dataclass(frozen=True)
class Flags(RunFlags):
    data: str | None = flag("UTF-8 file with a name on each line (default: the words of the help texts "
                            "that come with Python)", metavar="FILE")
    scalars: bool = flag("every number is a Tensor of its own: the same losses, and each step takes "
                         "longer; give fewer --steps", False)
    steps: int = flag("updates, each with one name", 1000, low=1)
    block_size: int = flag("context: the longest name and the token before it; longer ones are cut",
                           16, low=1)
    n_layer: int = flag("blocks", 1, low=1)
    n_head: int = flag("attention heads", 4, low=1)
    n_embd: int = flag("width", 16, low=1)
    dtype: str = dtype_flag()
    lr: float = flag("learning rate of Adam at first; it falls linearly to nothing", 0.01, above=0)
    temperature: float = flag("of the invented names", 0.5, low=0)
    log_interval: int = flag("steps between lines", 100, low=1)
    sample: int | None = sample_flag()
    seed: int = flag("of weights, order and invented names", 0, low=0)


class ScalarAdam(nn.Adam):
    """Adam for scalars: one that played no part in a step has the gradient 0, as in an array."""

    def step(self) -> None:
        for parameter in self.params:
            if parameter.grad is None:
                parameter.grad = np.zeros((), parameter.dtype)
        super().step()


class Recorded(TapeEngine):
    """The engine, which keeps the loss of each step and the time of all."""

    def __init__(self, model: nn.Module, optimizer: nn.Adam):
        # Of single numbers, those of the characters that the first name lacks have no gradient.
        super().__init__(model, optimizer, audits=not isinstance(model, ScalarGPT))
        self.losses: list[float] = []           # of a run that goes on, the last hundred before
        self.seconds, self.updates = 0.0, 0

    def update(self, step: int, batch: Batch, lr: float) -> float:
        start = time.perf_counter()
        self.losses.append(super().update(step, batch, lr))
        self.seconds += time.perf_counter() - start
        self.updates += 1
        return self.losses[-1]

    def state_dict(self) -> dict[str, np.ndarray]:
        return {**super().state_dict(), "losses": np.array(self.losses[-100:])}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        rest = dict(state)
        self.losses = list(map(float, rest.pop("losses", ())))
        super().load_state_dict(rest)

    def latest(self) -> float:
        """The mean loss of the last hundred steps."""
        return float(np.mean(self.losses[-100:]))


def train_names(o: Flags) -> None:
    """Train on one name a step, and invent some."""
    with user_input():
        names = python_words() if o.data is None else read_lines(o.data)
    tokenizer = nn.CharTokenizer.from_text(END + "".join(names))
    with user_input(o):
        config = nn.GPTConfig(vocab_size=len(tokenizer), block_size=o.block_size, n_layer=o.n_layer,
                              n_head=o.n_head, n_embd=o.n_embd, **WRITTEN)
        check_memory(config, 1, 1, copies=4,                 # the shortest name
                     itemsize=np.dtype(o.dtype).itemsize)
    with nn.parameters_of(o.dtype):
        model = nn.GPT(config, rng=np.random.default_rng((o.seed, INIT)))
    tokens = float(np.mean([min(len(name) + 1, o.block_size) for name in names]))
    with Run(o, "names", END.join(names)) as run:
        print_start(model, round(tokens), described(names, o.block_size))
        run.restore(model)
        engine = trained(o, run, model, tokenizer, names, tokens)
        print(f"\nmean loss {engine.latest():.4f} of the last {len(engine.losses[-100:])} steps; "
              f"{engine.seconds / max(engine.updates, 1) * 1000:.1f} ms a step")
        invent(o, model, tokenizer, {*names, ""})
        print_generate(run.last, f"--temperature {o.temperature:g}")


def described(names: list[str], block_size: int) -> str:
    """How many names there are, and what is not seen of them."""
    long = sum(len(name) >= block_size for name in names)
    cut = f"\nlonger than {block_size - 1} characters, and cut there: {long:,}"
    return f"{len(names):,} names, one at each step{cut if long else ''}"


def batches(o: Flags, names: list[str], tokenizer: nn.Tokenizer, done: int = 0) -> Iterator[Batch]:
    """One name after the other, in another order each time: inputs (1, T), targets one place later."""
    for (i,) in shuffled_steps(len(names), 1, o.seed, done):
        ids = tokenizer.encode(END + names[i] + END)[None, :o.block_size + 1]
        yield ids[:, :-1], ids[:, 1:]


def trained(o: Flags, run: Run, model: nn.GPT, tokenizer: nn.Tokenizer, names: list[str],
            tokens: float) -> Recorded:
    """Train the model, or with --scalars one of scalars whose weights it is then given."""
    scalars = ScalarGPT(model.config, model.state_dict()) if o.scalars else None
    learner, adam = (scalars, ScalarAdam) if scalars else (model, nn.Adam)
    engine = Recorded(learner, adam(learner.parameters(), lr=o.lr, betas=(0.85, 0.99), eps=1e-8))

    def lr(step: int) -> float:
        return nn.warmup_linear(step, peak=o.lr, total=o.steps)

    def with_weights() -> nn.GPT:
        if scalars:
            model.load_state_dict(scalars.arrays())
        return model

    info = {"prompt": "", "start": END, "stop": tokenizer.ids[END]}

    def evaluate() -> Evaluation:
        text = (sample_of(with_weights(), tokenizer, info, o.sample, (o.seed, *SHOWN)) if o.sample else
                "")
        return Evaluation(f"   mean {engine.latest():.4f}", remark=text)

    plan = Plan(o.steps, tokens, log_interval=o.log_interval, eval_interval=o.log_interval,
                save_interval=o.save_interval or 100)
    run.train(engine, lambda done: batches(o, names, tokenizer, done), lr, plan,
              evaluate, with_weights, tokenizer, info, knows_nothing(model))
    return engine


def invent(o: Flags, model: nn.GPT, tokenizer: nn.Tokenizer, known: set[str]) -> None:
    """Print names that the model makes, and say how many it did not learn."""
    rng = np.random.default_rng((o.seed, *SAMPLE))
    begin = [tokenizer.ids[END]]
    names = [tokenizer.decode(nn.generate(model, begin, o.block_size, o.temperature, rng=rng,
                                          stop=begin[0])) for _ in range(INVENTED)]
    new = sum(name not in known for name in names)
    print(f"{INVENTED} invented names, of which {new} are not among those learned:")
    print("".join(f"  {name}\n" for name in names))


JOB = Job(Flags, "Train a very small GPT (16 wide, one block) on names, one a step, with Adam, and "
          "have it invent some. With --scalars it is computed number by number.", train_names)
