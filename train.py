"""Train a Transformer.

    python train.py                      memorise ten sentences, in seconds
    python train.py text --data FILE     a GPT on the characters of any text
    python train.py images --data DIR    a Vision Transformer on MNIST

Each job has its own flags: python train.py text --help
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import math
import os
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

if __name__ == "__main__" and sys.argv[1:2] not in (["text"], ["images"]):
    # The matrices of the ten sentences are small: more threads bring nothing, and where another program
    # keeps the processors busy they wait for each other. To be set before NumPy is imported.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np

import nn
from nn.data.batches import (
    consecutive_blocks, padded_sentences, random_batch, shuffled_batches, train_validation_split)
from nn.data.images import ImageData, load_digits, load_idx
from nn.data.text import python_help_text, read_text, unigram_entropy
from nn.data.tokenizers import CharTokenizer, WordTokenizer
from nn.jobs.command_line import (
    COUNT, RATE, SEED, Parser, Progress, UsageError, check_finite, check_writable, file_path,
    keep_freed_memory, number, run, user_input)
from nn.models.static.gpt import language_model, sgd
from nn.models.static.vision import Classifier, initial_weights, sgd_epoch
from nn.models.vision import predict
from tape import no_grad

SENTENCES = (
    "the old sailor watched the grey sea and waited for the morning wind",
    "a small child found a silver key under the kitchen table",
    "every winter the river froze and the village children learned to skate",
    "my grandmother kept her letters in a blue box by the window",
    "two black cats slept on the warm stones of the garden wall",
    "rain fell on the empty market while the baker lit his oven",
    "nobody heard the clock stop in the tall house on the hill",
    "when the train left the station she opened the letter and smiled",
    "our teacher drew a map of the stars on the kitchen wall",
    "at night the lighthouse sent its warm light across the grey water",
)
END = "<end>"
OTHER_JOBS = "The other jobs: python train.py --help"
INIT = 0       # the initial weights draw from (seed, 0), the batch of step n from (seed, n), n >= 1


# --- python train.py [sentences] ---


def sentences_parser() -> Parser:
    parser = Parser("train.py [sentences]", f"{__doc__}\nThe sentences are learned word by word, with "
                    f"plain SGD, by a post-norm\ndecoder with ReLU and sinusoidal positions.")
    add_engine(parser)
    parser.add_argument("--steps", type=COUNT, default=500, help="updates")
    parser.add_argument("--lr", type=RATE, default=0.3, help="learning rate of SGD")
    parser.add_argument("--n-layer", type=COUNT, default=1, help="blocks")
    parser.add_argument("--n-head", type=COUNT, default=4, help="attention heads")
    parser.add_argument("--n-embd", type=COUNT, default=64, help="width")
    parser.add_argument("--log-interval", type=COUNT, default=50, help="steps between lines")
    parser.add_argument("--seed", type=SEED, default=0, help="of the initial weights")
    parser.add_argument("--out", type=file_path, default=Path("checkpoints/sentences.npz"),
                        help="checkpoint to write")
    return parser


def train_sentences(o: argparse.Namespace) -> None:
    """Train on the ten sentences at once, each step, and recite them."""
    tokenizer = WordTokenizer([END, *sorted({word for s in SENTENCES for word in s.split()})])
    rows = [np.append(tokenizer.encode(sentence), tokenizer.ids[END]) for sentence in SENTENCES]
    inputs, targets = padded_sentences(rows)                     # (B, T) each
    with user_input(o):
        config = nn.GPTConfig(
            vocab_size=len(tokenizer), block_size=inputs.shape[1], n_layer=o.n_layer,
            n_head=o.n_head, n_embd=o.n_embd, norm="post", activation="relu",
            position="sinusoidal", tie_weights=False)
    model = nn.GPT(config, rng=np.random.default_rng((o.seed, INIT)))
    check_writable(o.out)
    tokens = int((targets >= 0).sum())
    print_start(model, tokens, f"{len(SENTENCES)} sentences, all at each step; engine {o.engine}")
    progress = Progress(o.steps, tokens)
    losses = (static_losses if o.engine == "static" else tape_losses)(model, inputs, targets, o.lr)
    for step, loss in enumerate(itertools.islice(losses, o.steps), 1):
        if step % o.log_interval == 0 or step == o.steps:
            print(progress.line(step, loss), flush=True)

    print("\ngreedy decoding from the first word (= recited, x not):")
    memorised = 0
    for row, sentence in zip(rows, SENTENCES):
        recited = tokenizer.decode([row[0], *nn.generate(
            model, row[:1], config.block_size, temperature=0, stop=tokenizer.ids[END])])
        memorised += recited == sentence
        print(f"  {'=' if recited == sentence else 'x'} {recited}")
    print(f"memorised {memorised}/{len(SENTENCES)}\n")
    prompt = " ".join(SENTENCES[0].split()[:2])
    replaces = o.out.exists()
    save(o.out, model, tokenizer, {"job": "sentences", "step": o.steps, "loss": loss,
                                   "prompt": prompt, "stop": tokenizer.ids[END]})
    print_generate("replaced" if replaces else "saved", o.out, f'--prompt "{prompt}" --temperature 0')


def tape_losses(model: nn.GPT, inputs: np.ndarray, targets: np.ndarray, lr: float) -> Iterator[float]:
    """Train the model step by step, each recorded anew; the loss before each step."""
    optimizer = nn.SGD(model.parameters(), lr=lr)
    for step in itertools.count(1):
        _, loss = model(inputs, targets)
        update(model, optimizer, loss, step)
        yield loss.item()


def static_losses(model: nn.GPT, inputs: np.ndarray, targets: np.ndarray, lr: float) -> Iterator[float]:
    """The same by a graph that is built once and run at each step."""
    graph = language_model(model.config, *inputs.shape)
    steps = sgd(graph, model.state_dict(), inputs, targets, lr)
    for step, (loss, weights) in enumerate(steps, 1):
        check_finite("loss", loss, step)
        check_finite("sum of the new weights", sum(float(w.sum()) for w in weights.values()), step)
        model.load_state_dict(weights)
        yield loss


# --- python train.py text ---


def text_parser() -> Parser:
    parser = Parser("train.py text", "Train a character-level GPT (pre-norm, GELU, tied weights) with "
                    "AdamW, a warm-up and a cosine.", OTHER_JOBS)
    parser.add_argument("--data", metavar="FILE", help="UTF-8 text to learn; the first 90 %% train, "
                        "the rest validates (default: the help texts that come with Python)")
    parser.add_argument("--steps", type=COUNT, default=2000, help="updates")
    parser.add_argument("--batch-size", type=COUNT, default=12, help="blocks per step")
    parser.add_argument("--block-size", type=COUNT, default=64, help="characters of context")
    parser.add_argument("--n-layer", type=COUNT, default=4, help="blocks of the model")
    parser.add_argument("--n-head", type=COUNT, default=4, help="attention heads")
    parser.add_argument("--n-embd", type=COUNT, default=128, help="width")
    parser.add_argument("--dropout", type=number(float, 0, below=1), default=0.0, help="probability")
    parser.add_argument("--lr", type=RATE, default=3e-3, help="highest learning rate")
    parser.add_argument("--warmup", type=number(int, 0), default=100, help="steps up to it; from there "
                        "a cosine down to a tenth")
    parser.add_argument("--weight-decay", type=number(float, 0), default=0.1, help="of matrices")
    parser.add_argument("--grad-clip", type=RATE, default=1.0, help="longest gradient")
    parser.add_argument("--log-interval", type=COUNT, default=100, help="steps between lines")
    parser.add_argument("--eval-interval", type=COUNT, default=500, help="steps between validations")
    parser.add_argument("--seed", type=SEED, default=0, help="of weights, batches and dropout")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), help="folder to write "
                        "text-last.npz and text-best.npz to")
    return parser


def train_text(o: argparse.Namespace) -> None:
    """Train on random blocks of a text; validate on its end."""
    with user_input():
        text = python_help_text() if o.data is None else read_text(o.data)
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    with user_input(o):
        training, validation = train_validation_split(ids, o.block_size)
        config = nn.GPTConfig(
            vocab_size=len(tokenizer), block_size=o.block_size, n_layer=o.n_layer,
            n_head=o.n_head, n_embd=o.n_embd, dropout=o.dropout, bias=False)
    model = nn.GPT(config, rng=np.random.default_rng((o.seed, INIT)))
    optimizer = nn.AdamW(nn.decay_groups(model, o.weight_decay), lr=o.lr, betas=(0.9, 0.99))
    tokens = o.batch_size * o.block_size
    print_start(model, tokens, f"{len(training):,} characters to train on, {len(validation):,} to "
                f"validate on\nguessing by the frequency of letters has a loss of "
                f"{unigram_entropy(ids):.3f}")
    info = {"job": "text", "prompt": "\n" if "\n" in tokenizer.ids else tokenizer.vocabulary[0]}
    check_writable(o.out / "text-last.npz")

    def save_as(name: str, **more: float) -> None:
        save(o.out / name, model, tokenizer, {**info, **more})

    progress, best, step = Progress(o.steps, tokens), math.inf, 0
    try:
        for step in range(1, o.steps + 1):
            optimizer.lr = nn.warmup_cosine(step - 1, peak=o.lr, warmup=min(o.warmup, o.steps // 10),
                                            total=o.steps, floor=o.lr / 10)
            inputs, targets = random_batch(training, o.batch_size, o.block_size, o.seed, step)
            _, loss = model(inputs, targets)
            update(model, optimizer, loss, step, o.grad_clip)
            validates = step % o.eval_interval == 0 or step == o.steps
            if validates:
                now = validation_loss(model, validation)
                check_finite("validation loss", now, step)
                save_as("text-last.npz", step=step, loss=loss.item(), validation_loss=now)
                if now < best:
                    best = now
                    save_as("text-best.npz", step=step, loss=loss.item(), validation_loss=now)
            if validates or step % o.log_interval == 0:
                print(progress.line(step, loss.item(), f"   validation {now:.4f}" if validates
                                    else ""), flush=True)
    except KeyboardInterrupt:
        save_as("text-last.npz", step=step - 1)
        print(f"\nstopped in step {step}; saved {o.out / 'text-last.npz'}")
        raise
    print(f"\nvalidation loss {now:.4f} after {o.steps} steps, over all {len(validation):,} "
          f"characters;\nthe best was {best:.4f}")
    print_generate("saved", o.out / "text-best.npz", "--temperature 0.8")


@no_grad
def validation_loss(model: nn.GPT, ids: np.ndarray) -> float:
    """Mean loss over the whole of `ids`, in nats per token."""
    total = count = 0.0
    with nn.evaluating(model):
        for inputs, targets in consecutive_blocks(ids, 32, model.config.block_size):
            _, loss = model(inputs, targets)
            total += loss.item() * targets.size
            count += targets.size
    return total / count


# --- python train.py images ---

NOT_STATIC = "; not with --engine static"
TAPE_DEFAULTS = {"patch_size": None, "n_layer": 2, "n_head": 4, "weight_decay": 0.05,
                 "out": Path("checkpoints/images.npz")}


def images_parser() -> Parser:
    parser = Parser("train.py images", "Classify images: with a Vision Transformer (patches, pre-norm, "
                    "AdamW), or with --engine static by one layer of attention over the rows of an "
                    "image, trained by plain SGD.",
                    OTHER_JOBS)
    add_engine(parser)
    parser.add_argument("--data", metavar="DIR", help="folder with the four files of MNIST or a data "
                        "set in its format (default: the 1,797 digits of scikit-learn)")
    parser.add_argument("--epochs", type=COUNT, help="times through the images (default: 6 on files, "
                        "30 on the digits)")
    parser.add_argument("--batch-size", type=COUNT, default=50, help="images per step")
    parser.add_argument("--n-embd", type=number(int, 2), default=64, help="width")
    parser.add_argument("--lr", type=RATE, help="highest learning rate (default: 0.002, or 0.1 with "
                        "--engine static); it falls to nothing in the course of the training")
    parser.add_argument("--patch-size", type=COUNT, help="side of a patch in pixels (default: a "
                        "quarter of the height)" + NOT_STATIC)
    parser.add_argument("--n-layer", type=COUNT, help="blocks (default: 2)" + NOT_STATIC)
    parser.add_argument("--n-head", type=COUNT, help="attention heads (default: 4)" + NOT_STATIC)
    parser.add_argument("--weight-decay", type=number(float, 0), help="of matrices (default: 0.05)"
                        + NOT_STATIC)
    parser.add_argument("--out", type=file_path, help="checkpoint to write (default: "
                        "checkpoints/images.npz)" + NOT_STATIC)
    parser.add_argument("--seed", type=SEED, default=0, help="of weights and batches")
    return parser


def train_images(o: argparse.Namespace) -> None:
    """Train on labelled images and count how many of the others it gets right."""
    for name, default in TAPE_DEFAULTS.items():
        if getattr(o, name) is None:
            setattr(o, name, default)
        elif o.engine == "static":
            raise UsageError(f"--{name.replace('_', '-')} is not for --engine static: that is one "
                             f"layer with one head on the rows, plain SGD, and nothing is saved")
    try:
        with user_input():
            data = load_digits() if o.data is None else load_idx(o.data)
    except ImportError as error:
        raise UsageError(f"{error}; or give --data a folder with the files of MNIST") from error
    o.epochs = o.epochs or (30 if o.data is None else 6)
    if len(data.train_images) < o.batch_size:
        raise UsageError(f"--batch-size: at most the {len(data.train_images):,} images to train on, "
                         f"got {o.batch_size}")
    progress = Progress(o.epochs, len(data.train_images), "images", "epoch")
    shown = max(1, o.epochs // 10)
    train = static_epochs if o.engine == "static" else tape_epochs
    for epoch, (loss, predicted) in enumerate(train(o, data, progress), 1):
        check_finite("loss", loss, epoch, "epoch")
        right = predicted == data.test_labels
        if epoch % shown == 0 or epoch == o.epochs:
            print(progress.line(epoch, loss, f"   test accuracy {right.mean():6.1%}"), flush=True)
    print(f"\n{right.sum():,} of {len(right):,} test images right: {right.mean():.2%}. By label:")
    by_label = {label: right[data.test_labels == label].mean() for label in np.unique(data.test_labels)}
    print("  " + "  ".join(f"{label}: {share:.0%}" for label, share in by_label.items()))
    if o.engine == "tape":
        print(f"\nsaved {o.out}, for nn.load_checkpoint and nn.predict")


def tape_epochs(o: argparse.Namespace, data: ImageData,
                progress: Progress) -> Iterator[tuple[float, np.ndarray]]:
    """Train a Vision Transformer: after each epoch its mean loss, and the labels of the test images."""
    height, width = shape = data.train_images.shape[1:]
    mean, std = data.mean_and_std
    with user_input(o):
        model = nn.VisionTransformer(nn.VisionConfig(
            shape, o.patch_size or max(height // 4, 1), data.classes, o.n_layer, o.n_head, o.n_embd,
            mean=mean, std=std), rng=np.random.default_rng((o.seed, INIT)))
    check_writable(o.out)
    optimizer = nn.AdamW(nn.decay_groups(model, o.weight_decay), lr=1.0)
    print_images_start(data, model.parameter_count(), f"{model.patches.count} patches", o.engine)
    count, peak = len(data.train_images), o.lr or 0.002
    per_epoch = math.ceil(count / o.batch_size)
    step = 0
    for epoch in range(1, o.epochs + 1):
        total = 0.0
        for batch in shuffled_batches(count, o.batch_size, o.seed, epoch):
            optimizer.lr = nn.warmup_cosine(step, peak=peak, warmup=min(100, per_epoch),
                                            total=o.epochs * per_epoch, floor=peak / 100)
            progress.pulse(step / per_epoch)
            step += 1
            _, loss = model(data.train_images[batch], data.train_labels[batch])
            update(model, optimizer, loss, step, grad_clip=1.0)
            total += loss.item() * len(batch)
        save(o.out, model, None, {"job": "images", "epoch": epoch, "loss": total / count})
        yield total / count, predict(model, data.test_images)


def static_epochs(o: argparse.Namespace, data: ImageData,
                  progress: Progress) -> Iterator[tuple[float, np.ndarray]]:
    """Train the static classifier; yields what `tape_epochs` does."""
    data = data.standardised()
    height, width = data.train_images.shape[1:]
    model = Classifier(height, width, o.n_embd, data.classes, o.batch_size)
    weights = initial_weights(np.random.default_rng((o.seed, INIT)), width, o.n_embd, data.classes)
    print_images_start(data, sum(w.size for w in weights), f"{height} rows", o.engine)
    count, peak = len(data.train_images), o.lr or 0.1
    steps = itertools.count()

    def run_batch(*batch: Any) -> list[np.ndarray]:
        progress.pulse(next(steps) / (count // o.batch_size))
        return model.run(*batch)

    for epoch in range(1, o.epochs + 1):
        order = np.concatenate([*shuffled_batches(count, o.batch_size, o.seed, epoch)])
        weights, loss = sgd_epoch(run_batch, data.train_images[order], data.train_labels[order],
                                  weights, o.batch_size, lr=peak * (1 - (epoch - 1) / o.epochs))
        yield loss, model.predict(data.test_images, weights)


def print_images_start(data: ImageData, parameters: int, sequence: str, engine: str) -> None:
    height, width = data.train_images.shape[1:]
    print(f"{parameters:,} parameters; an image is a sequence of {sequence}; engine {engine}")
    print(f"{len(data.train_images):,} images of {height} x {width} pixels to train on, "
          f"{len(data.test_images):,} to test on")
    print(f"a model that knows nothing has a loss of ln {data.classes} = {math.log(data.classes):.3f} "
          f"nats,\nand an accuracy of {1 / data.classes:.0%}\n", flush=True)


# --- what the jobs share ---


def add_engine(parser: Parser) -> None:
    parser.add_argument("--engine", choices=("tape", "static"), default="tape", help="tape: operations "
                        "run as the code is read; static: they are described first, as a graph, and "
                        "the graph is run (tape.lazy)")


def update(model: nn.Module, optimizer, loss, step: int, grad_clip: float = math.inf) -> None:
    """One step of the optimiser, unless the loss or a gradient is not finite."""
    check_finite("loss", loss.item(), step)
    optimizer.zero_grad()
    loss.backward()
    try:
        nn.clip_grad_norm(model.named_parameters(), grad_clip)
    except ValueError as error:
        raise UsageError(f"step {step}, of which nothing was saved: {error}; try a lower "
                         f"--lr") from error
    optimizer.step()


def print_start(model: nn.GPT, tokens: int, data: str) -> None:
    print(f"{model.parameter_count():,} parameters, {tokens:,} tokens a step\n{data}")
    print(f"a model that knows nothing has a loss of ln {model.config.vocab_size} = "
          f"{math.log(model.config.vocab_size):.3f} nats per token\n", flush=True)


def save(path: Path, model: Any, tokenizer: nn.Tokenizer | None, info: dict) -> None:
    with user_input():
        nn.save_checkpoint(path, model, tokenizer, info)


def print_generate(done: str, path: Path, flags: str) -> None:
    print(f"{done} {path}; try\n  python generate.py --checkpoint {path} {flags}")


JOBS: dict[str, tuple[Callable[[], Parser], Callable[[argparse.Namespace], None]]] = {
    "sentences": (sentences_parser, train_sentences),
    "text": (text_parser, train_text),
    "images": (images_parser, train_images),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status: 0, or 2 for a mistake of the user's."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    job = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "sentences"

    def start() -> None:
        if job not in JOBS:
            near = difflib.get_close_matches(job, JOBS, 1)
            raise UsageError(f"unknown job {job!r}" + (f"; did you mean {near[0]!r}?" if near else
                                                       f"; known: {', '.join(JOBS)}"))
        parser, train = JOBS[job]
        others = {name: other for name, (other, _) in JOBS.items() if name != job}
        options = parser().parse(arguments, others)
        keep_freed_memory()
        with np.errstate(all="ignore"):        # `update` looks at every loss, and says more
            train(options)

    return run("train.py", start)


if __name__ == "__main__":
    sys.exit(main())
