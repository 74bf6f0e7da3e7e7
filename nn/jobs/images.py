"""python train.py images: classify images."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Callable, Iterator, NamedTuple

import numpy as np

import nn
from nn.data.batches import shuffled_steps
from nn.data.images import ImageData, load_digits, load_idx
from nn.cli.memory import check_bytes, check_memory
from nn.cli.script import UsageError, user_input
from nn.cli.flags import flag
from nn.jobs.job import INIT, Job, chosen_workers, engine_flag, workers_flag
from nn.jobs.run import Run, RunFlags
from nn.layers.patch_embedding import nearest_patch_size
from nn.models.vision import POOLS
from nn.models.static.vision import Classifier, initial_weights
from nn.training.engines import Batch, Engine, StaticEngine, TapeEngine
from nn.training.loop import Evaluation, Outcome, Plan


def tape_flag(text: str, default: Any, shown: str = "", **more: Any) -> Any:
    """A flag that --engine static refuses; its value is None where it is not given."""
    return flag(f"{text} (default: {shown or default}); not with --engine static", None,
                more={"tape": default}, **more)


@dataclass(frozen=True)
class Flags(RunFlags):
    engine: str = engine_flag()
    data: str | None = flag("folder with the four files of MNIST or a data set in its format (default: "
                            "the 1,797 digits of scikit-learn)", metavar="DIR")
    epochs: int = flag("times through the images (default: 6 on files, 30 on the digits)", low=1)
    batch_size: int = flag("images per step", 50, low=1)
    n_embd: int = flag("width", 64, low=2)
    lr: float = flag("highest learning rate (default: 0.002, or 0.1 with --engine static); it falls to "
                     "nothing in the course of the training", above=0)
    patch_size: int | None = tape_flag("side of a patch in pixels; it divides both of an image", None,
                                       "a quarter of the height, or near it", low=1)
    n_layer: int = tape_flag("blocks", 2, low=1)
    n_head: int = tape_flag("attention heads", 4, low=1)
    pool: str = tape_flag("what stands for an image: the mean over its patches, or a class token that "
                          "gathers from them", "mean", choices=POOLS)
    weight_decay: float = tape_flag("of matrices", 0.05, low=0)
    seed: int = flag("of weights and batches", 0, low=0)
    workers: int | None = workers_flag(more={"tape": None})


class Learner(NamedTuple):
    """What the two engines do differently."""

    engine: Engine
    images: np.ndarray                                   # to train on, (N, H, W)
    whole: bool                                          # of batches: a smaller one is left out
    steps: int                                           # of an epoch
    lr: Callable[[int], float]                           # of the step
    predict: Callable[[], np.ndarray]                    # the labels of the test images
    model: nn.VisionTransformer | None                   # to be saved
    parameters: int
    sequence: str                                        # what an image is a sequence of


def train_images(o: Flags) -> None:
    """Train on labelled images and count how many of the others it gets right."""
    given, o = o, with_defaults(o)
    data = read_images(o)
    learner = (static_learner if o.engine == "static" else tape_learner)(o, data)
    with Run(given, "images", *data) as run:
        print_start(o, data, learner)
        outcome = trained(o, run, data, learner)
        assert outcome.evaluation is not None
        right = outcome.evaluation.detail
        print(f"\n{right.sum():,} of {len(right):,} test images right: {right.mean():.2%}. By label:")
        by_label = {label: right[data.test_labels == label].mean()
                    for label in np.unique(data.test_labels)}
        print("  " + "  ".join(f"{label}: {share:.0%}" for label, share in by_label.items()))
        if learner.model:
            print(f"\nsaved {run.last},\nfor nn.load_checkpoint and nn.predict")


def print_start(o: Flags, data: ImageData, learner: Learner) -> None:
    """Say how large the model and the data are, and what a first loss means."""
    height, width = data.train_images.shape[1:]
    print(f"{learner.parameters:,} parameters; an image is a sequence of {learner.sequence}; engine "
          f"{o.engine}\n{len(data.train_images):,} images of {height} x {width} pixels to train on, "
          f"{len(data.test_images):,} to test on")
    print(f"a model that knows nothing has a loss of ln {data.classes} = {math.log(data.classes):.3f} "
          f"nats,\nand an accuracy of {1 / data.classes:.0%}")


def trained(o: Flags, run: Run, data: ImageData, learner: Learner) -> Outcome:
    """Train, and count the right labels of the test images."""
    def evaluate() -> Evaluation:
        right = learner.predict() == data.test_labels
        return Evaluation(f"   accuracy {right.mean():6.1%}", detail=right)

    def batches(done: int) -> Iterator[Batch]:
        for batch in shuffled_steps(len(data.train_images), o.batch_size, o.seed, done, learner.whole):
            yield learner.images[batch], data.train_labels[batch]

    shown = max(1, o.epochs // 10)
    plan = Plan(o.epochs, len(data.train_images), "images", "epoch", learner.steps,
                log_interval=shown, eval_interval=shown, save_interval=o.save_interval or learner.steps)
    if learner.model:
        run.restore(learner.model)
    return run.train(learner.engine, batches, learner.lr, plan, evaluate, lambda: learner.model,
                     compared={f"knows nothing, ln {data.classes}": math.log(data.classes)})


def with_defaults(o: Flags) -> Flags:
    """The flags with the defaults that depend on other flags."""
    tape = {one.name: one.metadata["tape"] for one in fields(o) if "tape" in one.metadata}
    given = [name for name in tape if getattr(o, name) is not None]
    if given and o.engine == "static":
        raise UsageError(f"--{given[0].replace('_', '-')} is not for --engine static: that is one "
                         f"layer with one head on the rows, and plain SGD")
    missing = {name: default for name, default in tape.items() if name not in given}
    return replace(o, epochs=o.epochs or (30 if o.data is None else 6),
                   lr=o.lr or (0.1 if o.engine == "static" else 0.002), **missing)


def read_images(o: Flags) -> ImageData:
    """The images, of which there are enough for a batch."""
    try:
        with user_input():
            data = load_digits() if o.data is None else load_idx(o.data)
    except ImportError as error:
        raise UsageError(f"{error}; or give --data a folder with the files of MNIST") from error
    if len(data.train_images) < o.batch_size:
        raise UsageError(f"--batch-size: at most the {len(data.train_images):,} images to train on, "
                         f"got {o.batch_size}")
    return data


def tape_learner(o: Flags, data: ImageData) -> Learner:
    """A Vision Transformer with AdamW, a warm-up and a cosine, saved after each epoch."""
    height, width = shape = data.train_images.shape[1:]
    mean, std = data.mean_and_std
    with user_input(o):
        side = o.patch_size or nearest_patch_size(shape, max(height // 4, 1))
        config = nn.VisionConfig(shape, side, data.classes, o.n_layer, o.n_head, o.n_embd, mean=mean,
                                 std=std, pool=o.pool)
        check_memory(config, o.batch_size, height * width // side ** 2, copies=4)
        model = nn.VisionTransformer(config, rng=np.random.default_rng((o.seed, INIT)))
    optimizer = nn.AdamW(nn.decay_groups(model, o.weight_decay), lr=o.lr)
    workers = chosen_workers(o.workers, model, o.batch_size * model.patches.count)
    steps = math.ceil(len(data.train_images) / o.batch_size)

    def lr(step: int) -> float:
        return nn.warmup_cosine(step, peak=o.lr, warmup=min(100, steps), total=o.epochs * steps,
                                floor=o.lr / 100)

    return Learner(
        TapeEngine(model, optimizer, 1.0, workers=workers), data.train_images, False, steps, lr,
        lambda: nn.predict(model, data.test_images), model, model.parameter_count(),
        f"{model.patches.count} patches{' and a class token' if o.pool == 'class' else ''}")


def static_learner(o: Flags, data: ImageData) -> Learner:
    """One layer of attention over the rows, with plain SGD; the last, smaller batch is left out."""
    data = data.standardised()
    height, width = data.train_images.shape[1:]
    check_bytes(8 * 4 * o.n_embd * (o.n_embd + width), "Make --n-embd smaller")     # float32
    model = Classifier(height, width, o.n_embd, data.classes, o.batch_size)
    engine = StaticEngine(model.run, initial_weights(
        np.random.default_rng((o.seed, INIT)), width, o.n_embd, data.classes))
    steps = len(data.train_images) // o.batch_size
    return Learner(
        engine, data.train_images, True, steps,
        lambda step: o.lr * (1 - step // steps / o.epochs),
        lambda: model.predict(data.test_images, engine.weights), None,
        sum(w.size for w in engine.weights), f"{height} rows")


JOB = Job(Flags, "Classify images: with a Vision Transformer (patches, pre-norm, AdamW), or with "
          "--engine static by one layer of attention over the rows of an image, trained by plain SGD.",
          train_images)
