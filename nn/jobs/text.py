"""python train.py text: a language model on characters, words or subwords."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Iterator, Union

import numpy as np

import nn
from nn.data.batches import check_block_size, consecutive_blocks, random_batch
from nn.data.corpus import Corpus, read_corpus
from nn.data.text import open_source, python_help_text, text_source
from nn.data.yardsticks import Passed
from nn.cli.meter import Meter
from nn.cli.memory import check_memory
from nn.cli.script import UsageError, user_input
from nn.cli.flags import flag
from nn.jobs.job import (
    INIT, SHOWN, Job, chosen_workers, dtype_flag, print_generate, sample_flag, workers_flag)
from nn.jobs.run import Run, RunFlags
from nn.jobs.watching import sample_of
from nn.models.gpt import POSITIONS
from nn.training.engines import Batch, TapeEngine
from nn.training.loop import Evaluation, Limits, Outcome, Plan
from nn.training.parallel import on_processors
from tape import no_grad

LanguageModel = Union[nn.GPT, nn.RecurrentLM]
EVAL_ROWS = 32          # blocks in a batch of a validation

# What sizes default to: about as many parameters for each, 0.8 million with 65 characters.
SIZES = {"gpt": {"n_layer": 4, "n_head": 4, "n_embd": 128}, "rnn": {"n_layer": 2, "n_embd": 432},
         "lstm": {"n_layer": 2, "n_embd": 220}, "gru": {"n_layer": 2, "n_embd": 252}}

# Of a Transformer alone.
ATTENTION = ("n_head", "n_kv_head", "d_ff", "norm", "norm_kind", "activation", "position", "bias",
             "tie_weights", "checkpointing")


def size_flag(text: str, name: str) -> Any:
    """A flag whose default depends on --arch; None where it is not given."""
    shown = ", ".join(f"{arch} {sizes[name]}" for arch, sizes in SIZES.items() if name in sizes)
    return flag(f"{text} (default: {shown})", low=1)


@dataclass(frozen=True)
class Flags(RunFlags):
    data: str | None = flag("UTF-8 text to learn: a file, a folder of text files, or - for standard "
                            "input; the first 90 %% train, the rest validates (default: the help texts "
                            "that come with Python)", metavar="PATH")
    lines: bool = flag("each line is a document, as in a list of names; every tenth validates, and "
                       "what is generated ends with the document", False)
    tokenizer: str = flag("what is learned: char, word, bpe (byte pairs), or a tokenizer.json, as "
                          "that of GPT-2; the last two need the library tokenizers", "char",
                          metavar="KIND")
    vocab_size: int | None = flag("tokens, at most (default: of bpe 1024, of word 10000)", low=1)
    arch: str = flag("gpt: a Transformer; rnn, lstm, gru: a recurrent net", "gpt", choices=tuple(SIZES))
    steps: int = flag("updates", 2000, low=1)
    batch_size: int = flag("blocks per step", 12, low=1)
    micro_batch_size: int | None = flag("blocks computed at a time, whose gradients are added up, so "
                                        "that a step needs less memory (default: all)", low=1,
                                        metavar="N")
    checkpointing: bool = flag("keep the input of each block of the model alone, and compute the block "
                               "once more in the backward pass: less memory, the same result", False)
    block_size: int = flag("tokens of context", 64, low=1)
    n_layer: int = size_flag("blocks of the model, or recurrent layers", "n_layer")
    n_head: int = size_flag("attention heads", "n_head")
    n_embd: int = size_flag("width", "n_embd")
    n_kv_head: int | None = flag("heads of keys and values, which queries share (default: --n-head)",
                                 low=1)
    d_ff: int | None = flag("width of the feed-forward layers (default: 4 times --n-embd, with a gate "
                            "8/3 times)", low=1)
    norm: str = flag("where: in front of each layer, or behind its sum with the input", "pre",
                     choices=("pre", "post"))
    norm_kind: str = flag("layer: LayerNorm; rms: RMSNorm", "layer", choices=("layer", "rms"))
    activation: str = flag("of the feed-forward layers: gelu, gelu_exact, relu, silu, or swiglu, which "
                           "has a gate", "gelu", metavar="NAME",
                           choices=("gelu", "gelu_exact", "relu", "silu", "swiglu"))
    position: str = flag("how positions are told", "learned", choices=POSITIONS)
    bias: bool = flag("linear layers and norms have one", False)
    tie_weights: bool = flag("the logits have a matrix of their own, not that of the tokens", True)
    dropout: float = flag("probability", 0.0, low=0, below=1)
    dtype: str = dtype_flag()
    lr: float = flag("highest learning rate", 3e-3, above=0)
    warmup: int = flag("steps up to it, at most a tenth of all; from there a cosine down to a "
                       "tenth of it", 100, low=0)
    weight_decay: float = flag("of matrices", 0.1, low=0)
    grad_clip: float = flag("longest gradient: a longer one is scaled; 0: never", 1.0, low=0)
    log_interval: int = flag("steps between lines", 100, low=1)
    eval_interval: int = flag("steps between validations", 500, low=1)
    eval_batches: int = flag("batches of 32 blocks to validate on, always the same; at the end it is "
                             "on all", 20, low=1)
    target_loss: float | None = flag("end when a validation loss is at or below it", metavar="X")
    patience: int | None = flag("end after so many evaluations without a better loss", low=1,
                                metavar="N")
    sample: int | None = sample_flag()
    seed: int = flag("of weights, batches and dropout", 0, low=0)
    workers: int | None = workers_flag()


def train_text(o: Flags) -> None:
    """Train on random blocks of a text; validate on what was kept from them."""
    o = with_sizes(o)
    corpus = corpus_of(o)
    vocab_size = len(corpus.tokenizer)
    with user_input(o):
        check_block_size(corpus.training, corpus.validation, o.block_size)
        model = make_model(o, vocab_size)
    with Run(o, "text", corpus.digest, repr(corpus.tokenizer.to_dict())) as run:
        print(f"{model.parameter_count():,} parameters, {o.batch_size * o.block_size:,} tokens a step")
        at_a_time = rows_at_a_time(o) * (o.block_size if o.arch == "gpt" else 1)
        workers = chosen_workers(o.workers, model, at_a_time)
        print(f"{corpus.described()}\n{corpus.yardsticks.table(vocab_size)}", flush=True)
        run.restore(model)
        outcome = trained(o, run, model, corpus, workers)
        assert outcome.evaluation is not None and outcome.evaluation.loss is not None
        loss, sample = outcome.evaluation.loss, ""
        if len(consecutive_blocks(corpus.validation, EVAL_ROWS, o.block_size)) > o.eval_batches:
            loss = validation_loss(on_processors(model, workers), model, corpus.validation)
            sample = f" on {o.eval_batches} batches"
        best = f"{outcome.best:.4f}{sample}" if math.isfinite(outcome.best) else "not kept"
        print(f"\nvalidation loss {loss:.4f} after {outcome.step} steps, over all "
              f"{len(corpus.validation):,} {corpus.tokenizer.unit}s;\n"
              f"the best was {best}")
        print_generate(run.best if run.best.exists() else run.last, "--temperature 0.8")


def corpus_of(o: Flags) -> Corpus:
    """The tokens of the text that the flags name."""
    meter = Meter()
    try:
        with user_input(o):
            source = (text_source(python_help_text(), "the help texts of Python") if o.data is None else
                      open_source(o.data))
            print(f"text: {source.described}", flush=True)
            corpus = read_corpus(source, o.tokenizer, o.vocab_size, o.lines, meter)
    except ImportError as error:
        raise UsageError(f"--tokenizer: {error}") from error
    meter.clear()
    return corpus


def with_sizes(o: Flags) -> Flags:
    """The flags with the default sizes of their --arch."""
    sizes = SIZES[o.arch]
    for name in ATTENTION if o.arch != "gpt" else ():
        if getattr(o, name) != getattr(Flags(), name):
            raise UsageError(f"--{name.replace('_', '-')} is not for --arch {o.arch}, which has no "
                             f"attention")
    missing: dict[str, Any] = {name: size for name, size in sizes.items() if getattr(o, name) is None}
    return replace(o, **missing)


def rows_at_a_time(o: Flags) -> int:
    """How many blocks of a batch the tape holds at once."""
    return min(o.batch_size, o.micro_batch_size or o.batch_size)


def make_model(o: Flags, vocab_size: int) -> LanguageModel:
    """The model that the flags describe, with its initial weights."""
    config, rng = configuration(o, vocab_size), np.random.default_rng((o.seed, INIT))
    check_memory(config, rows_at_a_time(o), o.block_size, copies=4,
                 itemsize=np.dtype(o.dtype).itemsize, checkpointing=o.checkpointing,
                 rows_flag="--micro-batch-size" if o.micro_batch_size else "--batch-size")
    kind: Any = nn.GPT if o.arch == "gpt" else nn.RecurrentLM
    with nn.parameters_of(o.dtype):
        model = kind(config, rng)
    if o.checkpointing:
        nn.checkpoint_blocks(model)
    return model


def configuration(o: Flags, vocab_size: int) -> nn.GPTConfig | nn.RecurrentConfig:
    """That of the model."""
    if o.arch == "gpt":
        return nn.GPTConfig(
            vocab_size=vocab_size, block_size=o.block_size, n_layer=o.n_layer, n_head=o.n_head,
            n_embd=o.n_embd, dropout=o.dropout, bias=o.bias, norm=o.norm, activation=o.activation,
            position=o.position, tie_weights=o.tie_weights, norm_kind=o.norm_kind, d_ff=o.d_ff or 0,
            n_kv_head=o.n_kv_head or 0)
    return nn.RecurrentConfig(
        vocab_size=vocab_size, block_size=o.block_size, cell=o.arch, n_layer=o.n_layer,
        n_embd=o.n_embd, dropout=o.dropout)


def trained(o: Flags, run: Run, model: LanguageModel, corpus: Corpus, workers: int) -> Outcome:
    """Train the model; the last and the best weights are saved."""
    passed, info = Passed(corpus.yardsticks, run.position.best), corpus.generating(o.lines)

    def evaluate() -> Evaluation:
        loss = validation_loss(engine.run, model, corpus.validation, o.eval_batches)
        remarks = [passed.by(loss)]
        if o.sample:
            remarks.append(sample_of(model, corpus.tokenizer, info, o.sample, (o.seed, *SHOWN)))
        return Evaluation(f"   val {loss:.4f}", loss, remark="\n".join(filter(None, remarks)))

    def lr(step: int) -> float:
        return nn.warmup_cosine(step, peak=o.lr, warmup=min(o.warmup, o.steps // 10), total=o.steps,
                                floor=o.lr / 10)

    def batches(done: int) -> Iterator[Batch]:
        return (random_batch(corpus.training, o.batch_size, o.block_size, o.seed, step)
                for step in itertools.count(done + 1))

    optimizer = nn.AdamW(nn.decay_groups(model, o.weight_decay), lr=o.lr, betas=(0.9, 0.99))
    plan = Plan(o.steps, o.batch_size * o.block_size, log_interval=o.log_interval,
                eval_interval=o.eval_interval, save_interval=o.save_interval or o.eval_interval,
                limits=Limits(o.target_loss, o.patience))
    engine = TapeEngine(model, optimizer, o.grad_clip or math.inf, o.micro_batch_size, workers=workers)
    return run.train(engine, batches, lr, plan, evaluate, lambda: model, corpus.tokenizer, info,
                     corpus.yardsticks.named())


@no_grad
def validation_loss(run: nn.Module, model: LanguageModel, ids: np.ndarray,
                    batches: int | None = None) -> float:
    """Mean loss over the whole of `ids`, or over so many batches of it, in nats per token.

    `run` is called for it: the model, or what computes as the model does on several processors.
    """
    total, count, meter = 0.0, 0, Meter()
    found = consecutive_blocks(ids, EVAL_ROWS, model.config.block_size, batches)
    with nn.evaluating(model):
        for i, (inputs, targets) in enumerate(found):
            meter("validating", i / len(found))
            _, loss = run(inputs.astype(np.int64), targets.astype(np.int64))
            total += loss.item() * targets.size
            count += targets.size
    meter.clear()
    return total / count


JOB = Job(Flags, "Train a language model on a text with AdamW, a warm-up and a cosine: a GPT "
          "(pre-norm, GELU, tied weights), or a recurrent net.", train_text)
