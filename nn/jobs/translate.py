"""python train.py translate: dates in words to their ISO form, character by character."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

import nn
from nn.cli.flags import file_path, flag
from nn.cli.memory import check_memory
from nn.cli.picture import check_picture
from nn.cli.script import user_input
from nn.data.batches import padded_rows, shuffled_steps
from nn.data.dates import Pair, date_pairs
from nn.jobs.job import INIT, Job, chosen_workers, workers_flag
from nn.jobs.run import Run, RunFlags
from nn.training.engines import Batch, TapeEngine
from nn.training.loop import Evaluation, Plan
from tape import no_grad

PAD, START, STOP = SPECIAL = ("<pad>", "<start>", "<stop>")
SHOWN = 8           # translations


@dataclass(frozen=True)
class Flags(RunFlags):
    steps: int = flag("updates", 1000, low=1)
    batch_size: int = flag("dates per step", 64, low=1)
    dates: int = flag("dates to train on", 20_000, low=1)
    held_out: int = flag("other dates, to test on", 1000, low=1)
    n_layer: int = flag("blocks of the encoder, and of the decoder", 2, low=1)
    n_head: int = flag("attention heads", 4, low=1)
    n_embd: int = flag("width", 64, low=1)
    lr: float = flag("highest learning rate", 3e-3, above=0)
    warmup: int = flag("steps up to it, at most a tenth of all; from there a cosine down to a "
                       "hundredth", 100, low=0)
    weight_decay: float = flag("of matrices", 0.01, low=0)
    log_interval: int = flag("steps between lines", 50, low=1)
    eval_interval: int = flag("steps between tests", 200, low=1)
    seed: int = flag("of dates, weights and batches", 0, low=0)
    workers: int | None = workers_flag()
    show_attention: Path | None = flag(
        "picture to write (.png, .pdf, .svg): which characters of a date each character of its "
        "translation attends to; needs matplotlib", convert=file_path, metavar="FILE")


class Translator:
    """A model and its characters: texts in, texts out.

    Parameters
    ----------
    o : Flags
    pairs : sequence of (source, target)
        All texts: their characters are the vocabulary, the longest is the block.
    """

    def __init__(self, o: Flags, pairs: Sequence[Pair]):
        letters = sorted({letter for pair in pairs for text in pair for letter in text})
        self.tokenizer = nn.CharTokenizer([*SPECIAL, *letters])
        pad, self.start, self.stop = (self.tokenizer.ids[token] for token in SPECIAL)
        size, longest = len(self.tokenizer), max(len(text) for pair in pairs for text in pair)
        self.longest_target = max(len(target) for _, target in pairs)
        with user_input(o):
            config = nn.Seq2SeqConfig(size, size, longest + 1, o.n_layer, o.n_head, o.n_embd,
                                      padding_id=pad)
            check_memory(config, min(o.batch_size, o.dates), self.longest_target, copies=4)
        self.model = nn.Seq2SeqTransformer(config, np.random.default_rng((o.seed, INIT)))

    def sources(self, texts: Sequence[str]) -> np.ndarray:
        """(B, S): filled up with padding."""
        return padded_rows([self.tokenizer.encode(text) for text in texts],
                           self.model.config.padding_id)

    def batch(self, pairs: Sequence[Pair]) -> Batch:
        """Source (B, S); target (B, T), which begins with the start; targets (B, T) up to the stop."""
        rows = [np.array([self.start, *self.tokenizer.encode(target), self.stop])
                for _, target in pairs]
        return (self.sources([source for source, _ in pairs]),
                padded_rows([row[:-1] for row in rows], self.model.config.padding_id),
                padded_rows([row[1:] for row in rows], -1))

    def translate(self, texts: Sequence[str], at_once: int = 250) -> list[str]:
        """The likeliest translations, by greedy decoding, at most one character too long."""
        found: list[str] = []
        for first in range(0, len(texts), at_once):
            source = self.sources(texts[first:first + at_once])
            found += map(self.tokenizer.decode, nn.translate(
                self.model, source, self.start, self.stop, self.longest_target + 1))
        return found

    @no_grad
    def attention(self, source: str, target: str) -> np.ndarray:
        """(T + 1, S): the weights with which each character of the target, and the stop, was chosen.

        Of the cross-attention of the last block, the mean of its heads.
        """
        inputs, shifted, _ = self.batch([(source, target)])
        with nn.evaluating(self.model):
            _, weights = self.model.decode(shifted, *self.model.encode(inputs))
        return weights[-1].numpy()[0].mean(axis=0)               # (H, T + 1, S) -> (T + 1, S)


def train_translate(o: Flags) -> None:
    """Train on dates, and count how many of the others are translated without a mistake."""
    check_picture(o.show_attention, "--show-attention")
    with user_input(o):
        training, held_out = date_pairs(o.dates, o.held_out, o.seed)
    translator = Translator(o, training + held_out)
    model, (texts, wanted) = translator.model, zip(*held_out)
    optimizer = nn.AdamW(nn.decay_groups(model, o.weight_decay), lr=o.lr, betas=(0.9, 0.98))
    plan = Plan(o.steps, min(o.batch_size, len(training)), "dates", log_interval=o.log_interval,
                eval_interval=o.eval_interval, save_interval=o.save_interval or o.eval_interval)

    def evaluate() -> Evaluation:
        found = translator.translate(texts)
        return Evaluation(f"   held out {np.mean(np.equal(found, wanted)):6.1%}", detail=found)

    def lr(step: int) -> float:
        return nn.warmup_cosine(step, peak=o.lr, warmup=min(o.warmup, o.steps // 10), total=o.steps,
                                floor=o.lr / 100)

    tokens = o.batch_size * 2 * translator.longest_target         # about: of source and target
    with Run(o, "translate", *("\t".join(pair) for pair in training + held_out)) as run:
        print(f"{model.parameter_count():,} parameters; {len(training):,} dates to train on, "
              f"{len(held_out):,} others to test on")
        engine = TapeEngine(model, optimizer, 1.0, workers=chosen_workers(o.workers, model, tokens))
        run.restore(model)
        outcome = run.train(engine, partial(batches, o, translator, training), lr, plan, evaluate,
                            lambda: model, translator.tokenizer)
        assert outcome.evaluation is not None
        print_translations(held_out, outcome.evaluation.detail)
        print(f"\nsaved {run.last},\nfor nn.load_checkpoint and nn.translate")
    if o.show_attention is not None:
        source, target = max(list(zip(texts, outcome.evaluation.detail))[:SHOWN],
                             key=lambda pair: len(pair[0]))
        draw_attention(o.show_attention, translator.attention(source, target), source, target)
        print(f"saved {o.show_attention}: the attention in this translation of {source!r}")


def batches(o: Flags, translator: Translator, pairs: Sequence[Pair], done: int) -> Iterator[Batch]:
    """Batch after batch, in another order in each epoch, from step `done` on."""
    for chosen in shuffled_steps(len(pairs), o.batch_size, o.seed, done):
        yield translator.batch([pairs[i] for i in chosen])


def print_translations(pairs: Sequence[Pair], found: Sequence[str]) -> None:
    """Some of the held-out dates and what was made of them; then the share of exact matches."""
    width = max(len(source) for source, _ in pairs[:SHOWN])
    print()
    for (source, wanted), text in list(zip(pairs, found))[:SHOWN]:
        print(f"  {source:{width}}  ->  {text}{'' if text == wanted else f'  (wrong: {wanted})'}")
    right = sum(text == wanted for (_, wanted), text in zip(pairs, found))
    print(f"\n{right:,} of {len(pairs):,} held-out dates right in every character: "
          f"{right / len(pairs):.1%}")


def draw_attention(path: Path, weights: np.ndarray, source: str, target: str) -> None:
    """A picture of weights (T + 1, S): a row for each character written, a column for each read."""
    from matplotlib.figure import Figure
    size = 0.28 * len(source) + 2.5, 0.28 * max(len(target), 5) + 1.8            # inches
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="Blues", vmin=0, aspect="auto")
    axes.set_xticks(range(len(source)), source.replace(" ", "\u2423"))        # a visible space
    axes.set_yticks(range(len(target) + 1), [*target, "stop"])
    axes.set_xlabel("character of the source")
    axes.set_ylabel("character written")
    axes.set_title(f"{source}  \u2192  {target}")
    figure.colorbar(image, label="attention weight, mean of the heads\n(a row sums to 1)")
    figure.savefig(path, dpi=150)


JOB = Job(Flags, "Translate dates from words (\"the third of march 1987\") to ISO form (1987-03-03), "
          "character by character: an encoder-decoder Transformer, tested on dates that it never saw.",
          train_translate)
