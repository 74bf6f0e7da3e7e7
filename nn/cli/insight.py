"""What a model thinks of a text, for a terminal: explanations, a score, attention maps."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Iterable, Sequence

import numpy as np

from nn.cli.language_model import LanguageModel
from nn.cli.script import UsageError
from nn.data.tokenizers import Tokenizer
from nn.generation.insight import Explanation, attention_weights, token_losses

WIDTH = 80              # of a terminal
SHADES = " .:-=+*#%@"   # weights from 0 to 1
SHOWN = 60              # tokens in a map that is drawn in characters


def visible(text: str) -> str:
    """A token on one line: a space as an open box, control characters escaped."""
    return "".join("\u2423" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in text)


def cells(text: str, width: int) -> str:
    """Cut or filled up to so many columns of a terminal, in which some characters take two."""
    def columns(c: str) -> int:
        return 0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1

    if sum(map(columns, text)) > width:
        while sum(map(columns, text)) > width - 1:
            text = text[:-1]
        text += "~"
    return text + " " * (width - sum(map(columns, text)))


def print_explanations(rows: Iterable[Explanation], tokenizer: Tokenizer) -> None:
    """A row for each token: its probability and rank, and the likeliest others."""
    def name(token: int) -> str:
        return visible(tokenizer.decode([token]))

    print(f"\n{'token':12} {'probability':>11} {'rank':>6}   runners-up")
    for row in rows:
        others = "  ".join(f"{cells(name(token), 8)}{p:6.1%}" for token, p in row.runners_up)
        print(f"{cells(name(row.token), 12)} {row.probability:11.2%} {row.rank:6,}   {others}".rstrip())
    print("The probability is the model's own, before temperature and filters.")


def print_score(model: LanguageModel, ids: np.ndarray) -> None:
    """Loss, perplexity and bits per character of a text.

    What stands before each text is given, or else its first token, which nothing predicts.
    """
    tokenizer, unseen = model.tokenizer, max(1, len(model.tokenizer.encode(model.start)))
    if len(ids) <= unseen:
        raise UsageError("--score: the text must have at least two tokens, got one")
    losses, done = [], 0
    for piece in token_losses(model.model, ids):
        losses.append(piece)
        done += len(piece)
        if sys.stderr.isatty():
            print(f"{done / (len(ids) - 1):4.0%}", end="\r", file=sys.stderr, flush=True)
    total, count = float(np.sum(np.concatenate(losses)[unseen - 1:])), len(ids) - unseen
    characters = len(tokenizer.decode(ids)) - len(tokenizer.decode(ids[:unseen]))
    given = "" if model.start else "; the first is given"
    print(f"{count:,} token{'s' * (count > 1)}, {characters:,} characters{given}\n"
          f"loss         {total / count:.4f} nats per token\n"
          f"perplexity   {np.exp(total / count):.3f}\n"
          + (f"bits         {total / np.log(2) / characters:.4f} per character" if characters > 0 else
             "bits         of no whole character"))


def show_attention(path: str, model: LanguageModel, ids: np.ndarray) -> None:
    """Heat maps of each block and head, in a picture, or with the path "text" on the terminal."""
    try:
        weights = attention_weights(model.model, ids)                        # (L, H, T, T)
    except TypeError as error:
        raise UsageError(f"--show-attention: {error}") from error
    names = [visible(model.tokenizer.decode([i])) for i in ids]
    if path == "text":
        print_attention(weights[:, :, -SHOWN:, -SHOWN:], names[-SHOWN:])
        if len(names) > SHOWN:
            print(f"shown are the last {SHOWN} of {len(names)} tokens", file=sys.stderr)
    else:
        draw_attention(Path(path), weights, names)
        print(f"saved {path}", file=sys.stderr)


def print_attention(weights: np.ndarray, names: Sequence[str]) -> None:
    """Maps side by side, as many as fit: a row for each query, a column for each key."""
    label = min(10, max(map(len, names)))
    length = len(names)
    beside = max(1, (WIDTH - label) // (length + 1))
    print(f"A row is a query, a column a key, in the same order: the tokens on the left.\n"
          f"Weights from 0 to 1: [{SHADES}]")
    for layer, heads in enumerate(weights):
        for first in range(0, len(heads), beside):
            some = heads[first:first + beside]
            last = first + len(some)
            print(f"\nblock {layer + 1}, head" + (
                f" {last}" if len(some) == 1 else f"s {first + 1} to {last}, from left to right"))
            for row, name in enumerate(names):
                maps = (_shades(head[row, :row + 1]).ljust(length) for head in some)
                print(f"{cells(name, label)} {' '.join(maps)}".rstrip())


def _shades(row: np.ndarray) -> str:
    """A character for each weight; the faintest is for what is not quite nothing."""
    return "".join(SHADES[min(int(w * len(SHADES)), len(SHADES) - 1)] for w in row)


def draw_attention(path: Path, weights: np.ndarray, names: Sequence[str]) -> None:
    """A picture with a map for each block (down) and head (across)."""
    from matplotlib.figure import Figure
    layers, heads, length, _ = weights.shape
    side = min(max(2.0, 0.17 * length), 12.0)                                # inches
    figure = Figure(figsize=(side * heads + 1.2, side * layers + 0.8), layout="constrained")
    grid = figure.subplots(layers, heads, squeeze=False)
    every = max(1, length // 60)                                             # labels that fit
    places = range(0, length, every)
    size = 7 if length > 12 else 9
    for (layer, head), axes in np.ndenumerate(grid):
        image = axes.imshow(weights[layer, head], cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"block {layer + 1}, head {head + 1}", fontsize=9)
        axes.set_xticks(places, [names[i] for i in places], fontsize=size, parse_math=False,
                        rotation=90 if max(map(len, names)) > 1 else 0)
        axes.set_yticks(places, [names[i] for i in places], fontsize=size, parse_math=False)
    figure.supxlabel("key: the token that is read")
    figure.supylabel("query: the token that reads")
    figure.colorbar(image, ax=grid, label="attention weight (a row sums to 1)", shrink=0.8)
    figure.savefig(path, dpi=120)
