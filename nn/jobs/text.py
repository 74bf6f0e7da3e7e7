"""python train.py text: a language model on the characters of a text."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Iterator, Union

import numpy as np

import nn
from nn.data.batches import consecutive_blocks, random_batch, train_validation_split
from nn.data.text import python_help_text, read_text, unigram_entropy
from nn.cli.script import UsageError, user_input
from nn.cli.flags import flag
from nn.jobs.job import INIT, Job, print_generate, print_start
from nn.jobs.run import Run, RunFlags
from nn.training.engines import Batch, TapeEngine
from nn.training.loop import Evaluation, Outcome, Plan
from tape import no_grad

LanguageModel = Union[nn.GPT, nn.RecurrentLM]

# What sizes default to: about as many parameters for each, 0.8 million with 65 characters.
SIZES = {"gpt": {"n_layer": 4, "n_head": 4, "n_embd": 128}, "rnn": {"n_layer": 2, "n_embd": 432},
         "lstm": {"n_layer": 2, "n_embd": 220}, "gru": {"n_layer": 2, "n_embd": 252}}


def size_flag(text: str, name: str) -> Any:
    """A flag whose default depends on --arch; None where it is not given."""
    shown = ", ".join(f"{arch} {sizes[name]}" for arch, sizes in SIZES.items() if name in sizes)
    return flag(f"{text} (default: {shown})", low=1)


@dataclass(frozen=True)
class Flags(RunFlags):
    data: str | None = flag("UTF-8 text to learn; the first 90 %% train, the rest validates (default: "
                            "the help texts that come with Python)", metavar="FILE")
    arch: str = flag("gpt: a Transformer; rnn, lstm, gru: a recurrent net", "gpt", choices=tuple(SIZES))
    steps: int = flag("updates", 2000, low=1)
    batch_size: int = flag("blocks per step", 12, low=1)
    block_size: int = flag("characters of context", 64, low=1)
    n_layer: int = size_flag("blocks of the model, or recurrent layers", "n_layer")
    n_head: int = size_flag("attention heads", "n_head")
    n_embd: int = size_flag("width", "n_embd")
    dropout: float = flag("probability", 0.0, low=0, below=1)
    lr: float = flag("highest learning rate", 3e-3, above=0)
    warmup: int = flag("steps up to it; from there a cosine down to a tenth", 100, low=0)
    weight_decay: float = flag("of matrices", 0.1, low=0)
    grad_clip: float = flag("longest gradient", 1.0, above=0)
    log_interval: int = flag("steps between lines", 100, low=1)
    eval_interval: int = flag("steps between validations", 500, low=1)
    seed: int = flag("of weights, batches and dropout", 0, low=0)


def train_text(o: Flags) -> None:
    """Train on random blocks of a text; validate on its end."""
    o = with_sizes(o)
    with user_input():
        text = python_help_text() if o.data is None else read_text(o.data)
    tokenizer = nn.CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    with user_input(o):
        training, validation = train_validation_split(ids, o.block_size)
        model = make_model(o, len(tokenizer))
    with Run(o, "text", text) as run:
        print_start(model, o.batch_size * o.block_size, f"{len(training):,} characters to train on, "
                    f"{len(validation):,} to validate on\n"
                    f"guessing by the frequency of letters has a loss of {unigram_entropy(ids):.3f}")
        run.restore(model)
        outcome = trained(o, run, model, tokenizer, training, validation)
        assert outcome.evaluation is not None
        print(f"\nvalidation loss {outcome.evaluation.loss:.4f} after {o.steps} steps, over all "
              f"{len(validation):,} characters;\nthe best was {outcome.best:.4f}")
        print_generate(run.best, "--temperature 0.8")


def with_sizes(o: Flags) -> Flags:
    """The flags with the default sizes of their --arch."""
    sizes = SIZES[o.arch]
    for name in SIZES["gpt"]:
        if name not in sizes and getattr(o, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is not for --arch {o.arch}, which has no "
                             f"attention")
    missing: dict[str, Any] = {name: size for name, size in sizes.items() if getattr(o, name) is None}
    return replace(o, **missing)


def make_model(o: Flags, vocab_size: int) -> LanguageModel:
    """The model that the flags describe, with its initial weights."""
    rng = np.random.default_rng((o.seed, INIT))
    if o.arch == "gpt":
        return nn.GPT(nn.GPTConfig(
            vocab_size=vocab_size, block_size=o.block_size, n_layer=o.n_layer, n_head=o.n_head,
            n_embd=o.n_embd, dropout=o.dropout, bias=False), rng)
    return nn.RecurrentLM(nn.RecurrentConfig(
        vocab_size=vocab_size, block_size=o.block_size, cell=o.arch, n_layer=o.n_layer,
        n_embd=o.n_embd, dropout=o.dropout), rng)


def trained(o: Flags, run: Run, model: LanguageModel, tokenizer: nn.Tokenizer, training: np.ndarray,
            validation: np.ndarray) -> Outcome:
    """Train the model; the last and the best weights are saved."""
    def evaluate() -> Evaluation:
        loss = validation_loss(model, validation)
        return Evaluation(f"   validation {loss:.4f}", loss)

    def lr(step: int) -> float:
        return nn.warmup_cosine(step, peak=o.lr, warmup=min(o.warmup, o.steps // 10), total=o.steps,
                                floor=o.lr / 10)

    def batches(done: int) -> Iterator[Batch]:
        return (random_batch(training, o.batch_size, o.block_size, o.seed, step)
                for step in itertools.count(done + 1))

    optimizer = nn.AdamW(nn.decay_groups(model, o.weight_decay), lr=o.lr, betas=(0.9, 0.99))
    plan = Plan(o.steps, o.batch_size * o.block_size, log_interval=o.log_interval,
                eval_interval=o.eval_interval, save_interval=o.save_interval or o.eval_interval)
    prompt = "\n" if "\n" in tokenizer.ids else tokenizer.vocabulary[0]
    return run.train(TapeEngine(model, optimizer, o.grad_clip), batches, lr, plan, evaluate,
                     lambda: model, tokenizer, {"prompt": prompt})


@no_grad
def validation_loss(model: LanguageModel, ids: np.ndarray) -> float:
    """Mean loss over the whole of `ids`, in nats per token."""
    total = count = 0.0
    with nn.evaluating(model):
        for inputs, targets in consecutive_blocks(ids, 32, model.config.block_size):
            _, loss = model(inputs, targets)
            total += loss.item() * targets.size
            count += targets.size
    return total / count


JOB = Job(Flags, "Train a character-level language model with AdamW, a warm-up and a cosine: a GPT "
          "(pre-norm, GELU, tied weights), or a recurrent net.", train_text)
