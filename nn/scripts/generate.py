"""Continue a text with a model that train.py trained, or look at what the model makes of one.

    python generate.py --prompt "the old" --temperature 0
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Sequence

from nn.cli.cache_costs import LENGTHS, compare_cache
from nn.cli.flags import Parser, file_path, flag, number, refuse_together
from nn.cli.insight import print_score, show_attention
from nn.cli.language_model import load_language_model
from nn.cli.picture import check_picture
from nn.cli.prompt import asked, given_prompt
from nn.cli.script import UsageError, program, run, user_input
from nn.cli.writing import write
from nn.data.text import read_text

FOLDER = Path("checkpoints")
WHAT, HOW, LOOK = "the text", "how tokens are chosen", "instead of writing"


@dataclass(frozen=True)
class Flags:
    checkpoint: Path | None = flag(
        f"a file that train.py wrote (default: the newest in {FOLDER}{os.sep})", metavar="PATH")
    prompt: str | None = flag("the beginning (default: one that suits the model)", group=WHAT,
                              metavar="TEXT")
    prompt_file: Path | None = flag("the beginning, from a UTF-8 file; - is standard input, which is "
                                    "also read if something is piped into it", group=WHAT,
                                    metavar="FILE")
    interactive: bool = flag("ask for one prompt after the other; Ctrl-D ends", False, group=WHAT)
    max_new_tokens: int = flag("length, at most", 200, group=WHAT, low=1, metavar="N")
    stop: Sequence[str] | None = flag("the text ends before TEXT; may be given several times",
                                      group=WHAT, convert=str, action="append", metavar="TEXT")
    num_samples: int = flag("texts, one after the other; text i does not depend on how many", 1,
                            group=WHAT, low=1, metavar="N")
    explain: bool = flag("a table behind each text: the probability of each token, its rank, and the "
                         "runners-up", False, group=WHAT)
    temperature: float = flag("0: always the likeliest token; 1: as the model believes; above: wilder",
                              0.8, group=HOW, low=0, metavar="T")
    top_k: int | None = flag("only the K likeliest tokens take part", group=HOW, low=1, metavar="K")
    top_p: float | None = flag("only the fewest likeliest that have the probability P together",
                               group=HOW, above=0, high=1, metavar="P")
    min_p: float | None = flag("only those at least P times as likely as the likeliest", group=HOW,
                               low=0, high=1, metavar="P")
    repetition_penalty: float = flag("above 1: what the text has already becomes less likely", 1.0,
                                     group=HOW, above=0, metavar="R")
    beams: int | None = flag("beam search with B beams: the likeliest texts rather than samples",
                             group=HOW, low=1, metavar="B")
    seed: int = flag("the same seed, the same text", 0, group=HOW, low=0, metavar="S")
    no_cache: bool = flag("compute the whole text anew for each token", False, group=HOW)
    score: Path | None = flag("the loss and perplexity of the text in a file", group=LOOK,
                              metavar="FILE")
    show_attention: str | None = flag(
        "the attention of each block and head in the prompt: a picture (.png, .svg), or drawn on the "
        "terminal if FILE is the word text", group=LOOK, metavar="FILE")
    compare_cache: bool = flag("what writing costs with the length, with the cache and without; of an "
                               "untrained model", False, group=LOOK)
    lengths: Sequence[int] = flag("of --compare-cache", LENGTHS, group=LOOK, nargs="+",
                                  convert=number(int, 2), metavar="N")
    plot: Path | None = flag("a picture of --compare-cache", group=LOOK, convert=file_path,
                             metavar="FILE")


def generate(o: Flags) -> None:
    """What the flags ask for: to compare, to score, to draw, or to write."""
    check_together(o)
    if o.compare_cache:
        check_picture(o.plot, "--plot")
        return compare_cache(o.lengths, o.plot)
    if o.show_attention not in (None, "text"):
        check_picture(file_path(o.show_attention), "--show-attention")
    with user_input():
        model = load_language_model(o.checkpoint, FOLDER)
        if o.score is not None:
            return print_score(model, model.encode(read_text(o.score), "--score"))
        text = given_prompt(o.prompt, o.prompt_file, o.interactive)
    for prompt in asked() if o.interactive else [model.prompt if text is None else text]:
        try:
            ids = model.encode(prompt, "--prompt")
        except UsageError as error:
            if not o.interactive:
                raise
            print(error, file=sys.stderr)               # and ask again
            continue
        seen = model.window(ids)
        if o.show_attention is not None:
            show_attention(o.show_attention, model, seen)
        else:
            write(o, model, ids)


def check_together(o: Flags) -> None:
    """Refuse flags that others would ignore."""
    names = {field.name for field in fields(o)}
    refuse_together(o, "compare_cache", names - {"lengths", "plot"})
    refuse_together(o, "score", names - {"checkpoint"})
    refuse_together(o, "show_attention", names - {"checkpoint", "prompt", "prompt_file"})
    refuse_together(o, "beams", ["temperature", "top_k", "top_p", "min_p", "seed", "explain"])
    refuse_together(o, "interactive", ["prompt", "prompt_file"])
    refuse_together(o, "prompt", ["prompt_file"])
    if not o.compare_cache and (o.plot or o.lengths != LENGTHS):
        raise UsageError("--plot and --lengths are of --compare-cache: add it, or leave them out")
    if "" in (o.stop or ()):
        raise UsageError("--stop: the text must have at least one character")
    if o.beams is not None and o.num_samples > o.beams:
        raise UsageError(f"--num-samples must be at most --beams, got {o.num_samples} and {o.beams}")


def parser() -> Parser:
    return Parser(program("generate"), Flags, "Continue a text, token by token, with a trained model.",
                  text_flag="--prompt")


def main(argv: Sequence[str] | None = None) -> int:
    """Generate; returns the exit status: 0, or 2 for a mistake in the arguments or the file."""
    arguments = sys.argv[1:] if argv is None else argv
    return run(program("generate"), lambda: generate(parser().parse(arguments)))
