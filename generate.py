"""Continue a text with a model that train.py trained.

    python generate.py --prompt "the old" --temperature 0
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import nn
from nn.cli.script import run, user_input
from nn.cli.flags import Parser, flag

FOLDER = Path("checkpoints")


@dataclass(frozen=True)
class Flags:
    checkpoint: Path | None = flag(
        f"a file that train.py wrote (default: the newest in {FOLDER}{os.sep})", metavar="PATH")
    prompt: str | None = flag("the beginning (default: one that suits the model)", metavar="TEXT")
    max_new_tokens: int = flag("length, at most", 200, low=1, metavar="N")
    temperature: float = flag("0: always the likeliest token; 1: as the model believes; above: wilder",
                              0.8, low=0, metavar="T")
    top_k: int | None = flag("only the K likeliest tokens take part", low=1, metavar="K")
    seed: int = flag("the same seed, the same text", 0, low=0, metavar="S")


def write_text(o: Flags) -> None:
    """Print the prompt and what the model makes of it, as it makes it."""
    with user_input():
        path = o.checkpoint or newest()
        checkpoint = nn.load_checkpoint(path)
        tokenizer, info = checkpoint.tokenizer, checkpoint.info
        if not isinstance(checkpoint.model, (nn.GPT, nn.RecurrentLM)):
            raise ValueError(no_text(path, checkpoint.model))
        if tokenizer is None:
            raise ValueError(f"{path} has no tokenizer, so its tokens cannot be written as text")
        prompt = info.get("prompt", tokenizer.vocabulary[0]) if o.prompt is None else o.prompt
        start = info.get("start", "")               # stands before each prompt, and is not shown
        try:
            ids = [*tokenizer.encode(start), *tokenizer.encode(prompt)]
        except ValueError as error:
            raise ValueError(f"--prompt: {error}") from error
        if not ids:
            raise ValueError("--prompt: the prompt must have at least one token")
    shown = tokenizer.decode(ids)
    print(shown.removeprefix(start), end="", flush=True)
    for token in nn.generate(checkpoint.model, ids, o.max_new_tokens, o.temperature, o.top_k, o.seed,
                             stop=info.get("stop")):
        ids.append(token)
        text = tokenizer.decode(ids)
        print(text[len(shown):], end="", flush=True)
        shown = text
    print()


def no_text(path: Path, model: nn.Module) -> str:
    """What a model that continues no text is for, and what to run instead."""
    load = f"with model = nn.load_checkpoint({str(path)!r}).model,"
    uses = {nn.Seq2SeqTransformer: f"translates. In Python: {load} nn.translate(model, source, start, "
                                   f"stop), all of them token ids",
            nn.VisionTransformer: f"classifies images. In Python: {load} nn.predict(model, images)"}
    use = next((text for kind, text in uses.items() if isinstance(model, kind)), "is of another kind")
    return f"{path} holds a {type(model).__name__}, which continues no text: it {use}"


def newest() -> Path:
    try:
        return nn.newest_checkpoint(FOLDER)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. Train a model first, python train.py, or name a file with "
                                f"--checkpoint") from error


def parser() -> Parser:
    return Parser("generate.py", Flags, "Continue a text, token by token, with a trained model.",
                  text_flag="--prompt")


def main(argv: Sequence[str] | None = None) -> int:
    """Generate; returns the exit status: 0, or 2 for a mistake in the arguments or the file."""
    arguments = sys.argv[1:] if argv is None else argv
    return run("generate.py", lambda: write_text(parser().parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
