"""python train.py: memorise ten sentences."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

import nn
from nn.data.batches import padded_sentences
from nn.cli.memory import check_memory
from nn.cli.script import UsageError, user_input
from nn.cli.flags import flag
from nn.jobs.job import (
    INIT, Job, dtype_flag, engine_flag, knows_nothing, print_generate, print_start)
from nn.jobs.run import Run, RunFlags
from nn.layers.parameter import dtype_of
from nn.models.static.gpt import language_model
from nn.training.engines import Engine, StaticEngine, TapeEngine
from nn.training.loop import Plan

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

# The decoder of Vaswani et al. 2017, and a block that grows from one head to that of GPT-2. Each is
# what differs from the default settings of a GPTConfig.
_POST_NORM = {"norm": "post", "activation": "relu", "tie_weights": False, "n_layer": 1}
ARCHS: dict[str, dict[str, Any]] = {
    "decoder": {**_POST_NORM, "position": "sinusoidal"},
    "single-head": {**_POST_NORM, "position": "none", "n_head": 1},
    "multi-head": {**_POST_NORM, "position": "learned"},
    "swiglu": {"activation": "swiglu", "init": "xavier-he", "tie_weights": False, "n_layer": 1},
    "gelu": {"activation": "gelu", "n_layer": 2},
}


@dataclass(frozen=True)
class Flags(RunFlags):
    arch: str = flag(f"architecture, one of {', '.join(ARCHS)}: the decoder of 2017, or a block that "
                     "grows in steps up to that of GPT-2", "decoder", choices=tuple(ARCHS),
                     metavar="ARCH")
    engine: str = engine_flag()
    steps: int = flag("updates", 500, low=1)
    lr: float = flag("learning rate of SGD", 0.3, above=0)
    n_layer: int | None = flag("blocks (default: 1; of gelu 2)", low=1)
    n_head: int | None = flag("attention heads (default: 4; of single-head 1)", low=1)
    n_embd: int = flag("width", 64, low=1)
    dtype: str = dtype_flag()
    log_interval: int = flag("steps between lines", 50, low=1)
    seed: int = flag("of the initial weights", 0, low=0)


def train_sentences(o: Flags) -> None:
    """Train on the ten sentences at once, each step, and recite them."""
    if o.engine == "static" and o.arch != "decoder":
        raise UsageError(f"--engine static is for --arch decoder alone, got --arch {o.arch}")
    tokenizer = nn.WordTokenizer([END, *sorted({word for s in SENTENCES for word in s.split()})])
    rows = [np.append(tokenizer.encode(sentence), tokenizer.ids[END]) for sentence in SENTENCES]
    batch = inputs, targets = padded_sentences(rows)             # (B, T) each
    with user_input(o):
        given = {name: value for name in ("n_layer", "n_head", "n_embd")
                 if (value := getattr(o, name)) is not None}
        config = nn.GPTConfig(
            vocab_size=len(tokenizer), block_size=inputs.shape[1], **ARCHS[o.arch] | given)
        check_memory(config, len(rows), inputs.shape[1], copies=2,
                     itemsize=np.dtype(o.dtype).itemsize)
    with nn.parameters_of(o.dtype):
        model = nn.GPT(config, rng=np.random.default_rng((o.seed, INIT)))
    tokens = int((targets >= 0).sum())
    plan = Plan(o.steps, tokens, log_interval=o.log_interval,
                save_interval=o.save_interval or 100)
    # The rate is the same at every step, so that a run that goes on may have more steps.
    with Run(o, "sentences", *rows, grows="steps") as run:
        print_start(model, tokens, f"{len(SENTENCES)} sentences, all at each step; {o.arch}, engine "
                                   f"{o.engine}")
        run.restore(model)
        prompt = " ".join(SENTENCES[0].split()[:2])
        engine, trained = (static_engine if o.engine == "static" else tape_engine)(model, batch, o.lr)
        run.train(engine, lambda done: itertools.repeat(batch), lambda step: o.lr, plan, None, trained,
                  tokenizer, {"prompt": prompt, "stop": tokenizer.ids[END]},
                  knows_nothing(model))
        recite(trained(), tokenizer, rows)
        print_generate(run.last, f'--prompt "{prompt}" --temperature 0')


def tape_engine(model: nn.GPT, batch: tuple, lr: float) -> tuple[Engine, Callable[[], nn.GPT]]:
    """An engine that records the model's operations anew at each step, and the model."""
    return TapeEngine(model, nn.SGD(model.parameters(), lr=lr)), lambda: model


def static_engine(model: nn.GPT, batch: tuple, lr: float) -> tuple[Engine, Callable[[], nn.GPT]]:
    """An engine that trains the same model as a static graph, and what gives the model its weights."""
    rows, length = batch[0].shape
    graph = language_model(model.config, rows, length, dtype_of(model.parameters()))
    engine = StaticEngine(graph.run, graph.arrays(model.state_dict()))

    def trained() -> nn.GPT:
        model.load_state_dict(graph.state(engine.weights))
        return model

    return engine, trained


def recite(model: nn.GPT, tokenizer: nn.Tokenizer, rows: list[np.ndarray]) -> None:
    """Print what the model makes of the first word of each sentence."""
    print("\ngreedy decoding from the first word (= recited, x not):")
    memorised = 0
    for row, sentence in zip(rows, SENTENCES):
        recited = tokenizer.decode([row[0], *nn.generate(
            model, row[:1], model.config.block_size, temperature=0, stop=tokenizer.ids[END])])
        memorised += recited == sentence
        print(f"  {'=' if recited == sentence else 'x'} {recited}")
    print(f"memorised {memorised}/{len(SENTENCES)}\n")


JOB = Job(Flags, "The sentences are learned word by word, with plain SGD, by a post-norm\n"
          "decoder with ReLU and sinusoidal positions, or by another --arch.", train_sentences)
